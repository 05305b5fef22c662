"""Rows of labelled data, wherever they are: JSONL, CSV, TSV or parquet files, a folder of them, or the Hugging Face Hub."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.copies import local_file
from ncfair_jax.files.reading import DataError, Place, Records, RowError, json_lines
from ncfair_jax.files.tables import comma_separated, tab_separated, table_rows
from ncfair_jax.strings import several_strings

Row = Mapping[str, Any]
Rows = Records[Row]
PICKLES = (".pkl", ".pickle", ".pt", ".bin")
KINDS = (".jsonl", ".csv", ".tsv", ".parquet")
# Files of SNLI as GLUE distributed them: the header of train.tsv names one annotator's label, rows that five annotators
# labelled have all five (nyu-mll/jiant issue 1073).
_SNLI = (
    "index", "captionID", "pairID", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse",
    "sentence1", "sentence2", "label1",
)  # fmt: skip
WIDER: dict[tuple[str, ...], tuple[str, ...]] = {
    (*_SNLI, "gold_label"): (*_SNLI, "label2", "label3", "label4", "label5", "gold_label")
}


def read_rows(source: str | Path, columns: Sequence[str] = (), header: Sequence[str] = ()) -> Rows:
    """Rows of one file, in order, with where they are; a malformed row as its error (see `files.accepted`).

    Args:
        columns: names that the header of a CSV or TSV file must have.
        header: column names of a TSV file that has none.
    Raises:
        DataError: missing, of an unknown or unsafe kind, or broken; with the line where it can.
    """
    path = path_of(source)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise DataError(
            f"{path} is a pickle, which runs code when it is loaded and is never read here; convert it where you trust it: "
            f"`import json, pickle; open('{path.with_suffix('.jsonl').name}', 'w').writelines(json.dumps(row, default=str) + "
            f"'\\n' for row in pickle.load(open('{path.name}', 'rb')))`"
        )
    if suffix == ".csv":
        return table_rows(comma_separated(path), path, columns)
    if suffix == ".tsv":
        return table_rows(tab_separated(path), path, columns, header, WIDER)
    if suffix == ".jsonl":
        return json_lines(path)
    if suffix == ".parquet":
        return parquet_rows(path)
    raise DataError(f"{path}: unknown kind of file; give {', '.join(KINDS)}")


def split_rows(source: str, splits: Sequence[str], origin: str) -> Rows:
    """Rows of one part of a data set.

    Args:
        source: a folder that has the part as SPLIT.jsonl (.csv, .tsv, .parquet, SPLIT-*.parquet), or a Hub name.
        splits: names of the part; the first found counts. On the Hub the first.
        origin: where such data come from, for the error.
    Raises:
        DataError: if it is not there, saying what was looked for.
        TypeError: `splits` is a single string.
    """
    splits = several_strings("splits", splits)
    folder = path_of(source).expanduser()
    if not folder.exists():
        return hub_rows(source, "", splits[0])
    found = local_files(folder, splits)
    if not found:
        raise DataError(
            f"{folder} has no {' or '.join(splits)} with one of the endings {', '.join(KINDS)}; add it, from {origin}"
        )
    return chain.from_iterable(map(read_rows, found))


def split_files(source: str, splits: Sequence[str]) -> list[Path]:
    """The files that `split_rows` reads; none where the source is a Hub name or lacks the part."""
    return local_files(path_of(source).expanduser(), splits)


def local_files(folder: Path, splits: Sequence[str]) -> list[Path]:
    """The file of a part in a folder, or all its numbered parquet files; [] if there is none."""
    for split in splits:
        for pattern in (*(f"{split}{suffix}" for suffix in (*KINDS, *PICKLES)), f"{split}-*.parquet"):
            if found := sorted(folder.glob(pattern)):
                return found
    return []


def cell(row: Row, names: Sequence[str], place: Place) -> Any:
    """The cell of the first of these columns that a row has; null is missing.

    Raises:
        RowError: if it has none of them.
    """
    return row[_column(row, names, place)]


def text_cell(row: Row, names: Sequence[str], place: Place) -> str:
    """As `cell`, for text.

    Raises:
        RowError: if it is no text.
    """
    name = _column(row, names, place)
    text = row[name]
    if not isinstance(text, str):
        raise RowError(place, f"column {name!r} holds {text!r}; expected text")
    return text


def _column(row: Row, names: Sequence[str], place: Place) -> str:
    there = [name for name in names if name in row]
    for name in there:
        if row[name] is not None:
            return name
    if there:
        raise RowError(place, f"column {there[0]!r} is null; expected a value")
    raise RowError(place, f"no column {' or '.join(map(repr, names))}; choose from {sorted(row)}")


def parquet_rows(path: str | Path) -> Rows:
    """Rows of a parquet file."""
    import pyarrow  # `datasets` brings it; other files need not wait for it
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(local_file(path_of(path)))
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}; get the file again") from None
    names = file.schema_arrow.names
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{path}: column {twice[0]!r} is there twice; give every column a name of its own")
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield Place(str(path), number, f"{path}, row {number}"), row


def hub_rows(source: str, subset: str = "", split: str = "train") -> Rows:
    """Rows of what `datasets` loads; class numbers become their names."""
    from ncfair_jax.files.hub import load_rows  # loading `datasets` takes a second that files need not wait

    rows = load_rows(source, subset, split)
    names = {name: feature.names for name, feature in rows.features.items() if hasattr(feature, "names")}
    for number, row in enumerate(rows, start=1):
        for name, of_number in names.items():
            if row[name] is not None and row[name] >= 0:
                row = row | {name: of_number[row[name]]}
        yield Place(source, number, f"data set {source!r}, row {number}"), row
