"""The tensors stored in a folder's safetensors files, one or several. Nothing is ever unpickled."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ncfair_jax.models.folders import INDEX, WEIGHTS, ModelFolderError, read_json, refuse
from ncfair_jax.models.tensor_table import canonical

_CONVERT = (
    "convert it once where you trust the file: `from transformers import AutoModelForMaskedLM, AutoTokenizer; "
    "AutoModelForMaskedLM.from_pretrained(A).save_pretrained(B); AutoTokenizer.from_pretrained(A).save_pretrained(B)` "
    "(needs torch), then load B"
)


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
def open_tensors(folder: Path) -> Iterator[dict[str, Stored]]:
    """Canonical name -> stored tensor, over all weight files."""
    with contextlib.ExitStack() as stack:
        stored: dict[str, Stored] = {}
        problems = []
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="numpy"))
            except SafetensorError as error:
                size = f"{path.stat().st_size:,} bytes"
                problems.append(
                    f"{path.name} ({size}) is truncated or not safetensors ({error}); copy or fetch it again"
                )
                continue
            for key in file.keys():  # noqa: SIM118 (not a dict)
                part, name = file.get_slice(key), canonical(key)
                if name in stored:
                    problems.append(f"{key} is there twice, also as {stored[name].key}; remove one")
                stored[name] = Stored(file, key, tuple(part.get_shape()), part.get_dtype())
        refuse(folder, problems)
        yield stored


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
    files = [folder / name for name in sorted(set(index.values()))]
    refuse(folder, [f"{INDEX} names {path.name}, which is missing; copy it" for path in files if not path.is_file()])
    return files
