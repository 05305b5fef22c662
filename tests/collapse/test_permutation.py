"""The permutation test by hand, and its lists."""

from itertools import product

import numpy as np
import pytest
from transformers import BertTokenizerFast

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.permutation import figures_of_lists, permutation_test
from ncfair_jax.lexicons.classes import classes_of, matched_lists
from tests.rounding import rounding


def test_p_counts_the_lists_on_the_nearer_side():
    lists = [{"unc3": value} for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    found = permutation_test({"unc3": 0.15, "classes": 5.0}, lists)
    assert set(found) == {"unc3"}  # the number of classes says nothing about the model
    assert found["unc3"].p == pytest.approx(2 * 2 / 10)
    assert (found["unc3"].mean, found["unc3"].lists) == (pytest.approx(0.5), 9)
    assert permutation_test({"unc3": 0.0}, lists)["unc3"].p == pytest.approx(2 * 1 / 10)
    assert permutation_test({"unc3": 0.5}, lists)["unc3"].p == 1
    with_nan = permutation_test({"unc3": 0.95}, [*lists, {"unc3": float("nan")}])["unc3"]
    assert (with_nan.p, with_nan.lists) == (pytest.approx(2 * 1 / 10), 9)
    assert np.isnan(permutation_test({"unc3": float("nan")}, lists)["unc3"].p)


def test_against_the_first_model_the_figure_is_the_change_of_the_same_list():
    first = [{"nc3": 0.1 * number} for number in range(9)]
    after = [{"nc3": 0.1 * number + 0.01 * number} for number in range(9)]  # changes of 0 to 0.08
    found = permutation_test({"nc3": 0.5}, after, {"nc3": 0.3}, first)["nc3"]
    assert found.value == pytest.approx(0.2)
    assert found.mean == pytest.approx(0.04)
    assert found.p == pytest.approx(0.2)


def test_uniform_p_under_the_null():
    """A list drawn like the others has a p-value that is at most alpha in about alpha of the cases."""
    rng = np.random.default_rng(0)
    p = [
        permutation_test({"nc1": values[0]}, [{"nc1": value} for value in values[1:]])["nc1"].p
        for values in rng.normal(size=(400, 100))
    ]
    assert 0.03 < np.mean(np.array(p) <= 0.1) < 0.17


def test_figures_of_lists_are_those_of_their_words():
    rng = np.random.default_rng(1)
    stats = ClassStats(
        rng.integers(1, 9, 12).astype(np.int32),
        rng.normal(size=(12, 4)).astype(np.float32),
        rng.uniform(1, 2, 12).astype(np.float32),
    )
    rows = rng.normal(size=(12, 4)).astype(np.float32)
    lists = np.array([[0, 3, 4, 7], [1, 2, 9, 11]])
    for chosen, figures in zip(lists, figures_of_lists(stats, rows, lists), strict=True):
        expected = measure(ClassStats(*(leaf[chosen] for leaf in stats)), rows[chosen])
        same = rounding(3 * 4 + 6)  # cosines of four numbers, six pairs
        assert figures == pytest.approx(expected, rel=same, nan_ok=True)


def test_only_lists_of_equal_counts_test_a_true_null():
    """Words that differ in nothing but how often they occur: 15 tested ones, seen oftener than most of 300 neutral ones."""
    words = ["w" + "".join(letters) for letters in product("abcdefg", repeat=3)][:315]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(vocab)})
    tested = classes_of(range(5, 20), tokenizer)
    counts = np.zeros(len(tokenizer), np.int64)
    counts[20:] = np.maximum(300 // np.arange(1, 301), 2)
    counts[5:20] = counts[20:110:6]
    rng = np.random.default_rng(0)
    equal = matched_lists(tested, counts, 99, 0, tokenizer) - 5
    any_counts = np.array([rng.choice(np.arange(15, 315), 15, replace=False) for _ in range(99)])

    def nc3(means: np.ndarray, rows: np.ndarray, lists: np.ndarray) -> list[dict[str, float]]:
        centred = means[lists] - means[lists].mean(axis=1, keepdims=True)
        norms = np.linalg.norm(centred, axis=2) * np.linalg.norm(rows[lists], axis=2)
        cosines = np.einsum("lkd,lkd->lk", centred, rows[lists]) / norms
        return [{"nc3": value} for value in cosines.mean(axis=1)]

    p: dict[str, list[float]] = {"equal": [], "any": []}
    for _ in range(1000):
        truth, noise, of_rows = rng.normal(size=(3, 315, 24))
        means, rows = truth + noise / np.sqrt(counts[5:, None]), truth + 0.5 * of_rows
        (value,) = nc3(means, rows, np.arange(15)[None])
        for kind, lists in (("equal", equal), ("any", any_counts)):
            p[kind].append(permutation_test(value, nc3(means, rows, lists))["nc3"].p)
    assert np.mean(np.array(p["equal"]) <= 0.05) <= 0.06
    assert np.mean(np.array(p["any"]) <= 0.05) > 0.3
