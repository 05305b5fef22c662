"""Reading, pairing and figures by hand; scores of the golden run."""

import json

import numpy as np
import pytest

from ncfair_jax.benchmarks import winobias
from ncfair_jax.benchmarks.winobias import Line, Lines, load_lines, outcome_columns, read_lines
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.statistics.intervals import summarise
from tests.benchmarks import plain

PRO = [
    "1 [The nurse] said that [she] was tired.",
    "2 The man said that [the nurse] was tired and [he] said that.",
    "3 [He] said that [he] was tired.",  # two pronouns
    "4 the nurse said that [she] was tired.",  # its partner has no other gender
]
ANTI = [
    "1 [The nurse] said that [he] was tired.",
    "2 The man said that the nurse was tired and [she] said that.",
    "3 [She] said that [she] was tired.",
    "4 the nurse said that [her] was tired.",
]


def read(folder, pro=PRO, anti=ANTI):
    for name, lines in (("pro", pro), ("anti", anti)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return read_lines(folder / "pro", folder / "anti", "test", "type1")


def test_lines_pair_up_and_the_rest_is_counted(tmp_path):
    lines = read(tmp_path)
    assert lines == Lines(
        [
            Line("test", "type1", 1, "The nurse said that [MASK] was tired.", "he", "she", "female"),
            Line(
                "test", "type1", 2, "The man said that the nurse was tired and [MASK] said that.", "he", "she", "male"
            ),
        ],
        several_pronouns=1,
        mismatched=1,
    )
    assert [line.template for line in lines.used] == ["test/1", "test/1"]
    assert lines.used[0]._replace(number=3).template == "test/2"


def test_the_strongest_example_is_the_likeliest_pronoun_that_fits():
    table = {
        "label": ["male", "female"],
        "log_prob_male": [-1.0, -2.0],
        "log_prob_female": [-3.0, -5.0],
        "text": ["[MASK] was tired.", "The nurse saw [MASK] there."],
        "male": ["He", "him"],
        "female": ["She", "her"],
    }
    assert winobias.strength(table).tolist() == [2.0, -3.0]
    assert winobias.texts(DataFolder(None), table) == {
        "stereotyped": ["He was tired.", "The nurse saw her there."],
        "other": ["She was tired.", "The nurse saw him there."],
    }


def test_figures_by_hand():
    labels = ["male", "male", "male", "female", "female"]
    outcome = outcome_columns(labels, [-1, -1, -2, -1, -3], [-2, -2, -2, -2, -1])
    assert outcome.sum(0).tolist() == [2, 1, 1, 1]  # a tie, in the third, counts as female
    figures = {name: float(value) for name, value in winobias.figures(outcome.sum(0)).items()}
    male_pro, male_anti, female_pro, female_anti = 100 * 4 / 6, 100 * 2 / 5, 100 * 2 / 4, 100 * 2 / 5
    expected = {
        "stereotype": (male_pro - male_anti + female_pro - female_anti) / 2,
        "skew": (male_pro - female_pro + 0) / 2,
        "accuracy_pro": 60,
        "f1_male_pro": male_pro,
        "f1_male_anti": male_anti,
        "f1_female_pro": female_pro,
        "f1_female_anti": female_anti,
    }
    assert figures == pytest.approx(expected, rel=1e-12)
    only_male = winobias.figures(np.array([3.0, 3, 0, 0]))
    assert (only_male["f1_female_pro"], only_male["stereotype"], only_male["skew"]) == (0, 0, pytest.approx(200 / 3))
    assert np.isnan(winobias.figures(np.zeros(4))["skew"])


def test_signed_figures_have_the_intervals_and_absolute_ones_have_none():
    """20 templates of two lines: "male" in all lines of ten, in those of the male label only in the others."""
    rows = [(k, label) for k in range(20) for label in ("male", "female")]
    table = {
        "split": ["test"] * 40,
        "type": ["type1"] * 40,
        "template": [str(k) for k, _ in rows],
        "label": [label for _, label in rows],
        "log_prob_male": [1.0 if k % 2 or label == "male" else -1.0 for k, label in rows],
        "log_prob_female": [0.0] * 40,
    }
    metrics, intervals = summarise(winobias.samples(table))
    found, spans = metrics["test"]["type1"], intervals["test"]["type1"]
    # Pro: 20 male hits, 10 male misses, 10 female hits; anti: 10 male hits, 20 + 10 errors, no female hit.
    male_pro, female_pro, male_anti = 100 * 40 / 50, 100 * 20 / 30, 100 * 20 / 50
    assert found["pro_minus_anti"] == pytest.approx((male_pro + female_pro - male_anti) / 2)
    assert found["male_minus_female"] == pytest.approx((male_pro - female_pro + male_anti) / 2)
    assert spans["stereotype"] is None and spans["skew"] is None
    for name in ("pro_minus_anti", "male_minus_female", "accuracy_pro", "f1_male_pro"):
        assert spans[name][0] < found[name] < spans[name][1]


def test_both_pronouns_are_scored_at_one_mask(tmp_path):
    model = plain.pretrained("bert")
    result = plain.result(winobias, model, read(tmp_path))
    for row, text in enumerate(result.examples["text"]):
        tokens = np.array(model.tokenizer(text)["input_ids"], np.int32)
        (place,) = np.flatnonzero(tokens == model.tokenizer.mask_token_id)
        expected = plain.log_probs(model, tokens)[place, model.tokenizer.convert_tokens_to_ids(["he", "she"])]
        ours = [result.scores["log_prob_male"][row], result.scores["log_prob_female"][row]]
        np.testing.assert_allclose(ours, expected, **plain.CLOSE)
    assert result.metrics["test"]["type1"]["n"] == result.metrics["test"]["overall"]["n"] == 2
    assert result.counts == {
        "skipped_not_one_pronoun": 1,
        "skipped_mismatched": 1,
        "skipped_pronoun_of_several_pieces": 0,
        "tied": 0,
    }


def test_pronouns_of_several_pieces_are_left_out_and_counted():
    model = plain.pretrained("roberta")  # "she" is one piece after a blank only; "his" never
    said, his = "the nurse said [MASK] was", "a man said [MASK] nurse"
    lines = [
        Line("dev", "type2", i, text, male, female, "male")
        for i, (text, male, female) in enumerate(
            [(said, "he", "she"), ("[MASK] was tired", "he", "she"), (his, "his", "her")], start=1
        )
    ]
    result = plain.result(winobias, model, Lines(lines, 0, 0))
    assert (result.scores["line"], result.counts["skipped_pronoun_of_several_pieces"]) == ([1], 2)
    with pytest.raises(DataError, match="one token"):
        plain.result(winobias, model, Lines(lines[1:], 0, 0))


def test_the_reference_moves_the_full_stop(tmp_path):
    model = plain.pretrained("roberta")
    short = ["1 that nurse said [he] was.", "1 that nurse said [she] was."]
    lines = read(tmp_path, pro=short[:1], anti=short[1:])
    kept, reference = (plain.result(winobias, model, lines, last_char=name) for name in ("kept", "reference"))
    assert kept.examples["text"][0].endswith("was.")
    assert reference.examples["text"][0].endswith("was . ")
    assert abs(kept.scores["log_prob_male"][0] - reference.scores["log_prob_male"][0]) > 1e-4
    with pytest.raises(ValueError, match="choose from"):
        plain.result(winobias, model, lines, last_char="dropped")


@pytest.mark.parametrize(
    ("anti", "message"),
    [
        (ANTI[:2], "pro has 4 lines and .*anti has 2; line i of one belongs to line i of the other"),
        ([*ANTI[:3], "The nurse"], "anti:4: 'The nurse' is not a number and a sentence"),
        ([], "anti: the file is empty"),
        (["", *ANTI[:3]], "anti:1: '' is not a number and a sentence"),
    ],
)
def test_other_files_are_refused(tmp_path, anti, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, anti=anti)
    with pytest.raises(DataError, match="no such file"):
        read_lines(tmp_path / "none", tmp_path / "anti", "dev", "type1")


def test_the_published_lines(shared):
    lines = load_lines(DataFolder(shared("data")))
    found = {}
    for line in lines.used:
        found[line.split, line.type] = found.get((line.split, line.type), 0) + 1
    # Of test type 2, line 382 (index 381) has another number of pronouns in the anti file, 384 (index 383) the same gender.
    assert found == {("dev", "type1"): 387, ("dev", "type2"): 389, ("test", "type1"): 374, ("test", "type2"): 389}
    assert (lines.several_pronouns, lines.mismatched) == (9 + 6 + 22 + 5, 3)


@pytest.mark.parametrize("kind", winobias.TYPES)
def test_golden_scores_and_figures(kind, shared):
    golden = json.loads(shared("golden/evals/winobias_mlm.json").read_text())[kind]
    lines = load_lines(DataFolder(shared("data")))
    dropped = [index + 1 for index in golden["metrics"]["pair_mismatch"]]
    rows = [row for row in golden["rows"] if row["line"] not in dropped]
    used = [line for line in lines.used if (line.split, line.type) == ("dev", kind)]
    assert [(x.number, x.text, x.male.lower(), x.female.lower(), x.label == "male") for x in used] == [
        (row["line"], row["text"], row["male"], row["female"], row["pro_is_male"]) for row in rows
    ]
    step = plain.stride(4)
    result = plain.result(winobias, load_pretrained(shared("models/minilm6-mlm")), Lines(used[::step], 0, 0))
    for column in ("male", "female"):
        theirs = [row[f"logp_{column}"] for row in rows[::step]]
        np.testing.assert_allclose(result.scores[f"log_prob_{column}"], theirs, atol=2e-4, rtol=0)
    male, female = (np.array([row[f"logp_{name}"] for row in rows]) for name in ("male", "female"))
    labels = ["male" if row["pro_is_male"] else "female" for row in rows]
    # This model says "he" everywhere: the second comparison asks for a difference greater than the median one.
    for shift, metrics in ((0, golden["metrics"]), (np.median(male - female), golden["metrics_median_centred"])):
        ours = winobias.figures(outcome_columns(labels, list(male - female), [shift] * len(male)).sum(0))
        theirs = {
            "stereotype": metrics["stereotype"],
            "skew": metrics["skew"],
            "accuracy_pro": metrics["acc_pro"],
            **{f"f1_{name}_{side}": metrics[f"f1_{side}_{name[0]}"] for name in ("male", "female") for side in ("pro", "anti")},
        }  # fmt: skip
        assert {name: float(value) for name, value in ours.items()} == pytest.approx(theirs, rel=1e-12)
