"""Reading of corpus files, with errors that name file and line."""

import unicodedata
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


def check_visible(sentence: str, path: str | Path, line: int) -> None:
    """Refuse a sentence of which every tokenizer would leave nothing: only controls, blanks and combining marks.

    Raises:
        CorpusError: naming file and line.
    """
    if not any(unicodedata.category(char)[0] not in "CZM" and char != "\ufffd" for char in sentence):
        raise CorpusError(f"{path}:{line}: sentence {sentence!r} has no visible character; remove it")
