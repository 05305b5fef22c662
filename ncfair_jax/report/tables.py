"""The tables of a report, as cells that know how they sort; HTML, Markdown and LaTeX are made of the same ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.compare import Difference
from ncfair_jax.registry import all_defaults, training_text
from ncfair_jax.report.cells import (
    Cell,
    Table,
    count_cell,
    decimals_of,
    duration,
    fixed,
    interval_text,
    make_table,
    p_value,
    plain_cell,
    with_minus,
)
from ncfair_jax.report.comparisons import NO_INTERVAL
from ncfair_jax.report.runs import Figure, Group, ReportedRun, Results
from ncfair_jax.report.summary import Quoted, Summary, shared_before

KINDS = {"fairness": "Fairness", "utility": "Utility", "collapse": "Collapse"}
IDEALS = {"higher": "↑", "lower": "↓"}
# Shown in other words, or without effect on the result.
HIDDEN_FIELDS = (
    "name",
    "seed",
    "model.path",
    "objective.name",
    "data.corpus",
    "data.path",
    "data.subset",
    "data.counterfactual",
    "mabel.pairs",
    "ase.source",
    "evals.data",
    "train.log_every",
    "train.save_every",
    "train.keep",
)


def all_tables(summary: Summary) -> list[Table]:
    """Every table that the summary has something for."""
    shown = [summary_table(summary), *difference_tables(summary), quality_table(summary), runs_table(summary)]
    found = [*setup_tables(summary), *shown]
    return [table for table in found if table is not None]


def summary_table(summary: Summary) -> Table | None:
    """Fairness, utility and collapse: one line for each figure, before and after."""
    groups = [group for group in summary.groups if all_figures([group])]
    if not groups:
        return None
    if len(groups) == 1 and groups[0].name in summary.changes and len(groups[0].runs) == 1:
        return _before_after_table(groups[0], summary.changes[groups[0].name])
    columns: list[tuple[str, list[Results]]] = []
    shared = shared_before(groups)
    if shared:
        columns.append(("Before", [shared]))
    for group in groups:
        before, after = ([x for run in group.runs if (x := getattr(run, when))] for when in ("before", "after"))
        if before and not shared:
            columns.append((f"{group.name}, before", before))
        if after:
            columns.append((f"{group.name}, after" if before and not shared else group.name, after))
    rows = [
        (
            Cell(figure.name),
            *(_figure_cell([r.figures.get(figure.name) for r in results]) for _, results in columns),
            *_trailing(figure),
        )
        for figure in all_figures(groups)
    ]
    seeds = any(len(results) > 1 for _, results in columns)
    caption = f"In brackets the 95% interval over examples. {NO_INTERVAL}" + (
        " Arms with several seeds: mean ± standard deviation over the seeds." if seeds else ""
    )
    return make_table("Summary", caption, ["Figure", *(name for name, _ in columns), "n", "Ideal", "About"], rows)


def _before_after_table(group: Group, changes: Sequence[Difference]) -> Table:
    run = group.runs[0]
    by_name = {row.name: row for row in changes}
    rows = []
    for figure in all_figures([group]):
        before, after = (r.figures.get(figure.name) if r else None for r in (run.before, run.after))
        cells = (Cell(figure.name), _figure_cell([before]), _figure_cell([after]))
        rows.append((*cells, *_change_cells(by_name.get(figure.name), before, after), *_trailing(figure)))
        for name in _distances(figure.name, by_name):
            row = by_name[name]
            values = (Cell(fixed(x, decimals_of(name, x)), "", x) for x in (row.value_a, row.value_b))
            rows.append((Cell(name), *values, *_row_cells(row), *_trailing(figure, "0")))
    caption = (
        f"In brackets 95% intervals over examples. {NO_INTERVAL} Change: after minus before, paired by example; p: Student's t "
        "test over independent units of examples. Collapse figures have intervals of their own, but no paired test."
    )
    return make_table("Summary", caption, ["Figure", "Before", "After", "Change", "p", "n", "Ideal", "About"], rows)


def _distances(name: str, by_name: Mapping[str, Difference]) -> list[str]:
    """Names of the rows that say how far a figure is from its unbiased value."""
    return [other for other in by_name if other != name and other.startswith(f"|{name}")]


def difference_tables(summary: Summary) -> list[Table]:
    """Paired differences where several groups stand side by side: to their own start, and to the first group."""
    found = []
    if len(summary.groups) > 1 or len(summary.groups[0].runs if summary.groups else ()) > 1:
        found.append(_differences("Change from before to after", "After minus before", summary.changes, summary))
    if summary.against:
        first = summary.groups[0].name
        found.append(_differences(f"Against {first}", f"Minus {first}", summary.against, summary))
    return [table for table in found if table is not None]


def _differences(title: str, what: str, by_group: Mapping[str, Sequence[Difference]], summary: Summary) -> Table | None:
    names = list(dict.fromkeys(row.name for rows in by_group.values() for row in rows))
    if not names:
        return None
    caption = f"{what}, paired by example, with 95% interval and p of Student's t test, both over independent units of examples"
    caption += "; p is adjusted for all comparisons of this table (Holm). " if len(by_group) > 1 else ". "
    caption += NO_INTERVAL
    if any(len(group.runs) > 1 for group in summary.groups):
        caption += " Scores are averaged over the seeds first, so that intervals do not hold the spread between seeds."
    body = []
    for name in names:
        found = {group: row for group, rows in by_group.items() for row in rows if row.name == name}
        cells = [Cell(name), count_cell(str(next(iter(found.values())).n))]
        for group in by_group:
            cells += _row_cells(found[group]) if group in found else (Cell("–"), Cell("–"))
        body.append(tuple(cells))
    header = ["Figure", "n"]
    for group in by_group:
        header += [group, "p"]
    return make_table(title, caption, header, body, 1)


def quality_table(summary: Summary) -> Table | None:
    """Each benchmark figure without the examples that its quality report flags, after training; lines of none are left out."""
    columns = {
        group.name: after for group in summary.groups if (after := [run.after for run in group.runs if run.after])
    }
    flagged: dict[tuple[str, str, str], int] = {}
    for results in (result for found in columns.values() for result in found):
        for name, document in results.documents.items():
            for flag, part in document.get("quality", {}).items():
                flagged |= {(name, line, flag): part["flagged"] for line in part["headlines"] if part["flagged"]}
    rows = []
    for (name, line, flag), number in flagged.items():
        cells = [_quality_cell([r.documents.get(name, {}) for r in found], line, flag) for found in columns.values()]
        rows.append((Cell(line), Cell(flag), count_cell(str(number)), *cells))
    if not rows:
        return None
    caption = (
        "Figures without the examples that one may doubt, in brackets with them. unknown: a word that the vocabulary lacks; "
        "duplicate: an earlier example's text; malformed: irregular blanks or parts that do not fit; doubtful: sentences that "
        "differ in no or several places; tied, skipped, unpaired: no preference; any: one of these. Means over seeds."
    )
    return make_table("Data quality", caption, ["Figure", "Without", "Examples", *columns], rows, 2)


def _quality_cell(documents: Sequence[Mapping[str, Any]], line: str, flag: str) -> Cell:
    parts = [document.get("quality", {}).get(flag, {}).get("headlines", {}).get(line) for document in documents]
    values = [(part["figure_without"], part["figure"]) for part in parts if part and part["figure_without"] is not None]
    if not values or len(values) < len(documents):
        return Cell("–")
    without, whole = np.mean(values, axis=0)
    decimals = decimals_of(line, whole)
    return Cell(fixed(without, decimals), f"[{fixed(whole, decimals)}]", float(without))


def setup_tables(summary: Summary) -> list[Table]:
    """Model, method, text and the fields of the config that are not at their default: what differs, and what all share."""
    groups = [group for group in summary.groups if group.runs[0].config]
    if not groups:
        return []
    configs = [_flat(group.runs[0].config) for group in groups]
    defaults = _flat(all_defaults())
    names = [
        name
        for name, default in defaults.items()
        if name not in HIDDEN_FIELDS and any(config.get(name, default) != default for config in configs)
    ]
    settings = {
        "Starting model": [config["model.path"] for config in configs],
        "Objective": [config["objective.name"] for config in configs],
        "Training text": [training_text(group.runs[0].config) for group in groups],
        "Seeds": [", ".join(str(run.config["seed"]) for run in group.runs) for group in groups],
        **{name: [config.get(name, defaults[name]) for config in configs] for name in names},
    }
    differing = {name: values for name, values in settings.items() if any(value != values[0] for value in values)}
    shared = {name: values[:1] for name, values in settings.items() if name not in differing}
    found = []
    for title, columns, rows in (
        ("What differs", [group.name for group in groups], differing),
        ("Settings" if len(groups) == 1 else "What all share", ["Value"], shared),
    ):
        body = [(Cell(name), *map(plain_cell, values)) for name, values in rows.items()]
        if body:
            found.append(make_table(title, "", ["Setting", *columns], body, len(columns) + 1))
    return found


def runs_table(summary: Summary) -> Table | None:
    """When, where and for how long each run was made; a line for each start of its command."""
    rows = []
    for run in (run for group in summary.groups for run in group.runs):
        for entry in run.environment:
            seconds = entry.get("wall_seconds")
            rows.append(
                (
                    Cell(run.name),
                    Cell(str(entry.get("started", "–"))),
                    Cell("–") if seconds is None else Cell(duration(seconds), "", seconds),
                    Cell(str(entry.get("ended", "killed or going on"))),
                    Cell(str(entry.get("devices", "–"))),
                    Cell(str(entry.get("host", "–"))),
                    Cell(str(entry.get("commit") or "–")),
                )
            )
    if not rows:
        return None
    header = ["Run", "Started (UTC)", "Wall time", "Ended", "Devices", "Host", "Commit"]
    return make_table("Runs", "A line for each start of a run.", header, rows, len(header))


def drill_table(name: str, quoted: Sequence[Quoted]) -> Table:
    """The most stereotyped examples of one group."""
    rows = [
        (
            Cell(example.stereotyped),
            Cell(example.other),
            Cell("–") if example.before is None else Cell(fixed(example.before, 2, "+"), "", example.before),
            Cell(fixed(example.after, 2, "+"), "", example.after),
        )
        for example in quoted
    ]
    return make_table(f"{name}, {len(rows)} examples", "", ["Stereotyped", "Other", "Before", "After"], rows, 2)


def measured_table(table: Table) -> Table:
    """A table of `launch/measure.py`, with real minus signs; the interval goes below its value."""
    caption = "In brackets 95% jackknife intervals over groups of sentences; gap and ratio to the first model."
    rows = tuple(
        tuple(
            Cell(with_minus(cell.text), with_minus(cell.note), cell.sort) if cell.sort is not None else cell
            for cell in row
        )
        for row in table.rows
    )
    texts = next((i for i in range(1, len(table.header)) if all(row[i].sort is not None for row in rows)), 0)
    return make_table(table.title, caption if "gap" in table.header else "", table.header, rows, texts)


def commands(runs: Iterable[ReportedRun]) -> list[str]:
    """The distinct command lines."""
    return list(dict.fromkeys(entry["command"] for run in runs for entry in run.environment if "command" in entry))


def versions(runs: Iterable[ReportedRun]) -> list[str]:
    """The distinct sets of versions, in one line each."""
    found = [entry["versions"] for run in runs for entry in run.environment if "versions" in entry]
    return list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in x.items()) for x in found))


def all_figures(groups: Sequence[Group]) -> list[Figure]:
    """Every figure of any run once: fairness, utility, collapse, each in the order of the benchmarks."""
    found: dict[str, Figure] = {}
    for group in groups:
        for run in group.runs:
            for results in (run.after, run.before):
                for name, figure in results.figures.items() if results else ():
                    found.setdefault(name, figure)
    return [figure for kind in KINDS for figure in found.values() if figure.kind == kind]


def _trailing(figure: Figure, ideal: str = "") -> tuple[Cell, ...]:
    return count_cell(figure.n), Cell(ideal or IDEALS.get(figure.better, figure.better)), Cell(KINDS[figure.kind])


def _figure_cell(figures: Sequence[Figure | None]) -> Cell:
    """One model's value and interval, or mean ± sd over seeds; "–" where one is undefined."""
    values = [figure.value for figure in figures if figure and figure.value is not None]
    if not figures or len(values) < len(figures):
        return Cell("–")
    mean = float(np.mean(values))
    assert figures[0] is not None
    decimals = decimals_of(figures[0].name, mean)
    interval = figures[0].interval
    if len(values) > 1:
        note = f"± {np.std(values, ddof=1):.{decimals}f}"
    else:
        note = interval_text(interval, decimals) if interval else ""
    return Cell(fixed(mean, decimals), note, mean)


def _row_cells(row: Difference) -> tuple[Cell, Cell]:
    decimals = decimals_of(row.name, row.value_a, row.value_b)
    interval = interval_text(row.interval, decimals, "+") if row.interval else ""
    p = row.p if row.p_holm is None else row.p_holm
    return Cell(fixed(row.difference, decimals, "+"), interval, row.difference), Cell(
        p_value(p), "", None if np.isnan(p) else p
    )


def _change_cells(row: Difference | None, before: Figure | None, after: Figure | None) -> tuple[Cell, Cell]:
    if row is not None:
        return _row_cells(row)
    if before is None or after is None or before.value is None or after.value is None:
        return Cell("–"), Cell("–")
    difference = after.value - before.value
    text = fixed(difference, decimals_of(before.name, before.value, after.value), "+")
    return Cell(text, "", difference), Cell("–")


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {path + name: value}
    return found
