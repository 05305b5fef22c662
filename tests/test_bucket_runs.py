"""A run whose workdir, model and text lie on a bucket: the same as on disk, stopped and resumed, one process at a time."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from ncfair_jax import exits
from ncfair_jax.benchmarks import evaluate
from ncfair_jax.checkpoint import CheckpointError, read_checkpoint_params, restore_params
from ncfair_jax.files.atomic import remove
from ncfair_jax.files.bucket import BucketPath, path_of
from ncfair_jax.files.locking import held
from ncfair_jax.measurement import MeasureSettings, measure_models
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.report.summary import summarise_folders
from ncfair_jax.workdir import damage
from ncfair_jax.world import write_world
from tests import tiny_text
from tests.test_train import command, environment, kill_when, metrics, run_here, same_end, setting  # noqa: F401 (a fixture)

UPDATES = {"train.steps": 6, "train.save_every": 2}
FLAGS = [f"--config.{name}={value}" for name, value in UPDATES.items()]


@pytest.fixture(scope="module")
def place(bucket, setting) -> BucketPath:  # noqa: F811
    """The model and the corpus of the setting, on the bucket."""
    folder = path_of(f"{bucket}/runs")
    for path in setting.rglob("*"):
        if path.is_file() and path.relative_to(setting).parts[0] in ("model", "corpus.txt"):
            (folder / path.relative_to(setting)).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def on_disk(setting) -> Path:  # noqa: F811
    """The run that nothing disturbed, on disk."""
    run_here(setting, setting / "on_disk", UPDATES)
    return setting / "on_disk"


def test_a_run_on_a_bucket_is_that_on_disk(setting, place, on_disk):  # noqa: F811
    workdir = place / "run"
    model, text = {"model.path": str(place / "model")}, {"data.path": str(place / "corpus.txt")}
    run_here(setting, workdir, UPDATES | model | text)
    same_end(workdir, on_disk, 6)
    assert [line["loss"] for line in metrics(workdir)] == [line["loss"] for line in metrics(on_disk)]
    there, here = (
        {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and "tensorboard" not in path.parts
        }
        for folder in (workdir, on_disk)
    )
    plain = {name for name in there if not name.startswith("checkpoints")}
    assert plain == {name for name in here if not name.startswith("checkpoints") and name != ".lock"}
    assert damage(workdir) == []
    assert (workdir / "tensorboard").is_dir() and not (workdir / ".lease").exists()
    again = run_here(setting, workdir, UPDATES | model | text)  # what is done is read back
    assert again["table"] == json.loads((workdir / "result.json").read_text())["table"]
    exported = load_pretrained(str(workdir / "export"))
    for params in (
        restore_params(workdir / "checkpoints" / "6" / "params", exported.params),
        read_checkpoint_params(f"{workdir}@6", exported.params),
    ):
        jax.tree.map(np.testing.assert_array_equal, params, exported.params)
    with pytest.raises(CheckpointError, match=rf"{workdir}/checkpoints has steps \[4, 6\]"):
        read_checkpoint_params(f"{workdir}@5", exported.params)


def test_measuring_and_judging_on_a_bucket_give_the_files_of_a_disk(place, tmp_path):
    tiny_text.write(tmp_path, 3)
    write_world(tmp_path / "world", sentences=20, bias=0.9, seed=0)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            (place / "data" / path.relative_to(tmp_path)).write_bytes(path.read_bytes())
    for folder in (tmp_path, place / "data"):
        settings = MeasureSettings(corpus=str(folder / "text.txt"), permutations=9, groups=3, held_out=0.2)
        measure_models([str(folder / "model-3")], settings, folder / "out")
        model = load_pretrained(str(folder / "world" / "model"))
        evaluate(model, "crows_pairs", str(folder / "world" / "data"), folder / "out", model_name="world")
        assert summarise_folders([folder / "out"]).groups
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    there = {path.name: path.read_bytes() for path in (place / "data" / "out").iterdir() if path.is_file()}
    assert here.keys() - {".lock"} == there.keys() and len(there) > 5
    named = {"measures.json", "digests.json"}  # the path of the model, and so the digest of that file
    assert [name for name in there if here[name] != there[name] and name not in named] == []


def test_a_second_process_on_the_same_workdir_is_refused(setting, place):  # noqa: F811
    workdir = place / "leased"
    with held(workdir):
        done = subprocess.run(
            command(setting, workdir, *FLAGS), env=environment(1), capture_output=True, text=True, timeout=600
        )
    assert done.returncode == exits.MISTAKE
    told = done.stderr.splitlines()
    assert any("waiting to see whether it lives" in line for line in told)
    assert told[-1].startswith(f"error: {workdir} is in use by process {os.getpid()} on {socket.gethostname()}")


@pytest.mark.slow
def test_killed_at_any_moment_on_a_bucket_it_ends_bit_for_bit_the_same(setting, place, on_disk):  # noqa: F811
    workdir = place / "killed"
    folder = workdir / "checkpoints"

    def saving(step: int):  # orbax writes into the folder of the final name, and a file into it when all is there
        return lambda: (folder / str(step)).exists() and not (folder / str(step) / "commit_success.txt").exists()

    for moment in (saving(2), saving(4)):
        process = subprocess.Popen(command(setting, workdir, *FLAGS), env=environment(1), stderr=subprocess.PIPE)
        kill_when(process, moment, seconds=600)
    done = subprocess.run(command(setting, workdir, *FLAGS), env=environment(1), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"resuming at step [24] of 6", done.stderr)
    same_end(workdir, on_disk, 6)
    assert [line["loss"] for line in metrics(workdir)] == [line["loss"] for line in metrics(on_disk)]
    assert damage(workdir) == [] and not (workdir / ".lease").exists()


def test_a_damaged_checkpoint_on_a_bucket_is_set_aside(setting, place, on_disk, capsys):  # noqa: F811
    workdir = place / "damaged"
    run_here(setting, workdir, UPDATES)
    for name in ("result.json", "export"):
        remove(workdir / name) if name == "export" else (workdir / name).unlink()
    newest = workdir / "checkpoints" / "6"
    spoilt = max((path for path in newest.rglob("*") if "d" in path.parts), key=lambda path: path.version()[0])
    content = bytearray(spoilt.read_bytes())
    content[len(content) // 2] ^= 1
    spoilt.write_bytes(bytes(content))
    run_here(setting, workdir, UPDATES)
    assert "checkpoint 6 is not used" in " ".join(capsys.readouterr().err.split())
    assert (workdir / "damaged" / "checkpoint-6-1" / "digests.json").is_file()
    same_end(workdir, on_disk, 6)
