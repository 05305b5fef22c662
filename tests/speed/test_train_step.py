"""A compiled step on generated sentences: it does what a run's step does, and what is left out of it is what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.models.families import family_of
from ncfair_jax.models.presets import preset_model
from ncfair_jax.speed import train_step
from ncfair_jax.speed.contestants import SpeedError
from ncfair_jax.speed.data import pipeline_of, sentences_of
from ncfair_jax.speed.train_step import TrainStep, made_ahead, random_params
from tests.rounding import encoder_operations, rounding

MODEL = dataclasses.replace(preset_model("tiny", "float32", "xla"), num_layers=1)


@pytest.fixture(scope="module")
def pipeline():
    return pipeline_of(sentences_of(4, 64, MODEL.vocab_size), "rows", 4, row_tokens=64, vocab_size=MODEL.vocab_size)


@pytest.fixture(scope="module")
def step(pipeline):
    return TrainStep(MODEL, pipeline)


@pytest.fixture(scope="module")
def start(step):
    """A copy of the state before the first step."""
    return jax.tree.map(jnp.copy, step.state)


def test_without_the_guard_the_same_is_learned(step, start, pipeline):
    """The same parameters after a step, one figure less."""
    bare = TrainStep(MODEL, pipeline, guarded=False)
    bare.again(1)
    state, metrics = step.compiled(jax.tree.map(jnp.copy, start), step.put)
    moved = train_step.OptimizerConfig().learning_rate  # the most that a parameter moves in the first step of Adam
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=moved / 100), state.params, bare.state.params)
    assert float(metrics["loss"][0]) == pytest.approx(bare.loss(), rel=rounding(encoder_operations(MODEL) + 1000))
    assert set(metrics) - set(bare.metrics) == {"grad_norm"}
    assert {"nc3_loss", "mlm_loss"} <= set(metrics)


def test_it_advances_and_takes_its_own_batches(step, start, pipeline):
    assert step.again(2) > 0 and step.fresh(3) > 0 and step.batch_seconds(1) > 0
    assert step.done == 5 == int(step.state.step) and int(start.step) == 0
    assert np.isfinite(step.loss())
    assert step.tokens == (pipeline.batch(0)["segment_ids"] > 0).sum() > 0.9 * 4 * 64
    assert step.flops > 0 and step.peak_bytes > 3 * 4 * 1000 * 32  # parameters and both moments of the embeddings


def test_a_refused_step_is_told(step):
    step.done += 1  # the state does not take a batch out of order
    step.again(1)
    with pytest.raises(SpeedError, match="at step 5 after 7 steps: one was refused"):
        step.loss()


def test_weights_are_as_a_family_draws_them():
    ours = random_params(MODEL)
    theirs = jax.eval_shape(lambda: family_of(MODEL).init(MODEL, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), ours) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), theirs
    )
    layer = ours["encoder"]["layer_0"]
    assert (layer["norm"]["scale"] == 1).all() and not layer["attention"]["query"]["bias"].any()
    for matrix in (ours["embeddings"]["word"]["embedding"], layer["intermediate"]["kernel"]):
        assert matrix.std() == pytest.approx(0.02, rel=0.1) and abs(matrix.mean()) < 0.002


@pytest.mark.parametrize("grain", [True, False])
def test_batches_made_ahead_are_those_of_the_pipeline(pipeline, monkeypatch, grain):
    monkeypatch.setattr(train_step.importlib.util, "find_spec", lambda name: grain or None)
    made = list(made_ahead(pipeline, 2, 14))
    assert [int(batch["step"]) for batch in made] == list(range(2, 14))
    np.testing.assert_array_equal(made[-1]["tokens"], pipeline.batch(13)["tokens"])
