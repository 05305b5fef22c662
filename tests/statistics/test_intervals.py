"""Intervals against textbook formulas that they must equal, and where there is none."""

import numpy as np
import pytest
from scipy import stats

from ncfair_jax.statistics.intervals import intervals, summarise_sample, zero_test
from ncfair_jax.statistics.samples import Sample, cluster_sums, numbered, ratio
from ncfair_jax.statistics.scales import ABSOLUTE, CORRELATION, NONE, PERCENT, POSITIVE, REAL, Scale


def sample_of(labels, values, scale=REAL, times=1.0):
    """The mean of the values, times a number."""
    clusters, sums = cluster_sums(labels, np.stack([values, np.ones(len(values))], axis=-1))
    return Sample(
        clusters,
        sums,
        lambda s: {"mean": times * ratio(s[..., 0], s[..., 1])},
        lambda s: {"n": int(s[1])},
        scale,
        lambda s: s[..., 1],
    )


def singles(values, scale=REAL, times=1.0):
    return intervals(sample_of([str(i) for i in range(len(values))], np.asarray(values, float), scale, times))["mean"]


def test_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(3, 2, 12)
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    np.testing.assert_allclose(singles(values), expected)


def test_clusters_of_one_size_count_by_their_means():
    means = np.random.default_rng(1).normal(size=8)
    values, labels = np.repeat(means, 5), [str(i // 5) for i in range(40)]
    expected = stats.t.interval(0.95, 7, means.mean(), stats.sem(means))
    np.testing.assert_allclose(intervals(sample_of(labels, values))["mean"], expected)


def test_unequal_clusters_have_fewer_degrees_of_freedom():
    """Sizes 1, 1, 1, 1, 6: (Σn)² / Σn² = 2.5 equal clusters."""
    values, labels = np.arange(10.0), ["a", "b", "c", "d", *"eeeeee"]
    low, high = intervals(sample_of(labels, values))["mean"]
    without = [np.mean([v for v, label in zip(values, labels, strict=True) if label != c]) for c in "abcde"]
    error = np.sqrt(4 / 5 * np.sum((without - np.mean(without)) ** 2))
    np.testing.assert_allclose(high - low, 2 * stats.t.ppf(0.975, 1.5) * error)


def test_proportion_of_single_examples_is_wilsons_with_students_t():
    values = [1.0] * 9 + [0.0] * 3
    low, high = singles(values, PERCENT, 100)
    t, n, p = stats.t.ppf(0.975, 11), 11, 0.75  # the jackknife's variance is p(1 − p) / (n − 1)
    centre, half = p + t * t / (2 * n), t * np.sqrt(p * (1 - p) / n + t * t / (4 * n * n))
    np.testing.assert_allclose([low, high], 100 * np.array([centre - half, centre + half]) / (1 + t * t / n))


@pytest.mark.parametrize("hits", [0.0, 1.0])
def test_sixty_of_sixty_do_not_prove_all(hits):
    low, high = singles([hits] * 60, PERCENT, 100)
    t = stats.t.ppf(0.975, 59)
    end = 100 * t * t / (60 + t * t)  # Wilson's at the edge: 6.3
    expected = [100 - end, 100.0] if hits else [0.0, end]
    np.testing.assert_allclose([low, high], expected, atol=1e-9)


def test_clusters_that_agree_count_once():
    labels = [str(i // 10) for i in range(200)]
    low, high = intervals(sample_of(labels, np.ones(200), PERCENT, 100))["mean"]
    np.testing.assert_allclose([low, high], singles([1.0] * 20, PERCENT, 100))


def test_logarithm_and_fishers_z():
    values = np.random.default_rng(2).gamma(3, 1, 30)
    low, high = singles(values, POSITIVE)
    without = [np.log(np.delete(values, i).mean()) for i in range(30)]
    error = np.sqrt(29 / 30 * np.sum((without - np.mean(without)) ** 2))
    np.testing.assert_allclose(
        np.log([low, high]), np.log(values.mean()) + np.array([-1, 1]) * stats.t.ppf(0.975, 29) * error
    )
    low, high = singles(np.linspace(0.5, 0.99, 9), CORRELATION)
    assert 0 < low < 0.745 < high < 1


def test_no_interval_below_five_clusters_nor_of_absolute_values():
    values = np.random.default_rng(3).normal(size=8)
    assert singles(values[:4]) is None and singles(values[:5]) is not None
    assert singles(values, NONE) is None and singles(values, ABSOLUTE) is None
    lone = sample_of(["a", "a"], np.array([1.0, 3.0]))
    assert summarise_sample(lone) == ({"mean": 2.0, "n": 2}, {"mean": None, "n": None})
    empty = Sample(tuple("abcdef"), np.zeros((6, 2)), lambda s: {"mean": ratio(s[..., 0], s[..., 1])})
    assert summarise_sample(empty) == ({"mean": None}, {"mean": None})


def test_values_without_spread_have_no_interval():
    assert singles([0.1] * 9) is None  # differences of rounding do not count as spread


def test_independent_groups_need_five_clusters_each():
    def gap(men, women):
        values = np.concatenate([men, women])
        is_man = np.arange(len(values)) < len(men)
        sums = np.stack([is_man * values, is_man, ~is_man * values, ~is_man], axis=-1).astype(float)
        return Sample(
            tuple(map(str, range(len(values)))),
            sums,
            lambda s: {"gap": ratio(s[..., 0], s[..., 1]) - ratio(s[..., 2], s[..., 3])},
            sizes=lambda s: (s[..., 1], s[..., 3]),
        )

    rng = np.random.default_rng(4)
    men, women = rng.normal(size=12), rng.normal(size=7)
    low, high = intervals(gap(men, women))["gap"]
    error = np.sqrt(stats.sem(men) ** 2 + stats.sem(women) ** 2)  # Welch's
    np.testing.assert_allclose(high - low, 2 * stats.t.ppf(0.975, 6) * error)
    assert intervals(gap(men, women[:4]))["gap"] is None


def crossed_sample(values):
    rows, columns = np.indices(values.shape).reshape(2, -1)
    sums = np.stack([values.ravel(), np.ones(values.size)], axis=-1)
    return Sample(
        tuple(map(str, range(values.size))),
        sums,
        lambda s: {"mean": ratio(s[..., 0], s[..., 1])},
        sizes=lambda s: s[..., 1],
        crossed=np.stack([numbered(rows.tolist()), numbered(columns.tolist())], axis=-1),
    )


def test_crossed_factors_add_their_variances():
    """Two-way analysis of variance: (MS rows + MS columns − MS rest) / cells estimates the variance of the mean."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(20, 1)) + 2 * rng.normal(size=(1, 9)) + rng.normal(size=(20, 9))
    mean = values.mean()
    of_rows, of_columns = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    rows, columns = 9 * ((of_rows - mean) ** 2).sum() / 19, 20 * ((of_columns - mean) ** 2).sum() / 8
    rest = ((values - of_rows - of_columns + mean) ** 2).sum() / (19 * 8)
    low, high = intervals(crossed_sample(values))["mean"]
    tested = zero_test(crossed_sample(values), ("mean",))
    np.testing.assert_allclose((low + high) / 2, mean)
    error = (high - low) / 2 / stats.t.ppf(0.975, tested.df)
    np.testing.assert_allclose(error, np.sqrt((rows + columns - rest) / 180), rtol=0.005)
    assert (tested.p < 0.05) == (low > 0 or high < 0)
    by_rows = stats.t.interval(0.95, 19, mean, stats.sem(values.mean(1)))
    assert high - low > 2 * (by_rows[1] - by_rows[0])  # columns vary more than rows, which alone would not show it


def test_crossed_factors_need_five_of_each():
    values = np.random.default_rng(6).normal(size=(20, 4))
    assert intervals(crossed_sample(values))["mean"] is None
    assert zero_test(crossed_sample(values), ("mean",)) == (None, None)


def test_scales_by_name():
    values = np.random.default_rng(7).random(10)
    sums = np.stack([values, np.ones(10)], axis=-1)
    sample = Sample(
        tuple(map(str, range(10))),
        sums,
        lambda s: {"a": {"x": s[..., 0] / s[..., 1]}, "b": s[..., 0] / s[..., 1], "c": s[..., 0] / s[..., 1]},
        scales={"a": Scale("proportion"), "b": NONE},
    )
    found = intervals(sample)
    assert found["b"] is None
    assert found["a"]["x"] != found["c"] and found["a"]["x"] is not None
