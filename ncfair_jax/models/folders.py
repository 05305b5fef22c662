"""Where model folders are and what they hold: local folders, the Hub and its cache, the names of their files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants as hub_constants
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ncfair_jax.files import reading as files
from ncfair_jax.files.bucket import BucketPath, path_of
from ncfair_jax.files.copies import local_folder
from ncfair_jax.files.digests import DIGESTS_FILE
from ncfair_jax.files.reading import DataError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREFIX_FILE, HEAD_FILE = "prefix.safetensors", "head.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
HUB_FILES = (
    CONFIG, "model*.safetensors", INDEX, PREFIX_FILE, HEAD_FILE, "tokenizer.json", TOKENIZER_CONFIG,
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
)  # fmt: skip


_MOST_LISTED = 50  # problems of one folder
_LONGEST = 1000  # characters of a problem: names in a hostile file may be of any length


class ModelFolderError(ValueError):
    """A model folder or name that cannot be loaded or written; the message says what is wrong and what to do."""


def refuse(folder: Path, problems: Sequence[str]) -> None:
    """Raises a ModelFolderError that lists all problems of a folder, a line each; does nothing if there is none."""
    if len(problems) == 1:
        raise ModelFolderError(f"{folder}: {one_line(problems[0])}")
    if problems:
        lines = [f"  - {one_line(problem)}" for problem in problems[:_MOST_LISTED]]
        lines += [f"  - and {len(problems) - _MOST_LISTED:,} more"] if len(problems) > _MOST_LISTED else []
        raise ModelFolderError("\n".join([f"{folder}: {len(problems):,} problems", *lines]))


def one_line(text: str) -> str:
    """Text for a message: no line ends and control characters, which names in a file may hold, and not too long."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: _LONGEST + 1])
    return shown if len(text) <= _LONGEST else f"{shown[:_LONGEST]}…"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelFolderError: if it is something else, or names a key twice.
    """
    try:
        content = files.read_json(path)
    except DataError as error:
        raise ModelFolderError(str(error)) from None
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds a {type(content).__name__}, expected an object; copy the file again")
    return content


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that decide what is loaded: weights, config.json and the tokenizer's, sorted by name."""
    return sorted({path for pattern in HUB_FILES for path in folder.glob(pattern)})


def on_disk(folder: Path) -> Path:
    """The folder itself, or of one on a bucket a copy of what is loaded, with the digests of who wrote it."""
    if not isinstance(folder, BucketPath):
        return folder
    digests = folder / DIGESTS_FILE
    return local_folder(folder, [*model_files(folder), *([digests] if digests.is_file() else [])])


def find_folder(name_or_folder: str | Path, offline: bool = False) -> Path:
    """The folder of a model on disk: itself, a copy of one on a bucket, or that of a Hub name, fetched if need be.

    Raises:
        ModelFolderError: if there is none.
    """
    name = str(name_or_folder)
    try:
        folder = path_of(name_or_folder).expanduser()
    except RuntimeError:
        raise ModelFolderError(f"{name} names the home folder of a user who is not here; correct the path") from None
    if folder.is_dir():
        return on_disk(folder)
    if folder.exists():
        raise ModelFolderError(f"{name} is a file; give the folder that holds it")
    if isinstance(folder, BucketPath):
        raise ModelFolderError(f"{name}: the bucket has nothing there; correct the path")
    parts = Path(name).parts
    looks_local = (
        isinstance(name_or_folder, Path) or len(parts) > 2 or name.startswith((".", "/", "~")) or "\\" in name
        or (len(parts) == 2 and Path(parts[0]).is_dir())
    )  # fmt: skip
    if looks_local:
        raise ModelFolderError(f"{name} looks like a local folder, but there is none; correct the path")
    offline = (
        offline
        or hub_constants.HF_HUB_OFFLINE
        or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    )
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), local_files_only=offline))
    except HFValidationError as error:
        raise ModelFolderError(f"{name!r} is neither a folder here nor a possible Hub name ({error})") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        wanted = f"{', '.join(HUB_FILES)} of https://huggingface.co/{name}"
        if offline:
            raise ModelFolderError(
                f"{name} is neither a folder here nor in the Hub cache {hub_constants.HF_HUB_CACHE}, "
                f"and offline mode forbids fetching "
                f"{wanted}; go online, or fetch these files elsewhere and give their folder"
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFolderError(
            f"{name} is not a folder here, and fetching {wanted} failed ({reason}); check the name and the network"
        ) from error
