"""A benchmark is one file and one line: it is registered, evaluated, shown, compared, and asked through a wrapped model."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ncfair_jax.benchmarks import compare, evaluate, headline
from ncfair_jax.benchmarks.base import CAUSAL, Questions
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.benchmarks.results import Result, read_table
from ncfair_jax.engine import Wrap
from ncfair_jax.report.comparisons import headline_table
from ncfair_jax.report.render import table_text
from tests import toy_benchmark
from tests.benchmarks import plain

PAIRS = [
    [f"the {a} said that [MASK] was tired", "he", "she"]
    for a in ("nurse", "man", "woman", "tired nurse", "tired man", "tired woman")
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    (tmp_path / "data/toy").mkdir(parents=True)
    (tmp_path / "data/toy/pairs.json").write_text(json.dumps(PAIRS))
    monkeypatch.setitem(BENCHMARKS, "toy", toy_benchmark.BENCHMARK)  # the one line
    return tmp_path / "data"


def run(data, wrap=None):
    model = plain.pretrained("bert")
    return evaluate(model, "toy", data, data.parent / "out", model_name="m", offline=True, wrap=wrap)["toy"]


def test_table_interval_and_headline(data):
    document = run(data)
    model = plain.pretrained("bert")
    scores = read_table(data.parent / "out/toy.csv", toy_benchmark.COLUMNS)
    for sentence, first, second in zip(*scores.values(), strict=True):
        tokens = np.array(model.tokenizer(sentence)["input_ids"])
        (place,) = np.flatnonzero(tokens == model.tokenizer.mask_token_id)
        expected = plain.log_probs(model, tokens)[place, model.tokenizer.convert_tokens_to_ids(["he", "she"])]
        np.testing.assert_allclose([first, second], expected, **plain.CLOSE)
    preferred = 100 * np.mean(np.greater(scores["first"], scores["second"]))
    assert document["metrics"] == {"preferred": preferred, "n": len(PAIRS)}
    low, high = document["intervals"]["preferred"]
    assert 0 <= low <= preferred <= high <= 100
    assert "toy, first word preferred, %" in table_text(headline_table(headline({"toy": document})))


def test_what_answers_in_the_model_s_stead_is_evaluated_by_the_same_benchmark(data):
    plainly = run(data)
    asked = []

    def expand(request):
        asked.append(request.name)
        return [request]

    opposite = Wrap("opposite", expand, lambda log_probs: jax.nn.log_softmax(-log_probs[0]))
    wrapped = run(data, opposite)
    assert wrapped["metrics"]["preferred"] == 100 - plainly["metrics"]["preferred"]
    assert wrapped["fingerprints"]["model"] == plainly["fingerprints"]["model"] + ", opposite"
    assert asked == [sentence for sentence, *_ in PAIRS]
    assert run(data, opposite) == wrapped and len(asked) == len(PAIRS)  # read back
    assert run(data) == plainly  # made again: the folder held the wrapped model's
    rows = compare(data.parent / "out", data.parent / "out")
    assert [row.name for row in rows] == ["toy, first word preferred, %", "|toy, first word preferred, % − 50|"]


def test_a_causal_model_is_asked_in_its_own_way_or_refused():
    """The benchmark's file says how each kind of model is asked; evaluation never asks one as the other."""
    model = plain.pretrained("bert")
    causal = type("CausalConfig", (type(model.config),), {"causal": True})
    decoder = model._replace(config=causal(**dataclasses.asdict(model.config)))
    with pytest.raises(ValueError, match="asks masked language models, and this one is causal; leave it out"):
        toy_benchmark.BENCHMARK.questions(PAIRS, decoder)
    nothing = Questions([], lambda answers: Result({}, {}, 0, {}, {}, {}, {}))
    both = toy_benchmark.BENCHMARK._replace(ask=toy_benchmark.BENCHMARK.ask | {CAUSAL: lambda examples, model: nothing})
    assert both.questions(PAIRS, decoder) is nothing
    assert len(both.questions(PAIRS, model).requests) == len(PAIRS)
