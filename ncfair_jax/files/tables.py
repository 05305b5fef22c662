"""Rows of comma- and tab-separated files, by the names in their header."""

import csv
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ncfair_jax.files.reading import DataError, Place, Records, RowError, stream_lines


def comma_separated(path: str | Path) -> Records[list[str]]:
    """Cells of the records of a comma-separated file, those of the header first, blank lines left out.

    A quote that is opened and never closed would swallow the rows behind it. So only the first line of a record that is not
    well-formed, or has another number of cells than the header, counts as malformed, and reading goes on with the next line.

    Raises:
        DataError: as `stream_lines`.
    """
    lines = stream_lines(path)
    again: deque[str] = deque()  # lines that a malformed record had taken
    taken: list[str] = []

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            taken.append(line)
            yield line

    columns, number = 0, 1
    while True:
        taken.clear()
        place, fault = Place(str(path), number), ""
        cells: list[str] | None = []
        try:
            cells = next(csv.reader(feed(), strict=True), None)
        except csv.Error as error:
            fault = f"no comma-separated record ({error}); close every quote, and double those inside a quoted cell"
            if "end of data" in str(error):
                fault = "a quote is opened and never closed; is the file cut off?"
        if cells is None:
            return
        if len(taken) > 1 and columns and not fault and len(cells) != columns:
            fault = f"{len(cells)} cells on {len(taken)} lines, but the header has {columns}; is a quote never closed?"
        if fault:
            again.extendleft(reversed(taken[1:]))
            yield place, RowError(place, fault)
            number += 1
            continue
        if cells:  # blank lines have none
            columns = columns or len(cells)
            yield place, cells
        number += len(taken)


def tab_separated(path: str | Path) -> Records[list[str]]:
    """Cells of the lines of a tab-separated file, in which quotes mean nothing, blank lines left out.

    Raises:
        DataError: as `stream_lines`.
    """
    for number, line in enumerate(stream_lines(path), start=1):
        if text := line.rstrip("\r\n"):
            yield Place(str(path), number), text.split("\t")


def table_rows(
    records: Records[list[str]],
    path: str | Path,
    columns: Sequence[str] = (),
    header: Sequence[str] = (),
    wider: Mapping[tuple[str, ...], tuple[str, ...]] = MappingProxyType({}),
) -> Records[dict[str, str]]:
    """Cells by their columns' names.

    Args:
        columns: names that must be there.
        header: names of the columns of a file without a header.
        wider: by the header of a known layout, the names of the cells in its rows that have more cells than the header.
    Raises:
        DataError: no header, a name that is missing or there twice, or no rows.
    """
    names = list(header)
    if not names:
        record = next(records, None)
        if record is None:
            raise DataError(f"{path}: the file is empty")
        if isinstance(record[1], RowError):
            raise record[1]
        names = record[1]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    if twice:
        raise DataError(
            f"{path}: the header names {', '.join(map(repr, twice))} more than once; give every column a name of its own"
        )
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"{path}: no column {', '.join(map(repr, missing))}; the header has {names}")
    layouts = {len(names): tuple(names)}
    if known := wider.get(tuple(names)):
        layouts[len(known)] = known
    empty = True
    for place, row in records:
        empty = False
        if isinstance(row, RowError):
            yield place, row
        elif len(row) in layouts:
            yield place, dict(zip(layouts[len(row)], row, strict=True))
        else:
            yield place, wrong_number_of_cells(place, len(row), len(names))
    if empty:
        raise DataError(f"{path}: the file has a header and no rows; get it again")


def wrong_number_of_cells(place: Place, cells: int, columns: int) -> RowError:
    """The error of a row that has not as many cells as the header."""
    hint = "does a text hold the character that separates cells?" if cells > columns else "is the row cut off?"
    return RowError(place, f"{cells} cell{'s' * (cells != 1)}, but the header has {columns}; {hint}")
