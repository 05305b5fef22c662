"""95% intervals of figures of clustered examples: the jackknife that leaves out a cluster at a time, and Student's t.

    variance = (C − 1) / C · Σ (figure without cluster c − mean of those)²

With two crossed factors, both sampled: variance by rows + variance by columns − variance of what is neither's, which both hold
(Cameron, Gelbach and Miller 2011), and Satterthwaite's degrees of freedom (1946). Clusters of unequal size count as fewer
(Kish 1965).

Everything works on batches: `sums` may have leading axes, one entry for each data set.

Letters: C clusters, F clusters of a factor, S summed columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncfair_jax.statistics.samples import Sample, at_path, sample_figures
from ncfair_jax.statistics.scales import REAL, Scale, Spread, interval, link, p_value

FEWEST = 5  # clusters for an interval
ROUNDING = 1e-11  # deviations below this share of the figure are rounding


class LeftOut(NamedTuple):
    """A factor's clusters left out one at a time: the figure without each f64[...,F], and what each holds of its groups."""

    without: np.ndarray
    sizes: tuple[np.ndarray, ...]


def summarise(samples: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and 95% intervals of a nested dict of Samples, as two nested dicts of one shape, ready for JSON.

    Undefined figures, and intervals of counts, of absolute values or of fewer than five clusters, are None.
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
    counts = dict.fromkeys(sample.counts(sample.sums.sum(0)))
    return sample_figures(sample), intervals(sample) | counts


class ZeroTest(NamedTuple):
    """Two-sided p of value 0 by Student's t, and its degrees of freedom; None where there is none."""

    p: float | None
    df: float | None


def zero_test(sample: Sample, path: Sequence[str]) -> ZeroTest:
    """The test of one figure that agrees with its interval."""
    scale = at_path(sample.scales, path, REAL)
    value, uncertain = estimate(sample, path)
    p = float(p_value(scale, link(scale, value), uncertain))
    return ZeroTest(None, None) if np.isnan(p) else ZeroTest(p, float(uncertain.df))


def interval_at(sample: Sample, path: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of one figure f64[...], named by its path, for batches of `sums`; NaN where there is none."""
    return interval(at_path(sample.scales, path, REAL), *estimate(sample, path))


def estimate(sample: Sample, path: Sequence[str]) -> tuple[np.ndarray, Spread]:
    """One figure f64[...], named by its path, and its uncertainty."""
    total = sample.sums.sum(-2)
    parts = [
        LeftOut(at_path(sample.figures(total[..., None, :] - sums), path), as_groups(at_path(sample.sizes(sums), path)))
        for sums in factor_sums(sample)
    ]
    value = np.asarray(at_path(sample.figures(total), path))
    return value, spread(at_path(sample.scales, path, REAL), parts)


def intervals(sample: Sample) -> dict[str, Any]:
    """[low, high] of every figure, as a dict shaped like the figures; None where there is none."""
    factors, total = factor_sums(sample), sample.sums.sum(0)
    without = [sample.figures(total - sums) for sums in factors]
    sizes = [sample.sizes(sums) for sums in factors]

    def walk(node: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.items():
            here = (*path, name)
            if isinstance(value, Mapping):
                found[name] = walk(value, here)
                continue
            scale = at_path(sample.scales, here, REAL)
            parts = [
                LeftOut(at_path(left, here), as_groups(at_path(size, here)))
                for left, size in zip(without, sizes, strict=True)
            ]
            ends = np.array(interval(scale, np.asarray(value), spread(scale, parts)))
            found[name] = ends.tolist() if np.isfinite(ends).all() else None
        return found

    return walk(sample.figures(total), ())


def factor_sums(sample: Sample) -> list[np.ndarray]:
    """The sums of each cluster f64[...,C,S]; of crossed factors those of rows, columns and cells."""
    if sample.crossed is None:
        return [sample.sums]
    by_factor = [np.eye(labels.max() + 1)[:, labels] @ sample.sums for labels in sample.crossed.T]
    return [*by_factor, sample.sums]


def as_groups(sizes: Any) -> tuple[np.ndarray, ...]:
    """Sizes of one group, or of several independent ones, as a tuple."""
    return sizes if isinstance(sizes, tuple) else (np.asarray(sizes),)


def spread(scale: Scale, parts: Sequence[LeftOut]) -> Spread:
    """Variance and degrees of freedom from one factor, or from rows, columns and cells."""
    rows, *others = (_one_factor(scale, part) for part in parts)
    if not others:
        return rows
    columns, cells = others
    n_rows, n_columns = rows.df + 1, columns.df + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        # The variance by cells holds a part of that by rows and of that by columns; what is left is the rest's own.
        own = cells.variance - rows.variance / n_columns - columns.variance / n_rows
        rest = np.maximum(own / (1 - 1 / n_rows - 1 / n_columns), 0)
        # A negative estimate of what varies in one factor only counts as none of it.
        variance = np.maximum(rows.variance + columns.variance - rest, np.maximum(rows.variance, columns.variance))
        parts_of_df = rows.variance**2 / rows.df + columns.variance**2 / columns.df + rest**2 / (rows.df * columns.df)
        df = np.clip(variance**2 / parts_of_df, np.minimum(rows.df, columns.df), rows.df + columns.df)
    return Spread(variance, df, np.minimum(rows.clusters, columns.clusters), rows.examples)


def _one_factor(scale: Scale, part: LeftOut) -> Spread:
    without = link(scale, part.without)
    variance, clusters, examples = (np.zeros(without.shape[:-1]) for _ in range(3))
    df = np.full(without.shape[:-1], np.inf)
    for sizes in part.sizes:
        sizes = np.broadcast_to(sizes, without.shape)
        inside = sizes > 0
        count = inside.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(inside, without, 0).sum(-1) / count
            squares = np.where(inside, (without - mean[..., None]) ** 2, 0).sum(-1)
            squares = np.where(squares > (ROUNDING * mean) ** 2, squares, 0)
            own = np.where(count >= FEWEST, (count - 1) / count * squares, np.nan)
            equal = sizes.sum(-1) ** 2 / (sizes**2).sum(-1)  # so many clusters of equal size would tell as much
        # Of independent groups the one with the fewest clusters counts.
        variance, df, clusters, examples = (
            variance + own,
            np.minimum(df, equal - 1),
            clusters + equal,
            examples + sizes.sum(-1),
        )
    return Spread(variance, df, clusters, examples)
