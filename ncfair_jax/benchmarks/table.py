"""Evaluation figures as Markdown."""

from collections.abc import Sequence

from ncfair_jax.benchmarks.compare import Row

NO_INTERVAL = (
    "Figures without an interval are made of absolute values, or rest on fewer than five independent units such as terms, "
    "templates or documents (see docs/statistics.md)."
)


def comparison_markdown(rows: Sequence[Row], name_a: str = "before", name_b: str = "after") -> str:
    """Rows of `compare` or `compare_many` as a Markdown table: every figure with its n, interval and p-value.

    A column "p (Holm)" is there where the rows have it.
    """
    adjusted = any(row.p_holm is not None for row in rows)
    header = ["figure", "n", name_a, name_b, "difference", "95% interval", "p", *(["p (Holm)"] if adjusted else [])]
    body = [
        [
            _escape(row.name),
            str(row.n),
            number(row.value_a),
            number(row.value_b),
            number(row.difference, signed=True),
            span(row.interval, signed=True),
            p_value(row.p),
            *([p_value(row.p_holm)] if row.p_holm is not None else []),
        ]
        for row in rows
    ]
    return _table(header, body) + _footnote([row.interval for row in rows])


def headline_markdown(lines: Sequence[tuple[str, float | None, Sequence[float] | None, int]]) -> str:
    """Lines of `headline` as a Markdown table."""
    body = [[_escape(name), number(value), span(interval), str(n)] for name, value, interval, n in lines]
    return _table(["figure", "value", "95% interval", "n"], body) + _footnote([line[2] for line in lines])


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


def _footnote(intervals: Sequence[Sequence[float] | None]) -> str:
    """Why some line has no interval; nothing where all have one."""
    return f"\n{NO_INTERVAL}\n" if None in intervals else ""


def _escape(name: str) -> str:
    return name.replace("|", "\\|")  # a bar separates cells


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *body]) + "\n"
