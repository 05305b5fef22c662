"""The suite on a tiny model: it captures what benchmarks score, counts what engines compute, and puts both side by side."""

import json
from pathlib import Path

import numpy as np
import pytest

from ncfair_jax.benchmarks import crows_pairs, seat
from ncfair_jax.benchmarks.base import MASKED, Benchmark, Questions
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.engine import Answer, Request, engine, forward, forward_of
from ncfair_jax.engine.batching import power_of_two
from ncfair_jax.engine.requests import ATTENTION, LOG_PROBS, MEAN_VECTOR
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.models.hf import load_pretrained, save_pretrained
from ncfair_jax.speed import ours, suite, suite_ours, suite_table
from ncfair_jax.speed.contestants import SpeedError
from ncfair_jax.speed.flops import encoder_flops, pool_flops, score_flops
from ncfair_jax.speed.padded import Scored, load_ragged
from tests import tiny
from tests.benchmarks import plain
from tests.rounding import EPSILON, rounding

COMPARED = {"crows_pairs", "stereoset", "bec_pro", "masked_lm", "seat"}
WORDS = {"targ1": ["he", "man"], "targ2": ["she", "woman"], "attr1": ["tired", "the nurse"], "attr2": ["was", "nurse"]}
SPREAD = {"median", "min", "max"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(model folder, data folder) with all published SEAT tests of the same few words."""
    root = tmp_path_factory.mktemp("suite")
    save_pretrained(root / "model", plain.pretrained("bert"))
    data = plain.write_data_folder(root / "data")
    (data / "seat").mkdir(exist_ok=True)
    for name in seat.SHA256:
        (data / "seat" / f"{name}.jsonl").write_text(json.dumps({k: {"examples": v} for k, v in WORDS.items()}))
    return str(root / "model"), str(data)


def captured(folders, name):
    """What a benchmark asked, and its Result."""
    benchmark, model = BENCHMARKS[name], load_pretrained(folders[0])
    questions = benchmark.questions(benchmark.read(DataFolder(Path(folders[1]), offline=True), ""), model)
    answers = forward_of(model)(questions.requests)
    return suite_ours.Exchange(questions.requests, answers), questions.table(answers)


def same(item, tokens, positions, targets):
    return [part.tolist() for part in item[:3]] == [list(tokens), list(positions), list(targets)]


def test_captured_requests_are_those_of_crows_pairs(folders):
    """Every token of every sentence masked alone, equal rows included, and the answers make up the scores."""
    asked, result = captured(folders, "crows_pairs")
    model = load_pretrained(folders[0])
    pairs = crows_pairs.read_pairs(f"{folders[1]}/{crows_pairs.FILE.name}")
    encoded = [model.tokenizer(text)["input_ids"] for pair in pairs for text in crows_pairs.ordered(pair)]
    expected = []
    for ids in encoded:
        for at in range(1, len(ids) - 1):
            expected.append(([*ids[:at], model.tokenizer.mask_token_id, *ids[at + 1 :]], [at], [ids[at]]))
    assert len(asked.requests) == len(expected)
    assert all(same(item, *parts) for item, parts in zip(asked.requests, expected, strict=True))
    changed = encoded[0].index(
        model.tokenizer.convert_tokens_to_ids("she")
    )  # the one word that differs in the first pair
    assert asked.values(changed - 1)[0] == pytest.approx(result.scores["score_more"][0], rel=rounding(1))


def test_captured_requests_are_those_of_bec_pro(folders):
    asked, result = captured(folders, "bec_pro")
    assert len(asked.requests) == 2 * result.n
    probabilities = np.exp(np.concatenate([answer.log_probs for answer in asked.answers]))
    # numpy's exp of a float32 number is within four units in the last place.
    np.testing.assert_allclose(probabilities[0::2], result.scores["target_prob"], rtol=8 * EPSILON)
    np.testing.assert_allclose(probabilities[1::2], result.scores["prior_prob"], rtol=8 * EPSILON)


def test_captured_sequences_are_every_text_of_every_test_of_seat(folders):
    """As the released code embeds them: what tests share is embedded again for each."""
    asked, _ = captured(folders, "seat")
    ids = load_pretrained(folders[0]).tokenizer([text for texts in WORDS.values() for text in texts])["input_ids"]
    assert [request.tokens.tolist() for request in asked.requests] == len(seat.SHA256) * ids
    assert asked.engine == suite_ours.VECTORS
    assert np.shape([answer.vector for answer in asked.answers]) == (len(asked.requests), 16)


def test_the_suite_stores_the_sample_and_tells_its_answers(folders, tmp_path):
    made = suite_ours.Suite(*folders, 5, tmp_path / "requests.npz")
    facts = json.loads(json.dumps(made.facts))
    assert set(facts["benchmarks"]) >= COMPARED
    assert set(facts["refused"]) >= {"bec_pro_de", "bec_pro_eec"}  # no such files
    assert "BEC-Pro_DE.tsv" in facts["refused"]["bec_pro_de"]
    groups = dict(zip(facts["benchmarks"], load_ragged(tmp_path / "requests.npz", Scored), strict=True))
    model = load_pretrained(folders[0])
    for name in ("crows_pairs", "stereoset", "masked_lm"):
        asked, _ = captured(folders, name)
        fact, group = facts["benchmarks"][name], groups[name]
        assert (fact["requests"], fact["sample"]) == (len(asked.requests), len(group)) == (len(asked.requests), 5)
        assert same(asked.requests[0], *group[0]) and same(asked.requests[-1], *group[-1])
        for stored, answer in zip(group, fact["answers"], strict=True):
            expected = plain.log_probs(model, stored.tokens)[stored.positions, stored.targets]
            np.testing.assert_allclose(answer, expected, **plain.CLOSE)
    for stored, answer in zip(groups["seat"], facts["benchmarks"]["seat"]["answers"], strict=True):
        np.testing.assert_allclose(answer, plain.hidden_states(model, stored.tokens).mean(0), atol=1e-5)
    number = list(facts["benchmarks"]).index("crows_pairs")
    again = made.run(number)
    assert again["programs"] == 0
    assert 0 < again["engine_seconds"] < again["seconds"]


def none(*_):
    raise AssertionError("never called")


def ask_fails(*_):
    raise ValueError("this model has no such head")


def ask_nothing(*_):
    return Questions([], lambda answers: None)


def ask_masked(*_):
    tokens = np.array([1, 7, 2], np.int32)
    masked = Request(tokens, np.array([1]), np.array([7]), np.ones(3, np.int32))
    return Questions([masked], lambda answers: None)


def test_benchmarks_that_cannot_be_compared_are_refused_and_others_go_on(folders, tmp_path, monkeypatch):
    def benchmark(ask):
        return Benchmark(none, {}, {}, (), "", read=lambda data, selector: (), ask={MASKED: ask})

    listed = {
        "trained": Benchmark(none, {}, {}, (), ""),
        "head": benchmark(ask_fails),
        "silent": benchmark(ask_nothing),
        "masked": benchmark(ask_masked),
        "crows_pairs": BENCHMARKS["crows_pairs"],
    }
    monkeypatch.setattr(suite_ours, "BENCHMARKS", listed)
    facts = suite_ours.Suite(*folders, 3, tmp_path / "requests.npz").facts
    assert list(facts["benchmarks"]) == ["crows_pairs"]
    assert set(facts["refused"]) == {"head", "silent", "masked"}
    assert facts["refused"]["head"] == "this model has no such head"
    assert "nothing" in facts["refused"]["silent"]
    assert "attention mask" in facts["refused"]["masked"]

    def ask_faulty(*_):
        raise TypeError("a fault of ours")

    monkeypatch.setattr(suite_ours, "BENCHMARKS", {"faulty": benchmark(ask_faulty)})
    with pytest.raises(TypeError, match="a fault of ours"):
        suite_ours.Suite(*folders, 3, tmp_path / "requests.npz")


def test_what_was_asked_is_of_one_kind():
    scored, embedded = Request(np.array([3]), np.array([0]), np.array([3])), Request(np.array([3]), ask=MEAN_VECTOR)
    vector = Answer(vector=np.zeros(2))
    asked = suite_ours.Exchange([scored, scored], [Answer(np.array([float(i)]), np.array([True])) for i in range(2)])
    assert asked.engine == suite_ours.SCORES
    assert [asked.values(i).tolist() for i in range(2)] == [[0.0], [1.0]]
    assert suite_ours.Exchange([embedded], [vector]).values(0).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"\['scores', 'vectors'\]"):
        _ = suite_ours.Exchange([scored, embedded], [asked.answers[0], vector]).engine


def test_evenly():
    assert suite_ours.evenly(100, 4).tolist() == [0, 33, 66, 99]
    assert suite_ours.evenly(3, 200).tolist() == [0, 1, 2]
    assert len(set(suite_ours.evenly(201, 200).tolist())) == 200


def requests(count):
    """Sequences of 4 to 38 tokens of tiny.MODEL, one in ten of them twice."""
    rng = np.random.default_rng(0)
    made = [
        Request(rng.integers(5, 60, rng.integers(4, 39)).astype(np.int32), np.array([1, 2]), np.array([7, 8]))
        for _ in range(count)
    ]
    return [*made, *made[::10]]


@pytest.mark.parametrize("ask", [LOG_PROBS, ATTENTION])
def test_counted_operations_of_scoring_are_those_of_the_batches(monkeypatch, ask):
    """The engine's own batches, of which the last ones have empty rows."""
    rows, heads, put = [], [], forward.put_rows

    def putting(batch, mesh):
        (rows if "tokens" in batch else heads).append(batch)
        return put(batch, mesh)

    monkeypatch.setattr(forward, "put_rows", putting)
    monkeypatch.setattr(engine, "CPU_LOGITS", 64 * tiny.VOCAB)
    model = plain.pretrained("bert")._replace(config=tiny.MODEL, params=tiny.params())
    asked = [request._replace(ask=ask) for request in requests(100)]
    forward_of(model, batch_tokens=640)(asked)
    assert len(rows) > 1 < len(heads)
    assert not rows[-1]["segment_ids"][-1].any()
    monkeypatch.setattr(ours, "default_batch_tokens", lambda: 640)
    assert ours.packed_flops_of(tiny.MODEL, asked) == score_flops(
        tiny.MODEL,
        rows=sum(len(batch["tokens"]) for batch in rows),
        tokens=64,
        scored=sum(len(batch["hidden"]) for batch in heads),
        read=None if ask == ATTENTION else rows[0]["read"].shape[1],
    )


def test_counted_operations_of_embedding_are_those_of_the_batches(monkeypatch):
    batches, put = [], forward.put_rows
    monkeypatch.setattr(forward, "put_rows", lambda batch, mesh: batches.append(batch) or put(batch, mesh))
    asked = [Request(request.tokens, ask=MEAN_VECTOR) for request in requests(100)]
    forward_of(plain.pretrained("bert")._replace(config=tiny.MODEL, params=tiny.params()))(asked)
    assert len(batches) > 1
    segments = power_of_two(int(max(batch["segment_ids"].max() for batch in batches)))
    rows = len(batches[0]["tokens"])
    assert ours.packed_flops_of(tiny.MODEL, asked) == len(batches) * (
        encoder_flops(tiny.MODEL, rows, 64) + pool_flops(tiny.MODEL, rows, 64, segments)
    )


def test_operations_of_one_row_at_a_time_by_hand():
    """Each request a row, repeated ones too; logits everywhere, but no head for vectors."""
    tokens = np.array([1, 7, 8, 2], np.int32)
    twice = 2 * [Request(tokens, np.array([1]), np.array([7]))]
    fact = suite_ours.describe(tiny.MODEL, suite_ours.Exchange(twice, 2 * [Answer(np.array([-1.0]))]), 5)
    # test_flops.py: 2048 weights a token and layer; 16 query-key pairs; 16·16 + 16·60 weights of the head
    row = 2 * 4 * 2048 * 2 + 2 * 16 * 16 * 2 * 2
    assert fact["row_flops"] == 2 * (row + 2 * 4 * (16 * 16 + 16 * 60))
    assert (fact["requests"], fact["distinct"], fact["sample"], fact["tokens_per_request"]) == (2, 1, 2, 4.0)
    fact = suite_ours.describe(
        tiny.MODEL, suite_ours.Exchange(2 * [Request(tokens, ask=MEAN_VECTOR)], [Answer(vector=np.zeros(16))] * 2), 5
    )
    assert fact["row_flops"] == 2 * row


def test_figures_are_scaled_and_taken_within_rounds():
    """Sample 10 of 100 requests: PyTorch's 2 and 3 s are 20 and 30 s; ours takes 4 and 5 s, 2 and 3 of them scoring."""
    fact = {
        **dict.fromkeys(("cold_seconds", "cold_engine_seconds"), 9.0),
        **{"engine": suite_ours.SCORES, "requests": 100, "distinct": 50, "sample": 10, "cold_programs": 1},
        **{"flops": 10, "row_flops": 25, "answers": [[-1.0], [-2.0, -3.0]]},
    }
    mine = [{"seconds": [s], "engine_seconds": [e], "programs": [0]} for s, e in ((4.0, 2.0), (5.0, 3.0))]
    theirs = [{"seconds": [s], "answers": [[[-1.0], [-2.0, -3.5]]]} for s in (2.0, 3.0)]
    found = suite.figures(fact, {suite.OURS: mine, suite.RELEASE: theirs})
    assert found["torch_seconds_of_rounds"] == [20.0, 30.0]
    assert found["speed"] == {"median": 10.0, "min": 10.0, "max": 10.0}
    assert found["whole_speed"] == {"median": 5.5, "min": 5.0, "max": 6.0}
    assert found["torch_requests_per_second"]["max"] == 5.0
    assert found["requests_per_second"]["max"] == 50.0
    assert (found["operations"], found["largest_difference"]) == (2.5, 0.5)
    both = suite.together([found, found | {"seconds_of_rounds": [6.0, 15.0]}])
    assert both["whole_speed"] == {"median": 3.5, "min": 3.0, "max": 4.0}
    assert (both["requests"], both["operations"]) == (200, 2.5)


@pytest.mark.slow
@pytest.mark.parity
def test_beside_torch(folders):
    pytest.importorskip("torch")
    result = json.loads(json.dumps(suite.run(suite.Settings(*folders, rounds=2, sample=6))))
    assert set(result["benchmarks"]) >= COMPARED
    for name, found in result["benchmarks"].items():
        assert found["largest_difference"] < 1e-4, name
        assert found["sample"] == min(6, found["requests"])
        assert found["warm_programs"] == 0
        for figure in ("seconds", "engine_seconds", "torch_seconds", "speed", "whole_speed"):
            assert set(found[figure]) == SPREAD
            assert 0 < found[figure]["min"] <= found[figure]["max"]
    text = suite_table.suite_table(result | {"machine": result["machine"] | {"load_average": 5.0, "cores": 2}})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3 + len(result["benchmarks"])
    assert text.count(" nats |") == len(result["benchmarks"]) - 1
    assert "Not run: bec_pro_de" in text
    assert "The machine was busy" in text


def test_ours_alone(folders):
    result = suite.run(suite.Settings(*folders, rounds=1, sample=2, compare="none"))
    assert set(result["benchmarks"]) >= COMPARED
    assert "speed" not in result["all"]
    text = suite_table.suite_table(result | {"machine": result["machine"] | {"load_average": 0.0}})
    assert "PyTorch" not in text and "busy" not in text
    assert text.count("| all |") == 1


def test_a_model_that_no_benchmark_runs_on(folders, tmp_path):
    with pytest.raises(SpeedError, match="no benchmark runs on"):
        suite.run(suite.Settings(folders[0], str(tmp_path), compare="none"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": "tensorflow"}, "choose from torch, none"),
        ({"sample": 0}, "sample=0"),
        ({"rounds": 0}, "rounds=0"),
        ({"model": "nowhere"}, "'nowhere' is no folder"),
    ],
)
def test_bad_settings(folders, changes, message):
    with pytest.raises(SpeedError, match=message):
        suite.Settings(**{"model": folders[0], "data": folders[1]} | changes)
