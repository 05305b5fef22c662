"""ADEPT and DPCE: the losses against plain numpy, where gradients go, eight devices as one, and a run from end to end."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ncfair_jax import train
from ncfair_jax.checkpoint import CheckpointError
from ncfair_jax.config import ConfigError, MeshConfig
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.methods.adept.loss import (
    adept_bias,
    adept_objective,
    dpce_bias,
    jensen_shannon,
    kl_distance,
    prefix_params,
    retention_sum,
    word_representations,
)
from ncfair_jax.methods.adept.words import made_of
from ncfair_jax.methods.nc3 import ALIGNED, NC3Config, with_nc3
from ncfair_jax.models.fingerprint import params_fingerprint
from ncfair_jax.models.hf import load_pretrained, save_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze, validate
from ncfair_jax.sharding import make_mesh, put_batch, replicate
from ncfair_jax.stopping import Interrupted
from tests import tiny, tiny_text
from tests.benchmarks import plain
from tests.rounding import encoder_operations, rounding
from tests.tiny import encode

K, B, S, D = 3, 5, 2, 4


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numpy_bias(prototypes, words, rho):
    near = [
        [np.exp(-np.sum((a.astype(np.float64) - x) ** 2) / (2 * rho**2)) for x in words] for a in prototypes
    ]  # [K, B]
    p = [np.array(row) / sum(row) for row in near]
    values = []
    for a, b in itertools.combinations(p, 2):
        m = (a + b) / 2
        values.append(0.5 * np.sum(a * np.log2(a / m)) + 0.5 * np.sum(b * np.log2(b / m)))
    return np.mean(values)


@pytest.mark.parametrize("rho", [1.5, 15.0])
def test_adept_bias_against_numpy(rho):
    prototypes, words = normal(K, S, D), normal(B, S, D, seed=1)
    expected = numpy_bias(prototypes, words, rho)
    # At rho 15 the distributions are nearly equal: what is left of 1e-5 bits is differences of log-probabilities, which
    # are float32 numbers of size ln B, averaged over B words.
    np.testing.assert_allclose(
        adept_bias(prototypes, words, rho), expected, rtol=1e-4, atol=rounding(1 / B, size=np.log(B))
    )


def test_jensen_shannon_by_hand():
    p, q = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    # m = (0.375, 0.625): ½ [½ log2(4/3) + ½ log2(4/5)] + ½ [¼ log2(2/3) + ¾ log2(6/5)]
    expected = 0.5 * (0.5 * np.log2(4 / 3) + 0.5 * np.log2(0.8)) + 0.5 * (0.25 * np.log2(2 / 3) + 0.75 * np.log2(1.2))
    np.testing.assert_allclose(jensen_shannon(jnp.array(p), jnp.array(q)), expected, rtol=1e-5)
    np.testing.assert_allclose(jensen_shannon(jnp.array(q), jnp.array(p)), expected, rtol=1e-5)


def test_bias_is_zero_for_equal_prototypes_at_most_a_bit_and_finite_far_away():
    words = normal(B, S, D, seed=1)
    same = np.repeat(normal(1, S, D), 2, axis=0)
    np.testing.assert_allclose(adept_bias(same, words, 1.0), 0, atol=rounding(1 / B, size=np.log(B)))
    apart = 100 * normal(2, S, D)  # each is nearest to a word of its own, by far
    value, gradient = jax.value_and_grad(adept_bias, argnums=1)(apart, 100 * words, 0.1)
    assert 0 <= float(value) <= 1 + rounding(B)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(adept_bias(apart, apart, 0.1), 1, rtol=rounding(B))


def test_dpce_bias_against_numpy():
    prototypes, words = normal(K, S, D), normal(B, S, D, seed=1)
    expected = sum(np.mean([np.dot(x[s], a[s]) ** 2 for x in words for s in range(S)]) for a in prototypes)
    np.testing.assert_allclose(dpce_bias(prototypes, words), expected, rtol=1e-5)
    assert float(dpce_bias(prototypes * 0, words)) == 0


@pytest.mark.parametrize("bias", [lambda a, x: adept_bias(a, x, 1.5), dpce_bias])
def test_bias_gradient_against_finite_differences_and_none_to_prototypes(bias):
    with jax.enable_x64(True):
        prototypes, words = (jnp.asarray(x, jnp.float64) for x in (normal(K, S, D), normal(B, S, D, seed=1)))
        to_prototypes, to_words = jax.grad(bias, argnums=(0, 1))(prototypes, words)
        assert not np.any(to_prototypes)
        direction, step = jnp.asarray(normal(B, S, D, seed=2), jnp.float64), 1e-5
        ahead, back = (float(bias(prototypes, words + s * direction)) for s in (step, -step))
        np.testing.assert_allclose((ahead - back) / (2 * step), float(jnp.vdot(to_words, direction)), rtol=1e-6)


def test_retention_against_numpy():
    layers, original = normal(3, 2, 4, D), normal(3, 2, 4, D, seed=1)  # [layers, R, T, D]
    retained = np.array([[1, 1, 0, 0], [0, 1, 1, 1]], np.int32)
    squares, divergences = [], []
    for row, column in zip(*np.nonzero(retained), strict=True):
        pairs = [
            (x[row, column].astype(np.float64), y[row, column].astype(np.float64))
            for x, y in zip(layers, original, strict=True)
        ]
        squares.append(np.mean([np.mean((x - y) ** 2) for x, y in pairs]))
        both = []
        for x, y in pairs:
            for sign in (1, -1):
                q, p = (np.exp(sign * z) / np.exp(sign * z).sum() for z in (x, y))
                both.append(np.sum(p * np.log2(p / q)))
        divergences.append(np.sum(both) / len(pairs))
    np.testing.assert_allclose(retention_sum(layers, original, retained, "mse"), np.sum(squares), rtol=1e-5)
    np.testing.assert_allclose(retention_sum(layers, original, retained, "kl"), np.sum(divergences), rtol=1e-4)
    np.testing.assert_allclose(kl_distance(layers[0], layers[0]), 0, atol=1e-6)


@pytest.mark.parametrize("retention", ["mse", "kl"])
def test_retention_gradient_against_finite_differences(retention):
    layers, original, direction = (jnp.asarray(normal(3, 2, 4, D, seed=i)) for i in range(3))
    retained = jnp.array([[1, 1, 0, 0], [0, 1, 1, 1]])
    gradient = jax.grad(retention_sum)(layers, original, retained, retention)
    step = 1e-2  # distances are float32, which bounds the quotient
    ahead, back = (float(retention_sum(layers + s * direction, original, retained, retention)) for s in (step, -step))
    np.testing.assert_allclose((ahead - back) / (2 * step), float(jnp.vdot(gradient, direction)), rtol=5e-3)


def test_words_of_one_and_of_several_pieces():
    layers = normal(2, 3, 6, D)  # [S, R, T, D]
    rows, columns = np.array([[0, 0, 0], [2, 2, 0]]), np.array([[4, 0, 0], [1, 2, 0]])
    weights = np.array([[1, 0, 0], [0.5, 0.5, 0]], np.float32)
    words = word_representations(layers, rows, columns, weights)
    # Halves are exact, and one addition rounds the same way everywhere.
    np.testing.assert_array_equal(words[0], layers[:, 0, 4])
    np.testing.assert_array_equal(words[1], layers[:, 2, 1:3].mean(1))


def examples():
    """Sentences of tiny.examples(), each with a word of one or two tokens and a key."""
    sentences = tiny.examples(30)
    pieces = [np.arange(1, 2 + i % 2, dtype=np.int32) for i in range(len(sentences))]
    return made_of(sentences, np.arange(len(sentences), dtype=np.int32) % 3, pieces)


def pieces_of(made, example):
    return made.of_examples["pieces"][example, : made.of_examples["num_pieces"][example]]


def config(**changes):
    run = base_config(method="adept")
    run.data.row_tokens = run.data.max_tokens = 32
    run.train.batch_size = 4
    run.adept.update(rho=1.0, **changes)
    return freeze(run)


def batch(step=0):
    made = examples()
    settings = PipelineConfig(seed=1, batch_size=4, row_tokens=32, row_multiple=8)
    specials = {"special_ids": [0, 1, 2, 3], "mask_token_id": 3, "vocab_size": tiny.VOCAB}
    slots = tiny.classes().slot_of_token
    return Pipeline(made, settings, slot_of_token=slots, **specials).batch(step)


def layers_of(params, sentence):
    length, width = len(sentence), 32  # of every sentence, so that one program serves all
    tokens, segments = np.zeros((2, 1, width), np.int32)
    tokens[0, :length], segments[0, :length] = sentence, 1
    positions = np.arange(width, dtype=np.int32)[None]
    layers = encode(tiny.MODEL, params, tokens, segments, positions, all_layers=True).all_layers
    return [np.asarray(layer[0, :length], np.float64) for layer in layers]


@pytest.mark.parametrize("debias_layer", ["all", "first", "last"])
def test_prototypes_are_means_of_the_words_of_each_group(debias_layer):
    objective = adept_objective(config(debias_layer=debias_layer), tiny.MODEL, examples())
    params, made = tiny.params(), examples()
    carry = objective.refresh(params, objective.init(params))
    chosen = {"all": [0, 1, 2], "first": [0], "last": [2]}[debias_layer]
    found = {1: [], 2: []}
    for example, (sentence, key) in enumerate(zip(made.sequences, made.strata, strict=True)):
        pieces = pieces_of(made, example)
        if key:
            layers = layers_of(params, sentence)
            found[key].append([layers[layer][pieces].mean(0) for layer in chosen])
    expected = np.array([np.mean(found[key], axis=0) for key in (1, 2)])
    np.testing.assert_allclose(carry["prototypes"], expected, atol=1e-5)
    assert objective.init(params)["prototypes"].shape == carry["prototypes"].shape
    assert objective.refresh_every == 2  # 10 examples a key, 4 a batch


def moved(params, amount=0.05):
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten([leaf + amount * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


@pytest.mark.parametrize(("algorithm", "retention"), [("adept", "mse"), ("adept", "kl"), ("dpce", "mse")])
def test_loss_of_a_batch_against_its_parts_sentence_by_sentence(algorithm, retention):
    objective = adept_objective(
        config(algorithm=algorithm, retention=retention, alpha=0.2, beta=3.0), tiny.MODEL, examples()
    )
    original = tiny.params()
    params = moved(original)
    carry = objective.refresh(original, objective.init(original))
    rows = batch()
    loss, (metrics, after) = tiny.evaluate(objective, params, carry, rows, None)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), after, carry))
    made = examples()
    settings = PipelineConfig(seed=1, batch_size=4)
    pipeline = Pipeline(made, settings, special_ids=[], mask_token_id=3, vocab_size=tiny.VOCAB)
    words, distances = [], []
    for example in pipeline.example_ids(0):
        layers, before = (np.array(layers_of(p, made.sequences[example])) for p in (params, original))
        if made.strata[example] == 0:
            words.append(layers[:, pieces_of(made, example)].mean(1))
        elif retention == "mse":
            distances += np.mean((layers - before) ** 2, axis=(0, 2)).tolist()
        else:
            p, q = ([np.exp(s * h) / np.exp(s * h).sum(-1, keepdims=True) for s in (1, -1)] for h in (before, layers))
            by_token = sum(np.sum(a * np.log2(a / b), axis=-1) for a, b in zip(p, q, strict=True))
            distances += by_token.mean(0).tolist()
    prototypes, words = np.asarray(carry["prototypes"], np.float64), np.array(words)
    if algorithm == "adept":
        bias = numpy_bias(prototypes, words, 1.0)
    else:
        bias = sum(np.mean(np.einsum("bsd,sd->bs", words, a) ** 2) for a in prototypes)
    np.testing.assert_allclose(metrics["bias_loss"][0], bias, rtol=1e-3)
    np.testing.assert_allclose(
        metrics["retention_loss"][0] / metrics["retention_loss"][1], np.mean(distances), rtol=1e-3
    )
    np.testing.assert_allclose(loss, 0.2 * bias + 3.0 * np.mean(distances), rtol=1e-3)


@pytest.mark.parametrize("part", ["encoder", "method"])
def test_gradient_of_the_whole_loss_against_finite_differences(part):
    """By the encoder, and by a prefix of a model that stands still, along the gradient."""
    settings = config(prefix_tokens=4) if part == "method" else config()
    objective = adept_objective(settings, tiny.MODEL, examples())
    params = (
        tiny.params() | {"method": prefix_params(settings, tiny.MODEL, jax.random.key(0))}
        if part == "method"
        else tiny.params()
    )
    carry = objective.refresh(params, objective.init(params))
    params, rows = params | {part: moved(params[part], 0.2)}, batch()
    loss = jax.jit(lambda chosen: tiny.evaluate(objective, params | {part: chosen}, carry, rows, None)[0])
    gradient = jax.jit(jax.grad(loss))(params[part])
    norm = float(jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))))
    step = 1e-2 / norm  # the loss is float32, which bounds the quotient
    ahead, back = (
        float(loss(jax.tree.map(lambda p, g, s=s: p + s * g, params[part], gradient))) for s in (step, -step)
    )
    np.testing.assert_allclose((ahead - back) / (2 * step), norm**2, rtol=1e-2)


def test_eight_devices_do_what_one_does():
    objective = adept_objective(config(), tiny.MODEL, examples())
    nc3 = NC3Config(weight=1.0, **ALIGNED)
    objective = with_nc3(objective, nc3, tiny.classes(), tiny.MODEL, 2)
    original = tiny.params()

    def value_and_gradient(mesh):
        params = replicate(moved(original), mesh)
        carry = objective.refresh(params, replicate(objective.init(original), mesh))
        placed = put_batch(batch(), mesh)
        run = jax.jit(jax.value_and_grad(lambda p: tiny.evaluate(objective, p, carry, placed, None)[0]))
        return carry["task"]["prototypes"], *run(params)

    one, eight = (value_and_gradient(make_mesh(MeshConfig(), devices)) for devices in (1, 8))
    np.testing.assert_allclose(
        one[0], eight[0], atol=rounding(encoder_operations(tiny.MODEL) + 10)
    )  # 10 examples a key
    np.testing.assert_allclose(one[1], eight[1], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one[2]), jax.tree.leaves(eight[2]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A config of a tiny model and text, for a few epochs."""
    folder = tmp_path_factory.mktemp("setting")
    model, text = tiny_text.write(folder)
    (folder / "neutral.txt").write_text("\n".join(tiny_text.NEUTRAL) + "\n")
    run = base_config("aligned", method="adept")
    run.model.path = str(model)
    run.data.update(corpus="text", path=str(text), max_tokens=32, row_tokens=32, dev_examples=60)
    run.adept.update(neutral=str(folder / "neutral.txt"), mode="quality", rho=2.0, alpha=10.0, beta=0.05)
    run.optimizer.learning_rate = 1e-3
    run.train.update(
        batch_size=8, steps=60, log_every=1, save_every=20, dev_every=20, best="dev_loss", collapse_every=0
    )
    return run


def mesh():
    return make_mesh(MeshConfig(), 1)


def logged(workdir, name):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def test_a_run_lowers_its_loss_and_stopped_midway_ends_the_same(setting, tmp_path, monkeypatch):
    run = train.prepare(freeze(setting), mesh())
    assert 1 < run.pipeline.steps_per_epoch < 10
    whole = train.train(run, tmp_path / "whole")
    losses = logged(tmp_path / "whole", "task_loss")
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:15])
    assert len(logged(tmp_path / "whole", "dev_loss")) == 3
    before, after = run.model.params, whole.params
    assert np.any(
        before["encoder"]["layer_0"]["intermediate"]["kernel"] != after["encoder"]["layer_0"]["intermediate"]["kernel"]
    )
    np.testing.assert_array_equal(before["mlm"]["transform"]["kernel"], after["mlm"]["transform"]["kernel"])  # no NC3

    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_requested", lambda step, log_every: step == 7)
        with pytest.raises(Interrupted):
            train.train(run, tmp_path / "stopped")
    again = train.train(run, tmp_path / "stopped")
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logged(tmp_path / "stopped", "task_loss") == losses


def test_a_run_of_dpce_lowers_its_loss(setting, tmp_path):
    run = setting.copy_and_resolve_references()
    run.adept.update(algorithm="dpce", alpha=0.2, beta=0.8)
    run.train.update(steps=30, save_every=30, dev_every=30)
    prepared = train.prepare(freeze(run), mesh())
    trained = train.train(prepared, tmp_path)
    losses = logged(tmp_path, "task_loss")
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    before, after = prepared.model.params, trained.params
    kernels = [params["encoder"]["layer_0"]["intermediate"]["kernel"] for params in (before, after)]
    assert np.any(kernels[0] != kernels[1])
    np.testing.assert_array_equal(before["mlm"]["transform"]["kernel"], after["mlm"]["transform"]["kernel"])


def test_a_prefix_is_judged_reported_and_exported(setting, tmp_path):
    run = with_prefix(setting)
    run.train.update(steps=6, save_every=6, dev_every=6)
    run.evals.benchmarks, run.evals.data = "crows_pairs", str(plain.write_data_folder(tmp_path / "data"))
    result = train.train_and_evaluate(freeze(run), tmp_path / "run")
    before, after = ((tmp_path / "run/evals" / when / "crows_pairs.csv").read_text() for when in ("before", "after"))
    assert before != after and "CrowS-Pairs" in result["table"]
    assert "CrowS-Pairs" in (tmp_path / "run/report.html").read_text()
    assert "CrowS-Pairs" in (tmp_path / "run/export/README.md").read_text()
    assert load_pretrained(tmp_path / "run/export").params["prefix"].shape[0] > 0


def test_accumulation_is_refused(setting):
    run = setting.copy_and_resolve_references()
    run.train.accumulation = 2
    with pytest.raises(ConfigError, match="adept compares the examples of a batch"):
        validate(freeze(run))


def test_dropout_does_not_reach_the_original():
    model = dataclasses.replace(tiny.MODEL, hidden_dropout=0.3)
    objective = adept_objective(config(), model, examples())
    params = tiny.params()
    carry = objective.refresh(params, objective.init(params))
    still, (metrics, _) = tiny.evaluate(objective, params, carry, batch(), None)
    np.testing.assert_allclose(metrics["retention_loss"][0], 0, atol=1e-9)
    _, (metrics, _) = tiny.evaluate(objective, params, carry, batch(), jax.random.key(0))
    assert float(metrics["retention_loss"][0]) > 0.01
    assert np.isfinite(still)


FREEZE = "^(embeddings|encoder|mlm)/"


def with_prefix(setting, **changes):
    run = setting.copy_and_resolve_references()
    run.adept.prefix_tokens = 4
    run.optimizer.freeze = FREEZE
    run.optimizer.learning_rate = 3e-2
    run.nc3.update({"weight": 1.0} | changes)
    return run


def saved_shapes(folder):
    """Shapes of all arrays of one item of a checkpoint, read without a target tree."""
    with ocp.StandardCheckpointer() as checkpointer:
        return [leaf.shape for leaf in jax.tree.leaves(checkpointer.restore(folder.resolve()))]


def test_a_prefix_trains_alone_is_saved_alone_and_is_exported_beside_the_model(setting, tmp_path, monkeypatch):
    run = train.prepare(freeze(with_prefix(setting)), mesh())
    whole = train.train(run, tmp_path / "whole")
    losses = logged(tmp_path / "whole", "task_loss")
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:15])
    start = dict(run.model.params)
    start_prefix = start.pop("method")["prefix"]
    assert np.abs(whole.params["prefix"] - start_prefix).max(axis=(2, 3, 4)).min() > 1e-3
    for name, part in start.items():
        jax.tree.map(np.testing.assert_array_equal, part, whole.params[name])

    saved = {item: saved_shapes(tmp_path / "whole" / "checkpoints" / "60" / item) for item in ("params", "state")}
    assert saved["params"] == [start_prefix.shape]
    assert sum(np.prod(shape) for shape in saved["state"]) < 4 * start_prefix.size  # moments, prototypes, class means
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_requested", lambda step, log_every: step == 7)
        with pytest.raises(Interrupted):
            train.train(run, tmp_path / "stopped")
    again = train.train(run, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)

    other = jax.tree.map(lambda leaf: leaf + 1, start) | {"method": run.model.params["method"]}
    elsewhere = run._replace(identity=run.identity | {"frozen": params_fingerprint(other)})
    with pytest.raises(CheckpointError, match=r"run\.frozen"):
        train.train(elsewhere, tmp_path / "stopped")

    save_pretrained(tmp_path / "export", whole)
    loaded = load_pretrained(tmp_path / "export").params
    jax.tree.map(np.testing.assert_array_equal, loaded, whole.params)
    original = Path(setting.model.path) / "model.safetensors"
    assert (tmp_path / "export" / "model.safetensors").read_bytes() == original.read_bytes()


def test_nc3_reaches_a_prefix_through_the_features_only(setting):
    with pytest.raises(ConfigError, match="frozen classifier"):
        validate(freeze(with_prefix(setting, gradient="classifier")))
    config = freeze(with_prefix(setting))
    validate(config)
    objective = adept_objective(
        dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=4)), tiny.MODEL, examples()
    )
    nc3 = NC3Config(weight=1.0, **ALIGNED)
    whole = with_nc3(objective, nc3, tiny.classes(), tiny.MODEL, 2)
    params = tiny.params() | {"method": prefix_params(config, tiny.MODEL, jax.random.key(0))}
    carry = whole.init(params)

    def extra(p):
        return (
            tiny.evaluate(whole, p, carry, batch(), None)[0]
            - tiny.evaluate(objective, p, carry["task"], batch(), None)[0]
        )

    assert np.abs(jax.jit(jax.grad(extra))(params)["method"]["prefix"]).max() > 1e-4


def test_a_prefix_on_a_model_that_moves_is_refused(setting):
    run = with_prefix(setting)
    run.optimizer.freeze = "^(embeddings|encoder)/"
    with pytest.raises(ConfigError, match=r"lets mlm/bias move; set it to '\^\(embeddings"):
        train.prepare(freeze(run), mesh())
    run.optimizer.freeze = "/"
    with pytest.raises(ConfigError, match="holds the prefix still"):
        train.prepare(freeze(run), mesh())


def test_size_of_a_prefix_of_bert_base():
    base = dataclasses.replace(tiny.MODEL, hidden_size=768, num_layers=12, num_heads=12)
    config = freeze(base_config(method="adept"))
    config = dataclasses.replace(config, adept=dataclasses.replace(config.adept, prefix_tokens=40))
    shape = jax.eval_shape(lambda key: prefix_params(config, base, key), jax.random.key(0))["prefix"].shape
    assert np.prod(shape) == 737_280
