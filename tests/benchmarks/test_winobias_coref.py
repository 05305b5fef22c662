"""WinoBias by coreference: the published figures from the published clusters, and hand-made documents."""

import json

import pytest
from scipy import stats

from ncfair_jax.benchmarks.results import read_table, write_table
from ncfair_jax.benchmarks.winobias_coref import COLUMNS, EXAMPLE_COLUMNS, is_aligned, is_exact, samples, score_winobias
from ncfair_jax.files.sources import DataError
from ncfair_jax.statistics.intervals import summarise
from ncfair_jax.tasks.coreference.conll import Document

GOLD = (((1, 2), (8, 8)),)


def document(number: int, clusters=GOLD) -> Document:
    return Document(f"nw/dev_type1/stereotype//{number}", 0, (("w",) * 9,), ("s",), clusters)


@pytest.mark.parametrize(
    ("predicted", "aligned", "exact"),
    [
        ([((1, 2), (8, 8))], True, True),
        ([((8, 8), (1, 2))], True, True),
        ([((1, 4), (5, 6))], True, False),  # ends and the pronoun are ignored
        ([((4, 4), (5, 5)), ((1, 2), (8, 8))], False, True),  # only the first cluster is looked at
        ([((4, 4), (8, 8))], False, False),
        ([], False, False),
    ],
)
def test_rules(predicted, aligned, exact):
    assert (is_aligned(GOLD, predicted), is_exact(GOLD, predicted)) == (aligned, exact)


def test_figures_by_hand():
    right, wrong = [((1, 2), (8, 8))], [((4, 4), (8, 8))]
    none: list = []
    predictions = {
        (1, "pro"): [(document(0), right), (document(1), right), (document(2), right), (document(3), wrong)],
        (1, "anti"): [(document(0), right), (document(1), none), (document(2), wrong), (document(3), wrong)],
        (2, "pro"): [(document(0), right)],
        (2, "anti"): [(document(0), right)],
    }
    result = score_winobias(predictions, {"split": "dev"})
    one, two = result.metrics["type1"], result.metrics["type2"]
    assert one["pro"] == {"f1_reported": 600 / 7, "accuracy": 75.0, "exact_cluster_match": 75.0}
    assert one["anti"] == {"f1_reported": 40.0, "accuracy": 25.0, "exact_cluster_match": 25.0}
    assert one["tpr"] == {"f1_reported": 600 / 7 - 40, "accuracy": 50.0, "exact_cluster_match": 50.0}
    assert (one["n"], one["aligned_pro"], one["aligned_anti"]) == (8, 3, 1)
    assert two["tpr"] == {"f1_reported": 0.0, "accuracy": 0.0, "exact_cluster_match": 0.0}
    assert result.n == 10 and result.counts == {"no_cluster": 1} and result.settings == {"split": "dev"}
    # Two templates, documents 0 and 1, 2 and 3, and one of type 2: too few for an interval.
    assert result.intervals["type1"]["tpr"]["accuracy"] is None
    assert result.intervals["type2"]["pro"]["accuracy"] is None


def test_intervals_are_over_templates():
    """Six templates of two documents: pro is right in all, anti in the first five templates."""
    right, wrong = [((1, 2), (8, 8))], [((4, 4), (8, 8))]
    predictions = {
        (1, "pro"): [(document(i), right) for i in range(12)],
        (1, "anti"): [(document(i), right if i < 10 else wrong) for i in range(12)],
    }
    found = score_winobias(predictions, {}).intervals["type1"]
    low, high = found["pro"]["accuracy"]
    square = stats.t.ppf(0.975, 5) ** 2
    assert (low, high) == (
        pytest.approx(600 / (6 + square)),
        100,
    )  # Wilson's: 6 of 6 templates are not all there could be
    low, high = found["tpr"]["accuracy"]
    assert low < 0 < 100 / 6 < high


def test_refused_documents():
    with pytest.raises(DataError, match="has 2 gold clusters; expected WinoBias's documents"):
        score_winobias({(1, "pro"): [(document(0, GOLD * 2), [])]}, {})
    with pytest.raises(DataError, match="nw/wsj_0 has 1 gold clusters"):
        score_winobias({(1, "pro"): [(document(0)._replace(name="nw/wsj"), [])]}, {})


@pytest.mark.parametrize("model", ["bert", "mabel"])
def test_published_figures_from_published_clusters(shared, tmp_path, model):
    """Also from the written tables alone."""
    golden = json.loads(shared("golden/evals/winobias_coref_aggregator.json").read_text())

    def clusters(raw):
        return tuple(tuple((start, end) for start, end in cluster) for cluster in raw)

    predictions = {
        (kind, side): [
            (Document(item["doc"].removesuffix("_0"), 0, (), (), clusters(item["gold"])), clusters(item["pred"]))
            for item in golden["predictions"][f"{model}-type{kind}_{side}"]
        ]
        for kind in (1, 2)
        for side in ("pro", "anti")
    }
    result = score_winobias(predictions, {})
    figures = ("f1_reported", "accuracy", "exact_cluster_match")
    for kind in (1, 2):
        found, published = result.metrics[f"type{kind}"], golden["results"]
        for side in ("pro", "anti"):
            expected = published[f"{model}-type{kind}_{side}"]
            assert found[side] == {name: expected[name] for name in figures}
            assert found[f"aligned_{side}"] == expected["aligned"]
        assert found["tpr"] == {name: published[f"{model}-TPR{kind}"][name] for name in figures}
    write_table(tmp_path / "scores.csv", result.scores)
    write_table(tmp_path / "examples.csv", result.examples)
    table = read_table(tmp_path / "scores.csv", COLUMNS) | read_table(tmp_path / "examples.csv", EXAMPLE_COLUMNS)
    assert summarise(samples(table)) == (result.metrics, result.intervals)
    low, high = result.intervals["type1"]["tpr"]["f1_reported"]
    assert low < result.metrics["type1"]["tpr"]["f1_reported"] < high
    assert len(set(table["template"])) == 2 * 198
