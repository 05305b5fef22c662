"""What `launch/train.py` and `launch/evaluate.py` print: figures of a model, and two models compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ncfair_jax.benchmarks.compare import Difference, compare
from ncfair_jax.collapse.jackknife import CORRECTED_SUFFIX
from ncfair_jax.report.cells import Table, number, p_value, span, text_table
from ncfair_jax.report.render import table_text

NO_INTERVAL = (
    "Figures without an interval are made of absolute values, or rest on fewer than five independent units such as terms, "
    "templates or documents (see docs/statistics.md)."
)
COLLAPSE = ("nc3", "unc3", "nc1")  # of the figures that a run reads, those worth a line
SHOWN = {f"{name}{end}": name.upper() + end.replace("_", " ") for name in COLLAPSE for end in ("", CORRECTED_SUFFIX)}


def comparison_table(rows: Sequence[Difference], name_a: str = "before", name_b: str = "after") -> Table:
    """Rows of `compare` or `compare_many`: every figure with its n, interval and p-value.

    A column "p (Holm)" is there where the rows have it.
    """
    adjusted = any(row.p_holm is not None for row in rows)
    header = ["figure", "n", name_a, name_b, "difference", "95% interval", "p", *(["p (Holm)"] if adjusted else [])]
    body = [
        [
            row.name,
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
    return text_table(header, body, numeric_from=1, caption=_footnote([row.interval for row in rows]))


def headline_table(lines: Sequence[Sequence[Any]]) -> Table:
    """Lines of `headline`, also as they are read from a file."""
    body = [[name, number(value), span(interval), str(n)] for name, value, interval, n in lines]
    header = ["figure", "value", "95% interval", "n"]
    return text_table(header, body, numeric_from=1, caption=_footnote([line[2] for line in lines]))


def collapse_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """NC figures of a run before and after, by features and figure [value, low, high], with their intervals."""
    body = []
    for features in before:
        for name, label in SHOWN.items():
            cells = [f"{features} {label}"]
            for figures in (before, after):
                value, low, high = figures[features][name]
                cells += [number(value), span(None if low is None else [low, high])]
            body.append(cells)
    return text_table(["collapse, fairness words", "before", "95% interval", "after", "95% interval"], body)


def before_and_after(
    before_folder: Path, after_folder: Path, before: Mapping[str, Any], after: Mapping[str, Any]
) -> str:
    """What a run prints: paired differences of the benchmarks, then NC figures.

    Figures that only the trained model has (of a method that judges itself) are shown alone.

    Args:
        before_folder, after_folder: with the benchmarks' results.
        before, after: figures.json of each.
    """
    parts = []
    if before["benchmarks"]:
        parts.append(table_text(comparison_table(compare(before_folder, after_folder))))
    elif after["benchmarks"]:
        parts.append(table_text(headline_table(after["benchmarks"])))
    if before["collapse"]:
        parts.append(table_text(collapse_table(before["collapse"], after["collapse"]), gap=""))
    return "\n".join(parts)


def _footnote(intervals: Sequence[Sequence[float] | None]) -> str:
    """Why some line has no interval; nothing where all have one."""
    return NO_INTERVAL if None in intervals else ""
