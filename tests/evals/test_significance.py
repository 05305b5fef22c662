"""Bootstrap and permutation tests against plain loops and small cases that can be counted by hand."""

import numpy as np
import pytest

from ncfair_jax.evals.significance import Sample, cluster_sums, compare_paired, holm, intervals, ratio, summarise_sample


def mean(sums):
    return ratio(sums[..., 0], sums[..., 1])


def sample_of(labels, values):
    clusters, sums = cluster_sums(labels, np.stack([values, np.ones(len(values))], axis=-1))
    return Sample(clusters, sums, lambda s: {"mean": mean(s)}, lambda s: {"n": int(s[1])})


def test_cluster_sums_by_hand():
    clusters, sums = cluster_sums(["b", "a", "b"], np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]))
    assert clusters == ("b", "a")
    np.testing.assert_array_equal(sums, [[5.0, 50.0], [2.0, 20.0]])


def test_interval_agrees_with_a_plain_cluster_bootstrap():
    rng = np.random.default_rng(3)
    labels = [f"c{i // 5}" for i in range(200)]
    values = np.repeat(rng.normal(size=40), 5) + 0.1 * rng.normal(size=200)  # examples of a cluster resemble each other
    low, high = intervals(sample_of(labels, values))["mean"]
    groups = [np.flatnonzero([label == f"c{c}" for label in labels]) for c in range(40)]
    other = np.random.default_rng(99)
    means = [values[np.concatenate([groups[c] for c in other.integers(40, size=40)])].mean() for _ in range(4000)]
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), atol=0.03)
    independent = sample_of([str(i) for i in range(200)], values)
    narrow = intervals(independent)["mean"]
    assert high - low > 1.7 * (narrow[1] - narrow[0])  # about sqrt(5) wider than if examples were independent


def test_interval_covers_at_about_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        low, high = intervals(sample_of([str(i) for i in range(60)], rng.normal(size=60)))["mean"]
        hits += low <= 0 <= high
    assert 86 <= hits <= 100  # 95 expected, sd 2.2


def test_undefined_and_lone_clusters_have_no_interval():
    metrics, spans = summarise_sample(sample_of(["a", "a"], np.array([1.0, 3.0])))
    assert metrics == {"mean": 2.0, "n": 2}
    assert spans == {"mean": None, "n": None}
    empty = Sample(("a", "b"), np.zeros((2, 2)), lambda s: {"mean": mean(s)})
    assert summarise_sample(empty) == ({"mean": None}, {"mean": None})


def test_permutation_p_by_counting():
    # One column, three clusters, differences 1, 1, 1: of the 8 ways to swap, 2 are as extreme: p = 1/4.
    sums_a = np.array([[0.0, 1.0]] * 3)
    sums_b = np.array([[1.0, 1.0]] * 3)
    found = compare_paired(3, sums_a, sums_b, mean)
    assert (found.value_a, found.value_b, found.difference) == (0.0, 1.0, 1.0)
    assert found.p == pytest.approx(0.25, abs=0.02)
    assert found.interval == (1.0, 1.0)


def test_equal_models_have_p_one():
    sums = np.array([[0.3, 1.0], [0.7, 1.0], [0.1, 1.0]])
    found = compare_paired(3, sums, sums, mean)
    assert (found.difference, found.p) == (0.0, 1.0)


def test_holm_by_hand():
    # Sorted: 0.01·4, 0.015·3 = 0.045, 0.02·2 = 0.04 raised to 0.045, 0.6·1.
    np.testing.assert_allclose(holm([0.02, 0.01, 0.6, 0.015]), [0.045, 0.04, 0.6, 0.045])
    assert holm([0.7, 0.4]) == [0.8, 0.8]
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    np.testing.assert_allclose(
        holm([float("nan"), 0.01, 0.04]), [np.nan, 0.02, 0.04]
    )  # an undefined one does not count
    assert holm([]) == []
