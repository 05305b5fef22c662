"""Cells and tables before any layout, and how numbers are written in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MINUS = "−"  # as wide as a plus


@dataclass(frozen=True)
class Cell:
    """Text, a smaller second line, and the number that it sorts by (None: by its text)."""

    text: str
    note: str = ""
    sort: float | None = None


@dataclass(frozen=True)
class Table:
    """A titled table. `numeric`: columns that are set to the right. `caption` says what the cells are."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int]


def make_table(
    title: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], text_columns: int = 1
) -> Table:
    """A table whose first `text_columns` columns are text, and "About" wherever it stands; the others are set to the right."""
    numeric = frozenset(column for column in range(text_columns, len(header)) if header[column] != "About")
    return Table(title, caption, tuple(header), tuple(tuple(row) for row in rows), numeric)


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric_from: int | None = None, caption: str = ""
) -> Table:
    """A table of texts, without a title; the columns from `numeric_from` on are set to the right."""
    numeric = frozenset() if numeric_from is None else frozenset(range(numeric_from, len(header)))
    return Table("", caption, tuple(header), tuple(tuple(map(Cell, row)) for row in rows), numeric)


def count_cell(n: str) -> Cell:
    """ "11894" or "56 words" with separated thousands."""
    count, _, unit = n.partition(" ")
    return Cell(f"{int(count):,} {unit}".strip(), "", float(count))


def plain_cell(value: Any) -> Cell:
    """A value of a config; a dash for an empty text."""
    return Cell(f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "–")


def decimals_of(name: str, *values: float) -> int:
    """Two for percentages and numbers of 10 and more, else four: the same for a value, its interval and its change."""
    return 2 if "%" in name or any(abs(value) >= 10 for value in values) else 4


def fixed(value: float, decimals: int, sign: str = "") -> str:
    """A number with so many decimals, "+" before positive ones if `sign` is that; a dash if undefined."""
    return "–" if value != value else with_minus(f"{value:{sign}.{decimals}f}")


def interval_text(ends: Sequence[float], decimals: int, sign: str = "") -> str:
    """[low, high]."""
    return "[" + ", ".join(fixed(end, decimals, sign) for end in ends) + "]"


def with_minus(text: str) -> str:
    """Text of numbers with a real minus sign."""
    return text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def number(value: float | None, *, signed: bool = False) -> str:
    """Four significant digits at most, two decimals for 10 and more; "–" if undefined."""
    if value is None or value != value:
        return "–"
    decimals = 2 if abs(value) >= 10 else 4
    return f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"


def span(interval: Sequence[float] | None, *, signed: bool = False) -> str:
    """[low, high], or "–" if undefined."""
    if interval is None:
        return "–"
    return f"[{number(interval[0], signed=signed)}, {number(interval[1], signed=signed)}]"


def p_value(p: float) -> str:
    """Three decimals, or how small it is at most; "–" if undefined."""
    if p != p:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
