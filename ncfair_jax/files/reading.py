"""Reading of files: the one place where they are decoded and cut into lines, and where malformed rows are counted.

Files are UTF-8, with or without a byte-order mark. Lines end with LF or CRLF, or with CR in a file without any LF. One rule
holds for all readers: a fault of the file, of its header or of its keys stops the reading; a malformed row is skipped, counted
and named by its line, and more than 1 % of them stop the reading, too. Blank lines at the end never matter.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ncfair_jax.files import notes
from ncfair_jax.files.bucket import path_of

MOST_SKIPPED = 0.01  # share of a file's rows
_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# Letters and marks that Western European text has beside ASCII; bytes are guessed to be of the encoding that gives most.
_COMMON = frozenset("àáâãäåæçèéêëìíîïñòóôõöøœùúûüÿßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜ‘’“”„–—…«»€£°§¿¡")
_ENCODINGS = {"cp1252": "Windows-1252 or Latin-1", "mac_roman": "Mac OS Roman"}

R = TypeVar("R")
T = TypeVar("T")


class DataError(ValueError):
    """A file that is missing, unreachable or malformed; one line that names the file, the place, the fault and the remedy."""


class Place(NamedTuple):
    """Where a row is, for messages.

    Attributes:
        path: of the file, or the name of the data set.
        row: the line where the row begins; where a file has no lines, its number from 1.
        name: how a message says it where that is not "path:row".
    """

    path: str
    row: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or f"{self.path}:{self.row}"

    @property
    def unit(self) -> str:
        """What `row` counts."""
        return "row" if self.name else "line"


class RowError(DataError):
    """A fault of one row."""

    def __init__(self, place: Place, fault: str):
        self.place, self.fault = place, fault
        super().__init__(f"{place}: {fault}")


# Rows as they are read: a malformed one is handed on as its error, so that reading goes on behind it.
Records = Iterator[tuple[Place, R | RowError]]


def accepted(rows: Iterable[tuple[Place, R | RowError]], parse: Callable[[Place, R], T], limit: int = 0) -> Iterator[T]:
    """The rows of a file, parsed; malformed ones are left out, counted and noted (see `notes`).

    Args:
        parse: makes a value of a row, or raises RowError.
        limit: stop after so many values; 0 = all.
    Raises:
        DataError: after the last row, if more than 1 % are malformed.
    """
    total = found = 0
    lines: list[int] = []
    first: RowError | None = None
    for place, row in rows:
        total += 1
        try:
            if isinstance(row, RowError):
                raise row
            value = parse(place, row)
        except RowError as error:
            first = first or error
            lines.append(error.place.row)
            continue
        yield value
        found += 1
        if found == limit:
            break
    if first is None:
        return
    if len(lines) > MOST_SKIPPED * total:
        several = (
            f" ({len(lines)} of {total} rows are malformed: {notes.listed(lines, first.place.unit)})"
            if len(lines) > 1
            else ""
        )
        raise DataError(f"{first}{several}")
    notes.add(notes.Skipped(first.place.path, total, tuple(lines), first.fault, first.place.unit))


# --- text


def read_lines(path: str | Path) -> list[str]:
    """Lines of a file without their ends and without the blank ones at its end.

    Raises:
        DataError: as `stream_lines`, or the file is empty.
    """
    lines = [line.rstrip("\r\n") for line in stream_lines(path)]
    while lines and not lines[-1].strip():
        del lines[-1]
    if not lines:
        raise DataError(f"{path}: the file is empty")
    return lines


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, without their ends, and their numbers from 1, one at a time.

    Raises:
        DataError: as `stream_lines`, or there are none.
    """
    empty = True
    for number, line in enumerate(stream_lines(path), start=1):
        if line.strip():
            empty = False
            yield number, line.rstrip("\r\n")
    if empty:
        raise DataError(f"{path}: the file is empty")


def stream_lines(path: str | Path) -> Iterator[str]:
    """Lines of a file with their ends, one at a time: for files that would not fit in memory.

    Raises:
        DataError: the file is missing, or not UTF-8 (with the line of the first bad byte and the likely encoding).
    """
    path = path_of(path)
    if not path.is_file():
        raise DataError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give the path of a file that is there"
        )
    with path.open("rb") as file:
        for number, line in enumerate(_raw_lines(file), start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: {_not_utf8(path, line, error.start)}") from None
            if "\0" in text:  # UTF-16 without its mark is valid UTF-8
                raise DataError(f"{path}:{number}: {_not_utf8(path, line, line.index(0))}")
            yield text


def _raw_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    lines = iter(file)
    first = next(lines, b"")
    second = next(lines, None)
    if second is None:  # there is no LF but at the very end: CR ends lines
        yield from first.splitlines(keepends=True)
        return
    yield first
    yield second
    yield from lines


def _not_utf8(path: Path, line: bytes, start: int) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            return f"not text but {kind}-compressed; unpack the file"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        encoding, name = "UTF-16", "UTF-16"
    else:
        encoding = max(_ENCODINGS, key=lambda known: sum(c in _COMMON for c in line.decode(known, "ignore")))
        name, encoding = _ENCODINGS[encoding], {"cp1252": "WINDOWS-1252", "mac_roman": "MACINTOSH"}[encoding]
    return (
        f"not UTF-8 (byte 0x{line[start]:02x}) but probably {name}; convert the file, for example with "
        f"`iconv -f {encoding} -t UTF-8 {path.name} > converted`"
    )


def check_visible(sentence: str, place: Place) -> None:
    """Refuse a sentence of which every tokenizer would leave nothing: only controls, blanks and combining marks.

    Raises:
        RowError: naming the place.
    """
    if not any(unicodedata.category(char)[0] not in "CZM" and char != "\ufffd" for char in sentence):
        raise RowError(place, f"sentence {sentence!r} has no visible character; remove it")


# --- JSON


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: as `stream_lines`, not JSON, or an object with a key that is there twice.
    """
    return parse_json("".join(stream_lines(path)), str(path))


def parse_json(text: str, source: str) -> Any:
    """Content of a JSON text; `source` is how messages name it.

    Raises:
        DataError: not JSON, or an object with a key that is there twice.
    """
    try:
        return _loads(text, source)
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        cut = "; the file is empty or cut off" if ends else ""
        raise DataError(f"{source}:{error.lineno}: not JSON ({error.msg}){cut}") from None


def json_lines(path: str | Path) -> Records[dict[str, Any]]:
    """The objects of a file that has one a line; blank lines are left out.

    Raises:
        DataError: as `stream_lines`, or a key that is there twice in one object.
    """
    for number, line in enumerate(stream_lines(path), start=1):
        if not line.strip():
            continue
        place = Place(str(path), number)
        try:
            row = _loads(line, str(place))
        except json.JSONDecodeError as error:
            yield place, RowError(place, f"not JSON ({error.msg}); expected one object a line")
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            yield place, RowError(place, f"holds a {type(row).__name__}; expected one object a line")


def _loads(text: str, source: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise DataError(f"{source}: the key {twice!r} is there twice in one object; keep one of them")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise DataError(f"{source}: JSON that is nested too deeply to be read; is it the right file?") from None
    except (json.JSONDecodeError, DataError):
        raise
    except ValueError:  # Python reads no number of more than 4300 digits
        raise DataError(f"{source}: JSON with a number of thousands of digits; is it the right file?") from None
