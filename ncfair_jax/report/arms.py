"""What the arms of a sweep came to: the figures of every run and the paired comparisons, as JSON and as one table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.compare import Difference, compare_many
from ncfair_jax.collapse.jackknife import CORRECTED_SUFFIX
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.records import SWEEP, read_record, taken_apart
from ncfair_jax.report.cells import number, span, text_table
from ncfair_jax.report.comparisons import SHOWN, comparison_table
from ncfair_jax.report.render import table_text
from ncfair_jax.run_log import finite

Figures = Mapping[str, Any]  # of figures.json: one model's headlines and collapse figures
Line = tuple[float | None, list[float] | None, str]  # value, interval, n


def arms_figures(
    folders: Mapping[str, Sequence[Path]],
    results: Mapping[str, Sequence[Mapping[str, Figures]]],
    against: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """All that `arms_text` shows, ready for JSON.

    Args:
        folders: workdirs of each arm, one per seed.
        results: what `train_and_evaluate` returned for them.
        against: by arm, the one it is compared with; the first judged where none is named, or one that is not judged.
    Returns:
        {"start": {figure: [value, interval, n]}, "arms": {arm: [{figure: [value, interval, n]} for each seed]},
        "comparisons": {arm: {"against": arm, "rows": fields of `Difference`}}}. With three or more arms the rows hold a
        p-value that Holm's method adjusts for all of them.
    """
    runs = {arm: [flat(result["after"]) for result in results[arm]] for arm in folders}
    start: dict[str, Line] = {}
    for arm in reversed(list(folders)):
        start |= flat(results[arm][0]["before"])
    judged = [arm for arm in folders if results[arm][0]["after"]["benchmarks"]]  # others may only make a model
    after = {arm: [folder / "evals" / "after" for folder in folders[arm]] for arm in judged}
    against = {arm: other for arm, other in against.items() if other in after}
    comparisons = {
        arm: {"against": against.get(arm, judged[0]), "rows": [_fields(row) for row in rows]}
        for arm, rows in compare_many(after, against).items()
    }
    return {"start": start, "arms": runs, "comparisons": comparisons}


def read_figures(path: str | Path) -> dict[str, Any]:
    """The figures of a sweep from its figures.json.

    Raises:
        DataError: if the file is missing, broken or something else.
    """
    remedy = "name the figures.json in a sweep's folder; if it is that, its sweep's command writes it again"
    content: dict[str, Any] = read_record(path_of(path), SWEEP, remedy)
    with taken_apart(path_of(path), remedy):
        arms_text(content)
    return content


def arms_text(figures: Mapping[str, Any]) -> str:
    """Markdown of `arms_figures`: each arm as mean ± sd over seeds, then each arm against another, paired by example."""
    start, arms = figures["start"], figures["arms"]
    shown: dict[str, Line] = {}  # arms may be judged by different benchmarks
    for arm in reversed(arms):
        shown |= arms[arm][0]
    body = []
    for name, (_, _, n) in shown.items():
        value, interval, _ = start.get(name, (None, None, n))
        means = [mean_sd([run.get(name, (None,))[0] for run in runs]) for runs in arms.values()]
        body.append([name, n, f"{number(value)} {span(interval)}", *means])
    parts = [table_text(text_table(["figure", "n", "start", *arms], body), gap="")]
    for arm, comparison in figures["comparisons"].items():
        other = comparison["against"]
        rows = [_row(fields) for fields in comparison["rows"]]
        parts.append(f"**{arm}** against **{other}**\n\n{table_text(comparison_table(rows, other, arm))}")
    return "\n".join(parts)


def flat(figures: Figures) -> dict[str, Line]:
    """Headline and collapse figures by their name in a table: (value, interval, n)."""
    found: dict[str, Line] = {name: (value, interval, str(n)) for name, value, interval, n in figures["benchmarks"]}
    for features, by_name in figures["collapse"].items():
        for name, label in SHOWN.items():
            value, low, high = by_name[name]
            words = by_name["corrected_words" if name.endswith(CORRECTED_SUFFIX) else "classes"][0]
            found[f"{label}, {features} features"] = (value, None if low is None else [low, high], f"{words:.0f} words")
    return found


def mean_sd(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation (ddof 1) over seeds; the mean alone of one seed."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    mean = float(np.mean(known))
    if len(known) == 1:
        return number(mean)
    decimals = 2 if abs(mean) >= 10 else 4
    return f"{mean:.{decimals}f} ± {np.std(known, ddof=1):.{decimals}f}"


def _fields(row: Difference) -> dict[str, Any]:
    fields = {name: finite(value) if isinstance(value, float) else value for name, value in row._asdict().items()}
    return fields if row.p_holm is not None else {name: fields[name] for name in fields if name != "p_holm"}


def _row(fields: Mapping[str, Any]) -> Difference:
    found = dict(fields)
    found |= {name: math.nan for name in ("p", "p_holm") if found.get(name, 0) is None}
    return Difference(**found)
