"""Uncertainty of evaluation figures: a cluster bootstrap and, between two models, a paired permutation test.

Every figure here is a function of sums over examples, so a resample is a vector of counts times the sums per cluster: ten
thousand resamples are a few matrix products.

Letters: C clusters, S summed columns, B resamples, E examples.
Source: Efron and Tibshirani 1993 (percentile bootstrap); Phipson and Smyth 2010 (the +1 of a sampled permutation test).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
BLOCK_ELEMENTS = 2**22  # resample counts held at a time (32 MiB)

Figures = Mapping[str, Any]  # names, possibly nested, to arrays of one shape


class Sample(NamedTuple):
    """What a figure and its uncertainty are computed from.

    Attributes:
        clusters: the units that are resampled together, C names in a fixed order.
        sums: f64[C,S], columns summed over the examples of each cluster.
        figures: total sums f64[...,S] -> figures f64[...]; NaN where undefined.
        counts: total sums f64[S] -> whole numbers that go beside the figures and have no interval.
    """

    clusters: tuple[str, ...]
    sums: np.ndarray
    figures: Callable[[np.ndarray], Figures]
    counts: Callable[[np.ndarray], Mapping[str, int]] = lambda sums: {}


class Comparison(NamedTuple):
    """One figure of two models: difference b - a, its 95% paired bootstrap interval, two-sided permutation p-value."""

    value_a: float
    value_b: float
    difference: float
    interval: tuple[float, float] | None
    p: float


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def cluster_sums(labels: Sequence[str], columns: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Sums columns f64[E,S] by label; clusters in order of first appearance.

    Returns:
        Cluster names and f64[C,S].
    """
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    sums = np.zeros((len(index), columns.shape[1]))
    np.add.at(sums, [index[label] for label in labels], columns)
    return tuple(index), sums


def summarise(samples: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and 95% intervals of a nested dict of Samples, as two nested dicts of one shape, ready for JSON.

    Undefined figures, and intervals of counts or of fewer than two clusters, are None.
    """
    metrics, spans = {}, {}
    for name, node in samples.items():
        if isinstance(node, Sample):
            metrics[name], spans[name] = summarise_sample(node)
        else:
            metrics[name], spans[name] = summarise(node)
    return metrics, spans


def summarise_sample(sample: Sample) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `summarise`, for one Sample."""
    counts = sample.counts(sample.sums.sum(0))
    return _sample_figures(sample), intervals(sample) | dict.fromkeys(counts)


def point_figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of `summarise` without the intervals."""
    return {
        name: _sample_figures(node) if isinstance(node, Sample) else point_figures(node)
        for name, node in samples.items()
    }


def _sample_figures(sample: Sample) -> dict[str, Any]:
    total = sample.sums.sum(0)
    return map_figures(_number, sample.figures(total)) | dict(sample.counts(total))


def intervals(sample: Sample) -> dict[str, Any]:
    """[low, high] of every figure: percentile bootstrap over clusters; None where it cannot be had.

    Resamples in which a figure is undefined (no example of its kind was drawn) are left out for that figure.
    """
    if len(sample.clusters) < 2:
        return map_figures(lambda _: None, sample.figures(sample.sums.sum(0)))
    blocks = [sample.figures(counts @ sample.sums) for counts in resample_counts(len(sample.clusters))]
    return map_figures(lambda *parts: percentile_interval(np.concatenate(parts)), *blocks)


def percentile_interval(values: np.ndarray) -> list[float] | None:
    """The central 95% of the defined values f64[B]."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return None
    tail = (1 - CONFIDENCE) / 2
    return [float(v) for v in np.quantile(defined, [tail, 1 - tail])]


def resample_counts(clusters: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, f64[b,C] in blocks that sum to `resamples` rows; a pure function of the arguments."""
    rng = np.random.default_rng(seed)
    for size in _block_sizes(clusters, resamples):
        draws = rng.integers(clusters, size=(size, clusters)) + clusters * np.arange(size)[:, None]
        yield np.bincount(draws.ravel(), minlength=size * clusters).reshape(size, clusters).astype(float)


def compare_paired(
    clusters: int, sums_a: np.ndarray, sums_b: np.ndarray, figure: Callable[[np.ndarray], np.ndarray]
) -> Comparison:
    """Compares one figure of two models on the same clusters.

    The interval resamples clusters, both models together. The p-value swaps the models' names in each cluster with
    probability 1/2 and counts absolute differences at least as large as the one seen, itself included.

    Args:
        sums_a, sums_b: f64[C,S] of the same clusters in the same order.
        figure: total sums f64[...,S] -> f64[...].
    """
    total_a, total_b = sums_a.sum(0), sums_b.sum(0)
    value_a, value_b = float(figure(total_a)), float(figure(total_b))
    difference = value_b - value_a
    boot = [figure(counts @ sums_b) - figure(counts @ sums_a) for counts in resample_counts(clusters)]
    interval = percentile_interval(np.concatenate(boot)) if clusters >= 2 else None
    change = sums_b - sums_a
    at_least = defined = 0
    rng = np.random.default_rng(SEED + 1)
    for size in _block_sizes(clusters, RESAMPLES):
        moved = rng.integers(2, size=(size, clusters)).astype(float) @ change
        swapped = figure(total_b - moved) - figure(total_a + moved)
        swapped = swapped[~np.isnan(swapped)]
        defined += len(swapped)
        at_least += int((np.abs(swapped) >= abs(difference) * (1 - 1e-9)).sum())
    p = float("nan") if np.isnan(difference) else (1 + at_least) / (1 + defined)
    return Comparison(value_a, value_b, difference, None if interval is None else (interval[0], interval[1]), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false rejection among them all stays below the level (Holm 1979).

    The k-th smallest of m is multiplied by m − k + 1, is at least the adjusted one before it and at most 1. NaN stays NaN
    and does not count.
    """
    given = np.asarray(p_values, float)
    adjusted = np.full(len(given), np.nan)
    order = np.argsort(given, kind="stable")[: np.count_nonzero(~np.isnan(given))]  # NaN is sorted last
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def map_figures(function: Callable[..., Any], *figures: Figures) -> dict[str, Any]:
    """Applies a function to the leaves of nested dicts of one shape, keeping the order of names."""
    first = figures[0]
    return {
        name: map_figures(function, *(f[name] for f in figures))
        if isinstance(first[name], Mapping)
        else function(*(f[name] for f in figures))
        for name in first
    }


def _block_sizes(clusters: int, resamples: int) -> Iterator[int]:
    block = max(1, BLOCK_ELEMENTS // max(1, clusters))
    for start in range(0, resamples, block):
        yield min(block, resamples - start)


def _number(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
