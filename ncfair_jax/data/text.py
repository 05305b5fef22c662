"""Plain text: a file, or a folder of files, with a sentence, a paragraph or more a line."""

from collections.abc import Iterator
from pathlib import Path

from ncfair_jax.data.gap import split_sentences
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import DataError, Place, accepted, check_visible, numbered_lines


def read_text(path: str | Path) -> Iterator[str]:
    """Sentences of a UTF-8 text file, or of all `*.txt` below a folder in the order of their paths, one line in memory.

    Blank lines are skipped. Every line is cut into sentences, so that a book on one line is not cut off after its first
    sentences.

    Raises:
        DataError: no such file, no text, bytes that are not UTF-8, or more than 1 % of a file's lines without a visible
            character; when the reading comes there.
    """
    files = text_files(path)
    if not files:
        raise DataError(f"{path}: the folder holds no .txt files")
    for file in files:
        lines = ((Place(str(file), number), line) for number, line in numbered_lines(file))
        for sentences in accepted(lines, _sentences):
            yield from sentences


def _sentences(place: Place, line: str) -> list[str]:
    check_visible(line, place)
    return split_sentences(line)


def text_files(path: str | Path) -> list[Path]:
    """The file itself, or all `*.txt` below a folder in the order of their paths."""
    path = path_of(path)
    return sorted(path.rglob("*.txt")) if path.is_dir() else [path]
