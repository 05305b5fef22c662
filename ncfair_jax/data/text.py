"""Plain text: a file, or a folder of files, with a sentence or a paragraph a line."""

from pathlib import Path

from ncfair_jax.data.files import CorpusError, check_visible, read_lines
from ncfair_jax.data.gap import split_sentences


def read_text(path: str | Path, split: bool = False) -> list[str]:
    """Lines of a UTF-8 text file, or of all `*.txt` below a folder in the order of their paths. Blank lines are skipped.

    Args:
        split: cut each line into sentences.
    Raises:
        CorpusError: no such file, no text, bytes that are not UTF-8, or a line without a visible character.
    """
    path = Path(path)
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise CorpusError(f"{path}: the folder holds no .txt files")
    sentences: list[str] = []
    for file in files:
        for number, line in enumerate(read_lines(file), start=1):
            if line.strip():
                check_visible(line, file, number)
                sentences.extend(split_sentences(line) if split else [line.strip()])
    return sentences
