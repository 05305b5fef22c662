"""Sweeps: refused before anything runs, killed, gone on with, and one failing run among others."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ncfair_jax.config import ConfigError
from ncfair_jax.manifest import read_manifest
from ncfair_jax.recipes import base_config
from ncfair_jax.report.arms import arms_text, read_figures
from ncfair_jax.sweep import run_arms, run_config
from tests import tiny_text
from tests.started import ROOT, environment
from tests.test_arms import sweep_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_arms": ""}, "names no arm; choose from"),
        ({"run_arms": "zero,zero"}, "names an arm twice"),
        ({"seeds": "0,1,0"}, "names a seed twice"),
        ({"seeds": "0,one"}, "'one' is not a whole number from 0"),
        ({"seeds": "-1"}, "'-1' is not a whole number from 0"),
        ({"arms.nc.against": "control"}, "arm 'nc' is compared against 'control', which is no arm"),
        ({"arms.nc.against": "nc"}, "arm 'nc' is compared against itself"),
    ],
)
def test_arms_and_seeds_that_cannot_be_meant_are_refused(changes, message, tmp_path):
    config = sweep_config()
    for name, value in changes.items():
        *path, field = name.split(".")
        target = config
        for part in path:
            target = target[part]
        target[field] = value
    with pytest.raises(ConfigError, match=message):
        run_arms(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_seeds_and_worlds_need_arms(tmp_path):
    for changes in ({"seeds": "0,1"}, {"world": {"sentences": 10}}):
        config = base_config()
        config.update(changes)
        with pytest.raises(ConfigError, match=r"has no effect without arms; name them in config\.run_arms"):
            run_config(config, tmp_path)


CONFIG = """
from ml_collections import ConfigDict
from ncfair_jax.recipes import base_config

def get_config(arg=None):
    config = base_config("aligned")
    config.name = "tiny"
    config.model.path = {model!r}
    config.data.corpus = "text"
    config.data.path = {text!r}
    config.data.max_tokens = config.data.row_tokens = 32
    config.train.steps = 3
    config.evals.collapse_text = {text!r}
    config.arms = ConfigDict({{
        "plain": {{"nc3": {{"weight": 0.0}}}},
        "nc": {{"model": {{"path": "@plain"}}, "nc3": {{"weight": 1.0}}}},
        "lost": {{"model": {{"path": {model!r} + "-lost"}}}},
    }})
    config.run_arms = "plain,nc"
    config.seeds = "0,1"
    return config
"""


@pytest.mark.slow
def test_runs_of_a_killed_sweep_end_with_it_and_the_same_command_goes_on(tmp_path):
    model, text = tiny_text.write(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG.format(model=str(model), text=str(text)))
    script, work = str(ROOT / "launch" / "sweep.py"), tmp_path / "work"
    options = [f"--config={tmp_path / 'config.py'}", f"--workdir={work}", f"--compilation_cache={tmp_path / 'xla'}"]
    command = [
        sys.executable,
        script,
        *options,
        "--jobs=2",
        "--config.train.steps=2000",
        "--config.train.save_every=1999",
        "--config.run_arms=plain",
    ]
    runs = [work / f"plain-seed{seed}" for seed in (0, 1)]

    def lines(run: Path) -> int:
        return (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0

    def started() -> subprocess.Popen:
        before = [lines(run) for run in runs]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        while not all(lines(run) > count + 1 for run, count in zip(runs, before, strict=True)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        return process

    first = started()
    children = [json.loads((run / ".holder").read_text())["pid"] for run in runs]
    first.kill()
    first.wait()
    assert [run.status for run in read_manifest(work)] == ["begun", "begun"]
    deadline = time.time() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.time() < deadline, "a run outlived its sweep"
        time.sleep(0.05)
    second = started()
    second.send_signal(signal.SIGINT)  # not to the children: they get SIGTERM from their sweep, and save
    _, errors = second.communicate(timeout=100)
    assert second.returncode == 130
    assert (
        errors.strip().splitlines()[-1] == "stopped by Ctrl-C; its runs have saved; the same command goes on from there"
    )
    assert "Traceback" not in errors
    assert [run.status for run in read_manifest(work)] == ["stopped", "stopped"]
    for run in runs:  # saved where they stopped, not at a multiple of save_every
        reached = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        assert (run / "checkpoints" / str(reached) / "digests.json").exists()


@pytest.mark.slow
def test_one_process_a_run_and_a_failure_leaves_the_others_alone(tmp_path):
    model, text = tiny_text.write(tmp_path)
    (tmp_path / "config.py").write_text(CONFIG.format(model=str(model), text=str(text)))
    script = str(ROOT / "launch" / "sweep.py")
    options = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'work'}"]
    command = [sys.executable, script, *options, f"--compilation_cache={tmp_path / 'xla'}", "--jobs=2"]

    def run(*flags):
        return subprocess.run([*command, *flags], env=environment(), capture_output=True, text=True, timeout=300)

    failed = run("--config.run_arms=plain,lost")
    assert failed.returncode == 1
    assert "error: these runs failed: lost-seed0 (status 1), lost-seed1 (status 1)" in failed.stderr
    assert "model-3-lost" in failed.stderr
    assert "Traceback" not in failed.stderr
    told = {run.folder: run.status for run in read_manifest(tmp_path / "work")}
    assert told == {f"{arm}-seed{n}": s for n in (0, 1) for arm, s in (("plain", "finished"), ("lost", "failed"))}
    finished = (tmp_path / "work" / "plain-seed1" / "result.json").stat().st_mtime_ns
    done = run()
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "work" / "plain-seed1" / "result.json").stat().st_mtime_ns == finished
    table = (tmp_path / "work" / "table.md").read_text(encoding="utf-8")
    assert table.strip() in done.stdout
    assert "| figure | n | start | plain | nc |" in table
    assert " ± " in table
    assert arms_text(read_figures(tmp_path / "work" / "figures.json")) + "\n" == table
    assert (tmp_path / "work" / "figures" / "over_steps.png").exists()
