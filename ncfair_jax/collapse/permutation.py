"""Is a list of words more collapsed than other words of the same frequency? A permutation test against random lists.

A class mean of a rare word is a worse estimate than that of a frequent one, which moves every neural-collapse figure; so
the words of the random lists occur about as often as those of the tested list, and are drawn from its words and neutral ones
together (`lexicons.classes.matched_lists`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ncfair_jax.collapse.class_stats import ClassStats, take
from ncfair_jax.collapse.jackknife import OF_THE_SAMPLE
from ncfair_jax.collapse.measures import measure


class Tested(NamedTuple):
    """A figure of the tested list, mean and standard deviation (ddof 1) over the random lists, and the p-value."""

    value: float
    mean: float
    std: float
    p: float
    lists: int


def figures_of_lists(
    stats: ClassStats, classifier: Float[Array, "K D"], lists: Int[Array, "N C"]
) -> list[dict[str, float]]:
    """All figures of each list.

    Args:
        stats, classifier: of K classes, among them all that the lists hold.
        lists: slots of the C words of each of N lists.
    """
    host: ClassStats = jax.tree.map(np.asarray, stats)
    rows = np.asarray(classifier)
    return [measure(take(host, chosen), rows[chosen]) for chosen in np.asarray(lists)]


def permutation_test(
    tested: dict[str, float],
    lists: Sequence[dict[str, float]],
    tested_first: dict[str, float] | None = None,
    lists_first: Sequence[dict[str, float]] = (),
) -> dict[str, Tested]:
    """Where each figure of the tested list lies among those of random lists.

    With a first model, the figure is the difference to that model on the same list: whether debiasing changed these words
    more than it changed others.

    Args:
        tested, lists: figures of the tested list and of each random list.
        tested_first, lists_first: the same of the first model, in the same order.
    Returns:
        By figure. p is two-sided: twice the smaller of (1 + number of lists at least as low) / (1 + number of lists) and the
        same for as high, at most 1. NaN where the tested figure is undefined; lists where it is are left out.
    """
    found = {}
    for name, value in tested.items():
        if name in OF_THE_SAMPLE or any(name not in figures for figures in lists):  # lists have no held-out rows
            continue
        values = np.array([figures[name] for figures in lists])
        if tested_first is not None:
            value -= tested_first[name]
            values = values - np.array([figures[name] for figures in lists_first])
        values = values[np.isfinite(values)]
        found[name] = Tested(value, *_moments(values), _two_sided(value, values), len(values))
    return found


def _moments(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _two_sided(value: float, values: np.ndarray) -> float:
    if not np.isfinite(value) or not len(values):
        return float("nan")
    smaller = min(np.sum(values <= value), np.sum(values >= value))
    return float(min(1.0, 2 * (1 + smaller) / (1 + len(values))))
