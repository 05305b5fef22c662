"""SNLI and MNLI: premise, hypothesis, and whether the one entails the other."""

from pathlib import Path

from ncfair_jax.files.fingerprint import kept_while_unchanged
from ncfair_jax.files.reading import DataError, Place, RowError, accepted
from ncfair_jax.files.rows import Row, cell, split_files, split_rows, text_cell
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.tasks.classification.labelled import Labelled

HUB = "stanfordnlp/snli"
LABELS = ("entailment", "neutral", "contradiction")
COLUMNS = (("premise", "sentence1"), ("hypothesis", "sentence2"))
NO_LABEL = ("-", "-1", "")  # the annotators did not agree
SPLITS = {
    "train": ("train", "snli_1.0_train", "multinli_1.0_train"),
    "dev": ("validation", "dev", "snli_1.0_dev", "validation_matched", "dev_matched", "multinli_1.0_dev_matched"),
}


def read_nli(config: ClassificationRun, part: str) -> list[Labelled]:
    """Pairs of the training or development part; those without a label are left out.

    Raises:
        DataError: missing, or more than 1 % malformed rows: a column missing, or an unknown label.
    """
    return nli_pairs(config.data.path or HUB, SPLITS[part])


def nli_files(config: ClassificationRun, part: str) -> list[Path]:
    """The local files that `read_nli` reads."""
    return split_files(config.data.path or HUB, SPLITS[part])


@kept_while_unchanged()
def nli_pairs(source: str, splits: tuple[str, ...]) -> list[Labelled]:
    """Pairs of one part of a data set that has the columns of SNLI or MNLI; the label is its place in LABELS."""
    rows = split_rows(source, splits, "stanfordnlp/snli or nyu-mll/multi_nli on the Hub")
    found = [pair for pair in accepted(rows, _pair) if pair is not None]
    if not found:
        raise DataError(f"{source} holds no labelled pair; get SNLI or MNLI again")
    return found


def _pair(place: Place, row: Row) -> Labelled | None:
    label = str(cell(row, ("gold_label", "label"), place)).strip().lower()
    if label in NO_LABEL:
        return None
    label = LABELS[int(label)] if label in ("0", "1", "2") else label
    if label not in LABELS:
        raise RowError(place, f"label {label!r}; expected one of {', '.join(LABELS)}")
    premise, hypothesis = (text_cell(row, names, place).strip() for names in COLUMNS)
    return Labelled(premise, hypothesis, LABELS.index(label))
