"""The step: it learns, refuses what is not finite and a batch that is not its own, and does not wait for the host."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax import train
from ncfair_jax.config import MeshConfig, OptimizerConfig
from ncfair_jax.lexicons.synthetic import synthetic_classes
from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, PAPER, NC3Config, with_nc3
from ncfair_jax.models import bert
from ncfair_jax.models.presets import preset_model
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.prepare import prepare_training
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from ncfair_jax.sharding import make_mesh
from ncfair_jax.speed.accelerator import synthetic_pipeline
from ncfair_jax.state import init_state, make_train_step
from tests import tiny, tiny_text


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


def array_reads(monkeypatch, told: Callable[[], None]) -> None:
    """`told` is called from now on whenever the host reads an array or waits for one."""
    array = type(jnp.zeros(()))
    value, as_numpy, wait = array._value, array.__array__, array.block_until_ready
    monkeypatch.setattr(array, "_value", property(lambda self: (told(), value.fget(self))[1]))
    monkeypatch.setattr(array, "__array__", lambda self, *args, **kwargs: (told(), as_numpy(self, *args, **kwargs))[1])
    monkeypatch.setattr(array, "block_until_ready", lambda self: (told(), wait(self))[1])


def test_nothing_is_read_between_two_log_points(monkeypatch, tmp_path):
    """With NC3, the guard against what is not finite, the norm of the gradient, and tracking."""
    model, text = tiny_text.write(tmp_path, count=60)
    config = base_config("aligned")
    config.model.path, config.data.corpus, config.data.path = str(model), "text", str(text)
    config.data.max_tokens = config.data.row_tokens = 32
    config.nc3.weight, config.train.batch_size, config.train.steps = 1.0, 8, 12
    config.train.log_every, config.train.save_every, config.train.collapse_every = 4, 12, 8
    run = prepare_training(freeze(config), make_mesh(MeshConfig(), 1))
    events: list[str] = []
    compiling: dict[tuple, str] = {}  # the first step of each shape, which reads the constants of its program
    put = train.put_batch

    def putting(batch, mesh):
        events.append(f"step {int(batch['step']) + 1}")
        compiling.setdefault((batch["tokens"].shape, batch["masked_positions"].shape), events[-1])
        return put(batch, mesh)

    monkeypatch.setattr(train, "put_batch", putting)
    array_reads(monkeypatch, lambda: events.append("read"))
    train.train(run, tmp_path / "run")
    reads = {name: after.count("read") for name, after in chapters(events).items()}
    assert list(reads) == [f"step {step}" for step in range(1, 13)]
    assert len(compiling) < 6
    logs = {"step 4", "step 8", "step 12"}
    assert {name for name, count in reads.items() if count} - set(compiling.values()) == logs - set(compiling.values())


def chapters(events: list[str]) -> dict[str, list[str]]:
    """What happened after each step was given its batch, and before the next."""
    found: dict[str, list[str]] = {}
    for event in events:
        if event.startswith("step"):
            found[event] = []
        elif found:
            found[list(found)[-1]].append(event)
    return found


@pytest.mark.parametrize(("settings", "most"), [(PAPER, 0.0005), (ALIGNED, 0.008)])
def test_operations_that_nc3_adds_at_the_size_of_bert_base(settings, most):
    """Counted by XLA in the program as it is written; "aligned" takes every token through the head's dense layer."""
    model = dataclasses.replace(preset_model("bert-base", "bfloat16", "xla"), num_layers=2)
    deep = dataclasses.replace(model, num_layers=4)
    classes = synthetic_classes(model.vocab_size)
    batch = synthetic_pipeline(model, 128, 32).batch(0)

    def operations(model, weight: float) -> float:
        objective = mlm_objective(model)
        if weight:
            objective = with_nc3(objective, NC3Config(weight=weight, **settings), classes, model, 1)
        tx, _ = make_optimizer(OptimizerConfig(), 10)
        params = jax.eval_shape(lambda: bert.init(model, jax.random.key(0)))
        state = jax.eval_shape(lambda params: init_state(params, objective, tx, jax.random.key(0)), params)
        return jax.jit(make_train_step(objective, tx)).lower(state, batch).cost_analysis()["flops"]

    plain = operations(model, 0.0)
    whole = plain + 5 * (operations(deep, 0.0) - plain)  # 12 layers
    assert 0 < operations(model, 1.0) - plain < most * whole
