"""Fillers, pieces and rows of all 1026 examples against the stored ones, both file layouts, and counting by hand."""

import json

import numpy as np
import pytest

from ncfair_jax.evals import stereoset
from ncfair_jax.evals.files import DataError, DataFolder
from ncfair_jax.evals.requests import Request
from ncfair_jax.evals.scorer import score
from ncfair_jax.evals.stereoset import GENDER_DEV_TARGETS, filler, filler_rows, load_examples, read_examples
from ncfair_jax.models.hf import load_pretrained
from tests.evals import plain

MODELS = {"evals": "models/minilm6-mlm", "evals_roberta": "models/roberta-tiny-random"}
LABELS = ("stereotype", "anti-stereotype", "unrelated")


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
            rows = filler_rows(example.context, word, model, "reference")
            clean = filler_rows(example.context, word, model, "clean")
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
                for row in filler_rows(examples[i].context, word, model, kind):
                    requests.append(Request(row.tokens, np.array([row.position]), np.array([row.target])))
        found = np.exp([values[0] for values in score(model, requests)])
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
    example = stereoset.Example(
        "e", "t", "gender", "the man was BLANK.", ("the man was nurses.", "the man was tired.", "the man was the.")
    )
    rows = filler_rows(example.context, "nurses", model, "reference")
    logs = np.array([plain.log_probs(model, row.tokens)[row.position, row.target] for row in rows])
    assert len(logs) == 2
    for pool, expected in (("mean_prob", np.exp(logs).mean()), ("mean_logprob", logs.mean())):
        result = stereoset.evaluate(model, [example], pool=pool)
        np.testing.assert_allclose(result.scores["stereotype"], [expected], rtol=1e-4)
    with pytest.raises(ValueError, match="choose from"):
        stereoset.evaluate(model, [example], pool="sum")


def broken(change):
    item = plain.stereoset_items()[0]
    change(item)
    return [item]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken(lambda item: item.update(context="no gap")), "0 BLANKs"),
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
