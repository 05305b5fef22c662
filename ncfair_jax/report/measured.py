"""A folder of `launch/measure.py`: its tables and its pictures."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from ncfair_jax.collapse.measures import VERSION
from ncfair_jax.files.reading import stream_lines
from ncfair_jax.files.records import MEASURE_AGAIN, MEASURES, read_record


@dataclass(frozen=True)
class Measured:
    """A folder of `launch/measure.py`: its tables (title, rows of cells) and its pictures (name, data URI).

    Attributes:
        outdated: whether a model was measured with another version of the figures' definition than this package has.
    """

    name: str
    tables: tuple[tuple[str, list[list[str]]], ...]
    pictures: tuple[tuple[str, str], ...]
    outdated: bool = False


def is_measured(folder: Path) -> bool:
    """Whether the folder holds a finished measurement, of one model or several."""
    return (folder / "table.md").is_file() and bool(_measures(folder))


def _measures(folder: Path) -> list[Path]:
    return [path for path in (folder / "measures.json", *folder.glob("*/measures.json")) if path.is_file()]


def read_measured(folder: Path) -> Measured:
    """Its tables as cells, its pictures as data URIs.

    Raises:
        DataError: for a file that cannot be read.
    """
    text = "".join(stream_lines(folder / "table.md"))
    titles = (
        "Words and figures (sets of words with other counts can only be compared by the corrected figures)",
        "The lexicon among random lists of its own and neutral words, as many and as frequent (two-sided p)",
    )
    tables = tuple(zip(titles, markdown_tables(text), strict=False))
    pictures = tuple(
        (path.stem, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())
        for path in sorted((folder / "figures").glob("*.png"))
    )
    documents = [read_record(path, MEASURES, MEASURE_AGAIN) for path in _measures(folder)]
    versions = {document.get("content", {}).get("figures", "") for document in documents}
    return Measured(folder.name, tables, pictures, versions != {f"version {VERSION}"})


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Tables of a Markdown text: for each, its rows of cells without the rule under the header."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                tables[-1].append(cells)
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]
