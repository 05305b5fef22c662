"""Classification: the loss by hand, packed = alone, token types, RoBERTa and pooler, and whole runs that learn their task."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncfair_jax import train
from ncfair_jax.benchmarks import compare
from ncfair_jax.benchmarks.classifier import outputs
from ncfair_jax.benchmarks.registry import evaluate
from ncfair_jax.checkpoint import CheckpointError
from ncfair_jax.config import ConfigError, MeshConfig
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.files.notes import Cut, collected
from ncfair_jax.finished import WorkdirError, training_content
from ncfair_jax.methods.base import evaluate_objective
from ncfair_jax.models.base import EXTRA
from ncfair_jax.models.heads import class_outputs
from ncfair_jax.models.hf import ModelFolderError, Pretrained, load_head, load_pooler, load_pretrained
from ncfair_jax.registry import validate
from ncfair_jax.sharding import make_mesh, put_batch, replicate
from ncfair_jax.stopping import Interrupted
from ncfair_jax.tasks.classification.bios import read_bios
from ncfair_jax.tasks.classification.labelled import LAYOUT, Encoded, Labelled, encode_labelled, made_of
from ncfair_jax.tasks.classification.loss import CLASSIFICATION, classification_objective, fresh_head, label_sums
from tests import tiny, tiny_hub, tiny_tasks
from tests.tiny import encode


@pytest.fixture(scope="module")
def model() -> Pretrained:
    return tiny_tasks.pretrained()


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Folder with a model and Bias-in-Bios files."""
    folder = tmp_path_factory.mktemp("tasks")
    tiny_tasks.write_model(folder)
    for seed, part in enumerate(("train", "dev", "test")):
        tiny_tasks.write_jsonl(
            folder / "bios" / f"{part}.jsonl", tiny_tasks.biographies(240 if part == "train" else 80, seed)
        )
    return folder


def head(model: Pretrained, classes: int, pool: str = "fresh_pooler") -> dict:
    rng = np.random.default_rng(0)
    size = model.config.hidden_size
    parts = {"classifier": classes} | ({} if pool == "first" else {"pooler": size})
    return {
        name: {
            "kernel": jnp.asarray(rng.normal(size=(size, n)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=n), jnp.float32),
        }
        for name, n in parts.items()
    }


PAIRS = [
    Labelled(f"the {a} bought a {b} .", f"{c} sleeps" if i % 2 else f"an old {c} likes the tall young {b}", i % 3)
    for i, (a, b, c) in enumerate(
        (a, b, c) for a in tiny_tasks.SUBJECTS for b in tiny_tasks.THINGS[:2] for c in ("he", "she")
    )
]


def alone(model: Pretrained, params: dict, example: Labelled, max_tokens: int = 32) -> np.ndarray:
    """Outputs of one unpadded row."""
    tokens, types = (x[0][None] for x in encode_labelled([example], model.tokenizer, max_tokens))
    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    hidden = encode(
        model.config, model.params, tokens, np.ones_like(tokens), positions, token_types=types
    ).hidden_states
    return np.asarray(class_outputs(model.config, params, hidden[:, 0])[0])


def test_label_sums_by_hand():
    outputs_ = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1.0, 1.0, 1.0]]]))
    sums = label_sums(outputs_, jnp.array([[0.0, 2.0, 1.0]]), jnp.array([[1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(sums["loss"], -np.log(0.5) - np.log(0.1), rtol=1e-5)
    assert (float(sums["error"]), float(sums["examples"])) == (1, 2)
    values = label_sums(jnp.array([[[3.0], [1.0]]]), jnp.array([[5.0, 0.5]]), jnp.ones((1, 2)))
    np.testing.assert_allclose([values["loss"], values["error"]], 4.25)


def test_truncation_takes_from_the_longer_text(model):
    long = Labelled("the old man likes the tall king .", "he sleeps", 0)
    with collected() as notes:
        (tokens,), (types,) = encode_labelled([long], model.tokenizer, 9)
    assert notes == [Cut(limit=9, sequences=1, cut=1, tokens=13, lost=4)]  # 8 words and 2, and 3 special tokens
    assert len(tokens) == 9 and (types == 1).sum() == 3  # he, sleeps and [SEP] are whole
    with pytest.raises(ConfigError, match=r"config\.data\.max_tokens=3"):
        encode_labelled([long], model.tokenizer, 3)


@pytest.mark.parametrize("kind", ["own", "roberta"])
def test_packed_outputs_are_those_of_single_rows(model, kind):
    if kind == "roberta":
        model = tiny_hub.pretrained("roberta")
    params = head(model, 3)
    found = outputs(model, params, PAIRS, 32, 34, make_mesh(MeshConfig(), 8))
    expected = [alone(model, params, example) for example in PAIRS]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(outputs(model, params, PAIRS, 32, 64), found, atol=1e-5, rtol=1e-5)


def test_token_types_matter(model):
    params = head(model, 3)
    tokens, types = (x[0][None] for x in encode_labelled(PAIRS[:1], model.tokenizer, 32))
    assert types.sum() > 0
    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    hidden = encode(model.config, model.params, tokens, np.ones_like(tokens), positions).hidden_states
    other = class_outputs(model.config, params, hidden[:, 0])[0]
    assert np.abs(np.asarray(other) - alone(model, params, PAIRS[0])).max() > 1e-2


def pipeline(model: Pretrained, labels, types=None, **settings) -> Pipeline:
    encoded = encode_labelled(PAIRS, model.tokenizer, 32)
    encoded = Encoded(encoded.tokens, types or encoded.token_types)
    config = PipelineConfig(seed=1, batch_size=12, row_tokens=32, **{"row_multiple": 2} | settings)
    special = {"special_ids": [], "mask_token_id": 3, "vocab_size": model.config.vocab_size}
    return Pipeline(made_of(encoded, labels), config, **special)


def test_the_fingerprint_follows_labels_and_token_types(model):
    labels = [example.label for example in PAIRS]
    first = pipeline(model, labels)
    assert pipeline(model, labels).fingerprint == first.fingerprint
    other = pipeline(model, [*labels[:-1], labels[-1] + 1])
    first_types, *rest = encode_labelled(PAIRS, model.tokenizer, 32).token_types
    types = pipeline(model, labels, [1 - first_types, *rest])
    assert len({first.fingerprint, other.fingerprint, types.fingerprint}) == 3


@pytest.mark.parametrize("classes", [3, 1])
def test_loss_of_a_batch_is_that_of_its_examples(model, classes):
    labels = [example.label for example in PAIRS] if classes > 1 else list(np.linspace(0, 5, len(PAIRS)))
    params = dict(model.params) | {EXTRA: head(model, classes)}
    objective, made = classification_objective(model.config), pipeline(model, labels)
    loss, (metrics, _) = tiny.evaluate(objective, params, (), made.batch(1), None)
    expected, wrong = [], []
    for i in made.example_ids(1):
        out = alone(model, params[EXTRA], PAIRS[i]).astype(np.float64)
        if classes == 1:
            expected.append((out[0] - labels[i]) ** 2)
            continue
        expected.append(np.log(np.exp(out).sum()) - out[labels[i]])
        wrong.append(out.argmax() != labels[i])
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-4)
    np.testing.assert_allclose(metrics["error"][0], np.sum(wrong if classes > 1 else expected), rtol=1e-4)
    split, _ = tiny.evaluate(
        objective, params, (), pipeline(model, labels, accumulation=2, row_multiple=4).batch(1), None
    )
    np.testing.assert_allclose(split, loss, rtol=1e-5)


def test_eight_devices_are_one_and_dropout_reaches_the_head(model):
    objective = classification_objective(model.config)
    params = dict(model.params) | {EXTRA: head(model, 3)}
    batch = pipeline(model, [example.label for example in PAIRS], row_multiple=8).batch(0)
    found = []
    for devices in (1, 8):
        mesh = make_mesh(MeshConfig(), devices)
        loss = jax.jit(jax.value_and_grad(lambda p, b: evaluate_objective(objective, p, (), b, None)[0]))
        found.append(jax.device_get(loss(replicate(params, mesh), put_batch(batch, mesh))))
    (one, grads), (eight, others) = found
    np.testing.assert_allclose(one, eight, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, others)
    config = dataclasses.replace(model.config, hidden_dropout=0.5)
    x = jnp.ones((4, config.hidden_size))
    drawn = [class_outputs(config, params[EXTRA], x, key) for key in (None, jax.random.key(0), jax.random.key(1))]
    assert np.abs(drawn[1] - drawn[0]).max() > 1e-3 and np.abs(drawn[1] - drawn[2]).max() > 1e-3


def test_the_checkpoints_pooler_is_taken_where_there_is_one(setting, tmp_path):
    bare = tiny_tasks.write_model(tmp_path)
    loaded = load_pretrained(bare)
    assert load_pooler(bare, loaded.config) is None
    size, rng = loaded.config.hidden_size, np.random.default_rng(5)
    weight = rng.normal(size=(size, size)).astype(np.float32)
    tensors = load_file(bare / "model.safetensors") | {
        "bert.pooler.dense.weight": weight, "bert.pooler.dense.bias": np.ones(size, np.float32)
    }  # fmt: skip
    save_file(tensors, bare / "model.safetensors", metadata={"format": "pt"})
    config = tiny_tasks.config(bare, setting / "bios", "bios")
    made = fresh_head(config, loaded.config, jax.random.key(0))
    np.testing.assert_array_equal(made["pooler"]["kernel"], weight.T)
    assert made["classifier"]["kernel"].shape == (size, 28)
    for pool, parts in (("fresh_pooler", {"pooler", "classifier"}), ("first", {"classifier"})):
        changed = dataclasses.replace(config, classification=dataclasses.replace(config.classification, pool=pool))
        made = fresh_head(changed, loaded.config, jax.random.key(0))
        assert set(made) == parts
        assert "pooler" not in made or np.abs(made["pooler"]["kernel"] - weight.T).max() > 0.1
    save_file(
        tensors | {"bert.pooler.dense.bias": np.ones(3, np.float32)},
        bare / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelFolderError, match="the pooler has shape"):
        load_pooler(bare, loaded.config)


# --- runs


def test_a_run_learns_stops_resumes_is_judged_and_exported(setting, tmp_path, monkeypatch):
    best = {"dev_every": 30, "save_every": 30, "best": "dev_loss"}
    config = tiny_tasks.config(setting / "model", setting / "bios", "bios", train=best, data={"dev_examples": 40})
    whole = train.train_and_evaluate(config, tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["task_loss"] < 0.3 * lines[0]["task_loss"]
    assert lines[-1]["dev_loss"] < 0.2  # an error rate
    document = json.loads((tmp_path / "whole" / "evals" / "after" / "bios.json").read_text())
    assert document["metrics"]["acc"] > 80  # of four professions
    assert document["metrics"]["n"] == 80 and "licence" in document and "content_warning" in document
    assert whole["before"]["benchmarks"] == [] and whole["after"]["benchmarks"][0][0] == "Bias-in-Bios accuracy %"
    assert "Bias-in-Bios TPR gap" in whole["table"]

    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_requested", lambda step, log_every: step == 25)
        with pytest.raises(Interrupted):
            train.train_and_evaluate(config, tmp_path / "stopped")
    assert train.train_and_evaluate(config, tmp_path / "stopped") == whole

    export = tmp_path / "whole" / "export"
    loaded, own = load_pretrained(export), load_head(export)
    examples = CLASSIFICATION.examples(config, loaded)[0]
    assert examples.layout is LAYOUT
    test = read_bios(config, "test")
    again = outputs(loaded, own, test, 32, 32).argmax(1) == [example.label for example in test]
    np.testing.assert_allclose(100 * np.mean(again), document["metrics"]["acc"], atol=1e-9)
    with pytest.raises(ModelFolderError, match=r"has no head\.safetensors"):
        load_head(setting / "model")

    other = dataclasses.replace(config, seed=7, name="other")
    train.train_and_evaluate(other, tmp_path / "other")
    rows = compare(tmp_path / "whole" / "evals" / "after", tmp_path / "other" / "evals" / "after")
    assert [row.name for row in rows][:2] == ["Bias-in-Bios accuracy %", "Bias-in-Bios accuracy %, men"]
    assert rows[0].value_a == document["metrics"]["acc"] and rows[0].n == 80


def test_a_changed_label_is_another_corpus(setting, tmp_path, monkeypatch):
    shutil.copytree(setting / "bios", tmp_path / "bios")
    config = tiny_tasks.config(setting / "model", tmp_path / "bios", "bios", train={"steps": 8, "save_every": 8})
    mesh = make_mesh(config.mesh)
    first = train.prepare(config, mesh).identity
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_requested", lambda step, log_every: step == 4)
        with pytest.raises(Interrupted):
            train.train_and_evaluate(config, tmp_path / "run")
    path = tmp_path / "bios" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[5]["title"] = next(title for title in tiny_tasks.WORK if title != rows[5]["title"])
    tiny_tasks.write_jsonl(path, rows)
    second = train.prepare(config, mesh).identity
    assert {name for name in first if first[name] != second[name]} == {"corpus"}
    with pytest.raises(WorkdirError, match=r"config\.data\.path='.*bios' names has changed since"):
        train.train_and_evaluate(config, tmp_path / "run")
    # Without the files' fingerprints the checkpoint still knows its examples.
    content = json.loads((tmp_path / "run" / "inputs.json").read_text())
    (tmp_path / "run" / "inputs.json").write_text(json.dumps(content | training_content(config)))
    with pytest.raises(CheckpointError, match=r"belongs to another run: run\.corpus: '"):
        train.train_and_evaluate(config, tmp_path / "run")


def test_other_test_data_are_judged_again(setting, tmp_path, monkeypatch):
    shutil.copytree(setting / "bios", tmp_path / "bios")
    config = tiny_tasks.config(setting / "model", tmp_path / "bios", "bios", train={"steps": 8, "save_every": 8})
    result = train.train_and_evaluate(config, tmp_path / "run")
    tiny_tasks.write_jsonl(tmp_path / "bios" / "test.jsonl", tiny_tasks.biographies(60, 9))
    monkeypatch.setattr(train, "train", None)  # the export is judged
    again = train.train_and_evaluate(config, tmp_path / "run")
    document = json.loads((tmp_path / "run" / "evals" / "after" / "bios.json").read_text())
    assert document["n"] == 60 and again["after"]["benchmarks"][0][3] == 60 != result["after"]["benchmarks"][0][3]
    loaded, test = load_pretrained(tmp_path / "run" / "export"), read_bios(config, "test")
    found = outputs(loaded, load_head(tmp_path / "run" / "export"), test, 32, 32).argmax(1)
    right = np.mean(found == [example.label for example in test])
    np.testing.assert_allclose(again["after"]["benchmarks"][0][1], 100 * right)


def test_a_probe_leaves_the_encoder_alone(setting, tmp_path):
    freeze = {"freeze": "^(embeddings|encoder|mlm)/"}
    config = tiny_tasks.config(
        setting / "model", setting / "bios", "bios", optimizer=freeze, train={"steps": 8, "save_every": 8}
    )
    train.train_and_evaluate(config, tmp_path / "run")
    before, after = load_pretrained(setting / "model").params, load_pretrained(tmp_path / "run" / "export").params
    jax.tree.map(np.testing.assert_array_equal, before, after)
    start = fresh_head(config, load_pretrained(setting / "model").config, jax.random.key(config.seed))
    moved = load_head(tmp_path / "run" / "export")
    assert all(np.any(moved[part]["kernel"] != start[part]["kernel"]) for part in ("pooler", "classifier"))


def test_refusals(setting, tmp_path):
    config = tiny_tasks.config(setting / "model", setting / "bios", "")
    with pytest.raises(ConfigError, match=r"config\.classification\.task='': choose from bios, bias_nli, cola"):
        train.train_and_evaluate(config, tmp_path / "none")
    judged = tiny_tasks.config(setting / "model", setting / "bios", "bios", evals={"benchmarks": "crows_pairs"})
    with pytest.raises(ConfigError, match="classification is judged on its own task; set it to ''"):
        validate(judged)
    with pytest.raises(ValueError, match=r"'bios' is of a model trained for it, .*configs/bios.py"):
        evaluate(tiny_tasks.pretrained(), "bios", None, tmp_path, model_name="m")
    assert not (tmp_path / "none").exists()
