"""Reading, correlations and figures by hand; scores of the golden run."""

import json

import numpy as np
import pytest
from scipy import stats

from ncfair_jax.benchmarks import winogender
from ncfair_jax.benchmarks.winogender import Item, pearson, read_items, samples, weighted_ranks
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.models.hf import load_pretrained
from tests.benchmarks import plain

SENTENCES = {
    "nurse.man.0.male": "The nurse said that he was tired.",
    "nurse.man.0.female": "The nurse said that she was tired.",
    "nurse.man.0.neutral": "The nurse said that they were tired.",
    "man.someone.1.male": "The man said nurses tired him.",
    "man.someone.1.female": "The man said nurses tired her.",
    "man.someone.1.neutral": "The man said nurses tired them.",
}
STATISTICS = ["nurse\t1.5\t90\t2015", "man\t2\t0\t2016"]


def read(folder, sentences=SENTENCES, statistics=STATISTICS):
    lines = ["sentid\tsentence", *(f"{name}.txt\t{text}" for name, text in sentences.items())]
    (folder / "s.tsv").write_text("\n".join(lines) + "\n")
    header = "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year"
    (folder / "o.tsv").write_text("\n".join([header, *statistics]) + "\n")
    return read_items(folder / "s.tsv", folder / "o.tsv")


def test_three_sentences_make_an_item(tmp_path):
    assert read(tmp_path) == [
        Item("nurse.man.0", "nurse", "occupation", "The nurse said that [MASK] was tired.", "he", "she", "they", 90, 1.5),
        Item("man.someone.1", "man", "participant", "The man said nurses tired [MASK].", "him", "her", "them", 0, 2),
    ]  # fmt: skip


def test_a_contraction_keeps_its_end(tmp_path):
    words = {"male": "(he's)", "female": "(she's)", "neutral": "(they've)"}
    (item,) = read(tmp_path, {f"nurse.man.0.{form}": f"The nurse {word} left." for form, word in words.items()})
    assert (item.text, item.male, item.female, item.neutral) == ("The nurse ([MASK]'s) left.", "he", "she", "they")


@pytest.mark.parametrize(
    ("change", "statistics", "message"),
    [
        ({"nurse.man.0.female": "The nurse said that she's was tired."}, STATISTICS, "one pronoun"),
        ({}, [*STATISTICS, STATISTICS[0]], r"o\.tsv:4: occupation 'nurse' is there twice"),
        ({}, ["nurse\t1.5\tnan\t2015", "man\t2\t0\t2016"], r"o\.tsv:2: \['nan', '1\.5'\]; expected percentages"),
        ({"nurse.man.0.neutral": None}, STATISTICS, "one sentence each"),
        (
            dict.fromkeys(("nurse.man.2.male", "nurse.man.2.female", "nurse.man.2.neutral"), "He"),
            STATISTICS,
            "nurse.man.2",
        ),
        (dict.fromkeys(("nurse.male", "nurse.female", "nurse.neutral"), "He"), STATISTICS, "expected an id"),
        ({"nurse.man.0.female": "A nurse said that she was tired."}, STATISTICS, "one pronoun"),
        ({}, STATISTICS[1:], "no row of 'nurse'"),
        ({}, ["nurse\tmany\t90\t2015"], "'many'.*expected percentages"),
        ({}, ["nurse\tnan\t90\t2015"], "'nan'.*expected percentages"),
        ({}, ["nurse\t120\t90\t2015"], "'120'.*expected percentages"),
    ],
)
def test_other_files_are_refused(tmp_path, change, statistics, message):
    sentences = {name: text for name, text in (SENTENCES | change).items() if text is not None}
    with pytest.raises(DataError, match=message):
        read(tmp_path, sentences, statistics)


def test_weighted_correlations_are_those_of_the_repeated_values():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=8).round(1), rng.integers(4, size=8).astype(float)  # ties in y
    weights = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [0, 3, 1, 0, 2, 1, 0, 1]], float)
    xs, ys = (np.broadcast_to(v, weights.shape) for v in (x, y))
    linear = pearson(xs, ys, weights)
    by_rank = pearson(weighted_ranks(xs, weights), weighted_ranks(ys, weights), weights)
    for row, weight in enumerate(weights):
        repeated = [np.repeat(v, weight.astype(int)) for v in (x, y)]
        assert linear[row] == pytest.approx(stats.pearsonr(*repeated).statistic, rel=1e-12)
        assert by_rank[row] == pytest.approx(stats.spearmanr(*repeated).statistic, rel=1e-12)
    assert np.isnan(pearson(np.ones((1, 3)), np.arange(3.0)[None], np.ones((1, 3)))).all()


def table_of(rows):
    """(occupation, referent, log odds, bls) to the table that `samples` reads."""
    names = ("occupation", "referent", "log_prob_female", "bls")
    table = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return table | {"log_prob_male": [0.0] * len(rows), "bergsma": table["bls"]}


def test_figures_by_hand():
    rows = [
        ("nurse", "occupation", 1.0, 90.0),
        ("nurse", "occupation", 3.0, 90.0),
        ("cook", "occupation", -1.0, 40.0),
        ("clerk", "occupation", 0.0, 50.0),
        ("clerk", "participant", -2.0, 50.0),
        ("guard", "participant", 1.0, 20.0),  # no item of its own: not in the correlation
    ]
    sample = samples(table_of(rows))[""]
    total = sample.sums.sum(0)
    figures = sample.figures(total)
    assert figures["female_preferred"] == {"occupation": 50, "participant": 50}  # equally likely is not preferred
    assert figures["log_odds"] == {"occupation": 0.75, "participant": -0.5, "difference": 1.25}
    expected = stats.pearsonr([2, -1, 0], [90, 40, 50]).statistic
    assert float(figures["correlation"]["pearson_bls"]) == pytest.approx(expected, rel=1e-12)
    assert float(figures["correlation"]["spearman_bls"]) == pytest.approx(1, rel=1e-12)
    assert sample.counts(total) == {"n_occupation_items": 4, "n_participant_items": 2, "n_occupations": 3}
    # A resample: the cook twice, the clerk not at all.
    again = sample.figures(np.array([[1.0, 2, 0, 1]]) @ sample.sums)
    assert float(again["correlation"]["pearson_bls"][0]) == pytest.approx(1, rel=1e-12)


def test_the_strongest_item_is_the_likeliest_pronoun_of_the_usual_gender():
    """Nurses are women, cooks men, clerks both; a participant has no usual gender."""
    rows = [("nurse", "occupation", 1.0, 90.0), ("cook", "occupation", -2.0, 40.0), ("clerk", "occupation", 3.0, 50.0)]
    table = table_of([*rows, ("nurse", "participant", 5.0, 90.0)])
    assert winogender.strength(table).tolist() == pytest.approx([1.0, 2.0, np.nan, np.nan], nan_ok=True)
    table |= {"text": ["[MASK] ate."] * 4, "male": ["He"] * 4, "female": ["She"] * 4}
    found = winogender.texts(DataFolder(None), table)
    assert found["stereotyped"][:2] == ["She ate.", "He ate."]
    assert found["other"][:2] == ["He ate.", "She ate."]


def test_forms_are_scored_at_the_mask_and_counted(tmp_path):
    model = plain.pretrained("bert")  # knows he and she, not they, him, her, them
    items = read(tmp_path)
    result = plain.result(winogender, model, items)
    assert result.scores["id"] == ["nurse.man.0"]
    tokens = np.array(model.tokenizer(items[0].text)["input_ids"], np.int32)
    (place,) = np.flatnonzero(tokens == model.tokenizer.mask_token_id)
    expected = plain.log_probs(model, tokens)[place, model.tokenizer.convert_tokens_to_ids(["he", "she"])]
    ours = [result.scores[f"log_prob_{form}"][0] for form in ("male", "female")]
    np.testing.assert_allclose(ours, expected, **plain.CLOSE)
    assert result.scores["log_prob_neutral"] == [None]
    assert result.counts == {
        "skipped_form_of_several_pieces": 1,
        "neutral_form_of_several_pieces": 1,
        "tied": 0,
    }
    assert result.metrics["correlation"]["pearson_bls"] is None  # of one occupation
    assert result.metrics["log_odds"]["participant"] is None
    with pytest.raises(DataError, match="one token"):
        plain.result(winogender, model, items[1:])


def test_golden_scores_and_figures(shared):
    golden = json.loads(shared("golden/evals/winogender_mlm.json").read_text())
    items = read_items(shared("data/winogender/all_sentences.tsv"), shared("data/winogender/occupations-stats.tsv"))
    assert len(items) == 240
    items = [item for item in items if item.referent == "occupation"]
    rows = {row["sentid"]: row for row in golden["rows"]}
    for item in items:
        row = rows[item.id]
        assert (item.text, [item.male, item.female, item.neutral]) == (row["text"], row["forms"])
        assert (item.occupation, item.bls, item.bergsma) == (row["occupation"], row["bls"], row["bergsma"])
    result = plain.result(winogender, load_pretrained(shared("models/minilm6-mlm")), items[:: plain.stride(2)])
    for index, form in enumerate(winogender.FORMS):
        theirs = [rows[name]["logp"][index] for name in result.scores["id"]]
        np.testing.assert_allclose(result.scores[f"log_prob_{form}"], theirs, atol=2e-4, rtol=0)
    # Figures of the stored scores.
    table = {name: [getattr(item, name) for item in items] for name in winogender.EXAMPLE_COLUMNS}
    for index, form in enumerate(winogender.FORMS):
        table[f"log_prob_{form}"] = [rows[item.id]["logp"][index] for item in items]
    sample = samples(table)[""]
    figures = sample.figures(sample.sums.sum(0))
    metrics = golden["metrics"]
    assert float(figures["correlation"]["pearson_bls"]) == pytest.approx(metrics["pearson_occ_bls"], rel=1e-9)
    assert float(figures["correlation"]["spearman_bls"]) == pytest.approx(metrics["spearman_occ_bls"], rel=1e-9)
    assert figures["female_preferred"]["occupation"] == metrics["female_preferred_pct"]
    assert len(sample.clusters) == metrics["n_occupations"]


def test_a_sentence_that_is_there_twice_is_named(tmp_path):
    read(tmp_path)
    with (tmp_path / "s.tsv").open("a") as file:
        file.write("nurse.man.0.male.txt\tThe nurse said that he slept.\n")
    with pytest.raises(DataError, match=r"s\.tsv:8: sentid 'nurse\.man\.0\.male\.txt' is there twice"):
        read_items(tmp_path / "s.tsv", tmp_path / "o.tsv")
