"""Checkpoints: the whole state comes back, what does not belong is refused, damage is named, the best is kept."""

import jax
import numpy as np
import pytest

from ncfair_jax.checkpoint import CheckpointError, Checkpoints, restore_params, save_params
from ncfair_jax.config import ALIGNED, NC3Config, OptimizerConfig
from ncfair_jax.objectives import with_nc3
from ncfair_jax.objectives.mlm import mlm_objective
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.state import init_state
from tests import tiny

IDENTITY = {"config": {"seed": 1, "nc3": {"weight": 2.0}}, "corpus": "abc"}


@pytest.fixture(scope="module")
def state():
    nc3 = NC3Config(weight=1.0, **ALIGNED)
    objective = with_nc3(mlm_objective(tiny.MODEL), nc3, tiny.classes(), tiny.MODEL, 5)
    tx, _ = make_optimizer(OptimizerConfig(), 10)
    return jax.jit(lambda p: init_state(p, objective, tx, jax.random.key(7)))(tiny.params())


def raw(leaf):
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def test_everything_comes_back(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    checkpoints.save(3, state, IDENTITY, {})
    checkpoints.wait()
    checkpoints.close()
    again = Checkpoints(tmp_path / "c", keep=2)
    assert again.latest() == 3
    restored = again.restore(3, state, IDENTITY)
    again.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(raw(a), raw(b))


def test_another_identity_is_refused_naming_both_sides(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(1, state, IDENTITY, {})
    checkpoints.wait()
    other = {"config": {"seed": 1, "nc3": {"weight": 5.0}}, "corpus": "xyz"}
    with pytest.raises(
        CheckpointError, match=r"run\.config\.nc3\.weight: 5\.0 here, 2\.0 there.*run\.corpus: 'xyz' here"
    ):
        checkpoints.restore(1, state, other)
    checkpoints.close()


def test_a_damaged_file_is_one_line(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(1, state, IDENTITY, {})
    checkpoints.wait()
    for data in (tmp_path / "c" / "1" / "params").rglob("d/*"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cannot be read.*delete that folder"):
        checkpoints.restore(1, state, IDENTITY)
    checkpoints.close()


def test_newest_and_best_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, best="dev_loss")
    for step, value in enumerate([3.0, 1.0, 2.0, 2.5], start=1):
        checkpoints.save(step, state, IDENTITY, {"dev_loss": value})
        checkpoints.wait()
    assert checkpoints.best_step() == 2
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "4"]


def test_params_alone(tmp_path, state):
    save_params(tmp_path / "p", state.params)
    restored = restore_params(tmp_path / "p", state.params)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)
