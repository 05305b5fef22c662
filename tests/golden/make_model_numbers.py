"""Makes model_numbers.npz: what PyTorch's BertForMaskedLM and RobertaForMaskedLM compute with small random weights.

    python tests/golden/make_model_numbers.py        (needs the extra `parity`)

Per family ("bert/", "roberta/"): `config` (config.json as text), `weights/NAME` as in a model.safetensors, a padded batch
(`input_ids`, `attention_mask`, `token_type_ids`, `labels` with -100 where there is none), and the expected `embeddings`,
`hidden_states`, `logits`, `loss` (mean over labels) and `grad_norm/NAME` (Euclidean norm of each tensor's gradient).
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForMaskedLM, BertConfig, RobertaConfig

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny_hub

OUT = Path(__file__).with_name("model_numbers.npz")
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
CONFIGS = {
    "bert": BertConfig(vocab_size=24, max_position_embeddings=16, type_vocab_size=2, **SIZES),
    "roberta": RobertaConfig(
        vocab_size=270, max_position_embeddings=16, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, **SIZES
    ),
}
LENGTHS, WIDTH = (11, 7, 1), 11


def batch(config) -> dict[str, np.ndarray]:
    """Three rows of odd lengths, padded; about 40 % of the tokens carry labels; two token types where there are two."""
    rng = np.random.default_rng(7)
    real = np.arange(WIDTH) < np.array(LENGTHS)[:, None]
    ids = np.where(real, rng.integers(4, config.vocab_size, real.shape), config.pad_token_id)
    labels = np.where(real & (rng.random(real.shape) < 0.4), rng.integers(4, config.vocab_size, real.shape), -100)
    types = (np.arange(WIDTH) >= 5)[None] & real & (config.type_vocab_size > 1)
    arrays = {"input_ids": ids, "attention_mask": real, "token_type_ids": types, "labels": labels}
    return {name: value.astype(np.int32) for name, value in arrays.items()}


def numbers(kind: str) -> dict[str, np.ndarray]:
    """All arrays of one family."""
    torch.manual_seed(11)
    model = AutoModelForMaskedLM.from_config(CONFIGS[kind], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and LayerNorms too, or forgetting one would not show
            parameter.add_(0.15 * torch.randn_like(parameter))
    out: dict[str, np.ndarray] = batch(CONFIGS[kind])
    result = model(
        **{name: torch.tensor(value, dtype=torch.long) for name, value in out.items()}, output_hidden_states=True
    )
    result.loss.backward()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        out |= {f"weights/{name}": value for name, value in load_file(Path(folder) / "model.safetensors").items()}
        out["config"] = np.array((Path(folder) / "config.json").read_text())
    out["embeddings"], out["hidden_states"] = (result.hidden_states[i].detach().numpy() for i in (0, -1))
    out["logits"], out["loss"] = result.logits.detach().numpy(), result.loss.detach().numpy()
    for name, parameter in model.named_parameters():
        out[f"grad_norm/{name}"] = parameter.grad.norm().numpy()
    return {f"{kind}/{name}": value for name, value in out.items()}


if __name__ == "__main__":
    for kind, config in CONFIGS.items():
        assert len(tiny_hub.tokenizer(kind)) <= config.vocab_size, kind
    np.savez_compressed(OUT, **{name: value for kind in CONFIGS for name, value in numbers(kind).items()})
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")
