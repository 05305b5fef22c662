"""AUL, AULA and SSS by plain passes and by hand; scores and aggregates of the golden runs, which are PyTorch's."""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks import crows_pairs, stereoset_examples, unmasked
from ncfair_jax.benchmarks.stereoset_examples import Example
from ncfair_jax.benchmarks.unmasked import Case, crows_pairs_cases, span_request, stereoset_cases
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.models.hf import load_pretrained
from tests.benchmarks import plain

CASES = [
    Case("0", "gender", "dev", "man", "the nurse said she was tired", "the nurse said he was tired"),
    Case("1", "gender", "test", "man", "a nurse was tired", "the woman was tired"),
    Case("2", "race", "test", "nurse", "a man said that", "a tired man said that"),
]


def test_scores_are_those_of_plain_passes():
    model = plain.pretrained("bert")
    result = plain.result(unmasked, model, CASES)
    hits = total = 0
    for row, case in enumerate(CASES):
        encoded = [np.array(model.tokenizer(text)["input_ids"], np.int32) for text in (case.more, case.less)]
        spans = crows_pairs.align(*(tokens.tolist() for tokens in encoded)).modified
        for side, tokens, span in zip(("more", "less"), encoded, spans, strict=True):
            inner = np.arange(1, len(tokens) - 1)
            log_probs = plain.log_probs(model, tokens)
            hits += (log_probs[inner].argmax(-1) == tokens[inner]).sum()
            total += len(inner)
            own = log_probs[inner, tokens[inner]]
            np.testing.assert_allclose(result.scores[f"aul_{side}"][row], own.mean(), **plain.CLOSE)
            if not span:
                assert result.scores[f"sss_{side}"][row] is None
                continue
            masked = tokens.copy()
            masked[span] = model.tokenizer.mask_token_id
            expected = plain.log_probs(model, masked)[span, tokens[span]].mean()
            np.testing.assert_allclose(result.scores[f"sss_{side}"][row], expected, **plain.CLOSE)
    assert result.metrics["aul"]["overall"]["all"]["accuracy"] == pytest.approx(100 * hits / total)
    assert {m: result.metrics[m]["overall"]["all"]["n"] for m in unmasked.MEASURES} == {"aul": 3, "aula": 3, "sss": 2}
    assert result.metrics["sss"]["race"]["all"]["bias_score"] is None
    assert result.metrics["aul"]["overall"]["test"]["n"] == 2
    assert (result.counts["skipped_sss"], result.counts["skipped_aul"], result.counts["tied_aul"]) == (1, 0, 0)


def test_spans_are_masked_at_once_and_read_by_diagonal_or_square():
    tokens = np.array([2, 7, 8, 9, 3], np.int32)
    diagonal, square = (span_request(tokens, [1, 3], 4, index) for index in ("diagonal", "kxk"))
    for request in (diagonal, square):
        assert request.tokens.tolist() == [2, 4, 8, 4, 3]
    assert list(zip(diagonal.positions.tolist(), diagonal.targets.tolist(), strict=True)) == [(1, 7), (3, 9)]
    assert sorted(zip(square.positions.tolist(), square.targets.tolist(), strict=True)) == [
        (1, 7), (1, 9), (3, 7), (3, 9)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="choose from"):
        plain.result(unmasked, plain.pretrained("bert"), CASES, sss_index="rows")


def test_the_strongest_example_is_the_stereotype_that_is_likelier_as_a_whole(shared):
    data = DataFolder(shared("data"), offline=True)
    for benchmark, cases in (
        (unmasked.CROWS_PAIRS, unmasked.crows_pairs_cases(crows_pairs.read_pairs(data.path(crows_pairs.FILE)))),
        (unmasked.STEREOSET, unmasked.stereoset_cases(stereoset_examples.load_examples(data))),
    ):
        chosen = cases[7:90:11]
        table = {"id": [case.id for case in chosen], "aul_more": [-1.0] * 8, "aul_less": [-3.0] * 8}
        assert benchmark.drill_down.strength(table).tolist() == [2.0] * 8
        found = benchmark.drill_down.texts(data, table)
        assert found == {"stereotyped": [c.more for c in chosen], "other": [c.less for c in chosen]}


def test_a_tie_counts_against_and_a_missing_score_not_at_all():
    is_scored = np.array([True, True, True, False, True])
    columns = unmasked.outcome_columns(np.array([1.0, 0.0, -1.0, 3.0, 2.0]), is_scored)
    assert columns.tolist() == [[1, 1], [0, 1], [0, 1], [0, 0], [1, 1]]
    sums = np.append(columns.sum(0), [3, 10])
    assert unmasked.unmasked_figures(sums) == {"bias_score": 50, "accuracy": 30}
    assert unmasked.counts(sums) == {"n": 4}


def test_stereoset_gives_stereotype_and_anti_stereotype():
    example = Example("e", "man", "gender", "a BLANK.", ("a man's.", "a woman's.", "a the."), "test")
    assert stereoset_cases([example]) == [Case("e", "gender", "test", "man", "a man's.", "a woman's.")]


GOLDEN = {"evals": ("models/minilm6-mlm", 60), "evals_roberta": ("models/roberta-tiny-random", 30)}


@pytest.mark.parametrize("folder", GOLDEN)
def test_golden_scores(folder, shared):
    name, stride = GOLDEN[folder]
    model = load_pretrained(shared(name))
    golden = np.load(shared(f"golden/{folder}/crows_pairs.npz"), allow_pickle=False)
    cases = crows_pairs_cases(crows_pairs.read_pairs(shared("data/crows_pairs/crows_pairs_anonymized.csv")))
    # Skipped rows of either tokenizer, the order-sensitive one, and those whose spans are longest.
    longest = np.argsort(golden["n_diff_more"])[-3:].tolist()
    edges = sorted({129, 231, 1101, 1129, 1442, *longest})
    rows = edges + list(range(0, len(cases), plain.stride(stride)))
    diagonal = plain.result(unmasked, model, [cases[i] for i in rows])
    square = plain.result(unmasked, model, [cases[i] for i in edges], sss_index="kxk")
    for side in ("more", "less"):
        for result, index, column, stored in (
            (diagonal, rows, "aul", "aul"),
            (diagonal, rows, "aula", "aula"),
            (diagonal, rows, "sss", "sss_diag"),
            (square, edges, "sss", "sss_kxk"),
        ):
            theirs = golden[f"{stored}_{side}"][index]
            ours = np.array(result.scores[f"{column}_{side}"], float)  # NaN where not scored, as the golden file has it
            np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=0, err_msg=stored)


@pytest.mark.parametrize("folder", GOLDEN)
def test_golden_aggregates_of_the_stored_scores(folder, shared):
    golden = np.load(shared(f"golden/{folder}/crows_pairs.npz"), allow_pickle=False)
    aggregates = json.loads(shared(f"golden/{folder}/crows_pairs.json").read_text())
    cases = crows_pairs_cases(crows_pairs.read_pairs(shared("data/crows_pairs/crows_pairs_anonymized.csv")))
    for index in ("diag", "kxk"):
        table = {name: [getattr(case, name) for case in cases] for name in ("id", "bias_type", "split", "cluster")}
        table |= {name: [0.0] * len(cases) for name in ("top1", "tokens")}
        for side in ("more", "less"):
            stored = {"aul": f"aul_{side}", "aula": f"aula_{side}", "sss": f"sss_{index}_{side}"}
            for measure, name in stored.items():
                scores = golden[name].tolist()
                table[f"{measure}_{side}"] = [None if np.isnan(score) else score for score in scores]
        samples = unmasked.samples(table)
        for domain in samples["aul"]:
            theirs = aggregates[domain]
            ours = {}
            for measure in unmasked.MEASURES:
                sample = samples[measure][domain]["all"]
                ours[measure] = round(float(sample.figures(sample.sums.sum(0))["bias_score"]), 2)
            expected = {"aul": theirs["aul"], "aula": theirs["aula"], "sss": theirs[f"sss_{index}"]["skip_empty"]}
            assert ours == expected, domain
