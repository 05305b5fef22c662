"""Against PyTorch's BertForMaskedLM and RobertaForMaskedLM: logits, gradients, and folders in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForMaskedLM, BertConfig, BertTokenizerFast, RobertaConfig, RobertaTokenizerFast

from ncfair_jax.models import bert
from ncfair_jax.models.hf import load_pretrained, save_pretrained
from tests import tiny_hub
from tests.rounding import encoder_operations, rounding
from tests.tiny import encode

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity
WORDS = ["the", "a", "he", "she", "nurse", "said", "that", "was", "tired", "man", "woman", "##s", "."]
SIZES = [
    {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24},
    {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100},
]


def torch_model(kind: str, sizes: dict, folder, shared):
    """A model with random weights, biases and LayerNorms, saved as a folder with a tokenizer."""
    if kind == "bert":
        vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        (folder / "v.txt").write_text("\n".join(vocab) + "\n")
        tokenizer = BertTokenizerFast(vocab=str(folder / "v.txt"))
        config = BertConfig(vocab_size=len(vocab), max_position_embeddings=40, **sizes)
    else:
        root = shared("data/vocab/roberta-base")
        tokenizer = RobertaTokenizerFast(vocab=str(root / "vocab.json"), merges=str(root / "merges.txt"))
        config = RobertaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=42, type_vocab_size=1, layer_norm_eps=1e-5, **sizes
        )
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return model


def padded_batch(vocab_size: int, pad: int, types: int):
    """Three sentences of odd lengths, padded; special ids appear as ordinary tokens would."""
    rng = np.random.default_rng(1)
    lengths, width = [13, 7, 1], 13
    ids = rng.integers(5, vocab_size, (3, width)).astype(np.int32)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.where(mask == 1, ids, pad).astype(np.int32)
    token_types = (np.arange(width) >= 5).astype(np.int32)[None].repeat(3, 0) * (types > 1)
    return ids, mask, token_types.astype(np.int32)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("sizes", SIZES, ids=["small", "larger"])
def test_logits_and_gradients(kind, sizes, tmp_path, shared):
    reference = torch_model(kind, sizes, tmp_path, shared)
    config, params, _ = load_pretrained(tmp_path / "model")
    ids, mask, types = padded_batch(config.vocab_size, config.pad_token_id, config.type_vocab_size)
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    targets = np.random.default_rng(2).integers(0, config.vocab_size, ids.shape)
    weights = mask * (np.random.default_rng(3).random(ids.shape) < 0.5)

    def loss(params):
        hidden = encode(config, params, ids, mask, positions, token_types=types).hidden_states
        logits = bert.logits(config, params, bert.features(config, params, hidden))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
        return -jnp.sum(chosen * weights) / weights.sum(), logits

    (value, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    out = reference(
        input_ids=torch.tensor(ids, dtype=torch.long),
        attention_mask=torch.tensor(mask, dtype=torch.long),
        token_type_ids=torch.tensor(types, dtype=torch.long),
    ).logits
    np.testing.assert_allclose(np.asarray(logits)[mask == 1], out.detach().numpy()[mask == 1], atol=2e-5, rtol=0)
    chosen = torch.log_softmax(out, -1).gather(-1, torch.tensor(targets)[..., None])[..., 0]
    theirs = -(chosen * torch.tensor(weights)).sum() / weights.sum()
    theirs.backward()
    assert abs(float(value) - float(theirs.detach())) < 2e-5
    # Gradients take the way of weights: put them into the PyTorch model's tensors by saving them as if they were weights.
    save_pretrained(tmp_path / "grads", load_pretrained(tmp_path / "model")._replace(params=jax.device_get(grads)))
    as_weights = AutoModelForMaskedLM.from_pretrained(tmp_path / "grads").state_dict()
    scale = max(float(p.grad.norm()) for p in reference.parameters() if p.grad is not None)
    noise = rounding(2 * encoder_operations(config) + ids.size, scale)
    for name, parameter in reference.named_parameters():
        error = float((as_weights[name] - parameter.grad).norm())
        # Relative to the tensor's own gradient; one that is zero by symmetry (key biases) is rounding noise on both sides.
        assert error <= 1e-4 * float(parameter.grad.norm()) + noise, name


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_saved_folder_loads_in_pytorch_bitwise(kind, tmp_path, shared):
    reference = torch_model(kind, SIZES[1], tmp_path, shared)
    ours = load_pretrained(tmp_path / "model")
    save_pretrained(tmp_path / "again", ours)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "again", attn_implementation="eager").eval()
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    ids, mask, _ = padded_batch(ours.config.vocab_size, ours.config.pad_token_id, 1)
    with torch.no_grad():
        theirs = again(torch.tensor(ids, dtype=torch.long), attention_mask=torch.tensor(mask, dtype=torch.long)).logits
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    hidden = encode(ours.config, ours.params, ids, mask, positions).hidden_states
    logits = np.asarray(bert.logits(ours.config, ours.params, bert.features(ours.config, ours.params, hidden)))
    tolerance = 2e-5 * max(1.0, float(theirs.abs().max()) / 10)
    np.testing.assert_allclose(logits[mask == 1], theirs.numpy()[mask == 1], atol=tolerance, rtol=0)


def test_exported_minilm_gives_pytorch_the_same_logits(tmp_path, shared):
    model = load_pretrained(shared("models/minilm6-mlm-adapted"))
    save_pretrained(tmp_path / "out", model)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    ids = model.tokenizer("My brother is a nurse and she [MASK] tired.", return_tensors="np")["input_ids"].astype(
        np.int32
    )
    with torch.no_grad():
        theirs = again(torch.tensor(ids, dtype=torch.long)).logits.numpy()
    ones, positions = np.ones_like(ids), np.arange(ids.shape[1], dtype=np.int32)[None]
    hidden = encode(model.config, model.params, ids, ones, positions).hidden_states
    logits = np.asarray(bert.logits(model.config, model.params, bert.features(model.config, model.params, hidden)))
    np.testing.assert_allclose(logits, theirs, atol=2e-5 * max(1.0, np.abs(theirs).max() / 10), rtol=0)


def tied_names(kind: str) -> dict[str, str]:
    decoder, bias = {
        "bert": ("cls.predictions.decoder", "cls.predictions.bias"),
        "roberta": ("lm_head.decoder", "lm_head.bias"),
    }[kind]
    return {f"{kind}.embeddings.word_embeddings.weight": f"{decoder}.weight", bias: f"{decoder}.bias"}


def stored_otherwise(kind: str) -> dict:
    """Ways to store one model that transformers reads alike: changes of the tensors, and fields of config.json."""
    names = tied_names(kind)
    weight = dict([next(iter(names.items()))])
    return {
        "decoder only": (lambda t: {weight.get(n, n): v for n, v in t.items()}, {}),
        "decoder and its bias only": (lambda t: {names.get(n, n): v for n, v in t.items()}, {}),
        "untied, equal": (lambda t: t | {c: t[o].copy() for o, c in names.items()}, {"tie_word_embeddings": False}),
        "gelu_python": (lambda t: t, {"hidden_act": "gelu_python"}),
        "old names": (lambda t: {n.replace("LayerNorm.weight", "LayerNorm.gamma"): v for n, v in t.items()}, {}),
        "chunked": (lambda t: t, {"chunk_size_feed_forward": 7}),
    }


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_folders_stored_otherwise_give_the_same_logits(kind, tmp_path):
    """Each is read by PyTorch and by us; the file says something else than ours would, the model is the same."""
    ids = np.array([[2, 6, 5, 7, 8, 9, 3]], np.int32)
    ones, positions = np.ones_like(ids), np.arange(ids.shape[1], dtype=np.int32)[None]
    for name, (change, fields) in stored_otherwise(kind).items():
        folder = tiny_hub.write(tmp_path / name, kind)
        tensors = load_file(folder / "model.safetensors")
        save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        tiny_hub.edit_config(folder, **fields)
        reference = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
        with torch.no_grad():
            theirs = reference(torch.tensor(ids, dtype=torch.long)).logits.numpy()
        model = load_pretrained(folder)
        hidden = encode(model.config, model.params, ids, ones, positions).hidden_states
        logits = np.asarray(bert.logits(model.config, model.params, bert.features(model.config, model.params, hidden)))
        tolerance = 2e-5 * max(1.0, np.abs(theirs).max() / 10)
        np.testing.assert_allclose(logits, theirs, atol=tolerance, rtol=0, err_msg=name)
