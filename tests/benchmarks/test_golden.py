"""Scores and aggregates of the reference scorers, on a real BERT and on a random RoBERTa with the real tokenizer."""

import csv
import json

import numpy as np
import pytest

from ncfair_jax.benchmarks import bec_pro, crows_pairs, stereoset, stereoset_examples
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.models.hf import load_pretrained
from tests.benchmarks import plain

MODELS = {"evals": "models/minilm6-mlm", "evals_roberta": "models/roberta-tiny-random"}
LOG_PROB = 2e-4  # absolute; the golden README's tolerances
SENTENCE_SUM = 1e-3
PROBABILITY = 5e-4  # relative


@pytest.fixture(scope="module", params=MODELS)
def golden_set(request, shared):
    """Name of the golden folder and its model."""
    return request.param, load_pretrained(shared(MODELS[request.param]))


def arrays(shared, folder, name):
    return np.load(shared(f"golden/{folder}/{name}.npz"), allow_pickle=False)


def expected(shared, folder, name):
    return json.loads(shared(f"golden/{folder}/{name}.json").read_text())


def pairs_of(shared):
    return crows_pairs.read_pairs(shared("data/crows_pairs/crows_pairs_anonymized.csv"))


def test_crows_pairs_scores(golden_set, shared):
    folder, model = golden_set
    golden, pairs = arrays(shared, folder, "crows_pairs"), pairs_of(shared)
    edges = {129, 231, 1101, 1129, 1442}  # skipped rows of either tokenizer, and the order-sensitive one
    gender = [i for i, pair in enumerate(pairs) if pair.bias_type == "gender"]
    of_gender, of_all = map(plain.stride, (12, 60) if folder == "evals" else (3, 12))
    rows = sorted(edges | set(gender[::of_gender]) | set(range(0, len(pairs), of_all)))
    result = plain.result(crows_pairs, model, [pairs[i] for i in rows])
    for column, name, tolerance in (
        ("score_more", "diff_more", LOG_PROB),
        ("score_less", "diff_less", LOG_PROB),
        ("shared_more", "shared_more", SENTENCE_SUM),
        ("shared_less", "shared_less", SENTENCE_SUM),
    ):
        ours = np.array(result.scores[column], float)  # NaN where not scored, as the golden file has it
        np.testing.assert_allclose(ours, golden[name][rows], atol=tolerance, rtol=0)
    assert result.counts["skipped"] == np.isnan(golden["diff_more"] + golden["diff_less"])[rows].sum()


def test_crows_pairs_aggregates_of_the_stored_scores(golden_set, shared):
    folder, _ = golden_set
    golden, pairs = arrays(shared, folder, "crows_pairs"), pairs_of(shared)
    table = {
        "index": [pair.index for pair in pairs],
        "bias_type": [pair.bias_type for pair in pairs],
        "direction": [pair.direction for pair in pairs],
        "score_more": [None if np.isnan(score) else score for score in golden["diff_more"].tolist()],
        "score_less": [None if np.isnan(score) else score for score in golden["diff_less"].tolist()],
        "shared_more": golden["shared_more"].tolist(),
        "shared_less": golden["shared_less"].tolist(),
    }
    samples = crows_pairs.samples(table)
    aggregates = expected(shared, folder, "crows_pairs")
    for metric, mode in (("modified_mean", "mabel_diff_mean"), ("shared_sum", "official_shared_sum")):
        for name, sample in samples[metric].items():
            total, theirs = sample.sums.sum(0), aggregates[name][mode]
            assert total.astype(int).tolist() == [
                theirs["total"],
                theirs["neutral"],
                theirs["n_stereo"],
                theirs["stereo_hits"],
                theirs["n_antistereo"],
                theirs["anti_hits"],
            ]
            figures = crows_pairs.figures(total)
            for figure in ("metric_score", "stereotype_score", "antistereotype_score"):
                assert round(float(figures[figure]), 2) == theirs[figure], (metric, name)


def examples_of(shared):
    return stereoset_examples.load_examples(DataFolder(shared("data")))


@pytest.mark.parametrize("rows", ["reference", "clean"])
def test_stereoset_scores(golden_set, rows, shared):
    folder, model = golden_set
    if folder == "evals" and rows == "clean":
        pytest.skip("BERT has one kind of rows")
    golden, examples = arrays(shared, folder, "stereoset_gender"), examples_of(shared)
    stride = plain.stride(10 if folder == "evals" else 2)
    chosen = sorted({105, 129, 316, 325, 585, 646, 785, 887, 888} | set(range(0, len(examples), stride)))
    result = plain.result(stereoset, model, [examples[i] for i in chosen], roberta_rows=rows)
    ours = np.stack([result.scores[name] for name in ("stereotype", "anti_stereotype", "unrelated")], axis=-1)
    theirs = golden["mean_prob" if rows == "reference" else "clean_mean_prob"][chosen]
    np.testing.assert_allclose(ours, theirs, rtol=PROBABILITY)


def test_stereoset_scores_as_means_of_log_probabilities(golden_set, shared):
    folder, model = golden_set
    rows, name = ("reference", "mean_logprob") if folder == "evals" else ("clean", "clean_mean_logprob")
    golden, examples = arrays(shared, folder, "stereoset_gender"), examples_of(shared)
    chosen = range(0, len(examples), 50)
    result = plain.result(stereoset, model, [examples[i] for i in chosen], pool="mean_logprob", roberta_rows=rows)
    ours = np.stack([result.scores[column] for column in ("stereotype", "anti_stereotype", "unrelated")], axis=-1)
    np.testing.assert_allclose(ours, golden[name][list(chosen)], atol=LOG_PROB, rtol=0)


def stereoset_table(examples, scores, keep):
    names = ("stereotype", "anti_stereotype", "unrelated")
    kept = [(example, row) for example, row, k in zip(examples, scores, keep, strict=True) if k]
    table = {name: [float(row[i]) for _, row in kept] for i, name in enumerate(names)}
    return table | {
        "id": [e.id for e, _ in kept],
        "bias_type": [e.bias_type for e, _ in kept],
        "target": [e.target for e, _ in kept],
        "split": [e.split for e, _ in kept],
    }


def check_stereoset(sample, theirs):
    total = sample.sums.sum(0)
    figures = stereoset.figures(total)
    for ours, name in (("lm", "LM"), ("ss", "SS"), ("icat", "ICAT")):
        np.testing.assert_allclose(float(figures[ours]), theirs[name], rtol=1e-12)
        np.testing.assert_allclose(float(figures[f"{ours}_micro"]), theirs[f"micro_{name}"], rtol=1e-12)
    assert stereoset.counts(total) == {"n": theirs["n_examples"], "n_terms": theirs["n_terms"]}


def test_stereoset_aggregates_of_the_stored_scores(golden_set, shared):
    folder, _ = golden_set
    golden, examples = arrays(shared, folder, "stereoset_gender"), examples_of(shared)
    documents = expected(shared, folder, "stereoset_gender")
    variants = {"mean_prob": documents} if folder == "evals" else {
        "mean_prob": documents["reference"], "clean_mean_prob": documents["clean"]
    }  # fmt: skip
    for scores, document in variants.items():
        samples = stereoset.samples(stereoset_table(examples, golden[scores], [True] * len(examples)))["gender"]
        for part, name in (("all", "all"), ("dev", "dev_255"), ("test", "test_771")):
            check_stereoset(samples[part], document[name])
        means = golden[scores.replace("prob", "logprob")]
        samples = stereoset.samples(stereoset_table(examples, means, [True] * len(examples)))["gender"]
        check_stereoset(samples["all"], document["alternative_mean_logprob_all"])


def test_stereoset_aggregates_of_published_predictions(shared):
    golden, examples = arrays(shared, "evals", "stereoset_aggregator"), examples_of(shared)
    models = expected(shared, "evals", "stereoset_aggregator")["models"]
    assert len(models) >= 5
    for name, theirs in models.items():
        scores = golden[name]
        table = stereoset_table(examples, scores, ~np.isnan(scores).any(1))
        check_stereoset(stereoset.samples(table)["gender"]["all"], theirs)


def bec_rows(shared, golden):
    rows = {row.index: row for row in bec_pro.read_examples(shared("data/bec_pro/BEC-Pro_EN.tsv"))}
    return list(rows.values()), [rows[index] for index in golden["row"].tolist()]


@pytest.mark.parametrize(("padding", "name"), [("clean", "clean"), ("reference", "parity")])
def test_bec_pro_scores_and_statistics(golden_set, padding, name, shared):
    folder, model = golden_set
    golden = arrays(shared, folder, "bec_pro_en")
    everything, rows = bec_rows(shared, golden)
    # The reference pads to a length that depends on all rows evaluated: that of the full file is 16, as in the golden run.
    assert bec_pro.reference_length(everything) == 16
    result = plain.result(bec_pro, model, rows, padding=padding)
    np.testing.assert_allclose(result.scores["target_prob"], golden[f"{name}_target_prob"], rtol=PROBABILITY)
    np.testing.assert_allclose(result.scores["prior_prob"], golden[f"{name}_prior_prob"], rtol=PROBABILITY)
    np.testing.assert_allclose(result.scores["association"], golden[f"{name}_assoc"], atol=2 * LOG_PROB, rtol=0)
    theirs = expected(shared, folder, "bec_pro_en")[name]
    for cell, mean in theirs["mean_by_profgender_gender"].items():
        assert abs(result.metrics["mean"][cell] - mean) < 2 * LOG_PROB
    # Statistics of the stored associations, exactly.
    table = result.scores | result.examples | {"association": golden[f"{name}_assoc"].tolist()}
    tests = bec_pro.wilcoxon_by_group(table)
    for group, test in theirs["wilcoxon_person_gender_within_profgroup"].items():
        ours = tests["overall" if group == "all" else group]
        assert (ours["n_pairs"], ours["w"]) == (test["n_pairs"], test["W"])
        np.testing.assert_allclose(
            [ours["z"], ours["p"], ours["r"]], [test["z"], test["p"], test["r_abs_z_over_sqrt_n_pairs"]], rtol=1e-9
        )
    printed, release = bec_pro.release_statistics(table), theirs["reference_script_statistics"]
    assert (printed["n"], printed["t_test"]) == (release["n"], release["test"] != "wilcoxon")
    for ours, name in (
        ("shapiro_w", "shapiro_W"),
        ("shapiro_p", "shapiro_p"),
        ("statistic", "statistic"),
        ("p", "p"),
        ("effect_size_as_printed", "effect_size_as_printed"),
        ("mean_female", "mean_f"),
        ("mean_male", "mean_m"),
    ):
        assert printed[ours] == pytest.approx(release[name], rel=1e-9), name


def test_bec_pro_repairs_the_damaged_rows_of_both_files(shared):
    damaged = {"EN": [3625, 3985, 4345, 4705, 5065], "DE": [1809, 2169, 2529, 2889, 3249]}
    for language, indices in damaged.items():
        path = shared(f"data/bec_pro/BEC-Pro_{language}.tsv")
        with path.open(encoding="utf-8", newline="") as file:
            stored = {int(row[""]): row["Sent_TM"] for row in csv.DictReader(file, delimiter="\t")}
        as_stored = {row.index: row.target_masked for row in bec_pro.read_examples(path, mask_repair=False)}
        repaired = {row.index: row.target_masked for row in bec_pro.read_examples(path)}
        assert as_stored == stored
        changed = [index for index in stored if repaired[index] != stored[index]]
        assert changed == indices
        assert all(repaired[index].count("[MASK]") == 1 for index in indices)
