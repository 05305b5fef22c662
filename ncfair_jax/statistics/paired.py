"""Two models on the same clusters: the difference of a figure, its 95% interval and p, and which is nearer to no bias.

Interval and p come from one variance by Student's t, so that they cannot contradict each other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ncfair_jax.statistics.intervals import LeftOut, as_groups, factor_sums, spread
from ncfair_jax.statistics.samples import Sample, at_path
from ncfair_jax.statistics.scales import NONE, REAL, Scale, interval, p_value

Pair = tuple[np.ndarray, np.ndarray]


class Comparison(NamedTuple):
    """One figure of two models: difference b − a, its 95% interval (None: there is none) and two-sided p (NaN: none)."""

    value_a: float
    value_b: float
    difference: float
    interval: tuple[float, float] | None
    p: float


def compare_paired(a: Sample, b: Sample, path: Sequence[str]) -> Comparison:
    """Compares a figure of two models on the same clusters, named by its path in the figures.

    Figures that are no smooth function of averages have neither interval nor p; nor have those of fewer than five clusters.
    """
    values = _values(a, b, path)
    low, high, p = difference(a, b, path)
    span = None if np.isnan([low, high]).any() else (float(low), float(high))
    return Comparison(*values, values[1] - values[0], span, float(p))


def compare_distance(a: Sample, b: Sample, path: Sequence[str], unbiased: float) -> Comparison:
    """Compares how far the figure is from its unbiased value, |b − unbiased| − |a − unbiased|; without interval."""
    value_a, value_b = (abs(value - unbiased) for value in _values(a, b, path))
    return Comparison(value_a, value_b, value_b - value_a, None, float(distance_p(a, b, path, unbiased)))


def difference(a: Sample, b: Sample, path: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low and high end of the interval of b − a and its p, f64[...] each, for batches of `sums`."""
    low, high, p = _contrast(a, b, path, lambda x, y: y - x)
    return low, high, p


def distance_p(a: Sample, b: Sample, path: Sequence[str], unbiased: float) -> np.ndarray:
    """p f64[...] of the hypothesis that both models are equally far from the unbiased value u.

    They are where a = b or where a − u = −(b − u), so it is rejected only where both of these are: the larger p counts
    (Berger 1982). Absolute values, whose distribution is bent near 0, do not enter.
    """
    same = _contrast(a, b, path, lambda x, y: y - x)[2]
    mirrored = _contrast(a, b, path, lambda x, y: x + y - 2 * unbiased)[2]
    return np.maximum(same, mirrored)


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


def _values(a: Sample, b: Sample, path: Sequence[str]) -> tuple[float, float]:
    first, second = (float(at_path(sample.figures(sample.sums.sum(-2)), path)) for sample in (a, b))
    return first, second


def _contrast(
    a: Sample, b: Sample, path: Sequence[str], combine: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interval and p of a linear combination of both models' figure."""
    scale = difference_scale(at_path(a.scales, path, REAL))
    factors = list(zip(factor_sums(a), factor_sums(b), strict=True))
    totals = a.sums.sum(-2), b.sums.sum(-2)
    value = combine(*(at_path(sample.figures(total), path) for sample, total in zip((a, b), totals, strict=True)))
    if scale == NONE:
        nothing = np.full(np.shape(value), np.nan)
        return nothing, nothing, nothing
    parts = []
    for sums in factors:
        left = (
            at_path(sample.figures(total[..., None, :] - own), path)
            for sample, total, own in zip((a, b), totals, sums, strict=True)
        )
        parts.append(LeftOut(combine(*left), as_groups(at_path(a.sizes(sums[0]), path))))
    uncertain = spread(scale, parts)
    low, high = interval(scale, value, uncertain)
    p = p_value(scale, value, uncertain)
    same = p == 1  # no cluster differs: known to be equal
    return np.where(same & np.isnan(low), 0.0, low), np.where(same & np.isnan(high), 0.0, high), p


def difference_scale(scale: Scale) -> Scale:
    """The scale of a difference of two models' figures."""
    if scale.kind in ("proportion", "difference"):
        return Scale("difference", scale.limit)
    return scale if scale == NONE else REAL
