"""The MLM loss against a hand calculation, and its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np

from ncfair_jax.methods.mlm import masked_sums, mlm_objective
from ncfair_jax.models.families import family_of
from tests import tiny
from tests.rounding import encoder_operations, rounding
from tests.tiny import encode


def test_masked_sums_by_hand():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[0.2, 0.2, 0.6], [1.0, 1.0, 1.0]]]))
    sums = masked_sums(logits, jnp.array([[0, 2], [2, 0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(sums["loss"], -np.log(0.5) - np.log(0.1) - np.log(0.6), rtol=rounding(3 * 4))
    assert float(sums["correct"]) == 2.0  # positions 0 and 2; position 1 predicts 1, not 2
    assert float(sums["masked"]) == 3.0


def test_loss_equals_dense_cross_entropy_over_every_token():
    batch = tiny.pipeline().batch(0)
    params = tiny.params()
    loss, (metrics, carry) = tiny.evaluate(mlm_objective(tiny.MODEL), params, (), batch, None)
    rows = {name: value[0] for name, value in batch.items() if value.ndim}
    hidden = encode(tiny.MODEL, params, rows["tokens"], rows["segment_ids"], rows["positions"]).hidden_states
    logits = np.asarray(
        family_of(tiny.MODEL).logits(tiny.MODEL, params, family_of(tiny.MODEL).features(tiny.MODEL, params, hidden)),
        np.float64,
    )
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [
        -logprobs[r, rows["masked_positions"][r, p], rows["masked_labels"][r, p]]
        for r in range(logits.shape[0])
        for p in np.flatnonzero(rows["masked_weights"][r])
    ]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    assert float(metrics["mlm_loss"][1]) == len(expected)
    assert carry == ()


def test_no_masked_position_gives_zero_not_nan():
    batch = tiny.pipeline().batch(0)
    batch["masked_weights"] = np.zeros_like(batch["masked_weights"])
    objective = mlm_objective(tiny.MODEL)
    value, grads = jax.jit(jax.value_and_grad(lambda p: tiny.evaluate(objective, p, (), batch, None)[0]))(tiny.params())
    assert float(value) == 0.0
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(grads))


def test_gradient_against_finite_differences():
    batch = tiny.pipeline().batch(1)
    objective = mlm_objective(tiny.MODEL)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tiny.params())

        def loss(p):
            return tiny.evaluate(objective, p, (), batch, None)[0]

        grads = jax.jit(jax.grad(loss))(params)
        direction = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape)), params)
        step = 1e-3  # the encoder computes LayerNorm and softmax in float32, which bounds the difference quotient
        ahead, back = (loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction)) for s in (step, -step))
        slope = sum(
            float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
        )
    np.testing.assert_allclose((float(ahead) - float(back)) / (2 * step), slope, rtol=2e-3)


def test_micro_batches_change_nothing_but_memory():
    params = tiny.params()
    objective = mlm_objective(tiny.MODEL)

    def value_and_grad(accumulation):
        batch = tiny.pipeline(row_multiple=4, accumulation=accumulation).batch(0)
        return jax.jit(jax.value_and_grad(lambda p: tiny.evaluate(objective, p, (), batch, None)[0]))(params)

    (one, grads_one), (four, grads_four) = value_and_grad(1), value_and_grad(4)
    # The way through the encoder (and back), the sum over the tokens and the softmax over the vocabulary.
    operations, largest = (
        encoder_operations(tiny.MODEL) + tiny.VOCAB + 128,
        max(np.abs(g).max() for g in jax.tree.leaves(grads_four)),
    )
    np.testing.assert_allclose(one, four, rtol=rounding(operations))
    for a, b in zip(jax.tree.leaves(grads_one), jax.tree.leaves(grads_four), strict=True):
        np.testing.assert_allclose(a, b, atol=rounding(2 * operations, largest))
