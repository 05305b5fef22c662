"""Neural-collapse figures of one set of class moments: NC1 to NC4 and their calibrated and uniform variants.

Every function takes the moments (and the classifier rows) of all K listed words and speaks of the C classes seen. What
costs C*D runs in numpy with float64 sums; what costs C*C*D runs on the device in tiles of at most 1024 classes that are
reduced at once, in the dtype of the statistics, so a whole vocabulary needs tiles and not grids of memory. A figure with
nothing left to average is NaN. Pairs are those of the strict upper triangle, standard deviations have ddof 1.

Sources: NC1 to NC4: Papyan et al. 2020; CDNV: Galanti et al., arXiv:2112.15121; GNC2: Liu et al., arXiv:2303.06484;
U(NC)3 and the calibrated (w) variants: arXiv:2410.04472. Where the released code of the last differs (squared distances
in CDNV, uncentred kernels, signed "distances"), the published definition is computed; `power` and `centre` give the two
of its variants that have a meaning.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float

from ncfair_jax.collapse.agreement import Agreement, linear_decisions, nc4_chance, nc4_macro, nc4_rate
from ncfair_jax.collapse.class_stats import ClassStats, check_classifier
from ncfair_jax.collapse.pairs import (
    PairSummary,
    Vectors,
    cdnv,
    cdnv_min2,
    cdnv_squared,
    cosine,
    log_kernel,
    means_over_others,
    over_pairs,
    riesz_kernel,
    vectors,
)
from ncfair_jax.collapse.regularizer import SEEN, TINY
from ncfair_jax.finite import require_finite

# Version of the definition of the collapse figures. Raise it by one whenever the same model, text and words would get another
# figure, interval or set of classes than before; measurements of an earlier version are then made again instead of shown.
VERSION = 3


def measure(
    stats: ClassStats,
    classifier: Float[Array, "K D"],
    bias: Float[Array, "K"] | None = None,
    nc4: Mapping[str, Agreement] | None = None,
) -> dict[str, float]:
    """All figures of one set of class moments.

    Args:
        stats: moments of the K listed words; unseen ones (count 0) take no part.
        classifier: their output embeddings.
        bias: their output biases, for `nc4_means` only.
        nc4: accumulators over held-out rows by the name their figures get, such as {"nc4": without the output bias,
            "nc4_bias": with it}.
    Returns:
        By name. NC1: `nc1` `nc1_std` `nc1_median` `nc1_min2` `nc1_min2_std` (classes of two or more rows: a single row
        has no variance) `nc1_w` `nc1_w_std`. NC2: `nc2_norm_mean` `nc2_norm_cv` `nc2_norm_log_std`
        `nc2_interference_mean` `nc2_interference_std` `nc2_interference_rmse`. GNC2: `gnc2` `gnc2_std` `gnc2_riesz`
        `gnc2_riesz_std` `gnc2_w` `gnc2_w_std`. NC3: `nc3` `unc3` `nc3_centred` `unc3_centred` `dual_distance`
        `dual_distance_std` `dual_frobenius`. NC4: `nc4_means`, and of each accumulator `<name>` `<name>_macro`
        `<name>_chance` (fractions) `<name>_rows`. Sample: `classes` `singletons` `pairs_skipped` (coincident means).
    Raises:
        ValueError: if classifier or bias do not fit stats.
        NonFiniteError: if moments, output embeddings or biases of a seen class are not finite.
    """
    _check(stats, classifier, bias)
    means = _centred_means(stats)
    # One pass over the pairs of means and one over those of rows: the functions below would make one for each figure.
    kernels = (cdnv, cdnv_min2, cosine, log_kernel, riesz_kernel)
    variability, min2, interference, uniformity, riesz = over_pairs(means, kernels, median_of_first=True)
    variability_w, uniformity_w = over_pairs(_classifier_rows(stats, classifier, centre=False), (cdnv, log_kernel))
    figures: dict[str, float] = {
        "nc1": variability.mean,
        "nc1_std": variability.std,
        "nc1_median": variability.median,
        "nc1_min2": min2.mean,
        "nc1_min2_std": min2.std,
        "nc1_w": variability_w.mean,
        "nc1_w_std": variability_w.std,
        "nc2_norm_mean": _mean(nc2_norms(stats)),
        "nc2_norm_cv": nc2_norm_cv(stats),
        "nc2_norm_log_std": nc2_norm_log_std(stats),
        "nc2_interference_mean": interference.mean,
        "nc2_interference_std": interference.std,
        "nc2_interference_rmse": _rmse(interference, means.classes),
        "gnc2": uniformity.mean,
        "gnc2_std": uniformity.std,
        "gnc2_riesz": riesz.mean,
        "gnc2_riesz_std": riesz.std,
        "gnc2_w": uniformity_w.mean,
        "gnc2_w_std": uniformity_w.std,
        **_nc3_figures(stats, classifier),
        "nc4_means": nc4_means(stats, classifier, bias),
        "classes": float(means.classes),
        "singletons": float(np.sum(means.count < 2)),
        "pairs_skipped": float(variability.skipped),
    }
    for name, agreement in (nc4 or {}).items():
        figures |= _nc4_figures(name, agreement)
    return figures


def _check(stats: ClassStats, classifier: Float[Array, "K D"], bias: Float[Array, "K"] | None) -> None:
    check_classifier(stats, classifier, bias)
    require_finite_moments(stats, lambda k: f"the moments of class {k}")
    _require_finite_rows(stats, classifier, bias)


def _nc3_figures(stats: ClassStats, classifier: Float[Array, "K D"]) -> dict[str, float]:
    cosines = similarities(stats, classifier)
    centred = similarities(stats, classifier, centre=True)
    distances = dual_distances(stats, classifier)
    return {
        "nc3": _mean(cosines),
        "unc3": _std(cosines),
        "nc3_centred": _mean(centred),
        "unc3_centred": _std(centred),
        "dual_distance": _mean(distances),
        "dual_distance_std": _std(distances),
        "dual_frobenius": dual_frobenius(stats, classifier),
    }


def _nc4_figures(name: str, agreement: Agreement) -> dict[str, float]:
    return {
        name: nc4_rate(agreement),
        f"{name}_macro": nc4_macro(agreement),
        f"{name}_chance": nc4_chance(agreement),
        f"{name}_rows": float(np.sum(agreement.matches) + np.sum(agreement.misses)),
    }


def require_finite_moments(stats: ClassStats, name: Callable[[int], str]) -> None:
    """Refuses moments of seen classes that are not finite, or whose squares are not, since they would end in a figure.

    Args:
        name: of the moments of the class with this slot, for the error.
    Raises:
        NonFiniteError: naming the first such class.
    """
    slots = seen_classes(stats)
    moments = np.concatenate([np.asarray(stats.mean)[slots], np.asarray(stats.m2)[slots, None]], axis=1)
    require_finite(moments, lambda row: name(int(slots[row])))


# First and second moments


def seen_classes(stats: ClassStats) -> np.ndarray:
    """Slots of the classes that have rows, ascending [C]: the order of every per-class array of this module."""
    return np.flatnonzero(np.asarray(stats.count) > SEEN)


def global_mean(stats: ClassStats) -> np.ndarray:
    """Unweighted mean of the means of the seen classes, f64[D]: the centre of every centred figure here."""
    means = np.asarray(stats.mean)[seen_classes(stats)]
    return _column_means(means)


def row_mean(stats: ClassStats) -> np.ndarray:
    """Mean of all rows of the seen classes, f64[D]: the count-weighted global mean, dominated by frequent words."""
    slots = seen_classes(stats)
    count = np.asarray(stats.count, np.float64)[slots]
    total = np.einsum("c,cd->d", count, np.asarray(stats.mean)[slots], dtype=np.float64)
    return total / np.sum(count) if len(slots) else np.full(total.shape, np.nan)


def variances(stats: ClassStats, ddof: int = 0) -> np.ndarray:
    """Within-class variance of each seen class, f64[C]: mean squared distance to its mean, summed over coordinates.

    With ddof=1 the unbiased estimate, NaN for classes of a single row.
    """
    slots = seen_classes(stats)
    degrees = np.asarray(stats.count, np.float64)[slots] - ddof
    return np.asarray(stats.m2, np.float64)[slots] / np.where(degrees > 0, degrees, np.nan)


# NC1: variability within classes


def nc1(stats: ClassStats, power: int = 1) -> PairSummary:
    """NC1, CDNV: (var_a + var_b) / (2 |mu_a - mu_b|^(2 power)) over pairs. 0 at collapse; coincident means are skipped.

    Power 1 is the published figure (dimensionless); 2 is what the released code computes.
    """
    if power not in (1, 2):
        raise ValueError(f"power={power!r}; expected 1 (CDNV as published) or 2 (as in the released code)")
    return over_pairs(_centred_means(stats), (cdnv if power == 1 else cdnv_squared,))[0]


def nc1_min2(stats: ClassStats) -> PairSummary:
    """`nc1` of the classes with two rows or more: a single row has no variance and biases NC1 down."""
    return over_pairs(_centred_means(stats), (cdnv_min2,))[0]


def nc1_median(stats: ClassStats) -> float:
    """Median over pairs of CDNV (a few close pairs dominate the mean); beyond 10^7 pairs from bins, to 0.1%."""
    return over_pairs(_centred_means(stats), (cdnv,), median_of_first=True)[0].median


def nc1_w(stats: ClassStats, classifier: Float[Array, "K D"]) -> PairSummary:
    """NC1^(w): CDNV with the distances of the unnormalised classifier rows in place of the means'."""
    return over_pairs(_classifier_rows(stats, classifier, centre=False), (cdnv,))[0]


# NC2 and GNC2: equal norms, equal angles, uniformity on the sphere


def nc2_norms(stats: ClassStats) -> np.ndarray:
    """Lengths of the centred means [C], in the features' unit; equal at collapse."""
    return _centred_means(stats).length


def nc2_norm_cv(stats: ClassStats) -> float:
    """Coefficient of variation of the centred means' lengths: 0 at collapse."""
    norms = nc2_norms(stats)
    return _std(norms) / mean if (mean := _mean(norms)) > 0 else float("nan")


def nc2_norm_log_std(stats: ClassStats) -> float:
    """Standard deviation of the natural log of the centred means' lengths; zero lengths are left out."""
    rows = _centred_means(stats)
    return _std(np.log(rows.length[rows.directed]))


def nc2_interference(stats: ClassStats) -> PairSummary:
    """Cosines between centred means, over pairs; all -1 / (C - 1) for a simplex. The mean alone says little."""
    return over_pairs(_centred_means(stats), (cosine,))[0]


def nc2_interference_rmse(stats: ClassStats) -> float:
    """Root mean squared deviation of those cosines from the simplex's -1 / (C - 1): 0 at collapse."""
    rows = _centred_means(stats)
    return _rmse(over_pairs(rows, (cosine,))[0], rows.classes)


def gnc2(stats: ClassStats, centre: bool = True) -> PairSummary:
    """GNC2: -ln of the distance between normalised means, over pairs; less is more uniform, -ln(2C/(C-1))/2 the simplex.

    `centre=False` takes the means without subtracting their mean, as the released code does.
    """
    return over_pairs(_centred_means(stats) if centre else _uncentred_means(stats), (log_kernel,))[0]


def gnc2_riesz(stats: ClassStats, centre: bool = True) -> PairSummary:
    """GNC2 with the Riesz kernel of order 1: one over the distance between normalised means, over pairs."""
    return over_pairs(_centred_means(stats) if centre else _uncentred_means(stats), (riesz_kernel,))[0]


def gnc2_w(stats: ClassStats, classifier: Float[Array, "K D"], centre: bool = False) -> PairSummary:
    """GNC2^(w): the log kernel on normalised classifier rows, as published uncentred unless `centre`."""
    return over_pairs(_classifier_rows(stats, classifier, centre), (log_kernel,))[0]


# NC3: means and classifier rows


def similarities(stats: ClassStats, classifier: Float[Array, "K D"], centre: bool = False) -> np.ndarray:
    """cos(mu_c - mu_G, w_c) of each seen class, f64[C]; NaN where either vector is zero. `centre` centres the rows too."""
    means, rows = _centred_means(stats), _classifier_rows(stats, classifier, centre)
    cosines = np.einsum("cd,cd->c", means.unit, rows.unit, dtype=np.float64)
    return np.where(means.directed & rows.directed, cosines, np.nan)


def nc3(stats: ClassStats, classifier: Float[Array, "K D"], centre: bool = False) -> float:
    """NC3: mean of `similarities`, 1 at self-duality."""
    return _mean(similarities(stats, classifier, centre))


def unc3(stats: ClassStats, classifier: Float[Array, "K D"], centre: bool = False) -> float:
    """(U)NC3: standard deviation of `similarities`; 0 where all words are aligned alike, well or badly."""
    return _std(similarities(stats, classifier, centre))


def dual_distances(stats: ClassStats, classifier: Float[Array, "K D"]) -> np.ndarray:
    """Distance between the unit vectors of mu_c - mu_G and w_c, f64[C], 0 to 2; NaN where either vector is zero."""
    means, rows = _centred_means(stats), _classifier_rows(stats, classifier, centre=False)
    difference = means.unit - rows.unit
    distance = np.sqrt(np.einsum("cd,cd->c", difference, difference, dtype=np.float64))
    return np.where(means.directed & rows.directed, distance, np.nan)


def dual_frobenius(stats: ClassStats, classifier: Float[Array, "K D"]) -> float:
    """Frobenius distance of the matrices of classifier rows and centred means, each of Frobenius norm 1 (Papyan)."""
    means, rows = _centred_means(stats), _classifier_rows(stats, classifier, centre=False)
    norms = np.linalg.norm(means.length), np.linalg.norm(rows.length)
    if min(norms) <= TINY**0.5 or not means.directed.any():
        return float("nan")
    difference = means.unit * (means.length / norms[0])[:, None] - rows.unit * (rows.length / norms[1])[:, None]
    return float(np.linalg.norm(difference))


# Word by word


def pair_means_by_word(stats: ClassStats, classifier: Float[Array, "K D"]) -> dict[str, np.ndarray]:
    """NC1, NC1^(w), interference, GNC2 and GNC2^(w) of each seen class: means over its pairs with all others, f64[C]."""
    kernels = ("nc1", "interference", "gnc2"), (cdnv, cosine, log_kernel)
    found = dict(zip(kernels[0], means_over_others(_centred_means(stats), kernels[1]), strict=True))
    rows = means_over_others(_classifier_rows(stats, classifier, centre=False), (cdnv, log_kernel))
    return found | dict(zip(("nc1_w", "gnc2_w"), rows, strict=True))


# NC4 of the means


def nc4_means(stats: ClassStats, classifier: Float[Array, "K D"], bias: Float[Array, "K"] | None = None) -> float:
    """NC4 of the class means themselves, whose nearest mean is their own: the fraction that the linear classifier
    gives to their word. Needs no held-out rows, and asks the least of a classifier that has collapsed."""
    slots = seen_classes(stats)
    if not len(slots):
        return float("nan")
    check_classifier(stats, classifier, bias)
    linear = jax.jit(linear_decisions)(stats.count > SEEN, classifier, stats.mean, bias)
    return float(np.mean(np.asarray(linear)[slots] == slots))


# Inside


def _require_finite_rows(stats: ClassStats, classifier: Array, bias: Array | None) -> None:
    slots = seen_classes(stats)
    require_finite(np.asarray(classifier)[slots], lambda row: f"the output embedding of class {slots[row]}")
    if bias is not None:
        require_finite(np.asarray(bias)[slots], lambda row: f"the output bias of class {slots[row]}")


def _centred_means(stats: ClassStats) -> Vectors:
    means = np.asarray(stats.mean)[seen_classes(stats)]
    return _vectors(stats, means, global_mean(stats))


def _uncentred_means(stats: ClassStats) -> Vectors:
    means = np.asarray(stats.mean)[seen_classes(stats)]
    return _vectors(stats, means, np.zeros(means.shape[1]))


def _classifier_rows(stats: ClassStats, classifier: Array, centre: bool) -> Vectors:
    check_classifier(stats, classifier)
    rows = np.asarray(classifier)[seen_classes(stats)].astype(stats.mean.dtype)
    return _vectors(stats, rows, _column_means(rows) if centre else np.zeros(rows.shape[1]))


def _vectors(stats: ClassStats, rows: np.ndarray, origin: np.ndarray) -> Vectors:
    return vectors(rows, origin, variances(stats), np.asarray(stats.count, np.float64)[seen_classes(stats)])


def _column_means(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.sum(rows, axis=0, dtype=np.float64) / (len(rows) or np.nan))


def _rmse(interference: PairSummary, classes: int) -> float:
    if not interference.pairs:
        return float("nan")
    spread = interference.std**2 * (interference.pairs - 1) / interference.pairs if interference.pairs > 1 else 0.0
    return float(np.sqrt(spread + (interference.mean + 1 / (classes - 1)) ** 2))


def _mean(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(np.mean(kept)) if kept.size else float("nan")


def _std(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(np.std(kept, ddof=1)) if kept.size > 1 else float("nan")
