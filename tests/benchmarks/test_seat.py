"""Effect sizes and p-values by hand, terms, groups and broken files; the scores of the reference in golden/evals."""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks import seat
from ncfair_jax.engine import RequestError
from ncfair_jax.files.sources import DataError
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.statistics.intervals import summarise
from tests.benchmarks import plain
from tests.rounding import encoder_operations, rounding

WORDS = {"x": ("he", "man"), "y": ("she", "woman"), "a": ("tired", "the nurse"), "b": ("was", "said that", "nurse")}


def write_test(path, **changes):
    lists = dict(zip(seat.KEYS, WORDS.values(), strict=True)) | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: {"category": key, "examples": list(texts)} for key, texts in lists.items()}))
    return path


def table(x, y, name="t", terms=None):
    """A table of one test with given associations; each target a term of its own unless told."""
    count = len(x) + len(y)
    return {
        "test": [name] * count,
        "side": ["X"] * len(x) + ["Y"] * len(y),
        "item": [*range(len(x)), *range(len(y))],
        "association": [*x, *y],
        "text": [f"w{i}" for i in range(count)],
        "term": terms or [f"w{i}" for i in range(count)],
    }


def test_effect_size_by_hand():
    sample = seat.samples(table([1.0, 3.0], [0.0, 2.0]))["tests"]["t"]
    found = sample.figures(sample.sums.sum(0))
    assert found["effect_size"] == pytest.approx(1 / np.sqrt(5 / 3))  # means 2 and 1, squares about 1.5 sum to 5
    assert found["statistic"] == 2
    assert sample.counts(sample.sums.sum(0)) == {"n": 4}


def test_effect_sizes_of_a_group_are_averaged_without_their_sign():
    x, y = [1.0, 3.0], [0.0, 2.0]
    parts = [table(x, y, name) if i % 2 else table(y, x, name) for i, name in enumerate(seat.GROUPS["gender"])]
    joined = {column: [value for part in parts for value in part[column]] for column in parts[0]}
    groups = seat.samples(joined)["groups"]
    assert set(groups) == {"gender"}  # of the other groups some test is missing
    total = groups["gender"].sums.sum(0)
    assert groups["gender"].figures(total)["mean_abs_effect_size"] == pytest.approx(1 / np.sqrt(5 / 3))
    assert groups["gender"].counts(total) == {"n": 24}
    assert len(groups["gender"].clusters) == 4  # the tests' common targets move together


def test_undefined_effect_size_is_none():
    found = seat.samples(table([1.0, 1.0], [1.0, 1.0]))["tests"]["t"]
    assert np.isnan(found.figures(found.sums.sum(0))["effect_size"])


def test_terms_of_sentences():
    texts = [
        "This is a man.",
        "The men are here.",
        "Those are technologies.",
        "The technology is there.",
        "He is here.",
    ]
    assert seat.terms(texts) == ["man", "man", "technology", "technology", "he"]
    assert seat.terms(["The person's name is Amy.", "buses", "These are things."]) == [
        "amy",
        "buses",
        "These are things.",
    ]


@pytest.mark.parametrize(("kind", "pool"), [("bert", "mean"), ("bert", "cls"), ("roberta", "mean")])
def test_associations_and_figures_are_those_of_plain_cosines(kind, pool, tmp_path):
    model = plain.pretrained(kind)
    test = seat.read_test(write_test(tmp_path / "own.json"))
    result = plain.result(seat, model, [test], pool=pool)
    texts = [text for part in WORDS.values() for text in part]
    vectors = {}
    for text in texts:
        hidden = plain.hidden_states(model, np.array(model.tokenizer(text)["input_ids"], np.int32)).astype(float)
        vectors[text] = hidden.mean(0) if pool == "mean" else hidden[0]

    def cosine(one, other):
        return vectors[one] @ vectors[other] / np.linalg.norm(vectors[one]) / np.linalg.norm(vectors[other])

    def association(word):
        return np.mean([cosine(word, a) for a in WORDS["a"]]) - np.mean([cosine(word, b) for b in WORDS["b"]])

    x, y = ([association(word) for word in WORDS[side]] for side in "xy")
    np.testing.assert_allclose(
        result.scores["association"], x + y, atol=rounding(encoder_operations(model.config), size=2)
    )
    figures = result.metrics["tests"]["own"]
    effect = (np.mean(x) - np.mean(y)) / np.std(x + y, ddof=1)
    np.testing.assert_allclose([figures["effect_size"], figures["statistic"]], [effect, sum(x) - sum(y)], atol=1e-4)
    sums = sorted([x[0] + x[1], x[0] + y[0], x[0] + y[1], x[1] + y[0], x[1] + y[1], y[0] + y[1]])
    assert figures["p"] == (6 - sums.index(x[0] + x[1])) / 6
    assert (figures["splits"], figures["n"], result.n) == (6, 4, 4)
    assert result.settings["pool"] == pool
    assert (result.counts["texts"], result.metrics["groups"]) == (9, {})


def term_table(x, y):
    """A test of two texts about each term, all of one association."""
    means = [*x, *y]
    rows = [(i, copy) for i in range(len(means)) for copy in range(2)]
    return {
        "test": ["own"] * len(rows),
        "side": ["X" if i < len(x) else "Y" for i, _ in rows],
        "item": [2 * i + copy for i, copy in rows],
        "association": [means[i] + (-0.1, 0.1)[copy] for i, copy in rows],
        "text": [f"text {i} {copy}" for i, copy in rows],
        "term": [f"term {i}" for i, _ in rows],
    }


def test_permuting_terms_beside_texts_by_counting():
    found = seat.p_values(term_table([3.0, 2.0, 4.0], [1.0, 0.0, 0.5]))["own"]
    assert (found["p_terms"], found["splits_terms"]) == (
        1 / 20,
        20,
    )  # the seen split of three of six terms is the highest
    assert found["splits"] == 924 and found["p"] == pytest.approx(1 / 924)  # as if twelve texts were independent


def test_interval_of_d_is_over_terms_and_needs_five_on_each_side():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1, 8), rng.normal(size=8)
    metrics, intervals = summarise(seat.samples(term_table(x, y)))
    d, (low, high) = metrics["tests"]["own"]["effect_size"], intervals["tests"]["own"]["effect_size"]
    assert -2 < low < d < high < 2
    assert intervals["tests"]["own"]["statistic"] is None
    few = summarise(seat.samples(term_table(x, y[:4])))[1]
    assert few["tests"]["own"]["effect_size"] is None


def test_repeated_and_unknown_texts_are_counted(tmp_path):
    test = seat.read_test(write_test(tmp_path / "own.json", targ1=["he", "man", "he"], attr1=["doctor"]))
    assert (test.x, test.repeated) == (("he", "man"), 1)
    result = plain.result(seat, plain.pretrained("bert"), [test])
    assert (result.counts["repeated"], result.counts["texts_with_unknown_token"]) == (1, 1)
    assert result.examples["text"] == ["he", "man", "she", "woman"]


def test_selectors_name_groups_and_tests():
    assert len(seat.select("")) == 50
    assert seat.select("gender") == tuple(f"sent-weat{n}" for n in ("6", "6b", "7", "7b", "8", "8b"))
    assert seat.select("weat6b") == ("weat6b",)
    grouped = [name for names in seat.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(seat.SHA256)  # each in one group
    assert {source.name for source in seat.files("") if source.url} == {f"seat/{name}.jsonl" for name in grouped}
    with pytest.raises(DataError, match="choose from"):
        seat.select("sex")


def test_broken_files_are_refused(tmp_path):
    path = write_test(tmp_path / "own.json")
    whole = path.read_text()
    for text, message in (
        (whole[: len(whole) // 2], "cut off"),
        (whole.replace("attr2", "attr3"), "no 'attr2'"),
        ("[1]", "expected targ1"),
        (whole.replace('"he", "man"', ""), "empty"),
        (whole.replace('"he"', "3"), "other than texts"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            seat.read_test(path)


def test_tests_need_distinct_names(tmp_path):
    test = seat.read_test(write_test(tmp_path / "own.json"))
    for tests in ([], [test, test]):
        with pytest.raises(ValueError, match="at least one"):
            plain.result(seat, plain.pretrained("bert"), tests)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_golden_effect_sizes_and_p_values(pool, shared):
    golden = json.loads(shared("golden/evals/seat.json").read_text())
    stored = np.load(shared("golden/evals/seat.npz"))
    names = [name for name in golden if not name.startswith("_")]
    assert len(names) == 12
    tests = [seat.read_test(shared(f"data/seat/{name}.jsonl")) for name in names]
    result = plain.result(seat, load_pretrained(shared("models/minilm6-mlm")), tests, pool=pool)
    associations, rows = np.array(result.scores["association"]), seat.by_test(result.scores)
    for name in names:
        ours, theirs = result.metrics["tests"][name], golden[name][pool]
        mine = associations[np.concatenate(rows[name])]
        np.testing.assert_allclose(mine, stored[f"{name}/{pool}"], atol=1e-5)
        assert ours["effect_size"] == pytest.approx(theirs["effect_size"], abs=1e-4)
        assert ours["statistic"] == pytest.approx(theirs["statistic"], abs=1e-4)
        p = theirs["p_value"]
        if theirs["p_kind"] == "exact":
            assert ours["splits"] == theirs["partitions"]
            assert abs(ours["p"] - p) <= 1.001 / ours["splits"]
        else:
            assert abs(ours["p"] - p) <= 4 * np.sqrt(p * (1 - p) / 1e5) + 1e-4
    mean = golden["_avg_abs_effect_size_gender_sent"][pool]
    assert result.metrics["groups"]["gender"]["mean_abs_effect_size"] == pytest.approx(mean, abs=1e-4)


def test_a_text_that_is_too_long_is_named_by_its_test(tmp_path):
    test = seat.read_test(write_test(tmp_path / "own.json", targ1=["he", "man " * 50]))
    with pytest.raises(RequestError, match=r"^own: 'man man .*' has 52 tokens, but the model takes"):
        plain.result(seat, plain.pretrained("bert"), [test])
