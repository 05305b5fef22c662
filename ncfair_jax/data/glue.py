"""The nine tasks of GLUE (Wang et al. 2019), from the Hub or from files as gluebenchmark.com has them.

Models are judged on the validation part, whose labels are public; development examples are set aside from training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.config import RunConfig
from ncfair_jax.data.files import CorpusError, stream_lines
from ncfair_jax.data.labelled import Labelled, Task
from ncfair_jax.data.rows import Rows, cell, hub_rows, local_file, read_rows, text_cell
from ncfair_jax.fingerprint import kept_while_unchanged

HUB = "nyu-mll/glue"
MATCHED, MISMATCHED = "matched", "mismatched"  # genres of MNLI's validation: those of training, and others


class Source(NamedTuple):
    """Where a task's data are.

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
    "cola": Source(
        "CoLA",
        (("sentence",),),
        (("unacceptable", "0"), ("acceptable", "1")),
        header=("source", "label", "star", "sentence"),
    ),
    "sst2": Source("SST-2", (("sentence",),), (("negative", "0"), ("positive", "1"))),
    "mrpc": Source("MRPC", _PAIR, (("not_equivalent", "0"), ("equivalent", "1")), ("label", "Quality")),
    "stsb": Source("STS-B", _PAIR, (), ("label", "score")),
    "qqp": Source(
        "QQP", (("question1",), ("question2",)), (("not_duplicate", "0"), ("duplicate", "1")), ("label", "is_duplicate")
    ),
    "mnli": Source(
        "MNLI",
        (("premise", "sentence1"), ("hypothesis", "sentence2")),
        (("entailment", "0"), ("neutral", "1"), ("contradiction", "2")),
        ("gold_label", "label"),
    ),
    "qnli": Source("QNLI", (("question",), ("sentence",)), _ENTAILS),
    "rte": Source("RTE", _PAIR, _ENTAILS),
    "wnli": Source("WNLI", _PAIR, (("not_entailment", "0"), ("entailment", "1"))),
}


def glue_task(name: str) -> Task:
    """A task by its name in SOURCES."""

    def read(config: RunConfig, part: str) -> list[Labelled]:
        path = config.data.path or HUB
        if part == "dev":
            return []
        if part == "train":
            return read_glue(name, path, ("train",))
        if name != "mnli":
            return read_glue(name, path, ("validation", "dev"))
        return [
            example._replace(group=group)
            for group in (MATCHED, MISMATCHED)
            for example in read_glue(name, path, (f"validation_{group}", f"dev_{group}"))
        ]

    return Task(max(1, len(SOURCES[name].labels)), read)


@kept_while_unchanged(source=1)
def read_glue(name: str, path: str, splits: tuple[str, ...]) -> list[Labelled]:
    """Examples of one part of a task.

    Args:
        path: Hub name of GLUE, or a folder: of the task, or of folders named as in SOURCES or by the task.
    Raises:
        CorpusError: missing, a column missing, an unknown label, or no example.
    """
    source = SOURCES[name]
    found = [_example(source, row, where) for where, row in _rows(name, path, splits)]
    if not found:
        raise CorpusError(f"{path} has no examples of {name}; get GLUE again")
    return found


def _rows(name: str, path: str, splits: tuple[str, ...]) -> Rows:
    source, folder = SOURCES[name], Path(path).expanduser()
    if not folder.exists():
        return hub_rows(path, name, splits[0])
    for place in (folder / source.folder, folder / name, folder):
        found = local_file(place, splits)
        if found is not None:
            has_header = source.header == () or source.header[-1] in next(stream_lines(found), "")
            return read_rows(found, () if has_header else source.header)
    raise CorpusError(
        f"{folder} has no {' or '.join(splits)} file of {name}, nor has {source.folder} below it; get {source.folder}.zip from "
        f"gluebenchmark.com/tasks, or leave config.data.path empty to take {HUB} from the Hugging Face Hub"
    )


def _example(source: Source, row: Mapping[str, Any], where: str) -> Labelled:
    first, *second = (text_cell(row, names, where) for names in source.texts)
    return Labelled(first, second[0] if second else None, _label(source, cell(row, source.label_column, where), where))


def _label(source: Source, value: Any, where: str) -> float:
    if not source.labels:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise CorpusError(f"{where}: score {value!r}; expected a number") from None
    for number, names in enumerate(source.labels):
        if str(value).strip() in names:
            return number
    known = ", ".join(name for names in source.labels for name in names)
    raise CorpusError(f"{where}: label {value!r}; expected one of {known}")
