"""Fillers, pieces and rows of all 1026 examples against the stored ones, both file layouts, and counting by hand."""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks import stereoset, stereoset_examples
from ncfair_jax.benchmarks.stereoset import filler_rows
from ncfair_jax.benchmarks.stereoset_examples import GENDER_DEV_TARGETS, filler, load_examples, read_examples
from ncfair_jax.engine.requests import Request
from ncfair_jax.files import notes
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.statistics.intervals import summarise
from ncfair_jax.vocabulary import vocabulary_of
from tests.benchmarks import plain

MODELS = {"evals": "models/minilm6-mlm", "evals_roberta": "models/roberta-tiny-random"}
LABELS = ("stereotype", "anti-stereotype", "unrelated")


def rows_of(context, word, model, kind):
    return filler_rows(context, word, model.tokenizer, vocabulary_of(model.tokenizer), kind)


@pytest.fixture(scope="module", params=MODELS)
def golden(request, shared):
    """(stored pieces, stored arrays, model, kinds of rows) of a golden set."""
    folder = shared(f"golden/{request.param}")
    pieces = json.loads((folder / "stereoset_gender_pieces.json").read_text())
    arrays = np.load(folder / "stereoset_gender.npz", allow_pickle=False)
    kinds = {"piece_probs": "reference"}
    if request.param == "evals_roberta":
        kinds["clean_piece_probs"] = "clean"
    return pieces, arrays, load_pretrained(shared(MODELS[request.param])), kinds


def test_fillers_and_pieces_of_every_example(golden, shared):
    pieces, arrays, model, _ = golden
    path = shared("data/stereoset/gender_intrasentence.json")
    examples, items = read_examples(path), json.loads(path.read_text())
    assert [list(example.fillers) for example in examples] == pieces["words"]
    mask, differing = model.tokenizer.mask_token_id, np.zeros((len(examples), 3), int)
    for i, (example, item) in enumerate(zip(examples, items, strict=True)):
        for j, (label, word) in enumerate(zip(LABELS, example.fillers, strict=True)):
            rows = rows_of(example.context, word, model, "reference")
            clean = rows_of(example.context, word, model, "clean")
            assert len(rows) == len(clean) == arrays["n_pieces"][i, j]
            if "piece_ids" in pieces:
                assert [row.target for row in rows] == pieces["piece_ids"][item["data"][label]["id"]]
            assert all(row.tokens[row.position] == mask and (row.tokens == mask).sum() == 1 for row in rows)
            differing[i, j] = sum(not np.array_equal(a.tokens, b.tokens) for a, b in zip(rows, clean, strict=True))
    if "n_rows_differ" in arrays:
        np.testing.assert_array_equal(differing, arrays["n_rows_differ"])


def test_probabilities_of_single_pieces(golden, shared):
    pieces, _, model, kinds = golden
    path = shared("data/stereoset/gender_intrasentence.json")
    examples, items = read_examples(path), json.loads(path.read_text())
    for name, kind in kinds.items():
        expected, requests = [], []
        for i in [*range(0, len(examples), 60), 105, 325, 887]:
            for label, word in zip(LABELS, examples[i].fillers, strict=True):
                expected += pieces[name][items[i]["data"][label]["id"]]
                for row in rows_of(examples[i].context, word, model, kind):
                    requests.append(Request(row.tokens, np.array([row.position]), np.array([row.target])))
        found = np.exp([values[0] for values in plain.log_probs_of(model, requests)])
        np.testing.assert_allclose(found, expected, rtol=5e-4)


def test_dev_and_test_are_the_same_by_ids_and_by_terms(shared, tmp_path):
    by_ids = load_examples(DataFolder(shared("data")))
    assert [sum(e.split == split for e in by_ids) for split in ("dev", "test")] == [255, 771]
    assert all((e.target in GENDER_DEV_TARGETS) == (e.split == "dev") for e in by_ids)
    (tmp_path / "stereoset").mkdir()
    name = "stereoset/gender_intrasentence.json"
    (tmp_path / name).write_bytes(shared(f"data/{name}").read_bytes())
    assert load_examples(DataFolder(tmp_path)) == by_ids


def test_the_official_layout_gives_the_same_examples(tmp_path):
    plain.write_stereoset(tmp_path / "stereoset/gender_intrasentence.json")
    flat = load_examples(DataFolder(tmp_path))
    official = [
        {**item, "sentences": [s | {"gold_label": label, "labels": []} for label, s in item.pop("data").items()]}
        for item in plain.stereoset_items()
    ]
    for split in ("dev", "test"):
        items = [item for item, example in zip(official, flat, strict=True) if example.split == split]
        document = {"version": "1", "data": {"intrasentence": items, "intersentence": []}}
        (tmp_path / f"stereoset/{split}.json").write_text(json.dumps(document))
    assert load_examples(DataFolder(tmp_path)) == flat


@pytest.mark.parametrize(
    ("context", "sentence", "word"),
    [
        ("She is BLANK.", "She is well-read.", "wellread"),
        ("BLANK's dog", "sister's dog", "sisters"),
        ("a  BLANK b", "a  c b", "c"),  # two blanks: an empty word between
    ],
)
def test_fillers_by_hand(context, sentence, word):
    assert filler(context, sentence) == word


def test_terms_weigh_the_same_and_examples_in_the_micro_figures():
    outcome = stereoset.outcome_columns(
        stereotype=np.array([3.0, 3.0, 1.0, 2.0]), anti=np.array([1.0, 2.0, 1.0, 3.0]), unrelated=np.array([2, 2, 0, 3])
    )
    # A tie with the anti-stereotype counts against the stereotype, a tie with the unrelated filler for it.
    assert outcome.tolist() == [[1, 1, 1], [1, 1, 1], [0, 2, 1], [0, 0, 1]]
    sample = stereoset.term_sample(["a", "a", "a", "b"], outcome)
    found = {name: float(value) for name, value in sample.figures(sample.sums.sum(0)).items()}
    lm, ss = (100 * 4 / 6 + 0) / 2, (100 * 2 / 3 + 0) / 2
    expected = {"lm": lm, "ss": ss, "icat": lm * ss / 50, "lm_micro": 50.0, "ss_micro": 50.0, "icat_micro": 50.0}
    assert found == pytest.approx(expected)
    assert float(stereoset.icat(np.float64(80), np.float64(60))) == 64.0


def test_mean_of_log_probabilities_is_a_choice():
    model = plain.pretrained("bert")
    example = stereoset_examples.Example(
        "e", "t", "gender", "the man was BLANK.", ("the man was nurses.", "the man was tired.", "the man was the.")
    )
    rows = rows_of(example.context, "nurses", model, "reference")
    logs = np.array([plain.log_probs(model, row.tokens)[row.position, row.target] for row in rows])
    assert len(logs) == 2
    for pool, expected in (("mean_prob", np.exp(logs).mean()), ("mean_logprob", logs.mean())):
        result = plain.result(stereoset, model, [example], pool=pool)
        np.testing.assert_allclose(result.scores["stereotype"], [expected], rtol=1e-4)
    with pytest.raises(ValueError, match="choose from"):
        plain.result(stereoset, model, [example], pool="sum")


TWO = {
    "id": "two",
    "target": "man",
    "bias_type": "religion",
    "context": "the BLANK was tired and BLANK.",
    "data": {
        label: {"id": label, "sentence": f"the {first} was tired and {second}."}
        for label, first, second in zip(LABELS, ("x", "x", "y"), ("nurses", "man", "she"), strict=True)
    },
}


def test_every_blank_is_filled_with_the_word_of_the_last_and_the_first_mask_is_scored(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps([*plain.stereoset_items(), TWO]))
    examples = read_examples(tmp_path / "s.json")
    assert examples[-1].fillers == ["nurses", "man", "she"]
    model = plain.pretrained("bert")
    result = plain.result(stereoset, model, examples)
    assert result.scores["malformed"] == [0, 0, 0, 0, 1]
    tokenizer, mask = model.tokenizer, model.tokenizer.mask_token
    expected = []
    for prefix, target in (("", "nurse"), ("nurse", "##s")):
        tokens = np.array(tokenizer(TWO["context"].replace("BLANK", prefix + mask))["input_ids"])
        place = np.flatnonzero(tokens == tokenizer.mask_token_id)[0]
        expected.append(np.exp(plain.log_probs(model, tokens)[place, tokenizer.convert_tokens_to_ids(target)]))
    np.testing.assert_allclose(result.scores["stereotype"][-1], np.mean(expected), rtol=1e-4)


@pytest.mark.parametrize(("family", "rows"), [("bert", "reference"), ("roberta", "reference"), ("roberta", "clean")])
def test_rows_of_two_blanks(family, rows):
    model = plain.pretrained(family)
    mask = model.tokenizer.mask_token_id
    for number, row in enumerate(rows_of(TWO["context"], "nurses", model, rows)):
        places = np.flatnonzero(row.tokens == mask)
        assert len(places) == 2 and row.position == places[0]
        assert (
            row.tokens[places[0] - number : places[0]].tolist() == row.tokens[places[1] - number : places[1]].tolist()
        )


def test_the_official_development_file_is_read_whole(shared):
    examples = read_examples(shared("data/stereoset_full/dev.json"), "dev")
    assert len(examples) == 2106
    several = {example.target: example.fillers for example in examples if example.context.count("BLANK") > 1}
    assert several["Brahmin"] == ["religious", "organized", "monkey"]
    assert set(several) == {"Brahmin", "performing artist"}


def test_an_example_with_two_stereotypes_is_skipped_and_counted(tmp_path):
    whole = plain.stereoset_items()[0]
    sentences = [{"gold_label": label, "sentence": whole["data"][label]["sentence"]} for label in LABELS]
    official = {key: value for key, value in whole.items() if key != "data"} | {"sentences": sentences}
    items = [official | {"id": f"e{i}"} for i in range(150)]
    items[3] |= {"sentences": [*sentences, sentences[0]]}
    items[5] |= {"id": "e4"}
    (tmp_path / "dev.json").write_text("\ufeff" + json.dumps({"data": {"intrasentence": items[:4] + items[5:]}}))
    with notes.collected() as found:
        assert len(read_examples(tmp_path / "dev.json")) == 148
    assert [(note.rows, note.lines, note.unit) for note in found] == [(149, (4,), "row")]
    assert found[0].first.startswith(
        "its sentences are labelled ['stereotype', 'anti-stereotype', 'unrelated', 'stereotype']"
    )
    (tmp_path / "dev.json").write_text(json.dumps({"data": {"intrasentence": items[4:6]}}))
    with pytest.raises(DataError, match=r"dev\.json: example 2 \(id e4\): its id is there twice"):
        read_examples(tmp_path / "dev.json")


@pytest.mark.parametrize("splits", [["e0"], {"dev": ["e0"]}, {"dev": ["e0"], "test": "e1"}])
def test_a_broken_list_of_splits_is_refused(tmp_path, splits):
    plain.write_stereoset(tmp_path / "stereoset/gender_intrasentence.json")
    (tmp_path / "stereoset/gender_split_ids.json").write_text(json.dumps(splits))
    with pytest.raises(DataError, match=r"gender_split_ids\.json: expected an object with the lists dev and test"):
        load_examples(DataFolder(tmp_path))


def broken(change):
    item = plain.stereoset_items()[0]
    change(item)
    return [item]


def test_icat_has_no_interval_and_few_terms_have_none():
    """ICAT is highest where SS is 50, and falls on both sides."""
    rng = np.random.default_rng(0)
    table = {"bias_type": ["gender"] * 60, "split": ["test"] * 60, "target": [f"term {i % 6}" for i in range(60)]}
    table |= {name: rng.random(60).tolist() for name in ("stereotype", "anti_stereotype", "unrelated")}
    found = summarise(stereoset.samples(table))[1]["gender"]["test"]
    for name in ("ss", "lm", "ss_micro"):
        assert 0 <= found[name][0] < found[name][1] <= 100
    assert found["icat"] is None and found["icat_micro"] is None
    three = table | {"target": [f"term {i % 3}" for i in range(60)]}
    assert set(summarise(stereoset.samples(three))[1]["gender"]["test"].values()) == {None}
    always = table | {"stereotype": [2.0] * 60}
    low, high = summarise(stereoset.samples(always))[1]["gender"]["test"]["ss"]
    assert (low, high) == (pytest.approx(100 * 6 / (6 + 2.570582**2), abs=1e-3), 100)  # six terms that agree, Wilson's


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken(lambda item: item.update(context="no gap")), "has no BLANK"),
        (broken(lambda item: item["data"].pop("unrelated")), "unrelated"),
        (broken(lambda item: item.pop("target")), "target"),
        (broken(lambda item: item.update(data=[])), "expected StereoSet"),
        (broken(lambda item: item["data"]["unrelated"].update(sentence="the")), "no word"),
        ({"data": {}}, "intrasentence"),
        ([], "no examples"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / "s.json")
