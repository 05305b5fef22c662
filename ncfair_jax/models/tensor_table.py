"""Where each tensor of a Hugging Face folder lives: its name in the file and the path of the parameter, by family."""

import re
from collections.abc import Iterable

# Name in the file (without "bert." or "roberta."), path of the parameter. Matrices named "kernel" are
# stored transposed by PyTorch; everything else is stored as it is.
_ENCODER = {
    "embeddings.word_embeddings.weight": "embeddings/word/embedding",
    "embeddings.position_embeddings.weight": "embeddings/position/embedding",
    "embeddings.token_type_embeddings.weight": "embeddings/token_type/embedding",
    "embeddings.LayerNorm.weight": "embeddings/norm/scale",
    "embeddings.LayerNorm.bias": "embeddings/norm/bias",
}
_LAYER = {
    "attention.self.query": "attention/query",
    "attention.self.key": "attention/key",
    "attention.self.value": "attention/value",
    "attention.output.dense": "attention/output",
    "attention.output.LayerNorm": "attention/norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
_LAYER_NUMBER = re.compile(r"encoder\.layer\.(0|[1-9][0-9]{0,8})\.")
HEADS = {
    "bert": {
        "cls.predictions.transform.dense.weight": "mlm/transform/kernel",
        "cls.predictions.transform.dense.bias": "mlm/transform/bias",
        "cls.predictions.transform.LayerNorm.weight": "mlm/norm/scale",
        "cls.predictions.transform.LayerNorm.bias": "mlm/norm/bias",
        "cls.predictions.bias": "mlm/bias",
    },
    "roberta": {
        "lm_head.dense.weight": "mlm/transform/kernel",
        "lm_head.dense.bias": "mlm/transform/bias",
        "lm_head.layer_norm.weight": "mlm/norm/scale",
        "lm_head.layer_norm.bias": "mlm/norm/bias",
        "lm_head.bias": "mlm/bias",
    },
}
# BERT's next-sentence head, read where it is asked for.
NSP = {
    "pooler.dense.weight": "nsp/pooler/kernel",
    "pooler.dense.bias": "nsp/pooler/bias",
    "cls.seq_relationship.weight": "nsp/classifier/kernel",
    "cls.seq_relationship.bias": "nsp/classifier/bias",
}
# Copies of other tensors that some files carry, beside these or in their place.
_DECODER = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}
TIED = {
    family: {f"{decoder}.weight": "embeddings.word_embeddings.weight", f"{decoder}.bias": bias}
    for (family, decoder), bias in zip(_DECODER.items(), ("cls.predictions.bias", "lm_head.bias"), strict=True)
}
_IGNORED = re.compile(
    r"pooler\.dense\.(weight|bias)|cls\.seq_relationship\.(weight|bias)|embeddings\.(position|token_type)_ids"
)
# Of models fine-tuned for classes of texts or tokens, or for questions.
CLASSIFIER = re.compile(r"(classifier(\.dense|\.out_proj)?|qa_outputs)\.(weight|bias)")
# What wrappers put into names: data parallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))


def table_of(family: str, layers: Iterable[int]) -> dict[str, tuple[str, ...]]:
    """Name in the file (without prefix) -> path of the parameter, of these layers and all that is outside them."""
    names = dict(_ENCODER)
    for layer in layers:
        for module, path in _LAYER.items():
            weight = "scale" if path.endswith("norm") else "kernel"
            names[f"encoder.layer.{layer}.{module}.weight"] = f"encoder/layer_{layer}/{path}/{weight}"
            names[f"encoder.layer.{layer}.{module}.bias"] = f"encoder/layer_{layer}/{path}/bias"
    names |= HEADS[family]
    return {name: tuple(path.split("/")) for name, path in names.items()}


def layers_of(names: Iterable[str]) -> set[int]:
    """The layers that tensors of these canonical names belong to."""
    return {int(match[1]) for name in names if (match := _LAYER_NUMBER.match(name))}


def canonical(key: str) -> str:
    """The name in the table of a tensor named `key` in the file."""
    name = re.sub(r"^(bert|roberta)\.", "", _WRAPPERS.sub("", key))
    for pattern, replacement in _LEGACY:
        name = pattern.sub(replacement, name)
    return name


def left_out(name: str) -> bool:
    """Whether a tensor of this canonical name is no part of a masked LM, but known not to matter to one."""
    return bool(_IGNORED.fullmatch(name) or CLASSIFIER.fullmatch(name))
