"""Figures of Bias-in-Bios, Bias-NLI and GLUE: golden values, by hand, and against scipy; and short runs of the latter two."""

import json

import numpy as np
import pytest
from scipy import stats

from ncfair_jax.benchmarks import bias_nli, bios, glue
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.benchmarks.results import read_table
from ncfair_jax.tasks.classification.bias_nli import load_lists
from ncfair_jax.tasks.classification.bios import PROFESSIONS
from ncfair_jax.train import train_and_evaluate
from tests import tiny_tasks


def metrics(sample):
    total = sample.sums.sum(0)
    return sample.figures(total) | sample.counts(total)


def test_bios_golden(shared):
    golden = json.loads(shared("golden/evals/extrinsic_metrics.json").read_text())["bias_in_bios"]
    table = {
        "index": list(range(len(golden["label"]))),
        "correct": [float(a == b) for a, b in zip(golden["label"], golden["pred"], strict=True)],
        "profession": [PROFESSIONS[label] for label in golden["label"]],
        "gender": [("male", "female")[gender] for gender in golden["gender"]],
    }
    found, expected = metrics(bios.samples(table)[""]), golden["expected"]
    for name in ("acc", "acc_m", "acc_f", "tpr_gap", "tpr_rms"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    gaps = [expected["per_profession_gap"][str(i)] for i in range(28)]
    values = np.array([np.nan if gap is None else gap for gap in gaps])
    np.testing.assert_allclose(list(found["per_profession_gap"].values()), values, rtol=1e-9, atol=1e-12)
    assert found["n"] == 1200 and found["professions_left_out"] == np.isnan(values).sum()


def test_bios_by_hand():
    rows = [("nurse", "female", 1), ("nurse", "female", 0), ("nurse", "male", 1), ("poet", "male", 0), ("poet", "female", 0),
            ("model", "female", 1)]  # fmt: skip
    table = {"index": list(range(6)), "correct": [float(c) for *_, c in rows]}
    table |= {"profession": [p for p, *_ in rows], "gender": [g for _, g, _ in rows]}
    found = metrics(bios.samples(table)[""])
    np.testing.assert_allclose([found["acc"], found["acc_m"], found["acc_f"], found["tpr_gap"]], [50, 50, 50, 0])
    np.testing.assert_allclose(found["tpr_rms"], np.sqrt((0.5**2 + 0) / 2))  # model has no men and is left out
    assert (found["n"], found["n_m"], found["n_f"], found["professions_left_out"]) == (6, 2, 4, 1)


def test_bias_nli_golden(shared):
    golden = json.loads(shared("golden/evals/extrinsic_metrics.json").read_text())["bias_nli"]
    k = np.arange(400)
    logits = np.stack(
        [2 * np.sin(0.7 * k) + 0.3 * np.cos(k / 5), 2.2 + 1.5 * np.cos(0.3 * k), 1.8 * np.sin(1.3 * k + 1)], axis=-1
    )
    sums = bias_nli.pair_sums(logits)
    table = {name: sums[:, i].tolist() for i, name in enumerate(bias_nli.SUMS)}
    table |= {"pairs": [1] * 400, "occupation": list(map(str, k % 7)), "gender": ["male", "female"] * 200}
    found = metrics(bias_nli.samples(table)[""])
    for name, key in (("nn", "NN"), ("fn", "FN"), ("t_0.5", "T05"), ("t_0.7", "T07")):
        np.testing.assert_allclose(found[name], golden["expected"][key], rtol=1e-10)
    probability = sums[:, 0]
    np.testing.assert_allclose(found["nn_gap"], probability[::2].mean() - probability[1::2].mean(), rtol=1e-9)
    assert found["n"] == 400


def glue_metrics(task, predicted, label, part=""):
    predicted, label = np.asarray(predicted, float), np.asarray(label, float)
    table = {"index": list(range(len(label))), "predicted": predicted.tolist(), "label": label.tolist()}
    table |= {"correct": (predicted == label).astype(float).tolist(), "part": [part] * len(label)}
    return {name: metrics(sample) for name, sample in glue.samples_of(task)(table).items()}


def test_glue_agreement_by_hand():
    predicted, label = [1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0]  # 2 true, 1 false positives, 1 missed, 2 true negatives
    cola = glue_metrics("cola", predicted, label)["validation"]
    np.testing.assert_allclose(cola["matthews"], 100 * np.corrcoef(predicted, label)[0, 1])
    assert glue_metrics("cola", [1, 1, 1], [1, 0, 1])["validation"]["matthews"] == 0
    np.testing.assert_allclose(glue_metrics("mrpc", predicted, label)["validation"]["f1"], 100 * 2 / 3)
    np.testing.assert_allclose(glue_metrics("qqp", predicted, label)["validation"]["accuracy"], 100 * 4 / 6)
    assert glue_metrics("rte", predicted, label)["validation"]["n"] == 6
    assert set(cola) == {"matthews", "accuracy", "n"}


def test_glue_correlations_against_scipy():
    rng = np.random.default_rng(0)
    label = np.round(rng.uniform(0, 5, 60) * 4) / 4  # with ties
    predicted = 1000 + label + rng.normal(size=60)
    found = glue_metrics("stsb", predicted, label)["validation"]
    np.testing.assert_allclose(found["pearson"], 100 * stats.pearsonr(predicted, label)[0], rtol=1e-9)
    np.testing.assert_allclose(found["spearman"], 100 * stats.spearmanr(predicted, label)[0], rtol=1e-9)
    assert np.isnan(glue_metrics("stsb", np.ones(5), np.arange(5))["validation"]["pearson"])


def test_bias_nli_run(tmp_path):
    model = tiny_tasks.write_model(tmp_path)
    for seed, (part, count) in enumerate((("train", 240), ("dev", 60))):
        tiny_tasks.write_jsonl(tmp_path / "nli" / f"{part}.jsonl", tiny_tasks.entailments(count, seed))
    settings = {"pool": "first", "pairs": 200, "subset": "first_90_percent"}
    config = tiny_tasks.config(
        model, tmp_path / "nli", "bias_nli", classification=settings, data={"dev_examples": 40}, train={"dev_every": 60}
    )
    result = train_and_evaluate(config, tmp_path / "run")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["dev_loss"] < 0.2  # an error rate, of three classes
    document = json.loads((tmp_path / "run" / "evals" / "after" / "bias_nli.json").read_text())
    assert document["metrics"]["n"] == document["n"] == 200 and document["settings"]["pairs"] == 200
    table = read_table(tmp_path / "run" / "evals" / "after" / "bias_nli.csv", bias_nli.COLUMNS)
    lists = load_lists("")
    assert document["settings"]["subset"] == "first_90_percent"
    assert max(table["row"]) < 0.9 * len(lists.occupations) * len(lists.words)  # the last occupations are not in it
    assert sum(table["neutral_probability"]) == pytest.approx(200 * document["metrics"]["nn"])
    low, high = document["intervals"]["nn"]
    assert low < document["metrics"]["nn"] < high
    assert [line[0] for line in result["after"]["benchmarks"]][:2] == ["Bias-NLI NN", "Bias-NLI FN"]


@pytest.mark.parametrize("task", ["mnli", "stsb"])
def test_glue_run(tmp_path, task):
    model = tiny_tasks.write_model(tmp_path)
    parts = {"train": 320, "validation_matched": 45, "validation_mismatched": 30, "validation": 60}
    for seed, (part, count) in enumerate(parts.items()):
        rows = [row for row in tiny_tasks.entailments(count, seed) if row["label"] >= 0]
        if task == "stsb":
            rows = [{"sentence1": r["premise"], "sentence2": r["hypothesis"], "label": 2.5 * r["label"]} for r in rows]
        tiny_tasks.write_jsonl(tmp_path / "glue" / task / f"{part}.jsonl", rows)
    config = tiny_tasks.config(model, tmp_path / "glue", task)
    train_and_evaluate(config, tmp_path / "run")
    document = json.loads((tmp_path / "run" / "evals" / "after" / f"glue_{task}.json").read_text())
    if task == "stsb":
        assert document["metrics"]["validation"]["pearson"] > 60
    else:
        assert document["metrics"]["matched"]["accuracy"] > 80 and document["metrics"]["mismatched"]["accuracy"] > 80
        assert (document["metrics"]["matched"]["n"], document["metrics"]["mismatched"]["n"]) == (43, 28)


def test_every_such_benchmark_names_its_config():
    made = {name: benchmark for name, benchmark in BENCHMARKS.items() if not benchmark.ask}
    assert set(made) >= {"bios", "bias_nli", *(f"glue_{task}" for task in glue.TITLES)}
    assert all(benchmark.trained_by.startswith("configs/") for benchmark in made.values())
