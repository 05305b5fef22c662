"""The tensors stored in a folder's safetensors files, one or several. Nothing is ever unpickled."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ncfair_jax.models.folders import INDEX, WEIGHTS, ModelFolderError, one_line, read_json, refuse
from ncfair_jax.models.tensor_table import canonical

_CONVERT = (
    "convert it once where you trust the file: `from transformers import AutoModelForMaskedLM, AutoTokenizer; "
    "AutoModelForMaskedLM.from_pretrained(A).save_pretrained(B); AutoTokenizer.from_pretrained(A).save_pretrained(B)` "
    "(needs torch), then load B"
)


DTYPES = ("F16", "BF16", "F32")
_SHOWN = 80  # characters of a wrong name
# As transformers names the parts, and `folders.HUB_FILES` fetches and fingerprints them: in the folder itself, whatever an
# index from elsewhere says.
_PART = re.compile(r"model[\w.-]{0,200}\.safetensors", re.ASCII)


class Stored(NamedTuple):
    """Where one tensor of the folder is: its name in the file, the open file, its shape and type code."""

    file: Any
    key: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> np.ndarray:
        """The values as float32."""
        tensor: np.ndarray = self.file.get_tensor(self.key)
        return tensor.astype(np.float32)


@contextlib.contextmanager
def open_tensors(folder: Path, prefix: str) -> Iterator[dict[str, Stored]]:
    """Canonical name -> stored tensor, over all weight files; `prefix` is the family's."""
    with contextlib.ExitStack() as stack:
        stored: dict[str, Stored] = {}
        problems = []
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                size = f"{path.stat().st_size:,} bytes"
                problems.append(
                    f"{path.name} ({size}) is truncated or not safetensors ({error}); copy or fetch it again"
                )
                continue
            for key in file.keys():  # noqa: SIM118 (not a dict)
                part, name = file.get_slice(key), canonical(key, prefix)
                if name in stored:
                    problems.append(f"{key} is there twice, also as {stored[name].key}; remove one")
                stored[name] = Stored(file, key, tuple(part.get_shape()), part.get_dtype())
        refuse(folder, problems)
        yield stored


def read_file(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """All tensors of a small file beside the model, as they are stored.

    Raises:
        ModelFolderError: if it is broken or has numbers of a type that is not supported; ending with the remedy.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            keys = list(file.keys())
            refuse(path, [problem for key in keys if (problem := wrong_dtype(key, file.get_slice(key).get_dtype()))])
            return {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise ModelFolderError(one_line(f"{path} is truncated or not safetensors ({error}); {remedy}")) from error


def wrong_dtype(key: str, dtype: str) -> str:
    """The problem of a tensor whose numbers are of an unsupported type; "" if there is none."""
    return (
        "" if dtype in DTYPES else f"{key} has type {dtype}, expected one of {', '.join(DTYPES)}; convert it to float32"
    )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if pickled:
            raise ModelFolderError(
                f"{folder} has {', '.join(pickled)} but no safetensors, and pickles are never read; {_CONVERT}"
            )
        raise ModelFolderError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}; if the source offers pytorch_model.bin only, {_CONVERT}"
        )
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise ModelFolderError(
            f"{folder / INDEX} names no file (expected a weight_map of tensor and file names); copy the file again"
        )
    names = sorted(set(index.values()))
    refuse(
        folder,
        [
            f"{INDEX} names {name[:_SHOWN]!r}, expected the name of a file beside it such as model-00001-of-00002.safetensors; "
            "take the index and its files from one source"
            for name in names
            if not _PART.fullmatch(name)
        ],
    )
    files = [folder / name for name in names]
    refuse(folder, [f"{INDEX} names {path.name}, which is missing; copy it" for path in files if not path.is_file()])
    return files
