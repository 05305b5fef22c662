"""Our own contestant does the real step: in order, and as `state.make_train_step` does it."""

import jax
import numpy as np
import pytest

from ncfair_jax.engine import Request
from ncfair_jax.engine.requests import ATTENTION
from ncfair_jax.prepare import start_state
from ncfair_jax.sharding import put_batch
from ncfair_jax.speed import compare, flops, ours
from ncfair_jax.state import make_train_step
from tests import tiny
from tests.rounding import encoder_operations, rounding


@pytest.fixture(scope="module")
def training(world):
    settings = compare.Settings(str(world / "small"), str(world / "data"))
    config = ours.training_config(settings.model, compare.gap_file(settings), 8, 3, "aligned")
    return ours.Training(config, range(3))


def test_steps_are_those_of_a_run(training):
    """Warming up on copies must leave no trace."""
    run = training.run
    state, _ = start_state(run)
    step_fn = jax.jit(make_train_step(run.objective, run.tx))
    same = rounding(encoder_operations(run.model.config) + run.model.config.vocab_size)  # and the softmax
    for step in range(2):
        state, metrics = step_fn(state, put_batch(run.pipeline.batch(step), run.mesh))
        assert training.step(step) == pytest.approx(float(metrics["loss"][0]), rel=same)
    with pytest.raises(AssertionError, match="step 0 was refused"):
        training.step(0)


def test_work(training):
    work, batch = training.work(0), training.run.pipeline.batch(0)
    rows, tokens = batch["tokens"].shape[1:]
    assert work["sentences"] == 8
    assert work["tokens"] == (batch["segment_ids"] > 0).sum() < work["places"] == rows * tokens
    assert work["flops"] == flops.train_flops(
        training.run.model.config,
        rows=rows,
        tokens=tokens,
        scored=batch["masked_positions"].size,
        transformed=rows * tokens,
    )
    assert work["xla_flops"] > 0.5 * work["flops"]


def test_packed_score_flops():
    """Three sentences of 20 tokens, one scored column each, share one row of 64 tokens with room for 8; the head takes 4."""
    requests = [Request(np.full(20, 5 + i, np.int32), np.array([1]), np.array([7])) for i in range(3)]
    row = {"rows": 1, "tokens": 64, "scored": 4}
    assert ours.packed_flops_of(tiny.MODEL, requests) == flops.score_flops(tiny.MODEL, **row, read=8)
    requests = [request._replace(ask=ATTENTION) for request in requests]
    assert ours.packed_flops_of(tiny.MODEL, requests) == flops.score_flops(tiny.MODEL, **row)
