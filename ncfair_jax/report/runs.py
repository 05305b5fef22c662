"""Folders of finished, unfinished or failed runs, read into what a report shows; nothing is computed here.

A folder is what `launch/train.py` (one run or arms × seeds), `launch/sweep.py`, `launch/evaluate.py` or `launch/measure.py`
wrote. What a folder lacks, and what its figures leave out, is named in
`missing`; what it has but cannot be read is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.benchmarks.registry import BENCHMARKS, defined_path, headlines_of, lookup, n_of, parse
from ncfair_jax.collapse.measures import VERSION
from ncfair_jax.environment import ENVIRONMENT_FILE
from ncfair_jax.files.records import (
    CONFIG,
    DOCUMENT,
    ENVIRONMENT,
    EVALUATE_AGAIN,
    FIGURES,
    JUDGE_AGAIN,
    NOTES,
    RESULT,
    Form,
    metrics_lines,
    read_record,
    taken_apart,
)
from ncfair_jax.report.comparisons import COLLAPSE
from ncfair_jax.report.measured import MeasuredFolder, is_measured, read_measured
from ncfair_jax.report.sweeps import read_sweep, start_figures
from ncfair_jax.run_log import METRICS_FILE
from ncfair_jax.workdir import RESULT_FILE, altered

RESULT_AGAIN = "delete it, and the run's command writes it again"
RECORD_ONLY = "delete it: no figure depends on it"
REMEDY = (
    "name the --workdir of launch/train.py or launch/sweep.py, or the --out of launch/evaluate.py or launch/measure.py"
)


class ReportError(ValueError):
    """A folder that is no run, or a file of one that cannot be read; one line with the remedy."""


@dataclass(frozen=True)
class Figure:
    """A line of the summary: a figure with its 95% interval.

    Attributes:
        n: examples or words, as text.
        kind: "fairness", "utility" or "collapse".
        better: "higher", "lower", the value of an unbiased model ("50"), or "".
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None
    n: str
    kind: str
    better: str


@dataclass(frozen=True)
class Results:
    """One model's figures, in the order of a table, and the folder of its examples' scores (None = not here)."""

    figures: dict[str, Figure]
    folder: Path | None
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportedRun:
    """One run: a model trained and judged before and after, or (before = None, config = {}) a model that was judged."""

    name: str
    folder: Path
    config: dict[str, Any]
    environment: tuple[dict[str, Any], ...]
    before: Results | None
    after: Results | None
    metrics: tuple[dict[str, float], ...]
    missing: tuple[str, ...]
    diverged: tuple[str, ...] = ()  # sentences about losses that grew


@dataclass(frozen=True)
class Group:
    """A column of the report: one run, or an arm's runs with several seeds."""

    name: str
    runs: tuple[ReportedRun, ...]


class Read(NamedTuple):
    """What folders hold, and a note on each run of a sweep that is not there."""

    groups: list[Group]
    measured: list[MeasuredFolder]
    notes: list[str]


def read_folders(folders: Sequence[Path], before: Path | None = None) -> Read:
    """Reads folders in the order given; a folder of arms × seeds becomes a group for each arm.

    Args:
        before: where the figures of a run's starting model are; None = beside the run.
    Raises:
        ReportError, DataError: for a folder that is no run, or a file that cannot be read.
    """
    groups: list[Group] = []
    measured: list[MeasuredFolder] = []
    notes: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(f"{folder} is not a folder; {REMEDY}")
        if _is_workdir(folder):
            groups.append(Group(folder.name, (read_run(folder, before),)))
        elif sweep := read_sweep(folder):
            groups += [Group(name, tuple(map(read_run, runs))) for name, runs in sweep.arms.items() if runs]
            notes += sweep.notes
        elif any((folder / f"{name}.json").is_file() for name in BENCHMARKS):
            groups.append(Group(folder.name, (_read_evaluation(folder),)))
        elif is_measured(folder):
            measured.append(read_measured(folder))
        else:
            raise ReportError(f"{folder} holds no run and no results; {REMEDY}")
    return Read(_distinct(groups), measured, notes)


def read_run(folder: Path, before_folder: Path | None = None) -> ReportedRun:
    """A workdir of `train_and_evaluate`, finished or not."""
    config = _config(folder / "config.json")
    environment = _optional(folder / ENVIRONMENT_FILE, ENVIRONMENT, RECORD_ONLY) or []
    result = _optional(folder / RESULT_FILE, RESULT, RESULT_AGAIN) or {}
    missing: list[str] = []
    before_folder = before_folder or _find_before(folder, result)
    before = _read_results(before_folder, config["evals"], missing, "before") if before_folder else None
    if before is None and result:
        with taken_apart(folder / RESULT_FILE, RESULT_AGAIN):
            before = Results(_lines(result["before"]), None)
        missing.append(
            "the examples of the model before are not in this folder, so nothing is compared example by example"
        )
    elif before is None and config["evals"]["benchmarks"]:
        missing.append("there are no figures of the model before")
    after = _read_results(folder / "evals" / "after", config["evals"], missing, "after")
    metrics, damaged = _read_metrics(folder / METRICS_FILE)
    missing += damaged
    if not metrics:
        missing.append(f"{METRICS_FILE} is missing, so there are no curves")
    if not (folder / "evals" / "after" / "figures.json").is_file():
        reached = f"its last logged step is {metrics[-1]['step']}" if metrics else "it has logged no step"
        missing.append(f"the run is not finished: {reached}; the command that started it goes on with it")
    left_out = _optional(folder / "left_out.json", NOTES, RECORD_ONLY) or []
    missing += [f"training data: {entry['note']}" for entry in left_out]
    missing += altered(folder, before_folder)
    if not environment:
        missing.append("command, versions and device were not recorded: the run is older than environment.json")
    grown = tuple(result.get("diverged", ()))
    return ReportedRun(
        folder.name, folder, config, tuple(environment), before, after, metrics, tuple(dict.fromkeys(missing)), grown
    )


def _is_workdir(folder: Path) -> bool:
    path = folder / "config.json"
    if not path.is_file():
        return False
    config = read_record(path, dict, f"put it back from a copy; if it is no run's, {REMEDY}")
    if "model_type" in config:
        raise ReportError(f"{folder} is an exported model, not a run; {REMEDY}")
    return True


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_record(path, CONFIG, f"put it back from a copy; if it is no run's, {REMEDY}")
    return config


def _find_before(folder: Path, result: Mapping[str, Any]) -> Path | None:
    """evals/before, or what the runs of a sweep share."""
    own = folder / "evals" / "before"
    return own if own.is_dir() else start_figures(folder, result)


def _documents(folder: Path) -> dict[str, dict[str, Any]]:
    """By benchmark, NAME.json of those that have one."""
    found = {name: _optional(folder / f"{name}.json", DOCUMENT, EVALUATE_AGAIN) for name in BENCHMARKS}
    return {name: document for name, document in found.items() if document is not None}


def _read_evaluation(folder: Path) -> ReportedRun:
    missing: list[str] = []
    results = _read_results(folder, {"benchmarks": "", "collapse_text": ""}, missing, "")
    return ReportedRun(folder.name, folder, {}, (), None, results, (), tuple(missing))


def _read_results(folder: Path, asked: Mapping[str, Any], missing: list[str], when: str) -> Results | None:
    """Figures of a result folder; adds to `missing` what was asked for and is not there, and rows and tokens left out."""
    if not folder.is_dir():
        return None
    documents = _documents(folder)
    _check_one_model(folder, documents)
    figures: dict[str, Figure] = {}
    for name, document in documents.items():
        with taken_apart(folder / f"{name}.json", EVALUATE_AGAIN):
            figures |= {figure.name: figure for figure in _figures(name, document)}
    own = _optional(folder / "figures.json", FIGURES, JUDGE_AGAIN) or {}
    collapse = own.get("collapse", {})
    with taken_apart(folder / "figures.json", JUDGE_AGAIN):
        figures |= _collapse(collapse)
    outdated = [name for name, document in documents.items() if document.get("version") != BENCHMARKS[name].version]
    if collapse and not own.get("content", {}).get("collapse", "").startswith(f"version {VERSION},"):
        outdated.append("collapse")
    if outdated:
        missing.append(
            f"figures {when} of {', '.join(outdated)} are of another version of their definition than this package has; "
            "run the command that made them again"
        )
    for name, _ in parse(asked["benchmarks"]) if asked["benchmarks"] else []:
        if name not in documents:
            missing.append(f"{name} has no result {when}: it failed or has not run yet")
    for name, document in documents.items():
        missing += [f"{name}: {entry['note']}" for entry in document.get("left_out", [])]
    if asked["collapse_text"] and not collapse:
        missing.append(f"there are no collapse figures {when}")
    return Results(figures, folder, documents)


def _check_one_model(folder: Path, documents: Mapping[str, Mapping[str, Any]]) -> None:
    models = {name: x["fingerprints"]["model"] for name, x in documents.items() if "fingerprints" in x}
    for name, model in models.items():
        first = next(iter(models))
        if model != models[first]:
            raise ReportError(
                f"{folder} holds results of two models: {first}.json of one with the fingerprint {models[first]}, "
                f"{name}.json of one with {model}; evaluate one of them in another folder"
            )


def _figures(name: str, document: Mapping[str, Any]) -> list[Figure]:
    found = []
    for line in headlines_of(name, document):
        path = defined_path(line, document["metrics"])
        if path is None:
            continue
        value, interval = lookup(document["metrics"], path), lookup(document["intervals"], path)
        n = str(n_of(line, path, document))
        found.append(Figure(line.name, value, tuple(interval) if interval else None, n, line.kind, line.ideal))
    return found


def _collapse(by_features: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    better = {"nc3": "1", "unc3": "0", "nc1": "0"}
    found = {}
    for features, figures in by_features.items():
        for name in COLLAPSE:
            value, low, high = figures[name]
            label = f"{name.upper()}, {features} features"
            words = f"{figures['classes'][0]:.0f} words"
            interval = None if low is None else (low, high)
            found[label] = Figure(label, value, interval, words, "collapse", better[name])
    return found


def _lines(figures: Mapping[str, Any]) -> dict[str, Figure]:
    """What result.json keeps of a model's figures, when its folder is gone."""
    known = {line.name: line for benchmark in BENCHMARKS.values() for line in benchmark.headlines}
    found = {}
    for name, value, interval, n in figures["benchmarks"]:
        line = known.get(name)
        kind = line.kind if line else "fairness"
        better = line.ideal if line else ""
        found[name] = Figure(name, value, tuple(interval) if interval else None, str(n), kind, better)
    return found | _collapse(figures["collapse"])


def _read_metrics(path: Path) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """The figures of metrics.jsonl, and a note on each damaged line."""
    if not path.is_file():
        return (), []
    lines, faults = metrics_lines(path)
    return tuple(line.figures for line in lines), faults


def _distinct(groups: list[Group]) -> list[Group]:
    """Groups of the same name get as many parents of their folders before it as tell them apart; a number, if none do."""
    found = []
    for place, group in enumerate(groups):
        same = [other for other in groups if other.name == group.name]
        depth = 0
        while depth < 8 and sum(_named(other, depth) == _named(group, depth) for other in same) > 1:
            depth += 1
        earlier = sum(_named(other, depth) == _named(group, depth) for other in groups[:place] if other in same)
        found.append(Group(_named(group, depth) + (f" ({earlier + 1})" if earlier else ""), group.runs))
    return found


def _named(group: Group, parents: int) -> str:
    above = group.runs[0].folder.resolve().parent.parts
    return "/".join([*above[len(above) - min(parents, len(above)) :], group.name])


def _optional(path: Path, form: Form, remedy: str) -> Any:
    """As `read_record`; None if there is no such file."""
    return read_record(path, form, remedy) if path.is_file() else None
