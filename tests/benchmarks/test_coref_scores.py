"""MUC, B³ and CEAF-φ4 by hand, on the examples of the papers that define them."""

import numpy as np
import pytest

from ncfair_jax.benchmarks.coref_scores import COLUMNS, b_cubed, ceaf_phi4, document_scores, muc, samples
from ncfair_jax.statistics.intervals import summarise_sample


def clusters(*names: str):
    """'ABC' is the cluster of the mentions A, B and C."""
    return [tuple((ord(letter), ord(letter)) for letter in name) for name in names]


def values(metric, gold, predicted):
    recall, precision = metric(gold, predicted), metric(predicted, gold)
    return recall[0] / recall[1], precision[0] / precision[1]


@pytest.mark.parametrize(
    ("gold", "predicted", "recall", "precision"),
    [
        # Vilain et al. 1995, by their definition: links kept over links needed.
        (["ABCD"], ["AB", "CD"], 2 / 3, 1),  # two parts of four mentions
        (["AB", "CD"], ["ABCD"], 1, 2 / 3),
        (["ABCD"], ["AC", "BE"], 1 / 3, 1 / 2),  # D is missing, E is none: parts AC, B, D; parts B, E
        (["AB"], ["CD"], 0, 0),
    ],
)
def test_muc(gold, predicted, recall, precision):
    np.testing.assert_allclose(values(muc, clusters(*gold), clusters(*predicted)), (recall, precision))


# Figure of Bagga and Baldwin 1998: {1-5} {6, 7} {8-12}; the second response joins large clusters, and is worse.
TRUTH = clusters("12345", "67", "89ABC")


@pytest.mark.parametrize(
    ("predicted", "muc_precision", "b_precision"),
    [
        (["12345", "6789ABC"], 9 / 10, (5 + 2 * 2 / 7 + 5 * 5 / 7) / 12),
        (["1234589ABC", "67"], 9 / 10, (2 * 5 * 5 / 10 + 2) / 12),
    ],
)
def test_b_cubed_tells_apart_what_muc_does_not(predicted, muc_precision, b_precision):
    response = clusters(*predicted)
    np.testing.assert_allclose(values(muc, TRUTH, response), (1, muc_precision))
    np.testing.assert_allclose(values(b_cubed, TRUTH, response), (1, b_precision))


def test_b_cubed_with_missing_and_superfluous_mentions():
    recall, precision = values(b_cubed, clusters("ABC", "DE"), clusters("AB", "CDX"))
    np.testing.assert_allclose(recall, (2 * 2 / 3 + 1 / 3 + 1 / 2 + 0) / 5)  # E is in no response
    np.testing.assert_allclose(precision, (2 + 1 / 3 + 1 / 3 + 0) / 5)


@pytest.mark.parametrize(
    ("gold", "predicted", "similarity"),
    [
        # Luo 2005: each cluster is aligned once. The best alignment is 12345 with 6 of 12, not greedy where it costs.
        (["12345", "67", "89ABC"], ["12345", "6789ABC"], 1 + 2 * 5 / 12),
        (["12345", "67", "89ABC"], ["1234589ABC", "67"], 2 * 5 / 15 + 1),
        # Greedy would align ABC-AB first (4/5) and leave ABD nothing in common with C; the best is ABC-C… and ABD-AB….
        (["ABC", "DE"], ["ABD", "CE"], 2 * 2 / 6 + 2 * 1 / 4),
        (["ABCDEF", "G"], ["ABCDEFG"], 2 * 6 / 13),
        (["AB"], [], 0),
    ],
)
def test_ceaf(gold, predicted, similarity):
    best, count = ceaf_phi4(clusters(*gold), clusters(*predicted))
    np.testing.assert_allclose((best, count), (similarity, len(gold)))
    np.testing.assert_allclose(ceaf_phi4(clusters(*predicted), clusters(*gold)), (similarity, len(predicted)))


def test_ceaf_is_not_greedy():
    """Greedy takes A-to-A' (4/5) and is left with 0; the best alignment gives 2/4 + 2/4."""
    gold, predicted = clusters("ABX", "YZ"), clusters("AB", "XY")
    pairs = {(0, 0): 4 / 5, (0, 1): 2 / 5, (1, 0): 0, (1, 1): 2 / 4}
    np.testing.assert_allclose(ceaf_phi4(gold, predicted)[0], pairs[0, 0] + pairs[1, 1])
    gold, predicted = clusters("ABCD", "EF"), clusters("ABE", "CD")  # 4/7 + 0 against 4/6 + 2/5
    np.testing.assert_allclose(ceaf_phi4(gold, predicted)[0], 2 * 2 / 6 + 2 * 1 / 5)


def test_figures_are_of_sums_over_documents():
    gold = [clusters("ABCD"), clusters("AB", "CD")]
    predicted = [clusters("AB", "CD"), clusters("AB")]
    rows = [document_scores(a, b) for a, b in zip(gold, predicted, strict=True)]
    table = {"document": ["a", "b"]} | {name: [row[name] for row in rows] for name in rows[0]}
    assert list(table) == list(COLUMNS)
    metrics, intervals = summarise_sample(samples(table)[""])
    # MUC: recall (2 + 1) / (3 + 2), precision (2 + 1) / (2 + 1).
    assert metrics["muc"] == pytest.approx({"recall": 60.0, "precision": 100.0, "f1": 75.0})
    # B³: recall (4 · 2/4 + 2) / 8, precision (4 + 2) / 6.
    assert metrics["b_cubed"] == pytest.approx({"recall": 50.0, "precision": 100.0, "f1": 100 * 2 / 3})
    # CEAF: (2·2/6 + 1) of 3 gold and 3 predicted clusters.
    assert metrics["ceaf_phi4"] == pytest.approx(dict.fromkeys(("recall", "precision", "f1"), 100 * (5 / 3) / 3))
    assert metrics["conll_f1"] == pytest.approx((75 + 200 / 3 + 500 / 9) / 3)
    assert metrics["n"] == 2
    assert intervals["muc"]["recall"] is None  # two documents
    many = {name: column * 5 for name, column in table.items()} | {"document": [str(i) for i in range(10)]}
    low, high = summarise_sample(samples(many)[""])[1]["muc"]["recall"]
    assert low < 60 < high < 100


def test_nothing_predicted_is_zero_and_not_undefined():
    row = document_scores(clusters("AB"), [])
    table = {"document": ["a"]} | {name: [value] for name, value in row.items()}
    metrics, _ = summarise_sample(samples(table)[""])
    assert metrics["conll_f1"] == 0 and metrics["muc"]["precision"] is None
