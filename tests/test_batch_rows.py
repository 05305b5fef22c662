"""Runs whose batches are counted in rows: the same on any devices and processes, resumed, refused where they cannot be."""

import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from ncfair_jax.checkpoint import CheckpointError
from ncfair_jax.config import ConfigError, MeshConfig
from ncfair_jax.data import pipeline
from ncfair_jax.prepare import prepare
from ncfair_jax.registry import METHODS, validate
from ncfair_jax.sharding import make_mesh
from tests.data.test_batches import changes, config_of, folder  # noqa: F401 (a fixture)
from tests.test_prepare import prepared
from tests.test_prepare import setting as small  # noqa: F401 (a fixture)
from tests.test_processes import place_flags, port  # noqa: F401 (a fixture)
from tests.test_train import (
    command,
    environment,
    kill_when,
    metrics,
    run_here,
    same_end,
    setting,  # noqa: F401 (a fixture)
    succeed,
)

# 60 sentences fill about 20 rows: an epoch ends in the middle of each third step or so.
BY_ROWS = {"train.batch_size": 0, "train.batch_rows": 8, "train.row_groups": 4}
FLAGS = [f"--config.{name}={value}" for name, value in BY_ROWS.items()]


@pytest.fixture(scope="module")
def by_rows(setting) -> Path:  # noqa: F811
    workdir = setting / "by_rows"
    run_here(setting, workdir, BY_ROWS)
    return workdir


def losses(workdir: Path) -> np.ndarray:
    return np.array([line["loss"] for line in metrics(workdir)])


def test_a_run_by_rows_trains_and_reports(by_rows):
    lines = metrics(by_rows)
    assert len(lines) == 24
    assert all(0 <= line["pad_fraction"] < 0.3 and line["examples_per_second"] > 0 for line in lines)
    assert np.mean(losses(by_rows)[-4:]) < np.mean(losses(by_rows)[:4])


@pytest.mark.usefixtures("eight_devices")
def test_eight_devices_do_what_one_does(setting, by_rows):  # noqa: F811
    run_here(setting, setting / "eight_rows", BY_ROWS)
    np.testing.assert_allclose(losses(setting / "eight_rows")[:20], losses(by_rows)[:20], rtol=1e-4)


@pytest.mark.slow
def test_two_processes_of_four_devices_do_what_one_does(setting, by_rows, port):  # noqa: F811
    """By examples: `test_train.py`."""
    two = setting / "two_rows"
    commands = [command(setting, two, *place_flags(port, 2, i), *FLAGS) for i in range(2)]
    both = [subprocess.Popen(args, env=environment(4), stderr=subprocess.PIPE, text=True) for args in commands]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    np.testing.assert_allclose(losses(two)[:20], losses(by_rows)[:20], rtol=1e-4)


@pytest.mark.slow
def test_killed_on_both_sides_of_an_epochs_end_it_ends_bit_for_bit_the_same(setting):  # noqa: F811
    whole, killed = setting / "whole_rows", setting / "killed_rows"
    succeed(setting, whole, *FLAGS)
    log = killed / "metrics.jsonl"
    for lines in (4, 9, 16):  # an epoch takes two or three steps, and every third step is saved
        process = subprocess.Popen(command(setting, killed, *FLAGS), env=environment(1), stderr=subprocess.PIPE)
        kill_when(process, lambda lines=lines: log.exists() and log.read_text().count("\n") >= lines)
    succeed(setting, killed, *FLAGS)
    same_end(killed, whole, 24)
    assert losses(killed).tolist() == losses(whole).tolist()


def test_an_unfinished_run_of_an_earlier_data_path_is_refused_in_one_line(setting, monkeypatch):  # noqa: F811
    workdir = setting / "earlier"
    run_here(setting, workdir, {"train.steps": 3})
    (workdir / "result.json").unlink()
    (workdir / "export" / "digests.json").unlink()
    for path in (workdir / "export").iterdir():
        path.unlink()
    (workdir / "export").rmdir()
    monkeypatch.setattr("ncfair_jax.prepare.VERSION", pipeline.VERSION + 1)
    with pytest.raises(
        CheckpointError,
        match=f"another version began, whose batches were others: {pipeline.VERSION + 1} here, {pipeline.VERSION} there",
    ) as told:
        run_here(setting, workdir, {"train.steps": 3})
    assert "\n" not in str(told.value)


def test_total_steps_and_development_batches(small):  # noqa: F811
    rows = {"batch_size": 0, "batch_rows": 4, "row_groups": 2, "collapse_every": 0}
    run = prepared(small, train=rows | {"steps": 0, "epochs": 3.0, "dev_every": 2}, data={"dev_examples": 10})
    made = run.pipeline
    assert run.total_steps == made.steps_of(3.0) == 3 * made._groups.rows_of_epoch // 2
    assert abs(run.total_steps - 3 * made.steps_per_epoch) <= 3
    dev = run.dev
    assert dev is not None and dev.config.batch_rows == 0
    ids = np.concatenate([dev.example_ids(step) for step in range(dev.steps_per_epoch)])
    assert sorted(ids.tolist()) == list(range(10))
    assert max(dev.batch(step)["tokens"].shape[1] for step in range(dev.steps_per_epoch)) <= 6


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"accumulation": 2, "batch_rows": 6, "row_groups": 6}, None),
        ({"batch_rows": 4, "row_groups": 1}, r"row_groups=1 does not divide over 2 processes; take a multiple of 2$"),
        ({"batch_rows": 4}, None),
    ],
)
def test_processes_need_groups(small, monkeypatch, train, message):  # noqa: F811
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    changed = {"batch_size": 0, "steps": 3, "collapse_every": 0} | train
    if message is None:
        prepared(small, train=changed)
    else:
        with pytest.raises(ConfigError, match=message):
            prepared(small, train=changed)


@pytest.mark.usefixtures("eight_devices")
def test_devices_need_rows(small):  # noqa: F811
    with pytest.raises(ConfigError, match=r"batch_rows=12 does not divide over the devices .* take a multiple of 8$"):
        prepared(small, train={"batch_size": 0, "batch_rows": 12, "row_groups": 4})


@pytest.mark.parametrize("name", ["mabel", "adept", "ase", "coref"])
def test_methods_that_need_whole_batches_refuse_rows_in_one_line(folder, name):  # noqa: F811
    rows = {"batch_size": 0, "batch_rows": 8, "row_groups": 4}
    config = config_of(name, changes(folder, name) | {"train": rows})
    with pytest.raises(
        ConfigError, match=rf"^config\.train\.batch_rows=8: {name} needs all examples of a batch together"
    ):
        prepare(config, make_mesh(MeshConfig(), 1))
    if not METHODS[name].accumulates:
        with pytest.raises(
            ConfigError, match=rf"^config\.train\.batch_rows=8: {name} compares the examples of a batch"
        ):
            validate(config)


@pytest.mark.parametrize("name", ["bios", "bias_nli"])
def test_labelled_tasks_go_by_rows(folder, name):  # noqa: F811
    parts = changes(folder, name)
    parts = parts | {"train": {"batch_size": 0, "batch_rows": 4, "row_groups": 2}}
    made = prepare(config_of(name, parts), make_mesh(MeshConfig(), 1)).pipeline
    for step in range(3):
        batch, ids = made.batch(step), made.example_ids(step)
        used = batch["masked_weights"][0] > 0
        at = np.nonzero(used)[0], batch["masked_positions"][0][used]
        assert used.sum() == len(ids)
        assert sorted(batch["labels"][0][at].tolist()) == sorted(made.examples.of_examples["labels"][ids].tolist())
