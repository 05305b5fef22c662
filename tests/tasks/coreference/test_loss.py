"""Coreference: its loss on batches, its place on the mesh, and runs on documents in CoNLL format."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ncfair_jax.benchmarks.coref_predict import predict_clusters
from ncfair_jax.config import ConfigError, MeshConfig
from ncfair_jax.methods.base import evaluate_objective
from ncfair_jax.models.hf import load_head, load_pretrained, save_pretrained
from ncfair_jax.registry import METHODS, validate
from ncfair_jax.sharding import make_mesh, put_batch, replicate
from ncfair_jax.tasks.coreference.config import CorefConfig, CorefRun
from ncfair_jax.tasks.coreference.conll import in_order, read_conll
from ncfair_jax.tasks.coreference.documents import encode_document, lay_out, load_coref_examples
from ncfair_jax.tasks.coreference.loss import COREF, coref_objective
from ncfair_jax.train import train_and_evaluate
from tests import tiny_coref

CONFIG = CorefConfig(hidden_units=20, feature_size=5, max_width=4, dropout=0.0)
MODEL = tiny_coref.pretrained(layers=1)
OWN = COREF.extra_params(CorefRun(coref=CONFIG), MODEL.config, jax.random.key(5))
PARAMS = MODEL.params | {"method": OWN}
OBJECTIVE = coref_objective(MODEL.config, CONFIG)


def batch_of(documents, rows=None, segment_tokens=32):
    encoded = [encode_document(document, MODEL.tokenizer, segment_tokens) for document in documents]
    laid = lay_out(encoded, rows or len(encoded), segment_tokens, CONFIG.max_width)
    return {name: value[None] for name, value in laid.items()} | {"step": np.zeros((), np.int32)}


@jax.jit
def loss_of(params, batch):
    return evaluate_objective(OBJECTIVE, params, (), batch, None)


def test_a_batch_is_the_mean_of_its_documents():
    """Whatever they share the batch with: shorter documents are padded, and empty rows count nothing."""
    documents = tiny_coref.documents(4)
    batch = batch_of(documents, rows=6)
    loss, (metrics, _) = loss_of(PARAMS, batch)
    halves = {name: value.reshape(2, 3, *value.shape[2:]) if value.ndim else value for name, value in batch.items()}
    np.testing.assert_allclose(loss_of(PARAMS, halves)[0], loss, rtol=1e-5)  # micro-batches add up
    alone = [loss_of(PARAMS, batch_of([document]))[0] for document in documents]
    assert len({batch_of([document])["tokens"].shape for document in documents}) > 1
    np.testing.assert_allclose(loss, np.mean(alone), rtol=1e-5)
    assert metrics["coref_loss"][1] == 4
    assert metrics["mention_recall"][1] == sum(len(c) for document in documents for c in document.clusters)


def test_eight_devices_are_one():
    batch = batch_of(tiny_coref.documents(4), rows=8)  # rows without a document too
    mesh = make_mesh(MeshConfig(), 8)
    eight, _ = loss_of(replicate(PARAMS, mesh), put_batch(batch, mesh))
    np.testing.assert_allclose(eight, loss_of(PARAMS, batch)[0], rtol=1e-5)


def test_gradients_are_finite_and_reach_every_scorer():
    """With dropout, and rows that hold no document."""
    objective = coref_objective(MODEL.config, dataclasses.replace(CONFIG, dropout=0.3))
    batch = batch_of(tiny_coref.documents(4), rows=6)
    grads = jax.jit(jax.grad(lambda p: evaluate_objective(objective, p, (), batch, jax.random.key(0))[0]))(PARAMS)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    still = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads["method"])
        if not np.any(leaf)
    }
    assert not {name for name in still if "head" not in name or "bias" not in name}  # a softmax ignores its bias
    assert np.any(grads["encoder"]["layer_0"]["attention"]["query"]["kernel"])


# --- the method in a run


def run_config(folder, **changes) -> CorefRun:
    save_pretrained(folder / "model", MODEL)
    train = tiny_coref.write(folder / "train.v4_gold_conll", 12)
    base = CorefRun(name="tiny-coref")
    parts = {
        "model": {"path": str(folder / "model")},
        "data": {"row_tokens": 16, "max_tokens": 16},
        "coref": {
            "train": str(train),
            "dev": str(train),
            "span_ratio": 1.0,
            "max_width": 4,
            "hidden_units": 30,
            "feature_size": 5,
        },
        "optimizer": {"learning_rate": 3e-3, "method_learning_rate": 1e-2},
        "train": {"batch_size": 12, "steps": 150, "log_every": 30, "save_every": 150, "collapse_every": 0},
    }
    for name, values in changes.items():
        parts[name] = parts[name] | values
    return dataclasses.replace(
        base, **{name: dataclasses.replace(getattr(base, name), **x) for name, x in parts.items()}
    )


def test_a_run_learns_the_training_documents(tmp_path):
    config = run_config(tmp_path)
    result = train_and_evaluate(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"] and lines[-1]["mention_recall"] > 0.95
    after = tmp_path / "run" / "evals" / "after"
    figures = json.loads((after / "coref_dev.json").read_text())
    assert figures["metrics"]["conll_f1"] > 97 and figures["n"] == 12
    gold, predicted = read_conll(config.coref.train), read_conll(after / "coref_dev.conll")
    same = [in_order(a.clusters) == b.clusters for a, b in zip(gold, predicted, strict=True)]
    assert np.mean(same) > 0.8
    assert [line[0] for line in result["after"]["benchmarks"]] == ["coreference CoNLL F1 %"]
    exported = load_pretrained(str(tmp_path / "run" / "export"))
    own = load_head(str(tmp_path / "run" / "export"))
    assert "method" not in exported.params
    # The run predicted on one device; here are eight.
    again = predict_clusters(exported, own, config.coref, config.data.row_tokens, gold, make_mesh(MeshConfig(), 8))
    assert [in_order(clusters) for clusters in again] == [document.clusters for document in predicted]


def test_refusals(tmp_path):
    assert METHODS["coref"].objective is COREF.objective
    config = run_config(tmp_path)

    def changed(part, **values):
        return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})

    for bad, message in (
        (changed("coref", train=""), r"config\.coref\.train is empty"),
        (changed("data", counterfactual="one_sided"), "coref has no swap"),
        (changed("data", row_tokens=48), r"config\.data\.row_tokens=48: the model has positions for 40"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_coref_examples(bad, MODEL)
    for bad, message in (
        (changed("coref", winobias_split="train"), r"config\.coref\.winobias_split='train': choose from"),
        (changed("coref", max_width=0), r"config\.coref\.max_width=0: must be above 0"),
        (changed("coref", dropout=2.0), r"config\.coref\.dropout=2\.0: is a fraction"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(bad)
    validate(changed("train", accumulation=2, batch_size=12))
