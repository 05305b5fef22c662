"""Reading of corpus files, with errors that name file and line."""

import csv
import unicodedata
from collections.abc import Iterator
from pathlib import Path


class CorpusError(ValueError):
    """A corpus that cannot be read; the message names the file, where it can the line, and the fault."""


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file without their line ends; only line feeds (and carriage returns before them) end a line.

    Raises:
        CorpusError: the file is missing, empty, or not UTF-8 (with the line of the first bad byte).
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; check the path of the corpus")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}:{line}: not UTF-8 (byte 0x{content[error.start]:02x}); convert the file") from None
    if not text.strip():
        raise CorpusError(f"{path}: the file is empty")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def stream_lines(path: str | Path) -> Iterator[str]:
    """Lines of a UTF-8 file with their ends, one at a time: for files that would not fit in memory.

    Raises:
        CorpusError: the file is missing, or not UTF-8 (with the line of the first bad byte).
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; check the path of the corpus")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{path}:{number}: not UTF-8 (byte 0x{line[error.start]:02x}); convert the file"
                ) from None


def stream_csv(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Records of a comma-separated UTF-8 file, its header first: the line on which each begins, and its cells.

    Raises:
        CorpusError: as `stream_lines`; an unclosed quote; or a record that has not as many cells as the header.
    """
    reader = csv.reader(stream_lines(path), strict=True)
    columns = 0
    line = 1
    try:
        for cells in reader:
            columns = columns or len(cells)
            if cells and len(cells) != columns:
                raise CorpusError(f"{path}:{line}: {len(cells)} cells; the header has {columns}, comma separated")
            if cells:  # blank lines have none
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise CorpusError(f"{path}:{line}: no comma-separated record ({error}); check the quotes") from None


def check_visible(sentence: str, path: str | Path, line: int) -> None:
    """Refuse a sentence of which every tokenizer would leave nothing: only controls, blanks and combining marks.

    Raises:
        CorpusError: naming file and line.
    """
    if not any(unicodedata.category(char)[0] not in "CZM" and char != "\ufffd" for char in sentence):
        raise CorpusError(f"{path}:{line}: sentence {sentence!r} has no visible character; remove it")
