"""What a figure and its uncertainty are computed from: columns summed by cluster, and a function of their totals.

Letters: C clusters, S summed columns, E examples.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ncfair_jax.finite import require_finite
from ncfair_jax.statistics.scales import REAL, Scale

Label = TypeVar("Label", bound=Hashable)
Figures = Mapping[str, Any]  # names, possibly nested, to arrays of one shape


def one_each(sums: np.ndarray) -> np.ndarray:
    """Every cluster has size 1."""
    return np.ones(sums.shape[:-1])


class Sample(NamedTuple):
    """Figures of examples that are sampled in clusters.

    Attributes:
        clusters: names of the C clusters in a fixed order. With `crossed`, a cluster is a cell of two crossed factors.
        sums: f64[...,C,S], columns summed over the examples of each cluster.
        figures: total sums f64[...,S] -> figures f64[...]; NaN where undefined.
        counts: total sums f64[S] -> whole numbers that go beside the figures and have no interval.
        scales: the scale of all figures, or a dict shaped like the figures; names that it lacks are real numbers.
        sizes: sums f64[...,S] -> number of examples f64[...] behind a figure, for all figures or as a dict shaped like
            them. A tuple of such arrays: the figure compares independent groups, and a cluster is of the group of which it has
            examples.
        crossed: i32[C,2], the row and the column of each cell, where both are sampled (professions and person words).
    """

    clusters: tuple[str, ...]
    sums: np.ndarray
    figures: Callable[[np.ndarray], Figures]
    counts: Callable[[np.ndarray], Mapping[str, int]] = lambda sums: {}
    scales: Scale | Mapping[str, Any] = REAL
    sizes: Callable[[np.ndarray], Any] = one_each
    crossed: np.ndarray | None = None


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def numbered(labels: Sequence[Label]) -> np.ndarray:
    """i32[E], the number of each label in order of first appearance."""
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return np.array([index[label] for label in labels], np.int32)


def cluster_sums(labels: Sequence[Label], columns: np.ndarray) -> tuple[tuple[Label, ...], np.ndarray]:
    """Sums columns f64[E,S] by label; clusters in order of first appearance.

    Returns:
        The distinct labels and f64[C,S].
    Raises:
        NonFiniteError: if a column is not finite in some row, naming its label.
    """
    require_finite(columns, lambda row: f"a score of {labels[row]!r}")
    distinct = tuple(dict.fromkeys(labels))
    sums = np.zeros((len(distinct), columns.shape[1]))
    np.add.at(sums, numbered(labels), columns)
    return distinct, sums


def point_figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """Figures and counts of a nested dict of Samples, as a nested dict ready for JSON; undefined figures are None."""
    return {
        name: sample_figures(node) if isinstance(node, Sample) else point_figures(node)
        for name, node in samples.items()
    }


def sample_figures(sample: Sample) -> dict[str, Any]:
    """As `point_figures`, for one Sample."""
    total = sample.sums.sum(0)
    return map_figures(_number, sample.figures(total)) | dict(sample.counts(total))


def map_figures(function: Callable[..., Any], *figures: Figures) -> dict[str, Any]:
    """Applies a function to the leaves of nested dicts of one shape, keeping the order of names."""
    first = figures[0]
    return {
        name: map_figures(function, *(f[name] for f in figures))
        if isinstance(first[name], Mapping)
        else function(*(f[name] for f in figures))
        for name in first
    }


def at_path(tree: Any, path: Sequence[str], default: Any = None) -> Any:
    """The leaf on the way of a path in a nested dict that may stop short of it; `default` for a name it lacks."""
    for name in path:
        if not isinstance(tree, Mapping):
            break
        tree = tree.get(name, default)
    return tree


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
