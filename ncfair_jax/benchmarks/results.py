"""What an evaluation hands back, and how it is written to and read from a folder.

NAME.json holds the figures, NAME.csv one line per example with unrounded scores, and where figures depend on more than the
scores NAME_examples.csv the examples' properties, line by line with NAME.csv. People open them in spreadsheets, which run a
cell that begins like a formula: `plain_cell` and `text_of_cell` keep texts what they are.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncfair_jax.files.atomic import write_json, write_text
from ncfair_jax.files.digests import refuse_damaged
from ncfair_jax.files.notes import Note, as_json, total_counts
from ncfair_jax.files.reading import DataError, RowError
from ncfair_jax.files.tables import comma_separated, table_rows
from ncfair_jax.finite import require_finite

Table = dict[str, list[Any]]  # column name -> one value per example
# What spreadsheets take for the beginning of a formula, wide forms too; a tab and line ends may be dropped before it.
_FORMULA = re.compile("'*[=+@\\-＝＋－＠\\t\\r\\n]")


class Score(float):
    """Type of a column of scores that some examples do not have: an empty cell in a file, None in a table."""


class Result(NamedTuple):
    """A benchmark's outcome for one model.

    Attributes:
        metrics: nested names to numbers; None where undefined.
        intervals: the same shape, [low, high] of 95% or None.
        n: examples in the table.
        counts: how many were skipped, tied, unknown to the vocabulary, ….
        settings: the choices that the figures depend on.
        scores: the columns of NAME.csv; None where an example was not scored, never a number that is not finite.
        examples: the columns of NAME_examples.csv; {} if there is none.
        left_out: malformed rows of the files and tokens that were cut off.
    """

    metrics: dict[str, Any]
    intervals: dict[str, Any]
    n: int
    counts: dict[str, int]
    settings: dict[str, Any]
    scores: Table
    examples: Table
    left_out: tuple[Note, ...] = ()


def write_result(
    out_dir: Path, name: str, model: str, result: Result, notes: Mapping[str, Any], *, write: bool = True
) -> dict[str, Any]:
    """Writes NAME.csv, NAME_examples.csv and, last, NAME.json, each whole or not at all.

    Args:
        notes: licence and content_warning of the data, and the report of its quality.
        write: False in all but one of several processes: only return the document.
    Returns:
        The content of NAME.json.
    """
    document = {
        "benchmark": name,
        "model": model,
        "n": result.n,
        "metrics": result.metrics,
        "intervals": result.intervals,
        "counts": result.counts | total_counts(result.left_out),
        "settings": result.settings,
        **({"left_out": as_json(result.left_out)} if result.left_out else {}),
        **notes,
    }
    if not write:
        return document
    write_table(out_dir / f"{name}.csv", result.scores)
    if result.examples:
        write_table(out_dir / f"{name}_examples.csv", result.examples)
    write_json(out_dir / f"{name}.json", document)
    return document


def write_table(path: Path, table: Table) -> None:
    """A CSV with a header, in a folder that is made if need be; floats with all their digits, None as an empty cell, texts as
    `plain_cell` has them.

    Raises:
        NonFiniteError: for a number that is not finite, naming its row and column.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [_line(table)]
    for number, row in enumerate(zip(*table.values(), strict=True), start=2):
        cells = [_cell(value, f"{path.name}: {name} of row {number}") for name, value in zip(table, row, strict=True)]
        lines.append(_line(cells))
    write_text(path, "".join(lines))


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # quotes cells that hold one of its line end's characters
    return text.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any, name: str) -> Any:
    if isinstance(value, float | np.floating):
        require_finite(np.array([value]), lambda _: name)
        return repr(float(value))
    return plain_cell(value) if isinstance(value, str) else "" if value is None else value


def plain_cell(text: str) -> str:
    """The text for a cell, with an apostrophe in front if a spreadsheet would run it as a formula.

    A text that has apostrophes before such a beginning gets one more, so that `text_of_cell` gives every text back exactly.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_cell(cell: str) -> str:
    """The text that `plain_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def read_table(path: Path, types: Mapping[str, type]) -> Table:
    """Reads a table back: columns typed float, Score (empty: None), int or str.

    Raises:
        DataError: if the file is not what was written, a column is missing, a row is malformed, or a cell is not of its type,
            or not a finite number.
    """
    refuse_damaged(path, "delete it and evaluate the model again")
    rows = []
    for _, row in table_rows(comma_separated(path), path, tuple(types)):
        if isinstance(row, RowError):  # tables of one result belong together line by line: none can be left out
            raise row
        rows.append(row)
    try:
        return {name: [_value(row[name], kind) for row in rows] for name, kind in types.items()}
    except ValueError as error:
        raise DataError(f"{path}: {error}; was it written by this package?") from error


def _value(text: str, kind: Any) -> Any:
    if kind is str:
        return text_of_cell(text)
    if not issubclass(kind, float):
        return kind(text)
    if kind is Score and text == "":
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def scored(*columns: Sequence[float | None]) -> np.ndarray:
    """Rows that have a value in all these columns of scores, bool[E]."""
    return np.array([None not in values for values in zip(*columns, strict=True)], bool)


def numbers(column: Sequence[float | None]) -> np.ndarray:
    """A column of scores as f64[E], 0 where there is none: read it where `scored` says so only."""
    return np.array([0.0 if value is None else value for value in column], np.float64)
