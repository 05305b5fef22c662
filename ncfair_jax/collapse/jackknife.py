"""Figures of a survey with 95% intervals, and the gap and ratio between two surveys, by the delete-a-group jackknife.

The standard error of a figure is sqrt((G - 1) / G * sum_g (f_g - mean f)^2) with f_g the figure without group g; the
interval is the figure plus and minus that times the 97.5% quantile of Student's t with G - 1 degrees of freedom (2.09 for
20 groups). Two surveys of the same text leave out the same sentences together, so that what both owe to the text cancels in
their gap.

The interval is of what other texts of the same kind and size would give on average, given this model and these words. It is
not of the value that ever more text would lead to: class means of few rows are noisy, which moves every figure (NC1 and NC3
down, UNC3 up), the more the rarer the words are. So figures of words with other counts cannot be compared as they are. The
corrected value, G f - (G - 1) mean f_g, takes most of that bias away, and its interval is of the value without the bias. It
needs words that many groups hold: in simulations with Zipf-like counts its intervals cover the true NC1, NC3 and UNC3 in 94
to 98% of the texts if all words occur in five groups or more; with words of two groups they cover UNC3 in 7 to 71%. So it is
that of the words found in `ENOUGH_GROUPS` groups or more. Other figures are not corrected: the interval of GNC2 covers in 91
to 94%, GNC2(w) is of the classifier alone, and the rest was not simulated.

Source: Kott 2001, The delete-a-group jackknife; Quenouille's bias and Tukey's variance for G equal groups.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from ncfair_jax.collapse.agreement import Agreement
from ncfair_jax.collapse.class_stats import ClassStats, merge, remove, take
from ncfair_jax.collapse.measures import measure

CONFIDENCE = 0.95
# Figures without an interval: they describe no model.
OF_THE_SAMPLE = ("classes", "singletons", "pairs_skipped", "nc4_rows", "nc4_bias_rows")
FRACTIONS = ("nc4", "nc4_macro", "nc4_chance", "nc4_bias", "nc4_bias_macro", "nc4_bias_chance", "nc4_means")
CORRECTED = ("nc3", "unc3", "nc1")  # figures whose corrected interval holds in simulations
CORRECTED_SUFFIX = "_corrected"  # ends the names of corrected figures where they stand beside the plain ones
ENOUGH_GROUPS = 5  # that hold a word of a corrected figure
UNDEFINED = float("nan")
Interval = tuple[float, float]


class Measured(NamedTuple):
    """Figures by name, and for each their values without group 0, 1, …, G-1 (none where there is only one group).

    Attributes:
        frequent: the same of those words only that occur in `ENOUGH_GROUPS` groups or more; None if fewer than two do.
    """

    figures: dict[str, float]
    without: dict[str, list[float]]
    frequent: "Measured | None" = None

    def interval(self, name: str) -> Interval:
        """95% interval of a figure; NaN with fewer than two groups, and where it is undefined without some group."""
        low, high = jackknife(self.figures[name], self.without[name])
        return (max(low, 0.0), min(high, 1.0)) if name in FRACTIONS else (low, high)

    @property
    def corrected_words(self) -> int:
        """How many words have a part in the corrected figures."""
        return 0 if self.frequent is None else int(self.frequent.figures["classes"])

    def corrected(self, name: str) -> tuple[float, Interval]:
        """A figure of the frequent words without the bias of few rows, and its 95% interval; NaN where there is none."""
        if self.frequent is None or name not in CORRECTED:
            return UNDEFINED, (UNDEFINED, UNDEFINED)
        without = self.frequent.without[name]
        value = len(without) * self.frequent.figures[name] - (len(without) - 1) * float(np.mean(without))
        return value, jackknife(value, without)

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
    total: ClassStats = jax.tree.map(np.asarray, reduce(merge, groups))
    totals = {name: reduce(_added, agreements) for name, agreements in parts.items()}
    found = Measured(measure(total, classifier, bias, totals), {})
    if len(groups) < 2:
        return found._replace(without={name: [] for name in found.figures})
    frequent = np.flatnonzero(sum((np.asarray(group.count) > 0).astype(int) for group in groups) >= ENOUGH_GROUPS)
    rows = classifier[frequent]
    replicates, of_frequent = [], []
    for number, group in enumerate(groups):
        rest = remove(total, group)
        held_out = {name: _subtracted(totals[name], agreements[number]) for name, agreements in parts.items()}
        replicates.append(measure(rest, classifier, bias, held_out))
        if len(frequent) > 1:
            of_frequent.append(measure(take(rest, frequent), rows))
    if of_frequent:
        frequent_words = Measured(measure(take(total, frequent), rows), _by_name(of_frequent))
        found = found._replace(frequent=frequent_words)
    return found._replace(without=_by_name(replicates))


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
    reach = float(stdtrit(number - 1, (1 + CONFIDENCE) / 2) * error)
    return figure - reach, figure + reach


def _by_name(replicates: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [figures[name] for figures in replicates] for name in replicates[0]}


def _added(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(*jax.tree.map(np.add, a, b))


def _subtracted(a: Agreement, b: Agreement) -> Agreement:
    return Agreement(*jax.tree.map(np.subtract, a, b))
