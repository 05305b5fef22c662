"""Figures of a survey with 95% intervals, and the gap and ratio between two surveys, by the delete-a-group jackknife.

The standard error of a figure is sqrt((G - 1) / G * sum_g (f_g - mean f)^2) with f_g the figure without group g; the
interval is the figure plus and minus that times the 97.5% quantile of Student's t with G - 1 degrees of freedom (2.09 for
20 groups). It speaks of other text of the same kind, given this model and these words. Two surveys of the same text leave
out the same sentences together, so that what both owe to the text cancels in their gap.

Source: Kott 2001, The delete-a-group jackknife; Quenouille and Tukey's variance for G equal groups.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import t as student_t

from ncfair_jax.collapse.agreement import Agreement
from ncfair_jax.collapse.class_stats import ClassStats, merge, remove
from ncfair_jax.collapse.measures import measure

CONFIDENCE = 0.95
# Figures without an interval: they describe no model.
OF_THE_SAMPLE = ("classes", "singletons", "pairs_skipped", "nc4_rows", "nc4_bias_rows")
FRACTIONS = ("nc4", "nc4_macro", "nc4_chance", "nc4_bias", "nc4_bias_macro", "nc4_bias_chance", "nc4_means")
Interval = tuple[float, float]


class Measured(NamedTuple):
    """Figures by name, and for each their values without group 0, 1, …, G-1 (none where there is only one group)."""

    figures: dict[str, float]
    without: dict[str, list[float]]

    def interval(self, name: str) -> Interval:
        """95% interval of a figure; NaN with fewer than two groups, and where it is undefined without some group."""
        low, high = jackknife(self.figures[name], self.without[name])
        return (max(low, 0.0), min(high, 1.0)) if name in FRACTIONS else (low, high)

    def intervals(self) -> dict[str, Interval]:
        """Of all figures but those that describe the sample."""
        return {name: self.interval(name) for name in self.figures if name not in OF_THE_SAMPLE}


def measure_groups(
    groups: Sequence[ClassStats],
    classifier: Float[Array, "K D"],
    bias: Float[Array, "K"] | None = None,
    nc4: Mapping[str, Sequence[Agreement]] | None = None,
) -> Measured:
    """All figures of `measures.measure` of all groups together, and without each group in turn.

    Args:
        groups: moments of G disjoint parts of a corpus, from `survey`; read one at a time.
        classifier, bias: output embeddings and biases of the K listed words.
        nc4: by figure name, the accumulators of G disjoint parts of held-out text, from `survey_nc4`. Part g is left out
            with group g; the means that NC4 compares with stay those of all groups.
    Raises:
        ValueError: without groups, or with as many held-out parts as there are not groups.
    """
    if not len(groups):
        raise ValueError("no groups of class moments; expected those of one survey")
    parts = {name: list(agreements) for name, agreements in (nc4 or {}).items()}
    for name, agreements in parts.items():
        if len(agreements) != len(groups):
            raise ValueError(f"{len(agreements)} held-out parts of {name}, {len(groups)} groups; cut both into as many")
    total = reduce(merge, groups)
    totals = {name: reduce(_added, agreements) for name, agreements in parts.items()}
    figures = measure(total, classifier, bias, totals)
    without: dict[str, list[float]] = {name: [] for name in figures}
    if len(groups) > 1:
        for number, group in enumerate(groups):
            rest = {name: _subtracted(totals[name], agreements[number]) for name, agreements in parts.items()}
            for name, value in measure(remove(total, group), classifier, bias, rest).items():
                without[name].append(value)
    return Measured(figures, without)


def gap(first: Measured, other: Measured, name: str) -> tuple[float, Interval]:
    """A figure of `other` minus that of `first`, surveys of the same text, with the interval of the difference."""
    values = np.subtract(other.without[name], first.without[name])
    value = other.figures[name] - first.figures[name]
    return value, jackknife(value, values.tolist())


def ratio(first: Measured, other: Measured, name: str) -> tuple[float, Interval]:
    """A figure of `other` over that of `first`, likewise; for figures that are positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.divide(other.without[name], first.without[name])
        value = float(np.divide(other.figures[name], first.figures[name]))
    return value, jackknife(value, values.tolist())


def jackknife(figure: float, without: Sequence[float]) -> Interval:
    """The interval around a figure from its values without each group in turn."""
    number = len(without)
    if number < 2:
        return float("nan"), float("nan")
    error = np.sqrt((number - 1) * np.var(without))
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, number - 1) * error)
    return figure - reach, figure + reach


def _added(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(*jax.tree.map(np.add, a, b))


def _subtracted(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(*jax.tree.map(np.subtract, a, b))
