"""MABEL's losses against plain numpy, their gradients, their place on the mesh, and a run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.config import ConfigError, MeshConfig
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Examples, Pipeline
from ncfair_jax.methods.base import evaluate_objective
from ncfair_jax.methods.mabel.config import MabelConfig, MabelRun
from ncfair_jax.methods.mabel.loss import (
    MABEL,
    contrastive_loss,
    cosines,
    embedding_alignment,
    mabel_objective,
    sentence_states,
    similarity_alignment,
)
from ncfair_jax.methods.mabel.pairs import LAYOUT
from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, PAPER, NC3Config, with_nc3
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.registry import METHODS, validate
from ncfair_jax.sharding import make_mesh, put_batch, replicate
from ncfair_jax.train import train_and_evaluate
from tests import tiny, tiny_text
from tests.rounding import rounding
from tests.tiny import encode

TAU = 0.05


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 5))


def numpy_cosines(x, y):
    return np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in y] for a in x])


def numpy_contrastive(queries, keys, tau, hard=None):
    """Mean over i of -log softmax_i(own key), keys first, then the hard ones with 0.1 on their diagonal."""
    logits = numpy_cosines(queries, keys) / tau
    if hard is not None:
        extra = numpy_cosines(queries, hard) / tau
        for i in range(len(hard)):
            extra[i, i] += 0.1
        logits = np.hstack([logits, extra])
    return np.mean([np.log(np.sum(np.exp(row))) - row[i] for i, row in enumerate(logits)])


def numpy_a1(o0, o1, a0, a1, tau):
    gap = (numpy_cosines(o0, o1) - numpy_cosines(a0, a1)) / tau
    return sum(float(value) ** 2 for value in gap.ravel()) / len(gap)


def numpy_a2(o0, o1, a0, a1):
    return sum(sum((x - y) @ (x - y) for x, y in zip(o, a, strict=True)) / len(o) for o, a in ((o0, a0), (o1, a1)))


def test_contrastive_by_hand():
    # Two orthogonal queries; the second key lies between them.
    queries, keys = jnp.eye(2), jnp.array([[2.0, 0.0], [3.0, 3.0]])
    half = 0.5**0.5
    expected = (np.log(np.exp(1) + np.exp(half)) - 1 + np.log(np.exp(0) + np.exp(half)) - half) / 2
    np.testing.assert_allclose(contrastive_loss(queries, keys, 1.0), expected, rtol=rounding(2 * 6))
    # One query: own key at cosine 1, hard key at cosine 0 and its bonus.
    one = contrastive_loss(jnp.array([[1.0, 0.0]]), jnp.array([[5.0, 0.0]]), 0.5, jnp.array([[0.0, 2.0]]))
    np.testing.assert_allclose(one, np.log(np.exp(2) + np.exp(0.1)) - 2, rtol=0, atol=rounding(6, size=2))


def test_contrastive_against_numpy_and_at_equal_embeddings():
    queries, keys, hard = rows(6, 0), rows(6, 1), rows(6, 2)
    as_jax = [jnp.asarray(x, jnp.float32) for x in (queries, keys, hard)]
    np.testing.assert_allclose(contrastive_loss(*as_jax[:2], TAU), numpy_contrastive(queries, keys, TAU), rtol=1e-4)
    expected = numpy_contrastive(queries, keys, TAU, hard)
    np.testing.assert_allclose(contrastive_loss(*as_jax[:2], TAU, as_jax[2]), expected, rtol=1e-4)
    same = jnp.ones((8, 5))
    np.testing.assert_allclose(contrastive_loss(same, same, TAU), np.log(8), rtol=1e-5)  # ln 2N for N = 4 pairs


def test_alignment_losses():
    o0, o1, a0, a1 = (rows(4, seed) for seed in range(4))
    jo0, jo1, ja0, ja1 = (jnp.asarray(x, jnp.float32) for x in (o0, o1, a0, a1))
    a1_loss = float(similarity_alignment(jo0, jo1, ja0, ja1, TAU))
    np.testing.assert_allclose(a1_loss, numpy_a1(o0, o1, a0, a1, TAU), rtol=1e-4)
    difference = numpy_cosines(o0, o1) - numpy_cosines(a0, a1)
    np.testing.assert_allclose(a1_loss, 400 * 4 * np.mean(difference**2), rtol=1e-4)  # N times the mean
    assert float(similarity_alignment(jo0, jo1, jo0, jo1, TAU)) == 0
    a2_loss = embedding_alignment(jo0, ja0) + embedding_alignment(jo1, ja1)
    np.testing.assert_allclose(a2_loss, numpy_a2(o0, o1, a0, a1), rtol=1e-5)
    np.testing.assert_allclose(embedding_alignment(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])), 25.0)


def test_a_row_of_zeros_has_finite_gradients():
    x = jnp.zeros((2, 3)).at[1].set(1.0)
    value, gradient = jax.value_and_grad(lambda x: contrastive_loss(x, jnp.eye(3)[:2], TAU))(x)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(cosines(x, x)[0], 0)


@pytest.mark.parametrize("pooler", ["cls", "cls_before_pooler", "avg", "avg_top2", "avg_first_last"])
def test_poolers_on_packed_rows(pooler):
    layers = np.random.default_rng(0).normal(size=(3, 2, 7, 4))
    segments = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 2, 2, 2]])
    cls = np.array([[[0, 3], [1, 0]], [[1, 4], [0, 0]]])
    states = {"avg": layers[2], "avg_top2": (layers[1] + layers[2]) / 2, "avg_first_last": (layers[0] + layers[2]) / 2}
    spans = [(0, slice(3, 5)), (1, slice(0, 4)), (1, slice(4, 7)), (0, slice(0, 3))]
    if pooler.startswith("cls"):
        expected = [layers[2][row, span.start] for row, span in spans]
    else:
        expected = [states[pooler][row, span].mean(0) for row, span in spans]
    arguments = tuple(jnp.asarray(x, jnp.float32) for x in layers), jnp.asarray(segments), jnp.asarray(cls)
    found = sentence_states(pooler, *arguments)
    np.testing.assert_allclose(np.asarray(found).reshape(4, 4), expected, rtol=1e-5, atol=rounding(4, size=3))


# --- the objective on batches


def pipeline(views: int = 4, **settings) -> Pipeline:
    """Pairs whose swapped copies differ from the originals in one word."""
    examples = []
    originals = tiny.examples(40)
    for premise, hypothesis in zip(originals[::2], originals[1::2], strict=True):
        pair = [
            premise,
            hypothesis,
            *(np.where(np.arange(len(x)) == 1, tiny.FIRST_WORD, x) for x in (premise, hypothesis)),
        ]
        examples += [x.astype(np.int32) for x in (pair if views == 4 else [*pair, *pair[::-1][:2]])]
    return Pipeline(
        Examples(examples, views=views, layout=LAYOUT),
        PipelineConfig(seed=1, batch_size=6, row_tokens=32, **{"row_multiple": 8} | settings),
        special_ids=[tiny.PAD, tiny.CLS, tiny.SEP, tiny.MASK],
        mask_token_id=tiny.MASK,
        vocab_size=tiny.VOCAB,
        slot_of_token=tiny.classes().slot_of_token,
    )


def parameters() -> dict:
    return tiny.params() | {"method": MABEL.extra_params(MabelRun(), tiny.MODEL, jax.random.key(5))}


def dense(layer, x):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def numpy_loss(config: MabelConfig, params, pairs: Pipeline, step: int, mlm: float) -> float:
    """From sentences encoded one a row, without packing, and the losses as loops."""
    drawn = pairs.drawn(step)
    ids, lengths, tokens = drawn.ids, drawn.lengths, drawn.tokens
    bounds = np.cumsum(lengths)
    width = lengths.max()
    padded = np.zeros((len(lengths), width), np.int32)
    for i, (end, length) in enumerate(zip(bounds, lengths, strict=True)):
        padded[i, :length] = tokens[end - length : end]
    real = np.arange(width) < lengths[:, None]
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), padded.shape)
    layers = encode(
        tiny.MODEL, params, jnp.asarray(padded), jnp.asarray(real, jnp.int32), jnp.asarray(positions), all_layers=True
    ).all_layers
    first, second, last = (np.asarray(x, np.float64) for x in layers)
    if config.pooler.startswith("cls"):
        vectors = last[:, 0]
        if config.pooler == "cls":
            vectors = dense(params["method"]["dense2"], np.tanh(dense(params["method"]["dense1"], vectors)))
    else:
        states = {"avg": last, "avg_top2": (last + second) / 2, "avg_first_last": (last + first) / 2}[config.pooler]
        vectors = (states * real[..., None]).sum(1) / lengths[:, None]
    o0, o1, a0, a1, *hard = np.moveaxis(vectors.reshape(len(ids), -1, vectors.shape[-1]), 1, 0)
    contrastive = numpy_contrastive(
        np.vstack([o0, a0]), np.vstack([o1, a1]), config.softmax_temp, np.vstack(hard) if hard else None
    )
    if config.align_loss == "a1":
        more = ((o0, hard[0]), (a0, hard[1])) if hard else ((o0,), (a0,))
        alignment = numpy_a1(np.vstack(more[0]), o1, np.vstack(more[1]), a1, config.softmax_temp)
    elif config.align_loss == "a2":
        alignment = numpy_a2(o0, o1, a0, a1)
    else:
        sides = (dense(params["method"]["projection"], np.vstack(side)) for side in ((o0, o1), (a0, a1)))
        alignment = numpy_contrastive(*sides, config.align_temp)
    if not config.contrastive:
        task = alignment
    elif config.mix == "convex":
        task = (1 - config.align_weight) * contrastive + config.align_weight * alignment
    else:
        task = contrastive + config.align_weight * alignment
    return task + config.mlm_weight * mlm


@pytest.mark.parametrize(
    ("config", "views"),
    [
        (MabelConfig(), 4),
        (MabelConfig(pooler="avg_top2", align_loss="a2", mix="convex", align_weight=0.3, mlm_weight=0.5), 4),
        (MabelConfig(pooler="avg_first_last", align_loss="a3", align_temp=0.2, contrastive=False), 4),
        (MabelConfig(pooler="cls_before_pooler", align_loss="a3", softmax_temp=0.1), 4),
        (MabelConfig(hard_negatives=True), 6),
    ],
)
def test_loss_equals_unpacked_numpy(config, views):
    pairs, params = pipeline(views), parameters()
    batch = pairs.batch(1)
    loss, (metrics, _) = tiny.evaluate(mabel_objective(tiny.MODEL, config), params, (), batch, None)
    mlm, _ = tiny.evaluate(mlm_objective(tiny.MODEL), params, (), batch, None)  # proven in test_mlm
    np.testing.assert_allclose(metrics["mlm_loss"][0] / metrics["mlm_loss"][1], mlm, rtol=1e-5)
    np.testing.assert_allclose(loss, numpy_loss(config, params, pairs, 1, float(mlm)), rtol=1e-4)
    assert ("contrastive_loss" in metrics) == config.contrastive


@pytest.mark.parametrize("align_loss", ["a1", "a2", "a3"])
def test_gradient_against_finite_differences(align_loss):
    batch, objective = pipeline().batch(1), mabel_objective(tiny.MODEL, MabelConfig(align_loss=align_loss))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), parameters())
        loss = jax.jit(lambda p: evaluate_objective(objective, p, (), batch, None)[0])
        grads = jax.jit(jax.grad(loss))(params)
        direction = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape)), params)
        for part in ("method", "encoder"):
            # The encoder computes LayerNorm and the losses their softmax in float32, which bounds the quotient.
            step = 1e-3
            moved = [
                float(loss(params | {part: jax.tree.map(lambda p, d, s=s: p + s * d, params[part], direction[part])}))
                for s in (step, -step)
            ]
            leaves = zip(jax.tree.leaves(grads[part]), jax.tree.leaves(direction[part]), strict=True)
            slope = sum(float(jnp.vdot(g, d)) for g, d in leaves)
            assert abs(slope) > 0.1
            np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), slope, rtol=1e-2)


def test_unused_parameters_get_no_gradient():
    batch, objective = pipeline().batch(0), mabel_objective(tiny.MODEL, MabelConfig(mlm_weight=0.0))
    grads = jax.jit(jax.grad(lambda p: evaluate_objective(objective, p, (), batch, None)[0]))(parameters())
    assert not np.any(grads["method"]["projection"]["kernel"])
    assert not np.any(grads["mlm"]["transform"]["kernel"])
    assert np.any(grads["method"]["dense1"]["kernel"]) and np.any(grads["encoder"]["layer_0"]["output"]["kernel"])


def test_eight_devices_are_one_in_loss_and_gradient():
    """So pairs on different devices are each other's negatives, and carry gradients."""
    nc3 = NC3Config(weight=2.0, **ALIGNED)
    objective = with_nc3(mabel_objective(tiny.MODEL, MabelConfig(pooler="avg")), nc3, tiny.classes(), tiny.MODEL, 4)
    batch, results = pipeline().batch(0), []
    for devices in (1, 8):
        mesh = make_mesh(MeshConfig(), devices)
        params = replicate(parameters(), mesh)
        carry = replicate(objective.init(params), mesh)

        def loss(params, batch, carry=carry):
            return evaluate_objective(objective, params, carry, batch, None)[0]

        results.append(jax.device_get(jax.jit(jax.value_and_grad(loss))(params, put_batch(batch, mesh))))
    (one, grads_one), (eight, grads_eight) = results
    np.testing.assert_allclose(one, eight, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads_one), jax.tree.leaves(grads_eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_paper_statistics_are_those_of_the_clean_sentences():
    nc3 = NC3Config(weight=1.0, **PAPER | {"labels": "original", "alignment": "same"})
    objective = with_nc3(mabel_objective(tiny.MODEL, MabelConfig()), nc3, tiny.classes(), tiny.MODEL, 4)
    pairs, params = pipeline(mask_prob=1.0), parameters()
    _, (_, carry) = tiny.evaluate(objective, params, objective.init(params), pairs.batch(0), None)
    tokens = pairs.drawn(0).tokens
    np.testing.assert_array_equal(carry["nc3"].count, [(tokens == i).sum() for i in tiny.classes().token_ids])


# --- the method in a run


def run_config(folder, **changes) -> MabelRun:
    model, _ = tiny_text.write(folder)
    lines = ["a,b,c,d"]
    for number, sentence in enumerate(tiny_text.sentences(24, seed=4)):
        premise, hypothesis = sentence, " ".join(sentence.split()[:3])
        he, she = ("he", "she") if number % 2 else ("she", "he")
        lines.append(f"{he} {premise},{he} {hypothesis},{she} {premise},{she} {hypothesis}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    base = MabelRun(name="tiny-mabel")
    parts = {
        "model": {"path": str(model)},
        "data": {"max_tokens": 32, "row_tokens": 64, "dev_examples": 4},
        "mabel": {"pairs": str(folder / "pairs.csv")},
        "nc3": {"weight": 1.0},
        "optimizer": {"learning_rate": 3e-3},
        "train": {
            "batch_size": 10,
            "steps": 30,
            "log_every": 5,
            "save_every": 30,
            "dev_every": 15,
            "collapse_every": 0,
        },
    }
    for name, values in changes.items():
        parts[name] = parts[name] | values
    return dataclasses.replace(
        base, **{name: dataclasses.replace(getattr(base, name), **x) for name, x in parts.items()}
    )


def test_a_run_learns_and_exports_the_encoder_only(tmp_path):
    config = run_config(tmp_path)
    train_and_evaluate(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    for name in ("loss", "contrastive_loss", "alignment_loss"):
        assert last[name] < 0.8 * first[name], name
    assert np.isfinite(last["dev_loss"]) and np.isfinite(last["nc3_loss"])
    before, after = (load_pretrained(str(path)).params for path in (config.model.path, tmp_path / "run" / "export"))
    assert jax.tree.structure(before) == jax.tree.structure(after)  # nothing of the method's own
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert moved["embeddings"]["word"]["embedding"] and moved["mlm"]["transform"]["kernel"]
    assert moved["encoder"]["layer_0"]["attention"]["query"]["kernel"]


def test_refusals():
    def refused(message: str, **changes):
        base = MabelRun()
        parts = {name: dataclasses.replace(getattr(base, name), **values) for name, values in changes.items()}
        config = dataclasses.replace(base, **parts)
        with pytest.raises(ConfigError, match=message):
            validate(config)

    assert METHODS["mabel"] is MABEL
    refused("config.train.accumulation=2: mabel", train={"accumulation": 2})
    refused("config.mabel.align_loss='a1,a2': choose from", mabel={"align_loss": "a1,a2"})
    refused("config.mabel.pooler='max': choose from", mabel={"pooler": "max"})
    refused("config.mabel.softmax_temp=0.0: must be above 0", mabel={"softmax_temp": 0.0})
    refused("config.mabel.align_weight=1.5: is a fraction", mabel={"align_weight": 1.5})
    nothing = {"contrastive": False, "align_loss": "", "mlm_weight": 0.0}
    refused("config.mabel.mlm_weight=0.0: with neither", mabel=nothing)
