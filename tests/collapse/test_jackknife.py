"""The jackknife by hand, on means with a textbook interval, and on gaps between two surveys."""

from functools import reduce

import jax
import numpy as np
import pytest
from scipy.stats import t as student_t

from ncfair_jax.collapse.agreement import Agreement
from ncfair_jax.collapse.class_stats import ClassStats, merge
from ncfair_jax.collapse.jackknife import ENOUGH_GROUPS, Measured, gap, jackknife, measure_groups, ratio
from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.survey import survey
from ncfair_jax.models import bert
from tests import tiny
from tests.rounding import rounding


def test_intervals_are_the_delete_a_group_jackknife():
    params = tiny.params()
    groups = survey(tiny.MODEL, params, tiny.examples(60), tiny.classes(), row_tokens=32, groups=4)["hidden"]
    rows = bert.classifier(params)[0][tiny.classes().token_ids]
    measured = measure_groups(groups, rows)
    figures, intervals = measured.figures, measured.intervals()
    same = rounding(3 * 16 + 15)  # cosines of 16 numbers, 15 pairs
    assert figures == pytest.approx(measure(reduce(merge, groups), rows), rel=same, nan_ok=True)
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
    rows = bert.classifier(tiny.params())[0][tiny.classes().token_ids]
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


# Texts with a known truth: K words of fixed means and classifier rows, tokens that scatter about the means by SIGMA in each
# of D coordinates, and fall into G groups of sentences at random.
G, K, D, SIGMA = 20, 40, 32, 1.0
TRUE_NC1, TRUE_NC3 = 0.388, 0.885


@pytest.fixture(scope="module")
def population() -> tuple[np.ndarray, np.ndarray]:
    """Means [K, D] and classifier rows [K, D] with exactly the true NC1 and NC3."""
    rng = np.random.default_rng(1)
    means, noise = rng.normal(size=(2, K, D))
    distances = np.square(means[:, None] - means).sum(axis=2)[np.triu_indices(K, 1)]
    means *= np.sqrt(SIGMA**2 * D * np.mean(1 / distances) / TRUE_NC1)
    unit = (means - means.mean(axis=0)) / np.linalg.norm(means - means.mean(axis=0), axis=1, keepdims=True)
    noise -= np.einsum("kd,kd->k", noise, unit)[:, None] * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosines = TRUE_NC3 + 0.04 * rng.permutation(np.linspace(-1, 1, K))
    return means, cosines[:, None] * unit + np.sqrt(1 - cosines[:, None] ** 2) * noise


def draw(means: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> ClassStats:
    """A text: moments of each group, with a first axis of G."""
    word = np.repeat(np.arange(K), counts)
    rows = means[word] + rng.normal(0, SIGMA, (len(word), D))
    cell = rng.integers(G, size=len(word)) * K + word
    count = np.bincount(cell, minlength=G * K)
    total = np.zeros((G * K, D))
    np.add.at(total, cell, rows)
    mean = total / np.maximum(count, 1)[:, None]
    m2 = np.bincount(cell, np.square(rows - mean[cell]).sum(axis=1), G * K)
    return ClassStats(count.reshape(G, K), mean.reshape(G, K, D), m2.reshape(G, K))


def plain(count: np.ndarray, total: np.ndarray, squares: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Figures of numbers, sums and sums of squares of the words' rows, by their definitions."""
    means = total / count[:, None]
    variances = squares / count - np.square(means).sum(axis=1)
    first, second = np.triu_indices(len(count), 1)
    centred = means - means.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = np.einsum("kd,kd->k", unit, weights) / np.linalg.norm(weights, axis=1)
    distances = np.square(means[first] - means[second]).sum(axis=1)
    return {
        "nc1": np.mean((variances[first] + variances[second]) / 2 / distances),
        "nc3": np.mean(cosines),
        "unc3": np.std(cosines, ddof=1),
        "gnc2": np.mean(-np.log(np.linalg.norm(unit[first] - unit[second], axis=1))),
    }


def true_figures(means: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    ones = np.ones(len(means))
    return plain(ones, means, SIGMA**2 * D + np.square(means).sum(axis=1), weights)


@pytest.mark.parametrize(("count", "nc1", "nc3"), [(2, 0.145, 0.761), (10, 0.327, 0.853), (50, 0.374, 0.879)])
def test_few_rows_bias_the_figures_and_the_correction_finds_the_truth(population, count, nc1, nc3):
    means, weights = population
    assert true_figures(means, weights)["nc1"] == pytest.approx(TRUE_NC1)
    assert true_figures(means, weights)["nc3"] == pytest.approx(TRUE_NC3)
    rng = np.random.default_rng(count)
    found = []
    for _ in range(4):
        text = draw(means, np.full(K, count), rng)
        groups = [ClassStats(n.astype(np.int32), *map(np.float32, rest)) for n, *rest in zip(*text, strict=True)]
        found.append(measure_groups(groups, weights.astype(np.float32)))
    assert np.mean([x.figures["nc1"] for x in found]) == pytest.approx(nc1, abs=0.01)
    assert np.mean([x.figures["nc3"] for x in found]) == pytest.approx(nc3, abs=0.01)
    corrected = {name: np.mean([x.corrected(name)[0] for x in found]) for name in ("nc1", "nc3")}
    if count == 2:  # no word occurs in five groups
        assert all(x.corrected_words == 0 for x in found) and np.isnan(list(corrected.values())).all()
    else:
        assert all(x.corrected_words > 0.9 * K for x in found)
        # Three standard errors of the mean of four texts with ten rows a word; the plain figures are off by 0.06 and 0.03.
        assert corrected == {"nc1": pytest.approx(TRUE_NC1, abs=0.015), "nc3": pytest.approx(TRUE_NC3, abs=0.008)}
    assert np.isnan(found[0].corrected("nc4_means")[0]) and np.isnan(found[0].corrected("classes")[0])


def test_corrected_intervals_cover_the_truth_and_plain_ones_the_mean_over_such_texts(population):
    """Counts like those of words of a text: 60, 30, 20, ... 1."""
    means, weights = population
    counts = np.maximum(60 // np.arange(1, K + 1), 1)
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(250):
        count, mean, m2 = draw(means, counts, rng)
        sums = count, mean * count[..., None], m2 + np.square(mean).sum(axis=2) * count
        chosen = {"all": counts > 4, "frequent": (count > 0).sum(axis=0) >= ENOUGH_GROUPS}
        of = {}
        for name, words in chosen.items():
            of_groups = [x[:, words] for x in sums]
            total = [x.sum(axis=0) for x in of_groups]
            rest = [plain(*(a - b[g] for a, b in zip(total, of_groups, strict=True)), weights[words]) for g in range(G)]
            without = {figure: [x[figure] for x in rest] for figure in rest[0]}
            of[name] = Measured(plain(*total, weights[words]), without)
        measured = of["all"]._replace(frequent=of["frequent"])
        texts.append((measured, true_figures(means[chosen["frequent"]], weights[chosen["frequent"]])))
    for figure in ("nc1", "nc3", "unc3", "gnc2"):
        average = np.mean([measured.figures[figure] for measured, _ in texts])
        intervals = [measured.interval(figure) for measured, _ in texts]
        truth = true_figures(means[counts > 4], weights[counts > 4])[figure]
        corrected = [(*measured.corrected(figure)[1], true[figure]) for measured, true in texts]
        if figure == "gnc2":
            assert np.isnan(corrected[0][0])
        else:
            assert 0.92 <= np.mean([low <= true <= high for low, high, true in corrected]) <= 0.98, figure
        assert np.mean([low <= average <= high for low, high in intervals]) >= 0.92, figure
        if figure in ("nc1", "nc3"):
            assert np.mean([low <= truth <= high for low, high in intervals]) < 0.1
