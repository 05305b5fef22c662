"""Rows of labelled data, wherever they are: JSONL, CSV, TSV or parquet files, a folder of them, or the Hugging Face Hub."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ncfair_jax.data.files import CorpusError, stream_csv, stream_lines
from ncfair_jax.strings import several_strings

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]  # where a row is, for messages, and its cells by column
PICKLES = (".pkl", ".pickle", ".pt", ".bin")


def read_rows(source: str | Path, header: Sequence[str] = ()) -> Rows:
    """Rows of one file, in order.

    Args:
        header: column names of a TSV file that has none.
    Raises:
        CorpusError: missing, of an unknown or unsafe kind, or broken; with the line where it can.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise CorpusError(
            f"{path} is a pickle, which runs code when it is loaded and is never read here; convert it where you trust it: "
            f"`import json, pickle; open('{path.with_suffix('.jsonl').name}', 'w').writelines(json.dumps(row, default=str) + "
            f"'\\n' for row in pickle.load(open('{path.name}', 'rb')))`"
        )
    if suffix not in READERS:
        raise CorpusError(f"{path}: unknown kind of file; give {', '.join(READERS)}")
    if suffix == ".tsv":
        return tsv_rows(source, header)
    return READERS[suffix](source)


def split_rows(source: str, splits: Sequence[str], origin: str) -> Rows:
    """Rows of one part of a data set.

    Args:
        source: a folder that has the part as SPLIT.jsonl (.csv, .tsv, .parquet, SPLIT-*.parquet), or a Hub name.
        splits: names of the part; the first found counts. On the Hub the first.
        origin: where such data come from, for the error.
    Raises:
        CorpusError: if it is not there, saying what was looked for.
        TypeError: `splits` is a single string.
    """
    splits = several_strings("splits", splits)
    folder = Path(source).expanduser()
    if not folder.exists():
        return hub_rows(source, "", splits[0])
    found = local_file(folder, splits)
    if found is None:
        endings = ", ".join(READERS)
        raise CorpusError(
            f"{folder} has no {' or '.join(splits)} with one of the endings {endings}; add it, from {origin}"
        )
    return read_rows(found)


def local_file(folder: Path, splits: Sequence[str]) -> Path | None:
    """The file of a part in a folder, None if there is none."""
    for split in splits:
        for pattern in (*(f"{split}{suffix}" for suffix in (*READERS, *PICKLES)), f"{split}-*.parquet"):
            if found := sorted(folder.glob(pattern)):
                return found[0]
    return None


def cell(row: Row, names: Sequence[str], where: str) -> Any:
    """The cell of the first of these columns that a row has.

    Raises:
        CorpusError: if it has none of them.
    """
    for name in names:
        if name in row:
            return row[name]
    raise CorpusError(f"{where}: no column {' or '.join(map(repr, names))}; choose from {sorted(row)}")


def text_cell(row: Row, names: Sequence[str], where: str) -> str:
    """As `cell`, for text, white space at its ends cut off.

    Raises:
        CorpusError: if it is no text.
    """
    text = cell(row, names, where)
    if not isinstance(text, str):
        raise CorpusError(f"{where}: column {names[0]!r} holds {text!r}; expected text")
    return text.strip()


def jsonl_rows(path: str | Path) -> Rows:
    """One JSON object a line; blank lines are left out."""
    for number, line in enumerate(stream_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where}: not JSON ({error.msg}); expected one object a line") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{where}: holds a {type(row).__name__}; expected one object a line")
        yield where, row


def csv_rows(path: str | Path) -> Rows:
    """Comma-separated records below a header."""
    header: list[str] = []
    for line, cells in stream_csv(path):
        if header:
            yield f"{path}:{line}", dict(zip(header, cells, strict=True))
        else:
            header = cells


def tsv_rows(path: str | Path, header: Sequence[str] = ()) -> Rows:
    """Tab-separated lines in which quotes mean nothing; cells beyond the header's are left out."""
    names = list(header)
    for number, line in enumerate(stream_lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t")
        if not names:
            names = cells
        elif len(cells) < len(names):
            raise CorpusError(f"{path}:{number}: {len(cells)} cells, expected {len(names)}; is the file complete?")
        else:
            yield f"{path}:{number}", dict(zip(names, cells, strict=False))


def parquet_rows(path: str | Path) -> Rows:
    """Rows of a parquet file."""
    import pyarrow  # `datasets` brings it; other files need not wait for it
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise CorpusError(f"{path}: {str(error).splitlines()[0]}; get the file again") from None
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            yield f"{path}, row {number}", row
            number += 1


def hub_rows(source: str, subset: str = "", split: str = "train") -> Rows:
    """Rows of what `datasets` loads; class numbers become their names."""
    from ncfair_jax.data.hub import load_rows  # loading `datasets` takes a second that files need not wait

    rows = load_rows(source, subset, split)
    names = {name: feature.names for name, feature in rows.features.items() if hasattr(feature, "names")}
    for number, row in enumerate(rows):
        for name, of_number in names.items():
            if row[name] is not None and row[name] >= 0:
                row = row | {name: of_number[row[name]]}
        yield f"data set {source!r}, row {number}", row


READERS = {".jsonl": jsonl_rows, ".csv": csv_rows, ".tsv": tsv_rows, ".parquet": parquet_rows}
