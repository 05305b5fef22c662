"""What is left out of data: malformed rows, tokens beyond the longest sequence, words without a class. It is never silent.

with collected() as notes:
    pairs = read_pairs("my_pairs.csv")
print(*notes, sep="\n")  # my_pairs.csv: 2 of 1508 rows are malformed and were skipped (lines 17, 903); the first: …
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from absl import logging

WARN_ABOVE = 0.01  # share of tokens lost
SHOWN = 20  # lines or words that a message names; the rest are counted

Arguments = ParamSpec("Arguments")
T = TypeVar("T")


class Skipped(NamedTuple):
    """Malformed rows of one file that were left out.

    Attributes:
        path: the file.
        rows: how many rows it has, malformed ones included.
        lines: where the malformed ones are, from 1.
        first: what is wrong with the first of them.
        unit: what `lines` counts: "line", or "row" where the file has no lines.
    """

    path: str
    rows: int
    lines: tuple[int, ...]
    first: str
    unit: str = "line"

    def __str__(self) -> str:
        where = listed(self.lines, self.unit)
        return (
            f"{self.path}: {len(self.lines)} of {self.rows} rows are malformed and were skipped ({where}); "
            f"the first: {self.first}"
        )

    @property
    def counts(self) -> dict[str, int]:
        """What is added to a result's counts."""
        return {"skipped_rows": len(self.lines)}

    @property
    def serious(self) -> bool:
        """Whether it is worth a warning."""
        return True


class Cut(NamedTuple):
    """Texts that were cut because they have more tokens than a sequence may have.

    Attributes:
        limit: most tokens of a sequence.
        sequences, cut: how many texts there were, and how many of them were cut.
        tokens, lost: how many tokens they had, special ones included, and how many of these were cut off.
    """

    limit: int
    sequences: int
    cut: int
    tokens: int
    lost: int

    def __str__(self) -> str:
        return (
            f"{self.cut} of {self.sequences} texts are longer than {self.limit} tokens and were cut: {self.lost} of "
            f"{self.tokens} tokens are lost ({100 * self.lost / self.tokens:.2f} %)"
        )

    def plus(self, other: "Cut") -> "Cut":
        """Of these texts and others together, cut at the same length."""
        return Cut(self.limit, *(a + b for a, b in zip(self[1:], other[1:], strict=True)))

    @property
    def counts(self) -> dict[str, int]:
        """What is added to a result's counts."""
        return {"cut_texts": self.cut, "lost_tokens": self.lost}

    @property
    def serious(self) -> bool:
        """Whether it is worth a warning."""
        return self.lost > WARN_ABOVE * self.tokens


class WithoutClass(NamedTuple):
    """Words of a lexicon that have no part in figures and losses, since they are several tokens.

    Attributes:
        lexicon: what its groups are groups of.
        words: how many words it has.
        without_class: those left out.
    """

    lexicon: str
    words: int
    without_class: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.without_class[:SHOWN])
        more = ", … (the result file names all)" if len(self.without_class) > SHOWN else ""
        return (
            f"lexicon {self.lexicon!r}: {len(self.without_class)} of {self.words} words are not one token of this vocabulary "
            f"and were left out: {shown}{more}"
        )

    @property
    def counts(self) -> dict[str, int]:
        """What is added to a result's counts."""
        return {"words_without_class": len(self.without_class)}

    @property
    def serious(self) -> bool:
        """Whether it is worth a warning."""
        return True


Note = Skipped | Cut | WithoutClass
_notes: ContextVar[list[Note] | None] = ContextVar("notes", default=None)


def listed(lines: Sequence[int], unit: str) -> str:
    """The numbers of lines (or another unit) as text, at most SHOWN of them."""
    shown = ", ".join(map(str, lines[:SHOWN]))
    return f"{unit}{'s' * (len(lines) > 1)} {shown}" + (", …" if len(lines) > SHOWN else "")


@contextmanager
def collected() -> Iterator[list[Note]]:
    """Within this context notes go into the list, each once, instead of the log."""
    notes: list[Note] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def add(note: Note) -> None:
    """Puts a note into the list of the innermost `collected`; outside of one it goes to the log."""
    notes = _notes.get()
    if notes is None:
        tell(note)
    elif note not in notes:
        notes.append(note)


def tell(note: Note) -> None:
    """Logs a note, as a warning if it is serious."""
    logging.log(logging.WARNING if note.serious else logging.INFO, "%s", note)


def remembered(maxsize: int) -> Callable[[Callable[Arguments, T]], Callable[Arguments, T]]:
    """As `lru_cache`, for readers: a result from the cache brings the notes of its reading again."""

    def decorate(read: Callable[Arguments, T]) -> Callable[Arguments, T]:
        @lru_cache(maxsize=maxsize)
        def once(*args: Any, **kwargs: Any) -> tuple[T, list[Note]]:
            with collected() as notes:
                return read(*args, **kwargs), notes

        @wraps(read)
        def again(*args: Arguments.args, **kwargs: Arguments.kwargs) -> T:
            result, notes = once(*args, **kwargs)  # type: ignore[arg-type]
            for note in notes:
                add(note)
            return result

        return again

    return decorate


def total_counts(notes: Sequence[Note]) -> dict[str, int]:
    """The counts of all notes together; {} without notes."""
    total: dict[str, int] = {}
    for note in notes:
        for name, count in note.counts.items():
            total[name] = total.get(name, 0) + count
    return total


def as_json(notes: Sequence[Note]) -> list[dict[str, Any]]:
    """The notes as they stand in result files."""
    fields = [{k: list(v) if isinstance(v, tuple) else v for k, v in note._asdict().items()} for note in notes]
    return [found | {"note": str(note)} for found, note in zip(fields, notes, strict=True)]


def of_json(found: Sequence[dict[str, Any]]) -> list[Note]:
    """The notes that `as_json` gave."""
    kinds: dict[frozenset[str], Callable[..., Note]] = {
        frozenset([*kind._fields, "note"]): kind for kind in (Skipped, Cut, WithoutClass)
    }
    listed = ({k: tuple(v) if isinstance(v, list) else v for k, v in each.items()} for each in found)
    return [kinds[frozenset(each)](**{k: v for k, v in each.items() if k != "note"}) for each in listed]
