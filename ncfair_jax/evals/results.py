"""What an evaluation hands back, and how it is written to and read from a folder.

NAME.json holds the figures, NAME.csv one line per example with unrounded scores, and where figures depend on more than the
scores NAME_examples.csv the examples' properties, line by line with NAME.csv.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncfair_jax.data.files import DataError, RowError, comma_separated, table_rows
from ncfair_jax.data.notes import Note, as_json, total_counts
from ncfair_jax.run_log import write_json, write_text

Table = dict[str, list[Any]]  # column name -> one value per example


class Result(NamedTuple):
    """A benchmark's outcome for one model.

    Attributes:
        metrics: nested names to numbers; None where undefined.
        intervals: the same shape, [low, high] of 95% or None.
        n: examples in the table.
        counts: how many were skipped, tied, unknown to the vocabulary, ….
        settings: the choices that the figures depend on.
        scores: the columns of NAME.csv.
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
    """A CSV with a header, in a folder that is made if need be; floats with all their digits, NaN as an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow([_cell(value) for value in row])
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else repr(float(value))
    return value


def read_table(path: Path, types: Mapping[str, type]) -> Table:
    """Reads a table back: columns typed float (empty = NaN), int or str.

    Raises:
        DataError: if a column is missing, a row is malformed, or a cell is not of its type.
    """
    rows = []
    for _, row in table_rows(comma_separated(path), path, tuple(types)):
        if isinstance(row, RowError):  # tables of one result belong together line by line: none can be left out
            raise row
        rows.append(row)
    try:
        return {name: [_value(row[name], kind) for row in rows] for name, kind in types.items()}
    except ValueError as error:
        raise DataError(f"{path}: {error}; was it written by this package?") from error


def _value(text: str, kind: type) -> Any:
    return float("nan") if kind is float and text == "" else kind(text)
