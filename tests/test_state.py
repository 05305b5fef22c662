"""The step: it learns, refuses what is not finite, and refuses a batch that is not its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.config import OptimizerConfig
from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, NC3Config, with_nc3
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.state import init_state, make_train_step
from tests import tiny


def start(freeze=""):
    objective = with_nc3(
        mlm_objective(tiny.MODEL), NC3Config(weight=1.0, **ALIGNED), tiny.classes(), tiny.MODEL, steps_per_epoch=5
    )
    tx, _ = make_optimizer(OptimizerConfig(learning_rate=3e-3, schedule="constant", freeze=freeze), 100)
    step = jax.jit(make_train_step(objective, tx))
    return init_state(tiny.params(), objective, tx, jax.random.key(0)), step


def test_loss_falls_and_every_parameter_moves():
    state, step = start()
    first = state
    pipeline = tiny.pipeline()
    losses = []
    for index in range(250):
        state, metrics = step(state, pipeline.batch(index))
        losses.append(float(metrics["loss"][0]))
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.5
    for path, before in jax.tree_util.tree_leaves_with_path(first.params):
        after = state.params
        for key in path:
            after = after[key.key]
        # Unused rows (positions past the longest sentence, token type 1) stay; each tensor as a whole moves.
        assert float(jnp.abs(after - before).max()) > 0, jax.tree_util.keystr(path)


def test_frozen_parameters_stay_bitwise():
    state, step = start(freeze="encoder/layer_0|embeddings/position")
    before = state.params
    for index in range(3):
        state, _ = step(state, tiny.pipeline().batch(index))
    after = state.params
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(
            after["encoder"]["layer_0"]["output"][name], before["encoder"]["layer_0"]["output"][name]
        )
    moved = after["encoder"]["layer_1"]["output"]["kernel"] - before["encoder"]["layer_1"]["output"]["kernel"]
    assert float(jnp.abs(moved).max()) > 0


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_bad_step_changes_nothing_and_freezes_what_follows(poison):
    state, step = start()
    pipeline = tiny.pipeline()
    state, _ = step(state, pipeline.batch(0))
    bad = pipeline.batch(1)
    bad["masked_weights"] = bad["masked_weights"] * np.float32(poison)
    after, metrics = step(state, bad)
    assert not np.isfinite(float(metrics["loss"][0]))
    later, _ = step(after, pipeline.batch(2))  # the loop runs on until its next log point
    for frozen in (after, later):
        assert int(frozen.step) == 1
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(frozen), strict=True):
            if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(a, b)


def test_one_compilation_per_shape():
    traces = []
    state, _ = start()
    objective = mlm_objective(tiny.MODEL)
    tx, _ = make_optimizer(OptimizerConfig(), 10)
    plain = make_train_step(objective, tx)

    @jax.jit
    def step(state, batch):
        traces.append(batch["tokens"].shape)
        return plain(state, batch)

    state = init_state(tiny.params(), objective, tx, jax.random.key(0))
    pipeline = tiny.pipeline()
    shapes = set()
    for index in range(12):
        batch = pipeline.batch(index)
        shapes.add((batch["tokens"].shape, batch["masked_positions"].shape))
        state, _ = step(state, batch)
    assert len(traces) == len(shapes)
