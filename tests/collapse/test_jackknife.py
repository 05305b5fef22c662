"""The jackknife by hand, on means with a textbook interval, and on gaps between two surveys."""

from functools import reduce

import jax
import numpy as np
import pytest
from scipy.stats import t as student_t

from ncfair_jax.collapse.agreement import Agreement
from ncfair_jax.collapse.class_stats import ClassStats, merge
from ncfair_jax.collapse.jackknife import Measured, gap, jackknife, measure_groups, ratio
from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.survey import survey
from ncfair_jax.models.heads import classifier
from tests import tiny


def test_intervals_are_the_delete_a_group_jackknife():
    params = tiny.params()
    groups = survey(tiny.MODEL, params, tiny.examples(60), tiny.classes(), row_tokens=32, groups=4)["hidden"]
    rows = classifier(params)[0][tiny.classes().token_ids]
    measured = measure_groups(groups, rows)
    figures, intervals = measured.figures, measured.intervals()
    assert figures == pytest.approx(measure(reduce(merge, groups), rows), rel=1e-6, nan_ok=True)
    assert set(figures) - set(intervals) == {"classes", "singletons", "pairs_skipped"}
    without = [measure(reduce(merge, groups[:g] + groups[g + 1 :]), rows)["unc3"] for g in range(4)]
    error = np.sqrt(3 / 4 * sum((value - np.mean(without)) ** 2 for value in without))
    low, high = intervals["unc3"]
    assert high - low == pytest.approx(2 * student_t.ppf(0.975, 3) * error, rel=1e-4)
    assert (high + low) / 2 == pytest.approx(figures["unc3"])


def test_jackknife_of_a_mean_is_the_textbook_interval():
    """For the mean of equal groups, the jackknife error is the standard error of the group means."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 2, 3))  # of each group, the only row of each of two classes
    groups = [ClassStats(np.ones(2, np.int32), row.astype(np.float32), np.zeros(2, np.float32)) for row in rows]
    weights = np.eye(2, 3, dtype=np.float32)
    measured = measure_groups(groups, weights)
    figures, intervals = measured.figures, measured.intervals()
    # Two centred means are opposite vectors of half the distance of the means: linear in the data along that line.
    distance = rows[:, 0] - rows[:, 1]
    direction = distance.mean(axis=0) / np.linalg.norm(distance.mean(axis=0))
    error = np.std(distance @ direction / 2, ddof=1) / np.sqrt(20)
    low, high = intervals["nc2_norm_mean"]
    assert figures["nc2_norm_mean"] == pytest.approx(np.linalg.norm(distance.mean(axis=0)) / 2, rel=1e-5)
    assert (high - low) / 2 == pytest.approx(2.093 * error, rel=0.1)  # a norm is linear to first order only


def test_nc4_leaves_out_held_out_parts_with_their_groups():
    groups = survey(tiny.MODEL, tiny.params(), tiny.examples(60), tiny.classes(), row_tokens=32, groups=3)["hidden"]
    rows = classifier(tiny.params())[0][tiny.classes().token_ids]
    parts = [
        Agreement(*(np.full(6, number, np.int32) for number in (right, wrong, right + wrong, right + wrong)))
        for right, wrong in ((3, 1), (1, 1), (5, 0))
    ]
    measured = measure_groups(groups, rows, nc4={"nc4": parts})
    assert measured.figures["nc4"] == pytest.approx(9 / 11)
    assert measured.without["nc4"] == pytest.approx([6 / 7, 8 / 9, 4 / 6])
    with pytest.raises(ValueError, match="2 held-out parts of nc4, 3 groups"):
        measure_groups(groups, rows, nc4={"nc4": parts[:2]})


def test_gap_of_surveys_of_one_text_is_paired():
    first = Measured({"nc3": 0.5}, {"nc3": [0.4, 0.5, 0.6]})
    other = Measured({"nc3": 0.6}, {"nc3": [0.5, 0.6, 0.7]})  # whatever is left out, 0.1 more
    value, interval = gap(first, other, "nc3")
    assert value == pytest.approx(0.1)
    assert interval == pytest.approx((0.1, 0.1))
    value, (low, high) = ratio(first, other, "nc3")
    assert value == pytest.approx(1.2)
    expected = student_t.ppf(0.975, 2) * np.sqrt(2 * np.var([5 / 4, 6 / 5, 7 / 6]))
    assert high - low == pytest.approx(2 * expected)


def test_without_groups_there_is_no_interval():
    groups = [jax.tree.map(np.asarray, ClassStats.zeros(3, 4))]
    measured = measure_groups(groups, np.eye(3, 4, dtype=np.float32))
    assert all(np.isnan(interval).all() for interval in measured.intervals().values())
    assert np.isnan(jackknife(1.0, [1.0])).all()
    with pytest.raises(ValueError, match="no groups"):
        measure_groups([], np.eye(3, 4, dtype=np.float32))
