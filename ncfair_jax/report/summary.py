"""What a report says, before any layout: runs side by side, paired comparisons, the most stereotyped examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.base import Benchmark, DrillDown
from ncfair_jax.benchmarks.compare import Difference, compare, read_averaged
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.benchmarks.results import Table, read_table
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.report.measured import MeasuredFolder
from ncfair_jax.report.runs import Group, Results, read_folders
from ncfair_jax.statistics.paired import holm

EXAMPLES = 10  # quoted for each benchmark and group
TEXTS = {"stereotyped": str, "other": str}


@dataclass(frozen=True)
class Quoted:
    """An example: both sentences, and how much likelier the model finds the stereotyped one before and after."""

    stereotyped: str
    other: str
    before: float | None
    after: float


@dataclass(frozen=True)
class Drilled:
    """The most stereotyped examples of one benchmark after training, for each group; `unit` is that of the strengths."""

    benchmark: str
    label: str
    unit: str
    licence: str
    warning: str
    examples: dict[str, list[Quoted]]


@dataclass(frozen=True)
class Summary:
    """Everything that a report shows.

    Attributes:
        groups: the columns; the first is what the others are compared with.
        changes: by group, after against before, paired by example.
        against: by group but the first, after training against the first group after training. Both with p_holm where there
            are several.
        warnings: the distinct content warnings of the benchmarks.
        diverged: a sentence for each loss that grew.
        notes: what could not be compared, and what each run lacks.
    """

    title: str
    groups: tuple[Group, ...]
    measured: tuple[MeasuredFolder, ...]
    changes: dict[str, list[Difference]]
    against: dict[str, list[Difference]]
    drilled: tuple[Drilled, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    diverged: tuple[str, ...]


def summarise_folders(folders: Sequence[Path], before: Path | None = None) -> Summary:
    """Reads the folders (see `read_folders`) and compares them.

    Raises:
        ReportError, DataError: in one line, for a folder that is no run or a file that cannot be read.
    """
    groups, measured, notes = read_folders(folders, before)
    notes += _missing(groups)
    changes, against = {}, {}
    for group in groups:
        before_folders, after_folders = _folders(group, "before"), _folders(group, "after")
        if before_folders and after_folders:
            changes[group.name] = _compared(before_folders, after_folders, f"{group.name}: before and after", notes)
    for group in groups[1:]:
        first, other = _folders(groups[0], "after"), _folders(group, "after")
        if first and other:
            against[group.name] = _compared(first, other, f"{groups[0].name} and {group.name}", notes)
    changes, against = _adjusted(changes), _adjusted(against)
    drilled = tuple(
        found for name, benchmark in BENCHMARKS.items() if (found := _drill(name, benchmark, groups)) is not None
    )
    documents = [document for group in groups for results in _results(group) for document in results.documents.values()]
    warnings = dict.fromkeys(document["content_warning"] for document in documents if document.get("content_warning"))
    notes += [note for item in measured for note in item.notes]
    title = ", ".join([group.name for group in groups] or [item.name for item in measured])
    grown = tuple(f"{run.name}: {text}" for group in groups for run in group.runs for text in run.diverged)
    return Summary(
        title, tuple(groups), tuple(measured), changes, against, drilled, tuple(warnings), tuple(notes), grown
    )


def shared_before(groups: Sequence[Group]) -> Results | None:
    """The model that all groups start from, to be shown once; None if their figures differ.

    Some groups may be judged by more benchmarks than others: of all that agree, those with the most figures.
    """
    befores = [run.before for group in groups for run in group.runs if run.before]
    if not befores:
        return None
    most = max(befores, key=lambda results: len(results.figures))
    known = [figure == most.figures.get(name) for results in befores for name, figure in results.figures.items()]
    return most if all(known) else None


def _missing(groups: Sequence[Group]) -> list[str]:
    """What runs lack, each thing once with the names of those that lack it."""
    everyone = [run for group in groups for run in group.runs]
    lacking: dict[str, list[str]] = {}
    for run in everyone:
        for text in run.missing:
            lacking.setdefault(text, []).append(run.name)
    return [text if len(names) == len(everyone) else f"{', '.join(names)}: {text}" for text, names in lacking.items()]


def _results(group: Group) -> list[Results]:
    return [results for run in group.runs for results in (run.before, run.after) if results]


def _folders(group: Group, when: str) -> list[Path]:
    """Result folders of all runs of a group, [] if one has none."""
    found = [getattr(run, when) for run in group.runs]
    folders = [results.folder for results in found if results and results.folder and results.documents]
    return folders if len(folders) == len(found) else []


def _compared(a: list[Path], b: list[Path], what: str, notes: list[str]) -> list[Difference]:
    try:
        return compare(a, b)
    except DataError as error:
        notes.append(f"{what} were not compared: {error}")
        return []


def _adjusted(by_group: Mapping[str, Sequence[Difference]]) -> dict[str, list[Difference]]:
    """Rows of several groups with p_holm: p adjusted for all, as `compare_many` does where no group lacks a result."""
    if len(by_group) < 2:
        return {group: list(rows) for group, rows in by_group.items()}
    adjusted = iter(holm([row.p for rows in by_group.values() for row in rows]))
    return {group: [row._replace(p_holm=next(adjusted)) for row in rows] for group, rows in by_group.items()}


def _drill(name: str, benchmark: Benchmark, groups: Sequence[Group]) -> Drilled | None:
    """The most stereotyped examples of every group with results of this benchmark."""
    if benchmark.drill_down is None:
        return None
    examples = {}
    for group in groups:
        folders = [folder for folder in _folders(group, "after") if (folder / f"{name}.json").is_file()]
        if folders and len(folders) == len(group.runs):
            examples[group.name] = _quoted(name, benchmark, benchmark.drill_down, group, folders)
    if not examples:
        return None
    drill = benchmark.drill_down
    return Drilled(name, drill.label, drill.unit, benchmark.licence, benchmark.content_warning, examples)


def _quoted(name: str, benchmark: Benchmark, drill: DrillDown, group: Group, folders: list[Path]) -> list[Quoted]:
    table = read_averaged(name, benchmark, folders)
    after, before = drill.strength(table), None
    befores = [folder for folder in _folders(group, "before") if (folder / f"{name}.json").is_file()]
    if len(befores) == len(folders):
        theirs = read_averaged(name, benchmark, befores)
        key = next(iter(benchmark.columns))
        before = drill.strength(theirs) if theirs[key] == table[key] else None
    texts = _texts(name, benchmark, drill, group, folders[0], table)
    ranked = [int(row) for row in np.argsort(-after) if not np.isnan(after[row])][:EXAMPLES]  # NaN sorts last
    return [
        Quoted(
            texts["stereotyped"][row],
            texts["other"][row],
            None if before is None or np.isnan(before[row]) else float(before[row]),
            float(after[row]),
        )
        for row in ranked
    ]


def _texts(name: str, benchmark: Benchmark, drill: DrillDown, group: Group, folder: Path, table: Table) -> Table:
    """The sentences beside the scores; of runs older than that file from the run's data, or what the scores say of them."""
    path = folder / f"{name}_texts.csv"
    if path.is_file():
        return read_table(path, TEXTS)
    data = group.runs[0].config.get("evals", {}).get("data", "")
    try:
        if data:
            return drill.texts(DataFolder(path_of(data), offline=True), table)
    except (DataError, OSError, LookupError):
        pass  # the data has moved or is another version: the examples keep their names
    return _labels(benchmark, table)


def _labels(benchmark: Benchmark, table: Mapping[str, list[Any]]) -> Table:
    types = {**benchmark.columns, **benchmark.example_columns}
    names = [name for name, kind in types.items() if not issubclass(kind, float)]
    rows = zip(*(table[name] for name in names), strict=True)
    labels = [", ".join(f"{name} {value}" for name, value in zip(names, row, strict=True)) for row in rows]
    return {"stereotyped": labels, "other": [""] * len(labels)}
