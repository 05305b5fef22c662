"""Inline SVG: dot-and-whisker plots and curves whose colours and letters come from the page's style sheet."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH = 360.0  # of the drawing's own units; the page scales it
LABEL = 112.0  # left of a dot plot
ROW = 19.0
COLOURS = 7  # classes c0 … c6 of the style sheet


class Dot(NamedTuple):
    """A row of a dot plot: the value, its whisker, and smaller dots beside it (one per seed)."""

    label: str
    style: str
    value: float
    low: float | None
    high: float | None
    small: tuple[float, ...] = ()


class Line(NamedTuple):
    """A curve; `dashed` for the control words. `low`, `high`: least and largest of the seeds at each x, or empty."""

    label: str
    style: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def style_of(number: int) -> str:
    """Class of the group's colour."""
    return f"c{number % COLOURS}"


def dot_plot(title: str, rows: Sequence[Dot], reference: float | None = None) -> Markup:
    """Values with their intervals, one row each, and a dashed line at the value of an unbiased model.

    The reference is drawn if it lies inside the axis or near it; far from all values it would press them together.
    """
    seen = [x for row in rows for x in (row.value, row.low, row.high, *row.small) if x is not None]
    low, high = min(seen), max(seen)
    if reference is not None and low - (high - low) <= reference <= high + (high - low):
        low, high = min(low, reference), max(high, reference)
    ticks, low, high = _ticks(low, high)
    bottom = 6 + ROW * len(rows)
    place = _scale(low, high, LABEL, WIDTH - 14)
    parts = [_tick(place(t), t, ticks, 4, bottom) for t in ticks]
    if reference is not None and low <= reference <= high:
        parts.append(
            _svg(f'<line class="ideal" x1="{place(reference):.1f}" x2="{place(reference):.1f}" y1="2" y2="{bottom}"/>')
        )
    for number, row in enumerate(rows):
        y = 6 + ROW * (number + 0.5)
        short = row.label if len(row.label) <= 19 else row.label[:18] + "…"
        parts.append(
            _svg(
                f'<text class="label" x="{LABEL - 10}" y="{y + 4:.1f}"><title>{escape(row.label)}</title>{escape(short)}</text>'
            )
        )
        if row.low is not None and row.high is not None:
            ends = f'x1="{place(row.low):.1f}" x2="{place(row.high):.1f}"'
            parts.append(_svg(f'<line class="whisker {row.style}" {ends} y1="{y}" y2="{y}"/>'))
        parts += [_svg(f'<circle class="seed {row.style}" cx="{place(x):.1f}" cy="{y}" r="2"/>') for x in row.small]
        told = f"{row.label}: {_number(row.value)}"
        if row.low is not None and row.high is not None:
            told += f" [{_number(row.low)}, {_number(row.high)}]"
        parts.append(
            _svg(
                f'<circle class="dot {row.style}" cx="{place(row.value):.1f}" cy="{y}" r="4">'
                f"<title>{escape(told)}</title></circle>"
            )
        )
    return _figure(title, bottom + 20, parts)


def line_plot(title: str, lines: Sequence[Line], unit: str = "step") -> Markup:
    """Curves over the steps of training."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for y in (*(y for _, y in line.points), *line.low, *line.high)]
    y_ticks, low, high = _ticks(min(ys), max(ys))
    x_ticks, left, right = _ticks(min(xs), max(xs), tight=True)
    margin, bottom = 50.0, 150.0
    across, up = _scale(left, right, margin, WIDTH - 14), _scale(low, high, bottom, 8)
    parts = []
    for tick in y_ticks:
        y = up(tick)
        parts.append(_svg(f'<line class="grid" x1="{margin}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'))
        parts.append(
            _svg(f'<text class="tick end" x="{margin - 6}" y="{y + 4:.1f}">{_tick_text(tick, y_ticks)}</text>')
        )
    for tick in x_ticks:
        parts.append(
            _svg(f'<text class="tick" x="{across(tick):.1f}" y="{bottom + 16}">{_tick_text(tick, x_ticks)}</text>')
        )
    parts.append(_svg(f'<text class="tick" x="{(margin + WIDTH) / 2:.0f}" y="{bottom + 31}">{escape(unit)}</text>'))
    for line in lines:
        if line.low:
            upper = [(x, y) for (x, _), y in zip(line.points, line.high, strict=True)]
            lower = [(x, y) for (x, _), y in zip(line.points, line.low, strict=True)]
            outline = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in [*upper, *lower[::-1]])
            parts.append(_svg(f'<polygon class="band {line.style}" points="{outline}"/>'))
    for line in lines:
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        dashed = " dashed" if line.dashed else ""
        parts.append(
            _svg(
                f'<polyline class="line {line.style}{dashed}" points="{points}"><title>{escape(line.label)}</title></polyline>'
            )
        )
    return _figure(title, bottom + 36, parts)


def _figure(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    inside = Markup("").join(parts)
    head = f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return Markup(f'<figure class="plot"><figcaption>{escape(title)}</figcaption>{head}{inside}</svg></figure>')


def _tick(x: float, value: float, ticks: Sequence[float], top: float, bottom: float) -> Markup:
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
    return _svg(f'{line}<text class="tick" x="{x:.1f}" y="{bottom + 15}">{_tick_text(value, ticks)}</text>')


def _ticks(low: float, high: float, *, tight: bool = False) -> tuple[list[float], float, float]:
    """Round numbers, and the ends of an axis that holds them all and the data with some room (tight: without)."""
    from matplotlib.ticker import MaxNLocator  # loading it takes a second, which a page without plots need not wait

    if high <= low:
        room = abs(low) * 0.05 or 0.5
        low, high = low - room, high + room
    room = 0 if tight else 0.04 * (high - low)
    low, high = low - room, high + room
    ticks = [float(t) for t in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    return [t for t in ticks if low <= t <= high], low, high


def _tick_text(value: float, ticks: Sequence[float]) -> str:
    """As many decimals as tell the ticks apart; large and tiny numbers as powers of ten."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(value) or 1.0)
    if abs(value) >= 1e6 or 0 < max(map(abs, ticks)) < 1e-3:
        return f"{value:.2g}".replace("-", "−").replace("e+0", "e").replace("e−0", "e−")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals < 6 and abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1  # a step of 2.5
    return f"{value:,.{decimals}f}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _svg(text: str) -> Markup:
    """Text whose untrusted parts were escaped where it was put together."""
    return Markup(text)
