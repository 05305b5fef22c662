"""All figures of one model on one text, and their JSON."""

from dataclasses import dataclass
from typing import Any

from ncfair_jax.collapse.jackknife import Measured
from ncfair_jax.run_log import finite


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
    """Strict JSON, null where a figure is undefined. "interval" is the 95% jackknife interval."""
    return {
        "settings": settings,
        "model": measures.name,
        "words": measures.words,
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
    return {
        name: {
            "value": finite(value),
            "interval": [finite(x) for x in intervals[name]] if name in intervals else None,
            "without_each_group": [finite(x) for x in measured.without[name]],
        }
        for name, value in measured.figures.items()
    }


def _measured(figures: dict[str, dict[str, Any]]) -> Measured:
    return Measured(
        {name: _number(entry["value"]) for name, entry in figures.items()},
        {name: [_number(x) for x in entry["without_each_group"]] for name, entry in figures.items()},
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
