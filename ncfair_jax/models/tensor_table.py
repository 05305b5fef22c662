"""A family's table of tensors, written out for the layers that a folder has."""

import re
from collections.abc import Iterable, Mapping, Sequence

from ncfair_jax.models.base import Tensor

_NUMBER = r"(0|[1-9][0-9]{0,8})\."
# Of models fine-tuned for classes of texts or tokens, or for questions.
CLASSIFIER = re.compile(r"(classifier(\.dense|\.out_proj)?|qa_outputs)\.(weight|bias)")
# What wrappers put into names: data parallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))


def written_out(tensors: Iterable[Tensor], layers: Sequence[int]) -> list[Tensor]:
    """The tensors outside layers, and those of these layers, with the number of the layer in name and path."""
    return [each for tensor in tensors for each in _of_layers(tensor, layers)]


def layers_of(names: Iterable[str], tensors: Iterable[Tensor], prefix: str) -> set[int]:
    """The layers that tensors of these canonical names belong to."""
    starts = {canonical(tensor.name, prefix).partition("{}")[0] for tensor in tensors if "{}" in tensor.name}
    if not starts:
        return set()
    numbered = re.compile(f"(?:{'|'.join(map(re.escape, sorted(starts)))}){_NUMBER}")
    return {int(match[1]) for name in names if (match := numbered.match(name))}


def canonical(key: str, prefix: str) -> str:
    """The name, without the family's prefix, of a tensor named `key` in a file or in a table."""
    name = _WRAPPERS.sub("", key).removeprefix(f"{prefix}.")
    for pattern, replacement in _LEGACY:
        name = pattern.sub(replacement, name)
    return name


def by_name(tensors: Iterable[Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors by their canonical names."""
    return {canonical(tensor.name, prefix): tensor for tensor in tensors}


def copies_of(table: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of each copy -> name of the tensor whose values it has."""
    return {copy: name for name, tensor in table.items() for copy in tensor.copies}


def _of_layers(tensor: Tensor, layers: Sequence[int]) -> list[Tensor]:
    if "{}" not in tensor.name:
        return [tensor]
    numbers = [str(layer) for layer in layers if layer >= tensor.first_layer]
    return [
        tensor._replace(name=tensor.name.replace("{}", number), path=tensor.path.replace("{}", number))
        for number in numbers
    ]
