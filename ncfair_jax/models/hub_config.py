"""config.json of a Hugging Face folder to a ModelConfig and back. Every field that the model depends on is checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from ncfair_jax.models.encoder import CHOICES, ModelConfig
from ncfair_jax.models.folders import CONFIG, ModelFolderError, read_json, refuse

_MOST = 10_000_000  # of any size: beyond every published model, and refused before anything is allocated
_SHOWN = 80  # characters of a wrong value


class HubConfig(NamedTuple):
    """What config.json says: the model, and whether the decoder is the word embedding table."""

    model: ModelConfig
    tied: bool


class Field(NamedTuple):
    """A number in config.json: the ModelConfig's name for it, which values are valid, and the default (None: required)."""

    attribute: str
    valid: Callable[[Any], bool]
    expected: str
    default: float | None = None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float)


def _size(attribute: str, default: float | None = None) -> Field:
    expected = f"a whole number of at least 1 and at most {_MOST:,}"
    return Field(attribute, lambda v: _is_integer(v) and 1 <= v <= _MOST, expected, default)


def _small(attribute: str, default: float) -> Field:
    return Field(attribute, lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1", default)


def _rate(attribute: str) -> Field:
    return Field(attribute, lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1", 0.1)


# The defaults are those of transformers' BertConfig and RobertaConfig.
_FIELDS = {
    "vocab_size": _size("vocab_size"),
    "hidden_size": _size("hidden_size"),
    "num_hidden_layers": _size("num_layers"),
    "num_attention_heads": _size("num_heads"),
    "intermediate_size": _size("intermediate_size"),
    "max_position_embeddings": _size("max_positions"),
    "type_vocab_size": _size("type_vocab_size", 2),
    "layer_norm_eps": _small("layer_norm_eps", 1e-12),
    "hidden_dropout_prob": _rate("hidden_dropout"),
    "attention_probs_dropout_prob": _rate("attention_dropout"),
    "initializer_range": _small("initializer_range", 0.02),
}
_ARCHITECTURES = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM"}
_PAD = {"bert": 0, "roberta": 1}
# What changes the outputs and has one meaning here. The first value is the default.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", "gelu_python"),  # both the exact one by erf; the others are approximations or no GELU
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def read_config(folder: Path, activation_dtype: str, remat: bool) -> HubConfig:
    """Reads and checks config.json.

    Raises:
        ModelFolderError: for a family that is not supported, told alone; else listing all fields that are missing or wrong.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelFolderError(f"{folder} has no {CONFIG}; give a folder written by save_pretrained, or add the file")
    raw = read_json(path)
    family = raw.get("model_type")
    if family not in CHOICES["model_type"]:
        said = f"has model_type={_shown(family)}" if "model_type" in raw else "has no model_type"
        raise ModelFolderError(
            f"{folder}: {CONFIG} {said}; only models of the families {' and '.join(CHOICES['model_type'])} are supported: "
            "choose another model"
        )
    refuse(folder, [*_wrong_numbers(raw), *_unsupported(raw), *_wrong_pad(raw), *_wrong_flags(raw)])
    numbers: dict[str, Any] = {field.attribute: raw.get(name, field.default) for name, field in _FIELDS.items()}
    pad = _PAD[family] if raw.get("pad_token_id") is None else raw["pad_token_id"]
    model = ModelConfig(model_type=family, pad_token_id=pad, activation_dtype=activation_dtype, remat=remat, **numbers)
    refuse(folder, _impossible(model))
    return HubConfig(model, raw.get("tie_word_embeddings", True))


def write_config(path: Path, config: ModelConfig, tokenizer: PreTrainedTokenizerBase, dtype: str) -> None:
    """Writes the config.json that transformers reads; `dtype` is that of the stored weights."""
    content: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        **{name: getattr(config, field.attribute) for name, field in _FIELDS.items()},
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "pad_token_id": config.pad_token_id,
        "dtype": dtype,
    }
    if config.model_type == "roberta":
        content |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    path.write_text(json.dumps(content, indent=2) + "\n")


def _wrong_numbers(raw: dict[str, Any]) -> list[str]:
    problems = []
    for name, field in _FIELDS.items():
        if name not in raw:
            if field.default is None:
                problems.append(f"{CONFIG} has no {name}; add it")
        elif not field.valid(raw[name]):
            remedy = "correct it" if field.default is None else f"correct it, or remove it for {field.default:g}"
            problems.append(f"{CONFIG} has {name}={_shown(raw[name])}, expected {field.expected}; {remedy}")
    if problems:
        return problems
    size, heads = raw["hidden_size"], raw["num_attention_heads"]
    if size % heads:
        problems.append(
            f"{CONFIG} has hidden_size={size}, which is not a multiple of num_attention_heads={heads}; correct one of them"
        )
    return problems


def _unsupported(raw: dict[str, Any]) -> list[str]:
    return [
        f"{CONFIG} has {name}={_shown(raw[name])}, supported: {', '.join(map(_shown, values))}; choose another model"
        for name, values in _SUPPORTED.items()
        if not any(_same(raw.get(name, values[0]), value) for value in values)
    ]


def _same(a: Any, b: Any) -> bool:
    """Equal and of one type: in Python 0 == False."""
    return type(a) is type(b) and a == b


def _wrong_pad(raw: dict[str, Any]) -> list[str]:
    if "pad_token_id" not in raw or (raw["pad_token_id"] is None and raw["model_type"] == "bert"):
        return []
    pad, rows = raw["pad_token_id"], raw.get("vocab_size")
    if _is_integer(pad) and pad >= 0 and (pad < rows if _FIELDS["vocab_size"].valid(rows) else True):
        return []
    return [f"{CONFIG} has pad_token_id={_shown(pad)}, expected the id of a token (0 to vocab_size - 1); correct it"]


def _wrong_flags(raw: dict[str, Any]) -> list[str]:
    tied = raw.get("tie_word_embeddings", True)
    if isinstance(tied, bool):
        return []
    return [f"{CONFIG} has tie_word_embeddings={_shown(tied)}, expected true or false; correct it"]


def _impossible(model: ModelConfig) -> list[str]:
    if model.max_tokens >= 3:
        return []
    return [
        f"{CONFIG} has max_position_embeddings={model.max_positions}, which leaves room for {max(model.max_tokens, 0)} tokens "
        "(RoBERTa uses none up to its pad_token_id); correct it"
    ]


def _shown(value: Any) -> str:
    """A value as config.json spells it, strings in single quotes and numbers in strings called so; long ones cut."""
    if isinstance(value, str):
        shown = f"{value!r} (a string)" if value.replace(".", "").isdecimal() else repr(value)
    else:
        try:
            shown = json.dumps(value)
        except RecursionError:  # it was read just below the limit
            shown = f"a deeply nested {type(value).__name__}"
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
