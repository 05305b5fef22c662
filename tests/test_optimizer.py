"""Schedules by hand, decay and freezing by path."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.config import ConfigError, OptimizerConfig
from ncfair_jax.optimizer import alternatives, make_optimizer, make_schedule, refuse_without_effect
from tests import tiny
from tests.rounding import rounding


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]), ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0])],
)
def test_schedule_by_hand(schedule, expected):
    rate = make_schedule(OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2), 6)
    np.testing.assert_allclose([float(rate(step)) for step in range(7)], expected, atol=rounding(4))


def test_cosine_halves_at_half_time():
    rate = make_schedule(OptimizerConfig(learning_rate=2.0, schedule="cosine"), 10)
    np.testing.assert_allclose([float(rate(step)) for step in (0, 5, 10)], [2.0, 1.0, 0.0], atol=rounding(4, size=2))


def test_first_update_without_warmup_has_the_full_rate():
    assert float(make_schedule(OptimizerConfig(learning_rate=2e-5), 900)(0)) == pytest.approx(2e-5, rel=rounding(2))


def params():
    layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    return {"encoder": {"layer_0": {"output": layer, "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}}}


def test_weight_decay_spares_biases_and_norms():
    tx, _ = make_optimizer(OptimizerConfig(learning_rate=1.0, schedule="constant", weight_decay=0.5), 10)
    start = params()
    zeros = {
        "encoder": {
            "layer_0": {k: {n: jnp.zeros_like(x) for n, x in v.items()} for k, v in start["encoder"]["layer_0"].items()}
        }
    }
    updates, _ = tx.update(zeros, tx.init(start), start)
    layer = updates["encoder"]["layer_0"]
    np.testing.assert_allclose(layer["output"]["kernel"], -0.5)
    for still in (layer["output"]["bias"], layer["norm"]["scale"], layer["norm"]["bias"]):
        np.testing.assert_array_equal(still, 0)


def test_adamw_step_by_hand_after_clipping():
    tx, _ = make_optimizer(OptimizerConfig(learning_rate=0.1, schedule="constant", clip_norm=1.0), 10)
    start = {"w": {"kernel": jnp.array([1.0, 2.0])}}
    updates, _ = tx.update({"w": {"kernel": jnp.array([3.0, 4.0])}}, tx.init(start), start)
    clipped = np.array([0.6, 0.8])  # norm 5 -> 1
    m, v = 0.1 * clipped / (1 - 0.9), 0.001 * clipped**2 / (1 - 0.999)
    np.testing.assert_allclose(updates["w"]["kernel"], -0.1 * m / (np.sqrt(v) + 1e-8), rtol=1e-5)


def test_frozen_parameters_do_not_move_and_do_not_count_for_the_clip():
    config = OptimizerConfig(learning_rate=1.0, schedule="constant", clip_norm=1.0, freeze="frozen/")
    tx, _ = make_optimizer(config, 10)
    start = {"frozen": {"kernel": jnp.ones(2)}, "moving": {"kernel": jnp.ones(2)}}
    updates, _ = tx.update(
        {"frozen": {"kernel": jnp.full(2, 1e9)}, "moving": {"kernel": jnp.full(2, 0.1)}}, tx.init(start), start
    )
    np.testing.assert_array_equal(updates["frozen"]["kernel"], 0)
    np.testing.assert_allclose(updates["moving"]["kernel"], -1.0, rtol=1e-5)


def test_the_method_has_its_own_rate_and_clip():
    """First step of Adam: the size of the update is the learning rate, whatever the gradient's; no decay, no warm-up."""
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=10, weight_decay=0.5, method_learning_rate=1e-2)
    tx, _ = make_optimizer(config, 100)
    params = {"encoder": {"kernel": jnp.ones(2)}, "method": {"kernel": jnp.ones(2)}}
    grads = {"encoder": {"kernel": jnp.full(2, 1e3)}, "method": {"kernel": jnp.full(2, 1e-3)}}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["encoder"]["kernel"], 0)
    # Clipped together with the encoder's gradient it would be so small that eps is felt (1.4%).
    np.testing.assert_allclose(updates["method"]["kernel"], -1e-2, rtol=1e-4)
    frozen, _ = make_optimizer(dataclasses.replace(config, freeze="^encoder/"), 100)
    updates, _ = frozen.update(grads, frozen.init(params), params)
    assert not np.any(updates["encoder"]["kernel"]) and np.all(updates["method"]["kernel"] < 0)


@pytest.mark.parametrize(
    ("pattern", "each"),
    [
        ("encoder", ["encoder"]),
        ("embeddings|encoder", ["embeddings", "encoder"]),
        ("^(a|b)/", ["^(a|b)/", "^(?:a)/", "^(?:b)/"]),
        ("(a|b)(c|d)", ["(a|b)(c|d)", "(?:a)(c|d)", "(?:b)(c|d)", "(a|b)(?:c)", "(a|b)(?:d)"]),
        ("a(?:b|c(d|e))", ["a(?:b|c(d|e))", "a(?:b)", "a(?:c(d|e))", "a(?:c(?:d))", "a(?:c(?:e))"]),
        (r"[a|b]c|d\|e", ["[a|b]c", r"d\|e"]),
        ("(a|b)+|(?!c|d)e", ["(a|b)+", "(?!c|d)e"]),
        (r"(a|b)\1", [r"(a|b)\1"]),
        ("(?i)a|b", ["(?i)a|b"]),
    ],
)
def test_alternatives_of_a_pattern(pattern, each):
    assert alternatives(pattern) == each


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"freeze": "emebddings"},
            "freeze='emebddings' matches no parameter; their paths begin with embeddings/, encoder/, mlm/",
        ),
        (
            {"freeze": "encoder|emebddings"},
            "freeze='encoder|emebddings', in its part 'emebddings', matches no parameter",
        ),
        ({"freeze": "^(encodr|embeddings)/"}, r"in its part '\^\(\?:encodr\)/', matches no parameter"),
        ({"freeze": "embeddings|encoder|mlm"}, "matches every parameter: nothing is left to train"),
        ({"warmup_steps": 30}, "warmup_steps=30: the run ends within the warm-up, it has 30 updates"),
        ({"warmup_steps": 500}, "warmup_steps=500: the run ends within the warm-up"),
        ({"method_learning_rate": 1e-3}, "method_learning_rate=0.001 has no effect: the method has no parameters"),
    ],
)
def test_settings_that_change_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message.replace("|emb", r"\|emb")):
        refuse_without_effect(OptimizerConfig(**settings), tiny.params(), 30)


def test_settings_with_an_effect_are_taken():
    params = tiny.params() | {"method": {"w": jnp.ones(2)}}
    for settings in (
        {"freeze": "^(embeddings|encoder|mlm)/", "method_learning_rate": 1e-3},
        {"freeze": "(embeddings|mlm)/(word|bias)", "warmup_steps": 29},
        {"freeze": "encoder/layer_[01]/"},
    ):
        refuse_without_effect(OptimizerConfig(**settings), params, 30)
