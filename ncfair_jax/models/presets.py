"""Models of known sizes, without weights: to time a step, or to compile one for a machine that is not here."""

from ncfair_jax.models.attention import KERNELS
from ncfair_jax.models.bert import BertConfig

# name: vocabulary, hidden, layers, heads, intermediate
PRESETS = {
    "tiny": (1000, 32, 2, 2, 64),
    "minilm": (30522, 384, 6, 12, 1536),
    "bert-base": (30522, 768, 12, 12, 3072),
    "bert-large": (30522, 1024, 24, 16, 4096),
}


def preset_model(preset: str, dtype: str, attention: str, layers: str = "unrolled") -> BertConfig:
    """A BERT of a known size; attention dropout only where the implementation of attention has it.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}; choose from {', '.join(PRESETS)}")
    vocab_size, hidden, depth, heads, intermediate = PRESETS[preset]
    return BertConfig(
        model_type="bert",
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_layers=depth,
        num_heads=heads,
        intermediate_size=intermediate,
        max_positions=512,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        hidden_dropout=0.1,
        attention_dropout=0.0 if attention in KERNELS else 0.1,
        pad_token_id=0,
        activation_dtype=dtype,
        attention=attention,
        scan_layers=layers == "scanned",
    )
