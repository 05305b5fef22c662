"""Hugging Face folders to (config, params, tokenizer) and back. All problems of a folder are listed in one ModelFolderError.

`folders` finds a folder, `hub_config` reads its config.json, `tensors` its weights, `tokenizer` its tokenizer; the model's
family says what is in them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from ncfair_jax.files import digests
from ncfair_jax.files.atomic import written
from ncfair_jax.files.bucket import path_of
from ncfair_jax.models.base import NSP, PREFIX, ModelConfig, Params
from ncfair_jax.models.families import family_of
from ncfair_jax.models.folders import CONFIG, HEAD_FILE, PREFIX_FILE, WEIGHTS, ModelFolderError, find_folder, refuse
from ncfair_jax.models.hub_config import read_config, write_config
from ncfair_jax.models.tensor_table import canonical
from ncfair_jax.models.tensors import (
    SAVE_DTYPES,
    read_head,
    read_params,
    read_prefix,
    refuse_non_finite,
    to_tensors,
)
from ncfair_jax.models.tokenizer import read_tokenizer, write_tokenizer
from ncfair_jax.models.weight_files import open_tensors, wrong_dtype

__all__ = [
    "ModelFolderError", "Pretrained", "find_folder", "load_head", "load_pooler", "load_pretrained", "save_pretrained",
]  # fmt: skip


class Pretrained(NamedTuple):
    """A model as the rest of the package knows it."""

    config: ModelConfig
    params: Params
    tokenizer: PreTrainedTokenizerBase


def load_pretrained(
    name_or_folder: str | Path,
    *,
    head: str = "",
    activation_dtype: str = "float32",
    remat: bool = False,
    nsp: bool = False,
    offline: bool = False,
) -> Pretrained:
    """Reads a model of one of the families from a Hugging Face folder, or from the Hub by name.

    Args:
        name_or_folder: folder with config.json, safetensors and tokenizer files; or a Hub name such as
            "google-bert/bert-base-uncased", of which no pickled file is fetched.
        head: what to do if the folder has no masked-LM head: "" refuses; "identity" takes the identity matrix,
            LayerNorm 1 and 0, biases 0; "seeded:42" draws N(0, initializer_range²) from that seed. A stored head is
            used whatever this says.
        activation_dtype, remat: go into the ModelConfig.
        nsp: also read what the folder has of BERT's next-sentence head, its pooler included, into params["nsp"], which
            `save_pretrained` leaves out.
        offline: take Hub names from the local cache only (the environment variable HF_HUB_OFFLINE=1 does the same).
    Returns:
        Config, float32 parameters, fast tokenizer. A prefix.safetensors of the folder becomes params["prefix"].
    Raises:
        ModelFolderError: listing every problem found.
    """
    folder = find_folder(name_or_folder, offline)
    remedy = f"export it again, or delete {digests.DIGESTS_FILE} if the change was meant"
    refuse(folder, [f"{text}; {remedy}" for text in _damaged_weights(folder)])
    config = read_config(folder, activation_dtype, remat)
    params = read_params(folder, config, head, nsp) | read_prefix(folder, config.model)
    return Pretrained(config.model, params, read_tokenizer(folder, config.model))


def save_pretrained(
    folder: str | Path, pretrained: Pretrained, *, card: str = "", dtype: str = "float32", head: Params | None = None
) -> None:
    """Writes a folder that `AutoModelForMaskedLM.from_pretrained` and `load_pretrained` read; weights in `dtype`.

    A learned prefix goes into prefix.safetensors beside the model, which transformers reads without it; `load_pretrained`
    takes both. The folder appears under its name only when complete. A model folder already there is replaced; any other
    non-empty folder is refused.

    Args:
        card: markdown of the README.md.
        dtype: "float32" (bitwise the parameters), "float16" or "bfloat16".
        head: parameters of a classifier on top of the encoder, for head.safetensors; `load_head` reads them back.
    Raises:
        ModelFolderError: if the folder holds something else, dtype is unknown, or a value is not finite or does not fit it.
    """
    folder = path_of(folder).absolute()
    if dtype not in SAVE_DTYPES:
        raise ModelFolderError(f"dtype={dtype!r}; choose from {sorted(SAVE_DTYPES)}")
    if folder.exists() and not (folder / CONFIG).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelFolderError(f"{folder} exists and is not a model folder; choose another name or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written(folder) as new:
        new.mkdir()
        write_config(new / CONFIG, pretrained.config, pretrained.tokenizer, dtype)
        save_file(
            to_tensors(folder, pretrained.config, pretrained.params, dtype), new / WEIGHTS, metadata={"format": "pt"}
        )
        if PREFIX in pretrained.params:
            _save_finite({PREFIX: np.asarray(pretrained.params[PREFIX])}, folder, new / PREFIX_FILE)
        if head:
            leaves = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(head).items()}
            _save_finite(leaves, folder, new / HEAD_FILE)
        write_tokenizer(new, pretrained.tokenizer)
        if card:
            (new / "README.md").write_text(card)
        digests.record(new, digests.files_of(new))


def _damaged_weights(folder: Path) -> list[str]:
    """Of weights that this package wrote, what is wrong with them; config.json and tokenizer may be edited."""
    known = digests.recorded(folder) or {}
    return digests.damaged(folder, [name for name in known if name.endswith(".safetensors")])


def load_pooler(name_or_folder: str | Path, config: ModelConfig, *, offline: bool = False) -> Params | None:
    """The dense layer on the first token that BERT was pretrained with ("kernel", "bias"), None where the folder has none.

    Raises:
        ModelFolderError: if it is of another size or not finite.
    """
    folder, family = find_folder(name_or_folder, offline), family_of(config)
    paths = {f"{NSP}/pooler/kernel": "kernel", f"{NSP}/pooler/bias": "bias"}
    pooler = {t.path: (canonical(t.name, family.prefix), t) for t in family.tensors(config) if t.path in paths}
    with open_tensors(folder, family.prefix) as stored:
        if not pooler or any(name not in stored for name, _ in pooler.values()):
            return None
        parts = [(stored[name], tensor) for name, tensor in (pooler[path] for path in paths)]
        refuse(folder, [problem for part, _ in parts if (problem := wrong_dtype(part.key, part.dtype))])
        shapes = [list(part.shape) for part, _ in parts]
        expected = [list(tensor.shape[::-1] if tensor.transposed else tensor.shape) for _, tensor in parts]
        if shapes != expected:
            raise ModelFolderError(
                f"{folder}: the pooler has shapes {shapes[0]} and {shapes[1]}, config.json says {expected[0]} and "
                f"{expected[1]}; correct config.json or take its weights"
            )
        values = [part.read() for part, _ in parts]
        refuse_non_finite(folder, [(part.key, value) for (part, _), value in zip(parts, values, strict=True)])
    return {
        name: np.ascontiguousarray(value.T) if tensor.transposed else value
        for name, value, (_, tensor) in zip(paths.values(), values, parts, strict=True)
    }


def load_head(name_or_folder: str | Path, *, offline: bool = False) -> Params:
    """The classifier's parameters that `save_pretrained` wrote beside an encoder, as they were given to it.

    Raises:
        ModelFolderError: if the folder has none, or the file is broken or not finite.
    """
    return read_head(find_folder(name_or_folder, offline))


def _save_finite(tensors: dict[str, np.ndarray], folder: Path, path: Path) -> None:
    refuse_non_finite(folder, tensors.items())
    save_file(tensors, path)
