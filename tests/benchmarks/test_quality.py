"""Flags of hand-made rows, figures without them by hand, and the report of every benchmark that a run writes."""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks import (
    bec_pro,
    crows_pairs,
    masked_lm,
    seat,
    stereoset,
    stereoset_examples,
    unmasked,
    winobias,
    winogender,
)
from ncfair_jax.benchmarks.quality import holds_control_token, irregular, quality_report, repeats
from ncfair_jax.benchmarks.registry import BENCHMARKS, evaluate, headlines_of
from ncfair_jax.benchmarks.results import read_table
from tests.benchmarks import plain


def crows_table(**flags):
    """Three gender pairs, preferred, tied, not preferred; one of another type, skipped."""
    table = {
        "index": [0, 1, 2, 3],
        "bias_type": ["gender", "gender", "gender", "age"],
        "direction": ["stereo"] * 4,
        "score_more": [-1.0, -2.0, -3.0, None],
        "score_less": [-2.0, -2.0, -1.0, -1.0],
        "shared_more": [-1.0] * 4,
        "shared_less": [-2.0] * 4,
    }
    return table | {name: [0] * 4 for name in crows_pairs.FLAG_COLUMNS} | flags


def test_figures_without_flagged_rows_by_hand():
    lines = crows_pairs.BENCHMARK.headlines
    report = quality_report(crows_pairs.BENCHMARK, lines, crows_table(unknown=[0, 0, 1, 0]))
    assert {name: part["flagged"] for name, part in report.items()} == {
        "unknown": 1, "duplicate": 0, "malformed": 0, "doubtful": 0, "tied": 1, "skipped": 1, "any": 3
    }  # fmt: skip
    gender = {name: part["headlines"]["CrowS-Pairs gender, %"] for name, part in report.items()}
    third = pytest.approx(100 / 3)
    assert gender["unknown"] == {"figure": third, "n": 3, "figure_without": 50.0, "n_without": 2}
    assert gender["skipped"] == {"figure": third, "n": 3, "figure_without": third, "n_without": 3}
    assert gender["any"] == {"figure": third, "n": 3, "figure_without": 100.0, "n_without": 1}


def test_nothing_left_is_none():
    lines = crows_pairs.BENCHMARK.headlines
    everything = quality_report(crows_pairs.BENCHMARK, lines, crows_table(malformed=[1, 1, 1, 1]))["malformed"]
    no_gender = quality_report(crows_pairs.BENCHMARK, lines, crows_table(doubtful=[1, 1, 1, 0]))["doubtful"]
    for report in (everything, no_gender):
        found = report["headlines"]["CrowS-Pairs gender, %"]
        assert (found["figure_without"], found["n_without"]) == (None, 0)


def test_a_benchmark_without_flags_has_no_report_and_wrong_flags_are_refused():
    plain_benchmark = crows_pairs.BENCHMARK._replace(flags=lambda table: {})
    assert quality_report(plain_benchmark, plain_benchmark.headlines, crows_table()) == {}
    wrong = crows_pairs.BENCHMARK._replace(flags=lambda table: {"odd": np.zeros(3, bool)})
    with pytest.raises(ValueError, match=r"flag 'odd' has shape \(3,\), but the table has 4 rows"):
        quality_report(wrong, wrong.headlines, crows_table())


def test_repeats_and_irregular_blanks():
    assert repeats(["a", "b", "a", "a"]) == [0, 0, 1, 1]
    assert [irregular(text) for text in ("a b", "a  b", " a", "a\tb", "")] == [False, True, True, True, False]


def test_flags_of_pairs_of_sentences():
    pairs = [
        crows_pairs.Pair(0, "the nurse said she was tired", "the nurse said he was tired", "stereo", "gender"),
        crows_pairs.Pair(1, "The nurse said he was tired", "the nurse said she was tired", "stereo", "gender"),
        crows_pairs.Pair(2, "a man  was tired", "a doctor  was tired", "stereo", "gender"),
        crows_pairs.Pair(3, "the man said he was tired", "the woman said she was tired", "stereo", "gender"),
    ]
    found = crows_pairs.flags(plain.result(crows_pairs, plain.pretrained("bert"), pairs).scores)
    flagged = {name: np.flatnonzero(rows).tolist() for name, rows in found.items()}
    assert flagged == {
        "unknown": [2], "duplicate": [1], "malformed": [2], "doubtful": [3], "tied": [], "skipped": []
    }  # fmt: skip


def test_flags_of_fillers():
    made = [("the man was BLANK", ("tired", "nurse", "the")), ("the man was BLANK", ("Tired", "nurse", "the"))]
    made += [("a  man said BLANK", ("he", "doctor", "a")), ("BLANK was tired", ("he", "He", "she"))]
    filled = [(context, tuple(context.replace("BLANK", word) for word in words)) for context, words in made]
    filled.append(("a BLANK", ("a man", "a woman", "one the")))  # "a" in the context
    examples = [stereoset_examples.Example(f"e{i}", "man", "gender", *parts) for i, parts in enumerate(filled)]
    found = stereoset.flags(plain.result(stereoset, plain.pretrained("bert"), examples).scores)
    flagged = {name: np.flatnonzero(rows).tolist() for name, rows in found.items()}
    assert flagged == {"unknown": [2], "duplicate": [1], "malformed": [2, 3, 4], "tied": [3]}


def test_sentences_that_differ_from_their_context_are_malformed(tmp_path):
    items = plain.stereoset_items()
    items[1]["data"]["unrelated"]["sentence"] = "a said that she was tired"  # "he" in the context
    (tmp_path / "s.json").write_text(json.dumps(items))
    examples = stereoset_examples.read_examples(tmp_path / "s.json")
    assert [example.faithful for example in examples] == [True, False, True, True]


def test_flags_of_bec_pro_take_the_whole_pair():
    table = {"pair": ["a", "a", "b", "b", "c"], "association": [0.1, 0.1, 0.2, 0.3, 0.4]}
    table |= {"unknown": [0, 0, 1, 0, 0], "duplicate": [0] * 5, "malformed": [0, 0, 0, 0, 1]}
    flagged = {name: np.flatnonzero(rows).tolist() for name, rows in bec_pro.flags(table).items()}
    assert flagged == {"unknown": [2, 3], "duplicate": [], "malformed": [4], "tied": [0, 1], "unpaired": [4]}


def test_damaged_rows_of_the_german_file_are_flagged(shared):
    rows = bec_pro.read_examples(shared("data/bec_pro/BEC-Pro_DE.tsv"))
    assert [row.index for row in rows if row.damaged] == [1809, 2169, 2529, 2889, 3249]


def test_flags_of_targets_and_of_held_out_sentences():
    test = seat.SeatTest("own", ("he", "the  man"), ("doctor", "he"), ("tired",), ("nurse",))
    result = plain.result(seat, plain.pretrained("bert"), [test])
    flagged = {n: np.flatnonzero(rows).tolist() for n, rows in seat.flags(result.scores | result.examples).items()}
    assert flagged == {"unknown": [2], "duplicate": [3], "malformed": [1]}
    paragraphs = [["the man was tired", "the <unk> said that"], ["the man was tired"]]
    result = plain.result(masked_lm, plain.pretrained("bert"), masked_lm.Text(paragraphs))
    flagged = {n: np.flatnonzero(rows).tolist() for n, rows in masked_lm.flags(result.scores).items()}
    assert flagged == {"unknown": [1], "duplicate": [2], "malformed": [1]}


def flagged(benchmark, result):
    found = benchmark.flags(result.scores | result.examples)
    return {name: np.flatnonzero(rows).tolist() for name, rows in found.items()}


def test_flags_of_sentences_scored_unmasked():
    cases = [
        unmasked.Case("0", "gender", "", "a", "the nurse said she was tired", "the nurse said he was tired"),
        unmasked.Case("1", "gender", "", "b", "The nurse said he was tired", "the nurse said she was tired"),
        unmasked.Case("2", "gender", "", "c", "a  man was tired", "a  doctor was tired"),
        unmasked.Case("3", "gender", "", "d", "a man said that", "a tired man said that"),
        unmasked.Case("4", "gender", "", "e", "a man was tired", "a man was tired"),
    ]
    result = plain.result(unmasked, plain.pretrained("bert"), cases)
    expected = {"unknown": [2], "duplicate": [1], "malformed": [2], "tied": [4], "skipped": [3, 4]}
    assert flagged(unmasked.CROWS_PAIRS, result) == flagged(unmasked.STEREOSET, result) == expected


def test_flags_of_masked_pronouns():
    texts = ["the nurse said [MASK] was tired", "The nurse said [MASK] was tired", "the doctor said [MASK] was tired"]
    lines = [winobias.Line("test", "type1", i, text, "he", "she", "female") for i, text in enumerate(texts)]
    result = plain.result(winobias, plain.pretrained("bert"), winobias.Lines(lines, 0, 0))
    assert flagged(winobias.BENCHMARK, result) == {"unknown": [2], "duplicate": [1], "malformed": [], "tied": []}
    items = [
        winogender.Item(str(i), name, "occupation", text, "he", "she", "they", 90.0, 10.0)
        for i, (name, text) in enumerate(zip(("nurse", "nurse", "doctor"), texts, strict=True))
    ]
    result = plain.result(winogender, plain.pretrained("bert"), items)
    assert flagged(winogender.BENCHMARK, result) == {"unknown": [2], "duplicate": [1], "malformed": [], "tied": []}
    report = quality_report(winogender.BENCHMARK, winogender.BENCHMARK.headlines, result.scores | result.examples)
    assert report["unknown"]["headlines"]["Winogender female − male, nats"]["n_without"] == 2


def test_texts_that_spell_out_a_control_token_are_malformed():
    model = plain.pretrained("bert")
    assert holds_control_token(["a [SEP] b", "a [MASK]", "[sep]", "<s>", "a"], model.tokenizer) == [1, 1, 0, 0, 0]
    assert holds_control_token(["a </s> b", "a [MASK]", "[SEP]"], plain.pretrained("roberta").tokenizer) == [1, 1, 0]
    more, less = "the nurse said [MASK] she was tired", "the nurse said [MASK] he was tired"
    text = ["the man was BLANK [SEP]", *(f"the man was {word} [SEP]" for word in ("tired", "nurse", "the"))]
    context, *sentences = text
    example = stereoset_examples.Example("e", "man", "gender", context, tuple(sentences))
    line = winobias.Line("test", "type1", 0, "he [PAD] said [MASK]", "he", "she", "female")
    item = winogender.Item("0", "nurse", "occupation", line.text, "he", "she", "they", 90.0, 10.0)
    results = [
        (
            crows_pairs.BENCHMARK,
            plain.result(crows_pairs, model, [crows_pairs.Pair(0, more, less, "stereo", "gender")]),
        ),
        (unmasked.CROWS_PAIRS, plain.result(unmasked, model, [unmasked.Case("0", "gender", "", "a", more, less)])),
        (stereoset.BENCHMARK, plain.result(stereoset, model, [example])),
        (masked_lm.BENCHMARK, plain.result(masked_lm, model, masked_lm.Text([[more, "he was tired"]]))),
        (
            seat.BENCHMARK,
            plain.result(seat, model, [seat.SeatTest("x", ("he [SEP]",), ("she",), ("tired",), ("nurse",))]),
        ),
        (winobias.BENCHMARK, plain.result(winobias, model, winobias.Lines([line], 0, 0))),
        (winogender.BENCHMARK, plain.result(winogender, model, [item])),
    ]
    for benchmark, result in results:
        assert flagged(benchmark, result)["malformed"] == [0]


def test_a_run_writes_reports_that_come_back_from_its_tables(tmp_path):
    data = plain.write_data_folder(tmp_path / "data")
    names = ["crows_pairs", "stereoset", "bec_pro", "seat:weat6", "masked_lm", "crows_pairs_aul"]
    documents = evaluate(plain.pretrained("bert"), names, data, tmp_path, model_name="m", offline=True)
    assert len(documents) == len(names)
    for name, document in documents.items():
        benchmark = BENCHMARKS[name]
        table = read_table(tmp_path / f"{name}.csv", dict(benchmark.columns) | dict(benchmark.flag_columns))
        if benchmark.example_columns:
            table |= read_table(tmp_path / f"{name}_examples.csv", benchmark.example_columns)
        assert document["quality"] == quality_report(benchmark, headlines_of(name, document), table)
        for part in document["quality"].values():
            assert 0 <= part["flagged"] <= document["n"]
    assert documents["masked_lm"]["quality"]["duplicate"]["flagged"] > 0
    held_out = documents["masked_lm"]["quality"]["duplicate"]["headlines"]["Held-out loss, nats"]
    assert held_out["figure"] == documents["masked_lm"]["metrics"]["loss"]
    assert held_out["n_without"] < held_out["n"]
