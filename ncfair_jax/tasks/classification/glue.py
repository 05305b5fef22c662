"""The nine tasks of GLUE (Wang et al. 2019), from the Hub or from files as gluebenchmark.com has them.

Models are judged on the validation part, whose labels are public; development examples are set aside from training.
"""

import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.fingerprint import kept_while_unchanged
from ncfair_jax.files.reading import DataError, Place, RowError, accepted, stream_lines
from ncfair_jax.files.rows import Row, Rows, cell, hub_rows, local_files, read_rows, text_cell
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.tasks.classification.labelled import Labelled, Task

HUB = "nyu-mll/glue"
MATCHED, MISMATCHED = "matched", "mismatched"  # genres of MNLI's validation: those of training, and others


class GlueTask(NamedTuple):
    """A task, by its columns and labels in GLUE's own files and in those of the Hub.

    Attributes:
        folder: its folder in GLUE's own files.
        texts: for each text, names of its column.
        labels: names of each class, in order; () for a value.
        label_column: names of the column.
        header: columns of a TSV file that has none.
    """

    folder: str
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[str, ...], ...]
    label_column: tuple[str, ...] = ("label",)
    header: tuple[str, ...] = ()


_PAIR = (("sentence1", "#1 String"), ("sentence2", "#2 String"))
_ENTAILS = (("entailment", "0"), ("not_entailment", "1"))
SOURCES = {
    "cola": GlueTask(
        "CoLA",
        (("sentence",),),
        (("unacceptable", "0"), ("acceptable", "1")),
        header=("source", "label", "star", "sentence"),
    ),
    "sst2": GlueTask("SST-2", (("sentence",),), (("negative", "0"), ("positive", "1"))),
    "mrpc": GlueTask("MRPC", _PAIR, (("not_equivalent", "0"), ("equivalent", "1")), ("label", "Quality")),
    "stsb": GlueTask("STS-B", _PAIR, (), ("label", "score")),
    "qqp": GlueTask(
        "QQP", (("question1",), ("question2",)), (("not_duplicate", "0"), ("duplicate", "1")), ("label", "is_duplicate")
    ),
    "mnli": GlueTask(
        "MNLI",
        (("premise", "sentence1"), ("hypothesis", "sentence2")),
        (("entailment", "0"), ("neutral", "1"), ("contradiction", "2")),
        ("gold_label", "label"),
    ),
    "qnli": GlueTask("QNLI", (("question",), ("sentence",)), _ENTAILS),
    "rte": GlueTask("RTE", _PAIR, _ENTAILS),
    "wnli": GlueTask("WNLI", _PAIR, (("not_entailment", "0"), ("entailment", "1"))),
}


def glue_task(name: str) -> Task:
    """A task by its name in SOURCES."""

    def read(config: ClassificationRun, part: str) -> list[Labelled]:
        path = config.data.path or HUB
        return [
            example._replace(group=group)
            for group, splits in _parts(name, part).items()
            for example in read_glue(name, path, splits)
        ]

    def files(config: ClassificationRun, part: str) -> list[Path]:
        folder = path_of(config.data.path or HUB).expanduser()
        return [path for splits in _parts(name, part).values() for path in _local_files(name, folder, splits)]

    def describe(path: str) -> str:
        return f"{SOURCES[name].folder} of GLUE ({path or HUB})"

    return Task(max(1, len(SOURCES[name].labels)), read, files, describe)


def _parts(name: str, part: str) -> dict[str, tuple[str, ...]]:
    """By group of examples, the names of the split that a part of a task is read from."""
    if part == "dev":
        return {}
    if part == "train":
        return {"": ("train",)}
    if name != "mnli":
        return {"": ("validation", "dev")}
    return {group: (f"validation_{group}", f"dev_{group}") for group in (MATCHED, MISMATCHED)}


@kept_while_unchanged(source=1)
def read_glue(name: str, path: str, splits: tuple[str, ...]) -> list[Labelled]:
    """Examples of one part of a task.

    Args:
        path: Hub name of GLUE, or a folder: of the task, or of folders named as in SOURCES or by the task.
    Raises:
        DataError: missing, no example, or more than 1 % malformed rows: a column missing, or an unknown label.
    """
    source = SOURCES[name]
    found = list(accepted(_rows(name, path, splits), lambda place, row: _example(source, row, place)))
    if not found:
        raise DataError(f"{path} has no examples of {name}; get GLUE again")
    return found


def _rows(name: str, path: str, splits: tuple[str, ...]) -> Rows:
    source, folder = SOURCES[name], path_of(path).expanduser()
    if not folder.exists():
        return hub_rows(path, name, splits[0])
    if found := _local_files(name, folder, splits):
        return chain.from_iterable(read_rows(file, header=_header_of(file, source)) for file in found)
    raise DataError(
        f"{folder} has no {' or '.join(splits)} file of {name}, nor has {source.folder} below it; get {source.folder}.zip from "
        f"gluebenchmark.com/tasks, or leave config.data.path empty to take {HUB} from the Hugging Face Hub"
    )


def _local_files(name: str, folder: Path, splits: Sequence[str]) -> list[Path]:
    folders = (folder / SOURCES[name].folder, folder / name, folder)
    return next((found for one in folders if (found := local_files(one, splits))), [])


def _header_of(file: Path, source: GlueTask) -> tuple[str, ...]:
    """The columns of a file without a header; () for a file that has one."""
    if file.suffix != ".tsv" or not source.header or source.header[-1] in next(stream_lines(file), ""):
        return ()
    return source.header


def _example(source: GlueTask, row: Row, place: Place) -> Labelled:
    first, *second = (text_cell(row, names, place).strip() for names in source.texts)
    return Labelled(first, second[0] if second else None, _label(source, cell(row, source.label_column, place), place))


def _label(source: GlueTask, value: Any, place: Place) -> float:
    if not source.labels:
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise RowError(place, f"score {value!r}; expected a number")
        return score
    for number, names in enumerate(source.labels):
        if str(value).strip() in names:
            return number
    known = ", ".join(name for names in source.labels for name in names)
    raise RowError(place, f"label {value!r}; expected one of {known}")


TASKS = {name: glue_task(name) for name in SOURCES}
