"""The weights of a Hugging Face folder to parameters and back: every name, shape and value is checked."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from ncfair_jax.finite import count_non_finite
from ncfair_jax.models.base import PREFIX, ModelConfig, Params, Tensor
from ncfair_jax.models.families import family_of
from ncfair_jax.models.folders import HEAD_FILE, PREFIX_FILE, ModelFolderError, refuse
from ncfair_jax.models.hub_config import HubConfig
from ncfair_jax.models.tensor_table import CLASSIFIER, by_name, copies_of, layers_of, written_out
from ncfair_jax.models.weight_files import Stored, open_tensors, read_file, wrong_dtype

SAVE_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_MOST_NAMED = 3  # tensors with values that are not finite

_SEEDED = re.compile(r"seeded:(\d+)")
_HEAD_REMEDY = (
    'pass head="identity" (features go to the decoder unchanged but for GELU and LayerNorm) '
    'or head="seeded:42" (random, to be trained)'
)


# --- Reading


def read_params(folder: Path, config: HubConfig, head: str, nsp: bool) -> Params:
    """The parameters of the model and its heads, float32; arguments as in `hf.load_pretrained`.

    Raises:
        ModelFolderError: listing every tensor that is missing, unexpected, of another shape or type, or not finite, and a
            decoder that should be tied and is not.
    """
    model, family = config.model, family_of(config.model)
    with open_tensors(folder, family.prefix) as stored:
        tensors = with_shapes(model)
        numbers = layers_of(stored, tensors, family.prefix)
        layers = sorted(number for number in numbers if number < model.num_layers)
        known = by_name(written_out(tensors, layers), family.prefix)
        table = {name: tensor for name, tensor in known.items() if tensor.path and not tensor.extra}
        copies, heads = copies_of(table), [name for name, tensor in table.items() if tensor.head]
        has_head = not heads or any(name in stored for name in (*heads, *copies))
        for copy, original in copies.items():  # some files store the copies only
            if copy in stored and original not in stored and (config.tied or table[original].head):
                stored[original] = stored[copy]
        if not has_head:
            _refuse_no_head(folder, heads, head, stored)
            table = {name: tensor for name, tensor in table.items() if not tensor.head}
        extras = family.extras & ({"nsp"} if nsp else set())
        table |= {name: tensor for name, tensor in known.items() if tensor.extra in extras and name in stored}
        problems = [*_layer_problems(model, tensors, layers), *_key_problems(table, stored, {*known, *copies})]
        problems += _shape_problems(table, stored)
        problems += _untied_problems(copies, stored) if has_head and not config.tied else []
        refuse(folder, problems)  # before anything is allocated
        values = _read(folder, table, copies, stored)
        flat: dict[str, Any] = {} if has_head else _fresh_head(model, head)
        for name, tensor in table.items():
            flat[tensor.path] = jnp.asarray(_reorient(tensor, values[name]))
        _tell_left_out(folder, stored)
    return unflatten_dict(flat, sep="/")


def with_shapes(config: ModelConfig) -> list[Tensor]:
    """The family's table, every tensor with the shape of its parameter; nothing is allocated."""
    family = family_of(config)
    tensors = family.tensors(config)
    layers = 1 + max(tensor.first_layer for tensor in tensors)  # all others have the shapes of these
    few = dataclasses.replace(config, num_layers=min(layers, config.num_layers))
    params = flatten_dict(jax.eval_shape(lambda: family.init(few, jax.random.key(0))), sep="/")
    return [
        tensor
        if tensor.shape or not tensor.path or tensor.first_layer >= few.num_layers
        else tensor._replace(shape=params[tensor.path.replace("{}", str(tensor.first_layer))].shape)
        for tensor in tensors
    ]


def read_prefix(folder: Path, config: ModelConfig) -> Params:
    """{"prefix": what prefix.safetensors holds}, {} without that file.

    Raises:
        ModelFolderError: if it is broken, of another shape, or not finite.
    """
    path = folder / PREFIX_FILE
    if not path.is_file():
        return {}
    tensors = read_file(path, remedy := "export it again or remove it")
    if PREFIX not in tensors:
        raise ModelFolderError(f"{path} holds no tensor {PREFIX!r}; {remedy}")
    table = tensors[PREFIX]
    expected = config.prefix_shape(table.shape[2] if table.ndim == 5 else 0)
    if expected is None:
        raise ModelFolderError(
            f"{path}: a {config.model_type} model takes no prefix; it belongs to another model: remove it"
        )
    if table.shape != expected:
        layers, two, _, *rest = map(str, expected)
        raise ModelFolderError(
            f"{path} has shape {list(table.shape)}, config.json says [{', '.join([layers, two, 'tokens', *rest])}]; "
            "it belongs to another model: remove it"
        )
    refuse_non_finite(path, [(PREFIX, table)])
    return {PREFIX: jnp.asarray(table, jnp.float32)}


def read_head(folder: Path) -> Params:
    """The parameters in head.safetensors.

    Raises:
        ModelFolderError: if there is no such file, or it is broken or not finite.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        raise ModelFolderError(f"{folder} has no {HEAD_FILE}; give the export of a run that trained a classifier")
    tensors = read_file(path, remedy := "export it again")
    inside = [name for name in tensors if any(other.startswith(f"{name}/") for other in tensors)]
    refuse(path, [f"{name} is a tensor and a group of tensors; {remedy}" for name in inside])
    refuse_non_finite(path, tensors.items())
    return unflatten_dict({tuple(name.split("/")): jnp.asarray(leaf) for name, leaf in tensors.items()})


# --- Writing


def to_tensors(folder: Path, config: ModelConfig, params: Params, dtype: str) -> dict[str, np.ndarray]:
    """The parameters as model.safetensors has them, in `dtype`.

    Args:
        folder: to be named in errors.
    Raises:
        ModelFolderError: if a parameter is missing, not finite, or becomes infinite in `dtype`.
    """
    flat, family = flatten_dict(params, sep="/"), family_of(config)
    table = [t for t in written_out(family.tensors(config), range(config.num_layers)) if t.path and not t.extra]
    refuse(Path("params"), [f"no {tensor.path}" for tensor in table if tensor.path not in flat])
    tensors = {tensor.name: _reorient(tensor, np.asarray(flat[tensor.path])) for tensor in table}
    refuse_non_finite(folder, tensors.items())
    with np.errstate(over="ignore"):  # told below
        cast = {name: tensor.astype(SAVE_DTYPES[dtype]) for name, tensor in tensors.items()}
    too_large = [
        f"{name} has values up to {np.abs(tensors[name]).max():.3g}, which {dtype} cannot hold; save in float32"
        for name, tensor in cast.items()
        if count_non_finite(tensor)
    ]
    refuse(folder, too_large)
    return cast


def refuse_non_finite(where: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Refuses tensors with values that are not finite.

    Raises:
        ModelFolderError: one line that names the first of them and how many such values each has.
    """
    found = [(name, count, tensor.size) for name, tensor in tensors if (count := count_non_finite(tensor))]
    if not found:
        return
    named = ", ".join(f"{name} ({count:,} of {size:,} values)" for name, count, size in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more tensors" if len(found) > _MOST_NAMED else ""
    raise ModelFolderError(
        f"{where}: not finite (NaN or infinite): {named}{more}; every figure of this model would be meaningless. "
        "The file is damaged or the training diverged: take weights from before"
    )


# --- Inside


def _read(
    folder: Path, table: Mapping[str, Tensor], copies: Mapping[str, str], stored: Mapping[str, Stored]
) -> dict[str, np.ndarray]:
    """The values of the tensors of a table, all finite, and equal to those of their copies."""
    values = {name: stored[name].read() for name in table}
    doubles = {
        copy: stored[copy].read()
        for copy, original in copies.items()
        if copy in stored and stored[copy] is not stored[original]
    }
    refuse_non_finite(folder, [(stored[name].key, tensor) for name, tensor in (values | doubles).items()])
    differing = [copy for copy, tensor in doubles.items() if not np.array_equal(tensor, values[copies[copy]])]
    refuse(
        folder,
        [
            f"{stored[copy].key} differs from {stored[copies[copy]].key}: the model is untied, which is not supported; "
            f"to tie it, delete {stored[copy].key} (predictions change: train again before judging)"
            for copy in differing
        ],
    )
    return values


def _reorient(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.T) if tensor.transposed else values


def _layer_problems(config: ModelConfig, tensors: Iterable[Tensor], layers: list[int]) -> list[str]:
    """One line for all layers of which there is no tensor: config.json may claim any number of them."""
    if len(layers) == config.num_layers or not any("{}" in tensor.name for tensor in tensors):
        return []
    return [
        f"config.json has num_hidden_layers={config.num_layers}, but there are tensors of {len(layers)} of these layers only; "
        "correct config.json or take its weights"
    ]


def _key_problems(table: Mapping[str, Tensor], stored: Mapping[str, Stored], known: Set[str]) -> list[str]:
    missing = [f"missing tensor {name}; config.json and weights do not belong together, or the file is incomplete"
               for name in table if name not in stored]  # fmt: skip
    extra = [
        f"unexpected tensor {tensor.key} {list(tensor.shape)}; not part of a model of this config: remove it"
        for name, tensor in stored.items()
        if name not in known and not CLASSIFIER.fullmatch(name)
    ]
    return missing + extra


def _shape_problems(table: Mapping[str, Tensor], stored: Mapping[str, Stored]) -> list[str]:
    problems = []
    for name, tensor in table.items():
        if name not in stored:
            continue
        expected = tensor.shape[::-1] if tensor.transposed else tensor.shape
        if stored[name].shape != expected:
            problems.append(
                f"{stored[name].key} has shape {list(stored[name].shape)}, config.json says {list(expected)}; "
                f"correct config.json or take its weights"
            )
        if problem := wrong_dtype(stored[name].key, stored[name].dtype):
            problems.append(problem)
    return problems


def _untied_problems(copies: Iterable[str], stored: Mapping[str, Stored]) -> list[str]:
    """An untied model needs a decoder of its own: PyTorch draws a random weight and takes biases of 0 where there is none."""
    missing = [copy for copy in copies if copy not in stored]
    if not missing:
        return []
    return [
        f"config.json has tie_word_embeddings=false, but there is no {' and no '.join(missing)}; set it to true if the decoder "
        "is the word embedding table, or add what is missing"
    ]


def _refuse_no_head(folder: Path, heads: Sequence[str], head: str, stored: Mapping[str, Stored]) -> None:
    """A folder without a masked-LM head needs a `head` that says what to take instead."""
    if head == "":
        other = [tensor.key for name, tensor in stored.items() if CLASSIFIER.fullmatch(name)]
        instead = f", but a classifier ({', '.join(sorted(other))}), which is not read" if other else ""
        raise ModelFolderError(f"{folder} has no masked-LM head ({', '.join(heads)}){instead}; {_HEAD_REMEDY}")
    if head != "identity" and not _SEEDED.fullmatch(head):
        raise ModelFolderError(f"head={head!r} is unknown; {_HEAD_REMEDY}")


def _fresh_head(config: ModelConfig, head: str) -> dict[str, Any]:
    family, seeded = family_of(config), _SEEDED.fullmatch(head)
    fresh = flatten_dict(family.init(config, jax.random.key(int(seeded[1]) if seeded else 0)), sep="/")
    if head == "identity" and family.fold is not None:
        fresh[family.fold.kernel] = jnp.eye(*fresh[family.fold.kernel].shape)
    return {tensor.path: fresh[tensor.path] for tensor in family.tensors(config) if tensor.head}


def _tell_left_out(folder: Path, stored: dict[str, Stored]) -> None:
    if names := sorted(tensor.key for name, tensor in stored.items() if CLASSIFIER.fullmatch(name)):
        logging.warning("%s: the classifier (%s) is not part of a masked LM and is left out", folder, ", ".join(names))
