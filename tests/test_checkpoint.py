"""Checkpoints: the whole state comes back, what does not belong is refused, damage is named, the best is kept."""

import dataclasses
import os
import shutil

import jax
import numpy as np
import pytest

from ncfair_jax.checkpoint import CheckpointError, Checkpoints, read_checkpoint_params, restore_params, save_params
from ncfair_jax.config import OptimizerConfig
from ncfair_jax.files.atomic import DiskFullError
from ncfair_jax.files.digests import damaged
from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, NC3Config, with_nc3
from ncfair_jax.models.dropout import GENERATORS
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.state import init_state, make_train_step
from tests import tiny

WRITTEN_LAST = ("_CHECKPOINT_METADATA", "commit_success.txt")  # times, and that it is done
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


@pytest.mark.parametrize("generator", list(GENERATORS.values()))
def test_a_restored_state_draws_the_same_dropout(tmp_path, generator):
    model = dataclasses.replace(tiny.MODEL, hidden_dropout=0.1, attention_dropout=0.1)
    objective, (tx, _) = mlm_objective(model), make_optimizer(OptimizerConfig(), 10)
    step, pipeline = jax.jit(make_train_step(objective, tx)), tiny.pipeline()
    fresh = jax.jit(lambda p: init_state(p, objective, tx, jax.random.key(7, impl=generator)))(tiny.params())
    state, _ = step(fresh, pipeline.batch(0))
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.save(1, state, IDENTITY, {})
    checkpoints.wait()
    restored = checkpoints.restore(1, fresh, IDENTITY)
    checkpoints.close()
    assert str(jax.random.key_impl(restored.rng)) == generator
    ours, theirs = (step(each, pipeline.batch(1))[0] for each in (restored, state))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(raw(a), raw(b)), ours, theirs)
    assert int(ours.step) == 2


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
    with pytest.raises(CheckpointError, match=r"cannot be read.*another --workdir$"):
        checkpoints.restore(1, state, IDENTITY)
    checkpoints.close()


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory, state):
    """A workdir with two checkpoints, of which the second has other parameters."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    checkpoints.save(1, state, IDENTITY, {})
    checkpoints.save(2, dataclasses.replace(state, params=jax.tree.map(lambda x: x + 1, state.params)), IDENTITY, {})
    checkpoints.close()
    return workdir


def flip_a_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the disk flips bits without telling


def files_of(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]


def test_every_flipped_bit_is_noticed(two_saved):
    rng = np.random.default_rng(0)
    folder = two_saved / "checkpoints" / "2"
    files = [path for path in files_of(folder) if path not in [folder / name for name in WRITTEN_LAST]]
    assert damaged(folder) == [] and len(files) > 10
    for _ in range(20):
        for path in files:
            whole = path.read_bytes()
            flip_a_bit(path, rng)
            assert damaged(folder), path
            path.write_bytes(whole)
    assert damaged(folder) == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "no digests"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before_it(two_saved, tmp_path, state, damage, capsys):
    workdir = shutil.copytree(two_saved, tmp_path / "run")
    folder = workdir / "checkpoints" / "2"
    data = max((folder / "params").rglob("d/*"), key=lambda path: path.stat().st_size)
    match damage:
        case "flipped":
            flip_a_bit(data, np.random.default_rng(1))
        case "cut":
            data.write_bytes(data.read_bytes()[:100])
        case "gone":
            data.unlink()
        case "no digests":
            (folder / "digests.json").unlink()
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    restored = checkpoints.restore_newest(state, IDENTITY)
    assert restored is not None and restored.step == 1
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(raw(a), raw(b))
    told = capsys.readouterr().err
    assert told.startswith("checkpoint 2 is not used: ") and told.count("\n") == 1
    assert f"It is now {workdir / 'damaged' / 'checkpoint-2-1'}; going on from the one before it" in told
    assert files_of(workdir / "damaged" / "checkpoint-2-1")
    checkpoints.save(2, state, IDENTITY, {})
    checkpoints.close()
    assert damaged(folder) == [] and (folder / "digests.json").exists()


@pytest.mark.parametrize("name", WRITTEN_LAST)
def test_what_orbax_writes_after_the_digests_changes_nothing(two_saved, tmp_path, state, name):
    workdir = shutil.copytree(two_saved, tmp_path / "run")
    flip_a_bit(workdir / "checkpoints" / "2" / name, np.random.default_rng(2))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    restored = checkpoints.restore_newest(state, IDENTITY)
    checkpoints.close()
    assert restored is not None and restored.step == 2
    for a, b in zip(jax.tree.leaves(restored.state.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b + 1)


def test_a_disk_without_room_is_one_line_and_leaves_no_half_checkpoint(two_saved, tmp_path, state, monkeypatch):
    workdir = shutil.copytree(two_saved, tmp_path / "run")
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    told = r"^disk full while writing checkpoint 3; step 2 is intact; free space and run again$"
    with pytest.raises(DiskFullError, match=told):
        checkpoints.save(3, state, IDENTITY, {})
    checkpoints.close()
    assert sorted(os.listdir(workdir / "checkpoints")) == ["1", "2"]


def test_parameters_of_another_runs_checkpoint(two_saved, tmp_path, state):
    there = f"{two_saved}@2"
    found = read_checkpoint_params(there, state.params | {"own": {"bias": np.zeros(3)}}, optional=("own",))
    for a, b in zip(
        jax.tree.leaves(found), jax.tree.leaves(state.params | {"own": {"bias": np.zeros(3) - 1}}), strict=True
    ):
        np.testing.assert_array_equal(a, b + 1)
    for asked, told in [
        ("run", "expected RUN@STEP"),
        (f"{two_saved}@x", "expected RUN@STEP"),
        (f"{two_saved}@7", r"has steps \[1, 2\]"),
        (f"{tmp_path}@7", "has no checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=told):
            read_checkpoint_params(asked, state.params)
    with pytest.raises(CheckpointError, match="it has no own/bias of this model's shape"):
        read_checkpoint_params(there, state.params | {"own": {"bias": np.zeros(3)}})
    workdir = shutil.copytree(two_saved, tmp_path / "run")
    flip_a_bit(max(files_of(workdir / "checkpoints" / "2"), key=lambda x: x.stat().st_size), np.random.default_rng(3))
    with pytest.raises(CheckpointError, match=r"is damaged .*take another checkpoint"):
        read_checkpoint_params(f"{workdir}@2", state.params)


def test_newest_and_best_are_kept(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=1, best="dev_loss")
    for step, value in enumerate([3.0, 1.0, 2.0, 2.5], start=1):
        checkpoints.save(step, state, IDENTITY, {"dev_loss": value})
        checkpoints.wait()
    assert checkpoints.restore_best(state, IDENTITY).step == 2
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "4"]


def test_params_alone(tmp_path, state):
    save_params(tmp_path / "p", state.params)
    restored = restore_params(tmp_path / "p", state.params)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)
