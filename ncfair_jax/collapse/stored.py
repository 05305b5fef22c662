"""Class moments on disk: one file for each group of a survey, written whole or not at all."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload
from zipfile import BadZipFile, ZipFile

import jax
import numpy as np

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.config import differences
from ncfair_jax.data.runs import parts
from ncfair_jax.files.atomic import write_json, written
from ncfair_jax.files.records import SURVEY, read_record
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.models.base import ModelConfig, Params
from ncfair_jax.run_log import say

IDENTITY_FILE = "survey.json"


class SurveyError(ValueError):
    """A folder of another survey, or a damaged file; the message says which and what to do."""


class StoredGroups(Sequence[ClassStats]):
    """The groups of a survey for one kind of features, read when they are asked for: one at a time in memory."""

    def __init__(self, folder: Path, groups: int, features: str, slots: np.ndarray | None = None):
        """Of all classes of the survey, or of those of some slots, i64[C], in that order."""
        self.folder, self.groups, self.features, self.slots = folder, groups, features, slots

    def __len__(self) -> int:
        return self.groups

    @overload
    def __getitem__(self, index: int) -> ClassStats: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClassStats]: ...
    def __getitem__(self, index: int | slice) -> ClassStats | list[ClassStats]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.groups))]
        if not -self.groups <= index < self.groups:
            raise IndexError(index)
        path = group_file(self.folder, index % self.groups)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = [stored[f"{self.features}/{name}"] for name in ClassStats._fields]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise SurveyError(f"{path} cannot be read ({error}); delete it and measure again") from error
        return ClassStats(*(arrays if self.slots is None else [array[self.slots] for array in arrays]))

    def select(self, slots: np.ndarray) -> "StoredGroups":
        """The groups of some of the classes."""
        return StoredGroups(self.folder, self.groups, self.features, slots)

    @staticmethod
    def write(folder: Path, number: int, stats: dict[str, ClassStats]) -> None:
        """Stores one group, in process 0."""
        path = group_file(folder, number)
        if jax.process_index() == 0:
            arrays = {f"{name}/{field}": leaf for name, x in stats.items() for field, leaf in x._asdict().items()}
            with written(path) as half, half.open("wb") as file:
                np.savez(file, **arrays)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(str(path))

    @staticmethod
    def complete(folder: Path, groups: int) -> int:
        """How many groups from the first on are done; all processes agree on what process 0 sees. A damaged one is not."""
        done = next((number for number in range(groups) if not is_whole(group_file(folder, number))), groups)
        if jax.process_count() == 1:
            return done
        from jax.experimental import multihost_utils

        return int(multihost_utils.broadcast_one_to_all(np.int32(done)))


def is_whole(path: Path) -> bool:
    """Whether a file of arrays is there and every check sum in it is right; it is said if one is not."""
    if not path.exists():
        return False
    try:
        with path.open("rb") as file, ZipFile(file) as arrays:
            fault = arrays.testzip()
    except (OSError, EOFError, BadZipFile, NotImplementedError) as error:
        fault = str(error)
    if fault:
        say(f"{path} is damaged ({fault}); it is measured again")
    return not fault


def group_file(folder: Path, number: int) -> Path:
    """Where a group is kept."""
    return folder / f"group-{number:03d}.npz"


def save_stats(
    path: Path, stats: ClassStats, classes: FairnessClasses, classifier: np.ndarray, bias: np.ndarray
) -> None:
    """Moments, words, output embeddings [K, D] and biases [K] of a model: all that its figures are made of. Atomic."""
    with written(path) as half, half.open("wb") as file:
        np.savez(
            file,
            **stats._asdict(),
            words=np.array(classes.words),
            token_ids=classes.token_ids,
            classifier=classifier,
            bias=bias,
        )


class StoredStats(NamedTuple):
    """What `save_stats` wrote."""

    stats: ClassStats
    words: list[str]
    token_ids: np.ndarray
    classifier: np.ndarray
    bias: np.ndarray


def load_stats(path: Path) -> StoredStats:
    """Reads what `save_stats` wrote.

    Raises:
        SurveyError: for a file that cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            stats = ClassStats(*(stored[name] for name in ClassStats._fields))
            words = stored["words"].tolist()
            return StoredStats(stats, words, stored["token_ids"], stored["classifier"], stored["bias"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise SurveyError(f"{path} cannot be read ({error}); measure again") from error


def refuse_other_survey(
    folder: Path,
    config: ModelConfig,
    params: Params,
    examples: Sequence[np.ndarray],
    classes: FairnessClasses,
    choices: dict[str, Any],
) -> None:
    """A folder belongs to one survey: of one model, text, list of words and set of choices.

    Raises:
        SurveyError: naming what differs.
        DataError: if the file that says so is damaged.
    """
    identity = {
        "weights": _digest([config.activation_dtype.encode(), *map(_contents, jax.tree.leaves(params))]),
        "text": _digest(np.asarray(example, "<i4").tobytes() + b"." for part in parts(examples) for example in part),
        "words": classes.fingerprint,
        **choices,
    }
    path = folder / IDENTITY_FILE
    if path.exists():
        theirs = read_record(path, SURVEY, f"delete the folder {folder} and measure again")
        if lines := differences(identity, theirs, "survey"):
            raise SurveyError(f"{folder} holds another survey: {'; '.join(lines)}. Use another folder, or delete it")
    elif jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)


def _contents(leaf: Any) -> bytes:
    return np.ascontiguousarray(np.asarray(leaf)).tobytes()


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:16]
