"""The weights of a Hugging Face folder to parameters and back: every name, shape and value is checked."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from ncfair_jax.finite import count_non_finite
from ncfair_jax.models.encoder import PREFIX, ModelConfig, Params
from ncfair_jax.models.folders import HEAD_FILE, PREFIX_FILE, ModelFolderError, refuse
from ncfair_jax.models.heads import init_params
from ncfair_jax.models.hub_config import HubConfig
from ncfair_jax.models.tensor_table import CLASSIFIER, HEADS, NSP, TIED, layers_of, left_out, table_of
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
    """The parameters of the encoder and its heads, float32; arguments as in `hf.load_pretrained`.

    Raises:
        ModelFolderError: listing every tensor that is missing, unexpected, of another shape or type, or not finite, and a
            decoder that is not the word embedding table.
    """
    with open_tensors(folder) as stored:
        family = config.model.model_type
        layers = sorted(number for number in layers_of(stored) if number < config.model.num_layers)
        table = table_of(family, layers)
        has_head = any(name in stored for name in (*HEADS[family], *TIED[family]))
        copies = {copy: original for copy, original in TIED[family].items() if copy in stored}
        for copy, original in copies.items():  # some files store the copies only
            if original not in stored and (config.tied or original in HEADS[family]):
                stored[original] = stored[copy]
        if not has_head:
            _refuse_no_head(folder, config.model, head, stored)
            table = {name: path for name, path in table.items() if path[0] != "mlm"}
        if nsp and family == "bert":
            table |= {name: tuple(path.split("/")) for name, path in NSP.items() if name in stored}
        problems = [*_layer_problems(config.model, layers), *_key_problems(table, stored, family)]
        problems += [*_shape_problems(config.model, table, stored), *_untied_problems(config, stored, has_head)]
        refuse(folder, problems)  # before anything is allocated
        tensors = {name: stored[name].read() for name in table}
        doubles = {
            copy: stored[copy].read() for copy, original in copies.items() if stored[copy] is not stored[original]
        }
        refuse_non_finite(folder, [(stored[name].key, tensor) for name, tensor in (tensors | doubles).items()])
        refuse(
            folder,
            [
                f"{stored[copy].key} differs from {stored[copies[copy]].key}: the model is untied, which is not supported; "
                f"to tie it, delete {stored[copy].key} (predictions change: train again before judging)"
                for copy, values in doubles.items()
                if not np.array_equal(values, tensors[copies[copy]])
            ],
        )
        flat: dict[tuple[str, ...], Any] = {} if has_head else _fresh_head(config.model, head)
        for name, path in table.items():
            flat[path] = jnp.asarray(_reorient(path, tensors[name]))
        _tell_left_out(folder, stored)
    return unflatten_dict(flat)


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
    heads = config.hidden_size // config.num_heads
    if table.ndim != 5 or (*table.shape[:2], *table.shape[3:]) != (config.num_layers, 2, config.num_heads, heads):
        raise ModelFolderError(
            f"{path} has shape {list(table.shape)}, config.json says [{config.num_layers}, 2, tokens, {config.num_heads}, "
            f"{heads}]; it belongs to another model: remove it"
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
    flat, table = flatten_dict(params), table_of(config.model_type, range(config.num_layers))
    refuse(Path("params"), [f"no {'/'.join(path)}" for path in table.values() if path not in flat])
    tensors = {
        (name if name.startswith(("cls.", "lm_head.")) else f"{config.model_type}.{name}"): _reorient(
            path, np.asarray(flat[path])
        )
        for name, path in table.items()
    }
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


def _reorient(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor.T) if path[-1] == "kernel" else tensor


def _layer_problems(config: ModelConfig, layers: list[int]) -> list[str]:
    """One line for all layers of which there is no tensor: config.json may claim any number of them."""
    if len(layers) == config.num_layers:
        return []
    return [
        f"config.json has num_hidden_layers={config.num_layers}, but there are tensors of {len(layers)} of these layers only; "
        "correct config.json or take its weights"
    ]


def _key_problems(table: dict[str, tuple[str, ...]], stored: dict[str, Stored], family: str) -> list[str]:
    missing = [f"missing tensor {name}; config.json and weights do not belong together, or the file is incomplete"
               for name in table if name not in stored]  # fmt: skip
    extra = [
        f"unexpected tensor {tensor.key} {list(tensor.shape)}; "
        f"not part of a BERT or RoBERTa masked LM of this config: remove it"
        for name, tensor in stored.items()
        if name not in table and name not in TIED[family] and not left_out(name)
    ]
    return missing + extra


def _shape_problems(config: ModelConfig, table: dict[str, tuple[str, ...]], stored: dict[str, Stored]) -> list[str]:
    one_layer = dataclasses.replace(config, num_layers=1)  # whose shapes all layers have
    params = jax.eval_shape(lambda: init_params(one_layer, jax.random.key(0)))
    shapes = {path: leaf.shape for path, leaf in flatten_dict(params).items()}
    for module, outputs in (("pooler", config.hidden_size), ("classifier", 2)):
        shapes |= {("nsp", module, "kernel"): (config.hidden_size, outputs), ("nsp", module, "bias"): (outputs,)}
    problems = []
    for name, path in table.items():
        if name not in stored:
            continue
        shape = shapes[(path[0], "layer_0", *path[2:]) if path[0] == "encoder" else path]
        expected = shape[::-1] if path[-1] == "kernel" else shape
        if stored[name].shape != expected:
            problems.append(
                f"{stored[name].key} has shape {list(stored[name].shape)}, config.json says {list(expected)}; "
                f"correct config.json or take its weights"
            )
        if problem := wrong_dtype(stored[name].key, stored[name].dtype):
            problems.append(problem)
    return problems


def _untied_problems(config: HubConfig, stored: dict[str, Stored], has_head: bool) -> list[str]:
    """An untied model needs a decoder of its own: PyTorch draws a random weight and takes biases of 0 where there is none."""
    names = TIED[config.model.model_type]
    missing = [name for name in names if name not in stored]
    if config.tied or not has_head or not missing:
        return []
    return [
        f"config.json has tie_word_embeddings=false, but there is no {' and no '.join(missing)}; set it to true if the decoder "
        "is the word embedding table, or add what is missing"
    ]


def _refuse_no_head(folder: Path, config: ModelConfig, head: str, stored: dict[str, Stored]) -> None:
    """A folder without a masked-LM head needs a `head` that says what to take instead."""
    if head == "":
        other = [tensor.key for name, tensor in stored.items() if CLASSIFIER.fullmatch(name)]
        instead = f", but a classifier ({', '.join(sorted(other))}), which is not read" if other else ""
        raise ModelFolderError(
            f"{folder} has no masked-LM head ({', '.join(HEADS[config.model_type])}){instead}; {_HEAD_REMEDY}"
        )
    if head != "identity" and not _SEEDED.fullmatch(head):
        raise ModelFolderError(f"head={head!r} is unknown; {_HEAD_REMEDY}")


def _fresh_head(config: ModelConfig, head: str) -> dict[tuple[str, ...], Any]:
    seeded = _SEEDED.fullmatch(head)
    fresh = init_params(config, jax.random.key(int(seeded[1]) if seeded else 0))["mlm"]
    if head == "identity":
        fresh["transform"]["kernel"] = jnp.eye(config.hidden_size)
    return {("mlm", *path): value for path, value in flatten_dict(fresh).items()}


def _tell_left_out(folder: Path, stored: dict[str, Stored]) -> None:
    if names := sorted(tensor.key for name, tensor in stored.items() if CLASSIFIER.fullmatch(name)):
        logging.warning("%s: the classifier (%s) is not part of a masked LM and is left out", folder, ", ".join(names))
