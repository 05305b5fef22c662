"""Sums by cluster and trees of figures, by hand."""

import numpy as np

from ncfair_jax.statistics.samples import Sample, at_path, cluster_sums, numbered, point_figures, ratio


def test_cluster_sums_by_hand():
    clusters, sums = cluster_sums(["b", "a", "b"], np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]))
    assert clusters == ("b", "a")
    np.testing.assert_array_equal(sums, [[5.0, 50.0], [2.0, 20.0]])
    assert numbered(["b", "a", "b"]).tolist() == [0, 1, 0]


def test_point_figures_are_numbers_or_none():
    sums = np.array([[1.0, 0.0], [3.0, 0.0]])
    sample = Sample(
        ("x", "y"), sums, lambda s: {"sum": s[..., 0], "share": ratio(s[..., 0], s[..., 1])}, lambda s: {"n": 2}
    )
    assert point_figures({"part": {"all": sample}}) == {"part": {"all": {"sum": 4.0, "share": None, "n": 2}}}


def test_a_path_may_end_before_its_figure():
    tree = {"mean": {"female": 1}, "sd": 2}
    assert at_path(tree, ("mean", "female")) == 1
    assert at_path(tree, ("sd", "female")) == 2
    assert at_path(tree, ("difference", "female"), 3) == 3
    assert at_path(4, ("mean", "female")) == 4
