"""The kinds of figures that have an interval, and the 95% interval of each kind from a variance and its degrees of freedom.

Sources: Wilson 1927 with the effective sample size of Korn and Graubard 1998 (proportions); Bonett and Price 2012 (paired
differences of proportions); Fisher 1921 (correlations).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95


class Scale(NamedTuple):
    """What kind of number a figure is; `limit` is its largest value where it has one.

    Kinds: "real"; "positive", any number above 0; "proportion", 0 to limit; "difference" of two proportions of that limit;
    "correlation", −limit to limit; "absolute", a mean of absolute values of single examples, which has no interval but whose
    differences between two models do; "none", an absolute or otherwise bent function of averages, which has neither.
    """

    kind: str
    limit: float = 1.0


REAL = Scale("real")
POSITIVE = Scale("positive")
FRACTION = Scale("proportion")
PERCENT = Scale("proportion", 100.0)
POINTS = Scale("difference", 100.0)  # between two percentages
CORRELATION = Scale("correlation")
ABSOLUTE = Scale("absolute")
NONE = Scale("none")


class Spread(NamedTuple):
    """Uncertainty of a figure: its variance on the scale of `link`, degrees of freedom, effective clusters, examples.

    All are f64[...]; the variance is NaN where it cannot be had.
    """

    variance: np.ndarray
    df: np.ndarray
    clusters: np.ndarray
    examples: np.ndarray


def link(scale: Scale, values: np.ndarray) -> np.ndarray:
    """Values on the scale on which their distribution is closest to normal."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if scale.kind == "positive":
            return np.log(values)
        return np.arctanh(values / scale.limit) if scale.kind == "correlation" else values


def interval(scale: Scale, value: np.ndarray, spread: Spread) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95% intervals of values f64[...]; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if scale.kind in ("none", "absolute"):
            nothing = np.full(np.shape(value), np.nan)
            return nothing, nothing
        if scale.kind == "proportion":
            return _wilson(scale.limit, value, spread)
        centre = link(scale, value)
        half = _quantile(spread.df) * standard_error(scale, spread)
        half = np.where((half > 0) & np.isfinite(centre), half, np.nan)  # no spread at all is no knowledge of it
        low, high = centre - half, centre + half
        if scale.kind == "positive":
            return np.exp(low), np.exp(high)
        if scale.kind == "correlation":
            return scale.limit * np.tanh(low), scale.limit * np.tanh(high)
        if scale.kind == "difference":
            return np.maximum(low, -scale.limit), np.minimum(high, scale.limit)
        return low, high


def standard_error(scale: Scale, spread: Spread) -> np.ndarray:
    """Root of the variance; for differences of proportions as if two more examples had been seen, one for each side.

    Without them a difference of 0 in every example seen would be known exactly.
    """
    more = 2 * (scale.limit / (spread.examples + 2)) ** 2 if scale.kind == "difference" else 0.0
    return np.sqrt(spread.variance + more)


def p_value(scale: Scale, value: np.ndarray, spread: Spread) -> np.ndarray:
    """Two-sided p of value 0 by Student's t, below 5% just where the interval leaves out 0; NaN where there is none."""
    error = standard_error(scale, spread)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stdtr(np.maximum(spread.df, 1), -np.abs(value) / error)
    return np.where(np.isnan(error), np.nan, np.where(error > 0, p, np.where(value == 0, 1.0, np.nan)))


def _wilson(limit: float, value: np.ndarray, spread: Spread) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval with Student's t and the number of independent examples that have the same variance.

    Where all examples agree, or all clusters, a cluster counts as one example: nothing is seen of how they differ.
    """
    share = value / limit
    spreads = share * (1 - share)
    variance = spread.variance / limit**2
    n = np.where((variance > 0) & (spreads > 0), spreads / variance, spread.clusters)
    n = np.where(np.isnan(variance), np.nan, n)
    square = _quantile(spread.df) ** 2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = np.sqrt(square * (spreads / n + square / (4 * n**2))) / (1 + square / n)
    return limit * np.maximum(centre - half, 0), limit * np.minimum(centre + half, 1)


def _quantile(df: np.ndarray) -> np.ndarray:
    return stdtrit(np.maximum(df, 1), (1 + CONFIDENCE) / 2)
