"""with_nc3: value, gradient paths, windows, and that accumulation advances the statistics once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, PAPER, NC3Config, with_nc3
from ncfair_jax.models import bert
from ncfair_jax.models.families import family_of
from tests import tiny
from tests.tiny import encode

WEIGHT = 10.0


def regularised(**changes):
    config = dataclasses.replace(NC3Config(weight=WEIGHT, **ALIGNED), **changes)
    return with_nc3(mlm_objective(tiny.MODEL), config, tiny.classes(), tiny.MODEL, steps_per_epoch=3)


def features_of(params, batch, kind):
    rows = {name: value[0] for name, value in batch.items() if value.ndim}
    hidden = encode(tiny.MODEL, params, rows["tokens"], rows["segment_ids"], rows["positions"]).hidden_states
    features = hidden if kind == "hidden" else family_of(tiny.MODEL).features(tiny.MODEL, params, hidden)
    return np.asarray(features, np.float64).reshape(-1, 16), rows["slots"].reshape(-1)


def numpy_nc3(rows_of_class, weights):
    """std (ddof 1) over classes with rows of cos(mean - mean of means, w), in float64."""
    seen = [c for c, rows in enumerate(rows_of_class) if len(rows)]
    means = np.array([np.mean(rows_of_class[c], axis=0) for c in seen])
    centred = means - means.mean(0)
    w = np.asarray(weights, np.float64)[seen]
    cos = (centred * w).sum(1) / np.linalg.norm(centred, axis=1) / np.linalg.norm(w, axis=1)
    return cos.std(ddof=1), cos.mean()


@pytest.mark.parametrize("kind", ["hidden", "transform"])
def test_value_over_a_run_window_against_numpy(kind):
    params, pipeline = tiny.params(), tiny.pipeline()
    objective = regularised(features=kind, window="run")
    carry = objective.init(params)
    history = [[] for _ in range(6)]
    weights = bert.classifier(params)[0][tiny.classes().token_ids]
    for step in range(3):
        batch = pipeline.batch(step)
        features, slots = features_of(params, batch, kind)
        for row, slot in zip(features, slots, strict=True):
            if slot < 6:
                history[slot].append(row)
        loss, (metrics, carry) = tiny.evaluate(objective, params, carry, batch, None)
        spread, mean = numpy_nc3(history, weights)
        np.testing.assert_allclose(metrics["nc3_loss"][0], spread, rtol=1e-4)
        np.testing.assert_allclose(metrics["nc3"][0], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(loss, metrics["mlm_loss"][0] / metrics["mlm_loss"][1] + WEIGHT * spread, rtol=1e-4)


def nc3_gradient(objective, params, batch):
    task = mlm_objective(tiny.MODEL)
    carry = objective.init(params)

    def extra(p):
        whole = tiny.evaluate(objective, p, carry, batch, None)[0]
        return whole - tiny.evaluate(task, p, (), batch, None)[0]

    return jax.jit(jax.grad(extra))(params)


def test_paper_moves_the_listed_classifier_rows_only():
    batch = tiny.pipeline(alignment="next", labels="input").batch(0)
    params = tiny.params()
    objective = regularised(**PAPER)
    grads = nc3_gradient(objective, params, batch)
    table = np.asarray(grads["embeddings"]["word"]["embedding"])
    ids = tiny.classes().token_ids
    assert np.abs(table[ids]).max() > 1e-3
    others = np.delete(table, ids, axis=0)
    np.testing.assert_allclose(others, 0, atol=1e-5)  # differences of two passes, not exact zeros
    np.testing.assert_allclose(grads["encoder"]["layer_0"]["intermediate"]["kernel"], 0, atol=1e-5)
    _, (metrics, _) = tiny.evaluate(objective, params, objective.init(params), batch, None)
    np.testing.assert_allclose(metrics["nc3_grad_norm"][0], np.linalg.norm(table[ids]), rtol=1e-3)


def test_aligned_also_moves_the_encoder():
    grads = nc3_gradient(regularised(), tiny.params(), tiny.pipeline().batch(0))
    assert np.abs(np.asarray(grads["encoder"]["layer_0"]["intermediate"]["kernel"])).max() > 1e-3
    assert np.abs(np.asarray(grads["mlm"]["transform"]["kernel"])).max() > 1e-3


def counts_after(objective, steps, pipeline=None):
    params, pipeline = tiny.params(), pipeline or tiny.pipeline()
    carry = objective.init(params)
    for step in range(steps):
        _, (_, carry) = tiny.evaluate(objective, params, carry, pipeline.batch(step), None)
    return np.asarray(carry["nc3"].count)


def batch_counts(step):
    slots = tiny.pipeline().batch(step)["slots"]
    return np.array([(slots == c).sum() for c in range(6)])


def test_windows_count_what_they_say():
    total = sum(batch_counts(step) for step in range(5))
    np.testing.assert_array_equal(counts_after(regularised(window="run"), 5), total)
    np.testing.assert_array_equal(counts_after(regularised(window="batch"), 5), batch_counts(4))
    np.testing.assert_array_equal(counts_after(regularised(window="epoch"), 5), batch_counts(3) + batch_counts(4))
    decayed = np.zeros(6)
    for step in range(5):
        decayed = 0.9 * decayed + batch_counts(step)
    np.testing.assert_allclose(counts_after(regularised(window="ema", ema_decay=0.9), 5), decayed, rtol=1e-5)


def test_accumulation_advances_the_statistics_once_an_update():
    split = tiny.pipeline(row_multiple=4, accumulation=4)
    np.testing.assert_array_equal(  # halves of small whole numbers are exact
        counts_after(regularised(ema_decay=0.5), 3, split), counts_after(regularised(ema_decay=0.5), 3)
    )


def test_fewer_than_two_seen_classes_add_nothing():
    batch = tiny.pipeline().batch(0)
    batch["slots"] = np.full_like(batch["slots"], 6)
    objective, params = regularised(), tiny.params()
    loss, (metrics, _) = tiny.evaluate(objective, params, objective.init(params), batch, None)
    assert float(metrics["nc3_loss"][0]) == 0.0
    assert jnp.isfinite(loss)
