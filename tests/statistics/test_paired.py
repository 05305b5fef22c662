"""Differences of two models against textbook formulas, and which of two is nearer to no bias."""

import numpy as np
import pytest
from scipy import stats

from ncfair_jax.statistics.paired import compare_distance, compare_paired, holm
from ncfair_jax.statistics.samples import Sample, ratio
from ncfair_jax.statistics.scales import ABSOLUTE, NONE, PERCENT, REAL


def sample_of(values, scale=REAL, times=1.0):
    """The mean of one value a cluster, times a number."""
    sums = np.stack([values, np.ones(len(values))], axis=-1)
    return Sample(
        tuple(map(str, range(len(values)))), sums, lambda s: {"mean": times * ratio(s[..., 0], s[..., 1])}, scales=scale
    )


def test_difference_of_means_is_students_paired():
    rng = np.random.default_rng(0)
    a = rng.normal(size=9)
    b = a + rng.normal(0.3, 0.2, size=9)
    for scale in (REAL, ABSOLUTE):  # a difference of means of absolute values is a mean of differences
        found = compare_paired(sample_of(a, scale), sample_of(b, scale), ("mean",))
        expected = stats.ttest_rel(b, a)
        np.testing.assert_allclose(
            [found.value_a, found.value_b, found.difference], [a.mean(), b.mean(), (b - a).mean()]
        )
        np.testing.assert_allclose(found.p, expected.pvalue)
        np.testing.assert_allclose(found.interval, expected.confidence_interval())


def test_proportions_count_two_more_examples():
    """Bonett and Price 2012: an example more for each side. 3 of 40 change one way, 1 the other."""
    a = np.array([0.0] * 3 + [1.0] + [1.0] * 36)
    b = np.array([1.0] * 3 + [0.0] + [1.0] * 36)
    found = compare_paired(sample_of(a, PERCENT, 100), sample_of(b, PERCENT, 100), ("mean",))
    error = np.hypot(100 * stats.sem(b - a), np.sqrt(2) * 100 / 42)
    assert found.difference == pytest.approx(5)
    np.testing.assert_allclose(found.interval, 5 + np.array([-1, 1]) * stats.t.ppf(0.975, 39) * error)
    np.testing.assert_allclose(found.p, 2 * stats.t.sf(5 / error, 39))


def test_no_difference_seen_is_not_none_at_all():
    same = sample_of(np.array([1.0, 0, 1, 1, 1, 0, 1, 1]), PERCENT, 100)
    found = compare_paired(same, same, ("mean",))
    assert found.p == 1 and found.interval is not None and found.interval[0] < 0 < found.interval[1]
    real = sample_of(np.arange(8.0))
    assert compare_paired(real, real, ("mean",))[2:] == (0.0, (0.0, 0.0), 1.0)  # the same numbers: the same model


def test_where_nothing_can_be_said():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 9))
    bent = compare_paired(sample_of(a, NONE), sample_of(b, NONE), ("mean",))
    few = compare_paired(sample_of(a[:4]), sample_of(b[:4]), ("mean",))
    for found in (bent, few):
        assert found.interval is None and np.isnan(found.p) and np.isfinite(found.difference)


def test_interval_and_p_never_contradict_each_other():
    rng = np.random.default_rng(2)
    for scale, times in ((REAL, 1), (PERCENT, 100)):
        for shift in np.linspace(-0.6, 0.6, 40):
            a = rng.random(12)
            b = np.clip(a + shift + 0.3 * rng.normal(size=12), 0, 1)
            low, high, p = *compare_paired(*(sample_of(x, scale, times) for x in (a, b)), ("mean",)).interval, None
            p = compare_paired(*(sample_of(x, scale, times) for x in (a, b)), ("mean",)).p
            assert (p < 0.05) == (low > 0 or high < 0)


def test_nearer_to_the_unbiased_value():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=40)
    far, near, mirrored = 60 + noise, 53 + noise + 0.2 * rng.normal(size=40), 40 - noise + 0.1 * rng.normal(size=40)
    closer = compare_distance(sample_of(far), sample_of(near), ("mean",), 50.0)
    np.testing.assert_allclose(closer.difference, near.mean() - far.mean())
    assert closer.interval is None and closer.p < 1e-6
    # As far on the other side: another value, but no less biased.
    other = compare_distance(sample_of(far), sample_of(mirrored), ("mean",), 50.0)
    assert other.p > 0.05 and other.difference == pytest.approx(0, abs=0.1)
    assert compare_paired(sample_of(far), sample_of(mirrored), ("mean",)).p < 1e-6


def test_holm_by_hand():
    # Sorted: 0.01·4, 0.015·3 = 0.045, 0.02·2 = 0.04 raised to 0.045, 0.6·1.
    np.testing.assert_allclose(holm([0.02, 0.01, 0.6, 0.015]), [0.045, 0.04, 0.6, 0.045])
    assert holm([0.7, 0.4]) == [0.8, 0.8]
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    np.testing.assert_allclose(
        holm([float("nan"), 0.01, 0.04]), [np.nan, 0.02, 0.04]
    )  # an undefined one does not count
    assert holm([]) == []
