"""All figures of one model on one text, and their JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ncfair_jax.collapse.jackknife import CORRECTED, ENOUGH_GROUPS, Measured
from ncfair_jax.run_log import finite

NOTES = {
    "interval": "95% jackknife interval over groups of sentences: of what texts of the same kind and size give on average",
    "corrected": f"without the bias of words with few rows, of the words found in {ENOUGH_GROUPS} groups of sentences or more; "
    "its interval is of the value that ever more text would lead to. Compare sets of words with other counts by it only",
}


@dataclass(frozen=True)
class ModelMeasures:
    """Everything measured on one model.

    Attributes:
        name: of the model, as given.
        words: by word set, how many of its words occur.
        sentences, held_out: that the moments, and that NC4, are taken on.
        sets: by word set, its figures.
        depth: by word set and layer, figures; empty unless all layers were asked for.
        lists: figures of each random list of the permutation test.
    """

    name: str
    words: dict[str, int]
    sentences: int
    held_out: int
    sets: dict[str, Measured]
    depth: dict[str, dict[str, Measured]]
    lists: list[dict[str, float]]


def to_json(measures: ModelMeasures, settings: dict[str, Any]) -> dict[str, Any]:
    """Strict JSON, null where a figure is undefined; "notes" says what the intervals and the corrected figures are of."""
    return {
        "settings": settings,
        "notes": NOTES,
        "model": measures.name,
        "words": measures.words,
        "corrected_words": {name: measured.corrected_words for name, measured in measures.sets.items()},
        "sentences": measures.sentences,
        "held_out": measures.held_out,
        "sets": {name: _figures(measured) for name, measured in measures.sets.items()},
        "depth": {
            name: {layer: _figures(measured) for layer, measured in layers.items()}
            for name, layers in measures.depth.items()
        },
        "lists": [{name: finite(value) for name, value in figures.items()} for figures in measures.lists],
    }


def from_json(content: dict[str, Any]) -> ModelMeasures:
    """What `to_json` wrote."""
    return ModelMeasures(
        content["model"],
        content["words"],
        content["sentences"],
        content["held_out"],
        {name: _measured(figures) for name, figures in content["sets"].items()},
        {
            name: {layer: _measured(figures) for layer, figures in layers.items()}
            for name, layers in content["depth"].items()
        },
        [{name: _number(value) for name, value in figures.items()} for figures in content["lists"]],
    )


def _figures(measured: Measured) -> dict[str, dict[str, Any]]:
    intervals = measured.intervals()
    found: dict[str, dict[str, Any]] = {}
    for name, value in measured.figures.items():
        found[name] = _entry(value, measured.without[name])
        found[name]["interval"] = [finite(x) for x in intervals[name]] if name in intervals else None
        if measured.frequent is not None and name in measured.frequent.figures:
            if name in CORRECTED:
                corrected, interval = measured.corrected(name)
                found[name] |= {"corrected": finite(corrected), "corrected_interval": [finite(x) for x in interval]}
            found[name]["frequent_words"] = _entry(measured.frequent.figures[name], measured.frequent.without[name])
    return found


def _measured(figures: dict[str, dict[str, Any]]) -> Measured:
    frequent = {name: entry["frequent_words"] for name, entry in figures.items() if "frequent_words" in entry}
    return Measured(*_values(figures), Measured(*_values(frequent)) if frequent else None)


def _entry(value: float, without: Sequence[float]) -> dict[str, Any]:
    return {"value": finite(value), "without_each_group": [finite(x) for x in without]}


def _values(entries: dict[str, dict[str, Any]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    values = {name: _number(entry["value"]) for name, entry in entries.items()}
    return values, {name: [_number(x) for x in entry["without_each_group"]] for name, entry in entries.items()}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
