"""Pairs, padding and the signed-rank test; scores of the reference are in test_golden.py."""

import numpy as np
import pytest
from scipy import stats

from ncfair_jax.benchmarks import bec_pro
from ncfair_jax.benchmarks.bec_pro import read_examples, with_reference_padding
from ncfair_jax.benchmarks.bec_pro_statistics import clustered_tests, person_pairs, release_statistics, wilcoxon
from ncfair_jax.files import notes
from ncfair_jax.files.sources import DataError
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from tests.benchmarks import plain


@pytest.mark.parametrize(("name", "pairs"), [("bec_pro", 2700), ("bec_pro_de", 2700), ("bec_pro_eec", None)])
def test_a_pair_differs_in_the_gender_of_the_person_only(name, pairs, shared):
    rows = read_examples(shared(f"data/{bec_pro.FILES[name].name}"))
    by_pair = {}
    for row in rows:
        by_pair.setdefault(row.pair, {})[row.gender] = row
    assert len(by_pair) == (pairs or len(rows) // 2)
    for both in by_pair.values():
        female, male = both["female"], both["male"]
        assert (female.profession, female.group) == (male.profession, male.group)
        if name == "bec_pro":  # the masked sentences tell the template
            assert female.both_masked == male.both_masked
    if name == "bec_pro":
        partners = {
            (b["male"].person.split()[-1].lower(), b["female"].person.split()[-1].lower()) for b in by_pair.values()
        }
        assert partners == {
            ("he", "she"), ("man", "woman"), ("brother", "sister"), ("son", "daughter"), ("husband", "wife"),
            ("boyfriend", "girlfriend"), ("father", "mother"), ("uncle", "aunt"), ("dad", "mom"),
        }  # fmt: skip


def test_wilcoxon_agrees_with_scipy():
    rng = np.random.default_rng(0)
    differences = rng.integers(-6, 9, 60).astype(float)  # ties and zeros
    ours = wilcoxon(differences)
    theirs = stats.wilcoxon(differences, zero_method="wilcox", correction=False, method="asymptotic")
    assert (differences == 0).any()
    np.testing.assert_allclose([ours["w"], ours["p"]], [theirs.statistic, theirs.pvalue], rtol=1e-9)
    assert ours["z"] > 0
    assert wilcoxon(-differences)["z"] == pytest.approx(-ours["z"])
    np.testing.assert_allclose(ours["r"], ours["z"] / np.sqrt(60))


def test_wilcoxon_by_hand_and_without_differences():
    ours = wilcoxon(np.array([1.0, 2.0, -3.0, 0.0]))
    assert (ours["w"], ours["z"], ours["n_pairs"]) == (3.0, 0.0, 4)  # ranks 1 + 2 against 3
    assert wilcoxon(np.zeros(2)) == {"w": 0.0, "z": None, "p": None, "r": None, "n_pairs": 2}


def test_reference_padding_by_hand():
    tokens, attended = with_reference_padding(np.array([0, 7, 8]), 5, 4)
    assert tokens.tolist() == [0, 7, 8, 4, 4]
    assert attended.tolist() == [0, 1, 1, 1, 1]  # masks attended to, <s> of RoBERTa not
    assert with_reference_padding(np.array([5, 6, 7]), 2, 4)[0].tolist() == [5, 6]


def test_what_the_release_prints_by_hand():
    female, male = [0.1, 0.4, 0.2, 0.9, 0.3], [0.3, 0.1, 0.0, 0.2, 0.2]
    table = {"group": [g for _ in female for g in ("female", "male", "balanced")]}
    table["association"] = [v for f, m in zip(female, male, strict=True) for v in (f, m, 7.0)]
    found = release_statistics(table)
    both = np.array([*female, *(-np.array(male))])
    assert found["shapiro_p"] == pytest.approx(stats.shapiro(both).pvalue)
    difference = np.subtract(female, male)  # paired by place: a t-test by hand
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(5))
    assert (found["n"], found["t_test"]) == (5, True)
    np.testing.assert_allclose([found["statistic"], found["effect_size_as_printed"]], [t, t / np.sqrt(5)])
    np.testing.assert_allclose([found["mean_female"], found["mean_male"]], [np.mean(female), np.mean(male)])
    skewed = table | {"association": [float(np.exp(20 * v)) for v in table["association"]]}
    assert release_statistics(skewed)["t_test"] is False
    assert release_statistics(skewed)["statistic"] == 3  # the smaller rank sum: one negative difference, third in size


def test_the_release_prints_nothing_without_its_groups_or_pairs():
    emotions = {"group": ["joy", "anger"] * 3, "association": [0.1] * 6}
    unequal = {"group": ["female", "male", "female", "male", "male"], "association": [0.1] * 5}
    assert release_statistics(emotions) is None
    assert release_statistics(unequal) is None


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("bec") / "data/bec.tsv"
    plain.write_bec_pro(path)
    return read_examples(path)


def test_associations_are_log_ratios_of_plain_passes(rows):
    model = plain.pretrained("bert")
    result = plain.result(bec_pro, model, rows)
    for row, association in zip(rows, result.scores["association"], strict=True):
        person = model.tokenizer.convert_tokens_to_ids(row.person.split()[-1])
        values = []
        for text in (row.target_masked, row.both_masked):
            tokens = np.array(model.tokenizer(text)["input_ids"], np.int32)
            place = np.flatnonzero(tokens == model.tokenizer.mask_token_id)[0]
            values.append(plain.log_probs(model, tokens)[place, person])
        np.testing.assert_allclose(association, values[0] - values[1], atol=2e-5)
    association = np.array(result.scores["association"])
    female = np.array([row.gender == "female" for row in rows])
    difference = association[female].mean() - association[~female].mean()
    np.testing.assert_allclose(result.metrics["difference"]["overall"], difference, rtol=1e-9)
    np.testing.assert_allclose(result.metrics["mean_abs_association"], np.abs(association).mean(), rtol=1e-9)
    inside = female & np.array([row.group == "male" for row in rows])
    np.testing.assert_allclose(result.metrics["mean"]["male/female"], association[inside].mean(), rtol=1e-9)
    np.testing.assert_allclose(result.metrics["sd"]["male/female"], association[inside].std(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(result.metrics["sd"]["overall/female"], association[female].std(ddof=1), rtol=1e-9)


def crossed_table(professions, words, gap):
    """A table of one template: associations of women minus those of men are gap[profession, word]."""
    cells = [(p, w, gender) for p in range(professions) for w in range(words) for gender in ("male", "female")]
    return {
        "pair": [f"{p}/{w}" for p, w, _ in cells],
        "gender": [gender for *_, gender in cells],
        "person": [f"{gender}{w}" for _, w, gender in cells],
        "profession": [f"p{p}" for p, _, _ in cells],
        "group": ["male" if p % 2 else "female" for p, _, _ in cells],
        "association": [float(gap[p, w]) if gender == "female" else 0.1 for p, w, gender in cells],
    }


def test_professions_and_person_words_are_both_sampled():
    """Where person words differ and professions hardly do, the interval is about that of the mean of nine words."""
    rng = np.random.default_rng(0)
    of_word = rng.normal(size=9)
    gap = of_word + 0.01 * rng.normal(size=(30, 9))
    table = crossed_table(30, 9, gap)
    sample = bec_pro.samples(table)[""]
    intervals = summarise_sample(sample)[1]
    expected = stats.t.interval(0.95, 8, gap.mean() - 0.1, stats.sem(gap.mean(0)))
    np.testing.assert_allclose(intervals["difference"]["overall"], expected, rtol=1e-2)
    assert intervals["mean_abs_association"] is None and intervals["sd"]["overall/female"] is None
    found = clustered_tests(table, sample)
    assert set(found) == {"female", "male", "overall"}
    assert (found["overall"]["n_professions"], found["overall"]["n_person_pairs"]) == (30, 9)
    low, high = expected
    assert (found["overall"]["p_crossed"] < 0.05) == (low > 0 or high < 0)
    # The words as they are: thirty professions agree about their mean.
    means = gap.mean(1) - 0.1
    assert found["overall"]["p_professions"] == stats.wilcoxon(means).pvalue < 1e-6
    assert found["male"]["p_professions"] == pytest.approx(stats.wilcoxon(means[1::2]).pvalue)


def test_few_person_words_have_no_interval_but_the_test_of_professions():
    table = crossed_table(10, 4, np.random.default_rng(1).normal(size=(10, 4)))
    sample = bec_pro.samples(table)[""]
    assert summarise_sample(sample)[1]["difference"]["overall"] is None
    found = clustered_tests(table, sample)["overall"]
    assert found["p_crossed"] is None and found["df"] is None and 0 < found["p_professions"] <= 1
    few = crossed_table(4, 9, np.ones((4, 9)))
    assert clustered_tests(few, bec_pro.samples(few)[""])["overall"]["p_professions"] is None


def test_person_words_are_paired_as_the_sentences_are():
    table = {
        "pair": ["a/0", "a/0", "b/0", "b/1"],
        "gender": ["female", "male", "male", "female"],
        "person": ["She", "he", "He", "aunt"],
    }
    assert person_pairs(table) == ["she/he", "she/he", "she/he", "aunt"]


def test_persons_of_several_pieces_are_left_out_and_counted(rows):
    result = plain.result(bec_pro, plain.pretrained("roberta"), rows)
    # Of the byte-level pieces only "he" at a sentence's start is one; "she", "man" and "woman" are several.
    assert result.examples["person"] == ["he"] * 4
    assert result.counts["skipped_person_of_several_pieces"] == 12
    assert result.metrics["mean"]["overall/female"] is None
    assert result.metrics["wilcoxon"]["overall"]["p"] is None
    with pytest.raises(DataError, match="one piece"):
        plain.result(bec_pro, plain.pretrained("roberta"), [row for row in rows if row.person != "he"])


def test_reference_padding_changes_the_scores_and_is_named(rows):
    model = plain.pretrained("bert")
    clean, reference = (plain.result(bec_pro, model, rows, padding=padding) for padding in ("clean", "reference"))
    assert reference.settings == {"padding": "reference", "length": 16}
    assert np.abs(np.subtract(clean.scores["association"], reference.scores["association"])).max() > 1e-3
    with pytest.raises(ValueError, match="choose from"):
        plain.result(bec_pro, model, rows, padding="none")
    with pytest.raises(ValueError, match="choose from"):
        plain.result(bec_pro, model, rows, statistics="none")


def test_statistics_of_the_release_are_an_extra(rows):
    model = plain.pretrained("bert")
    assert "reference" not in plain.result(bec_pro, model, rows).metrics
    result = plain.result(bec_pro, model, rows, statistics="reference")
    assert result.metrics["reference"] == release_statistics(result.scores | result.examples)
    assert result.metrics["reference"]["n"] == 8
    assert result.intervals["reference"] == dict.fromkeys(result.metrics["reference"])


@pytest.mark.parametrize(("name", "used", "groups"), [("bec_pro_de", 4, 3), ("bec_pro_eec", 8, 4)])
def test_german_and_emotion_files_from_end_to_end(name, used, groups, shared):
    """Every 37th pair of the real file; an English vocabulary has few German persons in one piece."""
    rows = read_examples(shared(f"data/{bec_pro.FILES[name].name}"))
    kept = set(list(dict.fromkeys(row.pair for row in rows))[::37])
    rows = [row for row in rows if row.pair in kept]
    result = plain.result(bec_pro, load_pretrained(shared("models/minilm6-mlm")), rows, statistics="reference")
    assert result.n + result.counts["skipped_person_of_several_pieces"] == len(rows)
    assert result.n >= used * groups
    tests = result.metrics["wilcoxon"]
    assert len(tests) == groups + 1
    pairs = {group: test["n_pairs"] for group, test in tests.items()}
    assert pairs.pop("overall") == sum(pairs.values()) > 0
    assert all(0 <= test["r"] <= 1 and 0 <= test["p"] <= 1 for test in tests.values() if test["p"] is not None)
    if name == "bec_pro_eec":
        assert result.n == len(rows)
        assert result.metrics["reference"] is None


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("Gender", "unknown", "female or male"), ("Sent_TM", "no gap", "MASK"), ("Sent_TAM", "no gap", "MASK")],
)
def test_malformed_rows_are_refused(tmp_path, column, value, message):
    header = [*plain.BEC_HEADER, "Prof_Gender"]
    line = plain.bec_lines()[0]
    line[header.index(column)] = value
    (tmp_path / "b.tsv").write_text("\t".join(header) + "\n" + "\t".join(line) + "\n")
    with pytest.raises(DataError, match=message):
        read_examples(tmp_path / "b.tsv")


def test_a_malformed_row_never_shifts_the_pairs_of_others(tmp_path):
    header, lines = [*plain.BEC_HEADER, "Prof_Gender"], plain.bec_lines()
    many = [[str(n), *line[1:8], f"{line[8]} {k}", line[9]] for k in range(15) for n, line in enumerate(lines)]
    many[1] = many[1][:-1]  # a woman's row of the first profession
    (tmp_path / "b.tsv").write_text("\n".join("\t".join(row) for row in (header, *many)))
    with notes.collected() as found:
        rows = read_examples(tmp_path / "b.tsv")
    assert (len(rows), found[0].lines) == (len(many) - 1, (3,))
    by_pair = {}
    for row in rows:
        by_pair.setdefault(row.pair, []).append(row)
    of_first = [row for row in rows if row.profession == "nurse 0"]
    assert all(len(by_pair[row.pair]) == 1 for row in of_first)  # its partner is not known any more
    for pair in by_pair.values():
        if pair[0].profession != "nurse 0":
            assert {row.gender for row in pair} == {"female", "male"}
