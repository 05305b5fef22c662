"""The texts that models are measured on, by name or file."""

from collections.abc import Iterator
from pathlib import Path

from ncfair_jax.data.gap import read_gap, split_sentences
from ncfair_jax.data.text import read_text, text_files
from ncfair_jax.data.wikitext import heldout_text
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.sources import GAP, WIKITEXT2, DataFolder


def measured_files(corpus: str, data: str | Path) -> list[Path]:
    """The files that `text_sentences` reads, with its arguments."""
    named = {"wikitext2": WIKITEXT2, "gap": GAP}
    if corpus not in named:
        return text_files(corpus)
    return [DataFolder(path_of(data) if data else None).path(named[corpus])]


def text_sentences(corpus: str, data: str | Path) -> Iterator[str]:
    """The sentences of a text to measure on, as they are read: a text file is never in memory as a whole.

    Args:
        corpus: "wikitext2", its held-out part; "gap", as released by BEC (genders flipped); or a text file or folder.
        data: folder with wikitext2/ and gap/; "" = public files, pinned by hash.
    Raises:
        DataError: as `read_text`, `read_gap` and `heldout_text`.
    """
    folder = DataFolder(path_of(data) if data else None)
    if corpus == "gap":
        yield from read_gap(folder.path(GAP))
    elif corpus == "wikitext2":
        for paragraph in heldout_text(folder.path(WIKITEXT2)):
            yield from split_sentences(paragraph)
    else:
        yield from read_text(corpus)
