"""The loop as a user meets it: real processes, killed, resumed, moved to other devices, and refused."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from transformers import BertTokenizerFast

from ncfair_jax import state, train
from ncfair_jax.config import ConfigError, to_dict
from ncfair_jax.divergence import DivergedError
from ncfair_jax.finished import WorkdirError, refuse_other_run
from ncfair_jax.launcher import finish
from ncfair_jax.models.hf import Pretrained, load_pretrained, save_pretrained
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from ncfair_jax.state import make_train_step
from ncfair_jax.stopping import Interrupted
from ncfair_jax.train import train_and_evaluate
from tests import tiny, tiny_hub
from tests.started import ROOT, environment

CONFIG = """
from ncfair_jax.recipes import base_config

def get_config(arg=None):
    config = base_config("aligned")
    config.name = "tiny"
    config.model.path = {model!r}
    config.data.corpus = "text"
    config.data.path = {corpus!r}
    config.data.max_tokens = config.data.row_tokens = 32
    config.nc3.weight = 1.0
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 8
    config.train.steps = 24
    config.train.log_every = 1
    config.train.save_every = 3
    return config
"""


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Path:
    """A folder with a tiny BERT (dropout on), a corpus that uses gender words, and a config of both."""
    folder = tmp_path_factory.mktemp("setting")
    nouns = ["he", "she", "him", "her", "man", "woman", "boy", "girl", "father", "mother", "nurse", "doctor", "dog"]
    verbs = ["sees", "likes", "hears", "knows", "calls", "the", "a", "old", "young", "and"]
    vocab = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *nouns, *verbs]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=40)
    model = dataclasses.replace(tiny.MODEL, vocab_size=len(vocab), hidden_dropout=0.1, attention_dropout=0.1)
    save_pretrained(folder / "model", Pretrained(model, tiny.params(3, model), tokenizer))
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(nouns + verbs, rng.integers(4, 12))) for _ in range(60)]
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n")
    text = CONFIG.format(model=str(folder / "model"), corpus=str(folder / "corpus.txt"))
    (folder / "config.py").write_text(text)
    return folder


def command(setting: Path, workdir: Path, *flags: str) -> list[str]:
    script = str(ROOT / "launch" / "train.py")
    cache = f"--compilation_cache={setting / 'xla'}"
    return [sys.executable, script, f"--config={setting / 'config.py'}", f"--workdir={workdir}", cache, *flags]


def run(setting: Path, workdir: Path, *flags: str, devices: int = 1) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(setting, workdir, *flags), env=environment(devices), capture_output=True, text=True, timeout=300
    )


def succeed(*args, **kwargs) -> None:
    done = run(*args, **kwargs)
    assert done.returncode == 0, done.stderr[-2000:]


def run_here(setting: Path, workdir: Path, changes: dict) -> dict:
    """In this process, where no process is what is tested."""
    written: dict = {}
    exec((setting / "config.py").read_text(), written)
    config = written["get_config"]()
    config.update_from_flattened_dict(changes)
    return train_and_evaluate(freeze(config), workdir)


def metrics(workdir: Path) -> list[dict]:
    """Lines of the steps; that of step 0, before any update, must be there, once, and is checked here."""
    before, *lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert before["step"] == 0 and before["lexicon_unc3"] > 0 and "loss" not in before
    return lines


def saved_state(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by path, read without a target tree."""
    import orbax.checkpoint as ocp

    arrays = {}
    for item in ("params", "state"):
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore((workdir / "checkpoints" / str(step) / item).resolve())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return arrays


@pytest.fixture(scope="module")
def uninterrupted(setting) -> Path:
    workdir = setting / "uninterrupted"
    succeed(setting, workdir)
    return workdir


def same_end(a: Path, b: Path, step: int) -> None:
    ours, theirs = saved_state(a, step), saved_state(b, step)
    assert ours.keys() == theirs.keys()
    assert any("nc3" in name for name in ours)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert (a / "export" / "model.safetensors").read_bytes() == (b / "export" / "model.safetensors").read_bytes()


def kill_when(process: subprocess.Popen, condition, seconds: float = 200) -> None:
    """SIGKILL as soon as the condition holds."""
    deadline = time.time() + seconds
    while process.poll() is None and time.time() < deadline:
        if condition():
            process.kill()
            break
        time.sleep(0.002)
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_bit_for_bit_the_same(setting, uninterrupted):
    workdir = setting / "killed"
    log, folder = workdir / "metrics.jsonl", workdir / "checkpoints"

    def logged(lines: int):
        return lambda: log.exists() and log.read_text().count("\n") >= lines

    def saving(step: int):  # orbax writes into <step>.orbax-checkpoint-tmp… and renames when complete
        return lambda: any(step <= int(p.name.split(".")[0]) for p in folder.glob("[0-9]*.orbax-checkpoint-tmp*"))

    moments = [lambda: (workdir / "config.json").exists(), logged(2), saving(6), saving(15), logged(20)]
    for moment in moments:
        process = subprocess.Popen(command(setting, workdir), env=environment(1), stderr=subprocess.PIPE)
        kill_when(process, moment)
    succeed(setting, workdir)
    same_end(workdir, uninterrupted, 24)
    ours, theirs = metrics(workdir), metrics(uninterrupted)
    assert [line["step"] for line in ours] == list(range(1, 25))
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), pytest.param(signal.SIGINT, "Ctrl-C", marks=pytest.mark.slow)],
)
def test_a_signal_saves_leaves_and_resumes(setting, uninterrupted, number, name):
    workdir = setting / f"stopped by {name}"
    process = subprocess.Popen(command(setting, workdir), env=environment(1), stderr=subprocess.PIPE, text=True)
    log = workdir / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 4):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + number
    assert re.search(
        rf"^stopped by {name} at step \d+ of 24, which is saved; the same command goes on", errors, re.MULTILINE
    )
    assert "Traceback" not in errors
    succeed(setting, workdir)
    same_end(workdir, uninterrupted, 24)


def test_a_signal_in_the_last_step_is_not_forgotten(setting, uninterrupted, monkeypatch):
    workdir = setting / "stopped at the end"

    def requested(step: int, log_every: int) -> bool:
        if step == 24:
            os.kill(os.getpid(), signal.SIGTERM)
        return step == 24

    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_requested", requested)
        with pytest.raises(Interrupted) as stopped:
            run_here(setting, workdir, {})
    assert stopped.value.code == 143
    assert stopped.value.message == "stopped by SIGTERM while training; the same command goes on from there"
    run_here(setting, workdir, {})
    same_end(workdir, uninterrupted, 24)


@pytest.mark.slow
def test_a_run_with_the_hardware_s_random_bits_goes_on_bit_for_bit(setting, monkeypatch):
    changes = {"model.dropout_bits": "rbg"}
    run_here(setting, setting / "whole rbg", changes)
    with monkeypatch.context() as patch:
        patch.setattr(
            train, "stop_requested", lambda step, log_every: step == 10 and not os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(Interrupted):
            run_here(setting, setting / "stopped rbg", changes)
    run_here(setting, setting / "stopped rbg", changes)
    same_end(setting / "stopped rbg", setting / "whole rbg", 24)


def test_judging_can_be_stopped_and_says_so(setting, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate_model", lambda *args: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted, match="130") as stopped:
            run_here(setting, setting / "stopped in judging", {})
    assert stopped.value.message.startswith("stopped by Ctrl-C while judging the start model; ")


def test_a_workdir_is_one_process_at_a_time(setting, uninterrupted):
    workdir = setting / "twice"
    first = subprocess.Popen(command(setting, workdir), env=environment(1), stderr=subprocess.PIPE, text=True)
    while not (workdir / "metrics.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = run(setting, workdir)
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert f"twice is in use by process {first.pid} on {socket.gethostname()}; wait until it ends" in second.stderr
    _, errors = first.communicate(timeout=100)
    assert first.returncode == 0, errors
    assert [line["loss"] for line in metrics(workdir)] == [line["loss"] for line in metrics(uninterrupted)]


@pytest.mark.slow
def test_devices_and_processes_give_the_same_trajectory(setting, uninterrupted):
    eight, two = setting / "eight", setting / "two"
    succeed(setting, eight, devices=8)
    port = 20000 + os.getpid() % 20000
    flags = [f"--coordinator=localhost:{port}", "--num_processes=2"]
    both = [
        subprocess.Popen(
            command(setting, two, *flags, f"--process_id={p}"), env=environment(4), stderr=subprocess.PIPE, text=True
        )
        for p in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    one = np.array([line["loss"] for line in metrics(uninterrupted)])
    for workdir in (eight, two):
        np.testing.assert_allclose([line["loss"] for line in metrics(workdir)], one, rtol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_one_device_goes_on_on_eight(setting, uninterrupted):
    workdir = setting / "moved"
    process = subprocess.Popen(command(setting, workdir), env=environment(1), stderr=subprocess.PIPE)
    kill_when(process, lambda: (workdir / "checkpoints" / "9").exists())
    succeed(setting, workdir, "--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2", devices=8)
    expected = [line["loss"] for line in metrics(uninterrupted)]
    np.testing.assert_allclose([line["loss"] for line in metrics(workdir)], expected, rtol=1e-4)


def test_seeds_share_the_figures_of_the_start_model_whatever_the_method_adds(setting, tmp_path, monkeypatch):
    """The parameters that only MABEL has are drawn by the seed, and say nothing of the model before."""
    rows = [f"he saw {i},man {i},she saw {i},woman {i}" for i in range(8)]
    (tmp_path / "pairs.csv").write_text("\n".join(["premise,hypothesis,premise_swapped,hypothesis_swapped", *rows]))
    config = base_config(method="mabel")
    config.model.path, config.mabel.pairs, config.nc3.lexicon = (
        str(setting / "model"),
        str(tmp_path / "pairs.csv"),
        "gender",
    )
    config.data.max_tokens = config.data.row_tokens = 32
    config.train.steps, config.train.collapse_every, config.train.batch_size = 1, 0, 4
    written = []
    monkeypatch.setattr(train, "evaluate_model", noted(train.evaluate_model, written))
    for seed in (0, 1):
        config.seed = seed
        train_and_evaluate(freeze(config), tmp_path / f"seed{seed}", tmp_path / "start")
    assert written[0]["content"] == written[2]["content"]
    assert written[1]["content"] != written[3]["content"]  # of the trained models


def noted(function, results: list):
    """The function, its results added to a list."""

    def call(*args, **kwargs):
        results.append(function(*args, **kwargs))
        return results[-1]

    return call


def test_the_best_step_is_kept_and_exported(setting):
    workdir = setting / "best"
    changes = {"data.dev_examples": 12, "train.dev_every": 3, "train.best": "dev_loss"}
    # A rate at which the development loss soon gets worse, so that the best step is not the last one.
    run_here(setting, workdir, {"optimizer.learning_rate": 0.3, "optimizer.schedule": "constant"} | changes)
    dev = {line["step"]: line["dev_loss"] for line in metrics(workdir) if "dev_loss" in line}
    assert sorted(dev) == list(range(3, 25, 3))
    best = min(dev, key=dev.__getitem__)
    assert best < 24
    kept = {int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*")}
    assert best in kept
    assert 24 in kept
    exported = load_pretrained(str(workdir / "export")).params["mlm"]["transform"]["kernel"]
    np.testing.assert_array_equal(exported, saved_state(workdir, best)["params['mlm']['transform']['kernel']"])


def test_not_finite_stops_with_step_examples_and_checkpoint(setting):
    workdir = setting / "nan"
    with pytest.raises(ArithmeticError, match="loss or gradient is not finite, on examples"):
        run_here(setting, workdir, {"optimizer.learning_rate": 1e18, "train.save_every": 1})
    for step in (workdir / "checkpoints").glob("[0-9]*"):
        for name, value in saved_state(workdir, int(step.name)).items():
            assert np.all(np.isfinite(value)), name


def test_after_a_step_that_is_not_finite_another_run_starts_from_the_last_good_checkpoint(setting, monkeypatch):
    """What the message says works: the parameters of the checkpoint, and nothing else of it."""
    bad = setting / "bad"
    with monkeypatch.context() as patch:  # step 7 is not finite, and six are saved
        patch.setattr(state, "make_train_step", not_finite_at(7))
        with pytest.raises(ArithmeticError, match=r"the last good checkpoint is step 6\. Lower .*") as told:
            run_here(setting, bad, {})
    there = re.search(
        r"add --init_from=(\S+@6) and another --workdir: that takes over the parameters, not", str(told.value)
    )
    assert there
    good = setting / "good"
    run_here(setting, good, {"model.init_from": there[1], "train.steps": 3, "optimizer.learning_rate": 1e-30})
    start, end = saved_state(bad, 6), saved_state(good, 3)
    for name in start:
        if name.startswith("params"):
            np.testing.assert_array_equal(start[name], end[name], err_msg=name)
    assert f"began with the parameters of {there[1]}".replace("_", r"\_") in (good / "export" / "README.md").read_text()
    with pytest.raises(WorkdirError, match=r"config\.model\.init_from"):
        run_here(setting, good, {"train.steps": 3, "optimizer.learning_rate": 1e-30})


def not_finite_at(step: int):
    """`make_train_step`, whose step does nothing from `step` on, as after a loss that is not finite."""

    def make(*args):
        update = make_train_step(*args)

        def train_step(state, batch):
            new, metrics = update(state, batch)
            return jax.tree.map(lambda a, b: jax.lax.select(state.step < step - 1, a, b), new, state), metrics

        return train_step

    return make


def test_a_loss_that_grows_is_told_in_the_last_lines_the_report_and_the_card(setting, capsys):
    workdir = setting / "diverged"
    result = run_here(setting, workdir, {"optimizer.learning_rate": 10.0})
    (text,) = result["diverged"]
    assert text.startswith("The training diverged: its loss went from ")
    assert run_here(setting, workdir, {"optimizer.learning_rate": 10.0})["diverged"] == [text]
    for name in ("report.html", "export/README.md"):
        assert "The training diverged" in (workdir / name).read_text()
    with pytest.raises(SystemExit) as ended:
        finish(result["table"], result["diverged"])
    assert ended.value.code == 3
    assert capsys.readouterr().err.splitlines()[-1] == f"warning: {text}"
    stop = {"optimizer.learning_rate": 10.0, "train.stop_on_divergence": True}
    with pytest.raises(DivergedError, match=r"^stopped at step \d+ of 24\. The training diverged: "):
        run_here(setting, setting / "stopped early", stop)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.train.steps=30", "config.train.steps: 30 here, 24 there"),
        ("--config.objective.name=mln", "config.objective.name='mln': choose from "),
        ("--config.nc3.wieght=1", 'did you mean "weight"'),
        ("--config.data.path=nowhere.txt", "nowhere.txt"),
    ],
)
def test_refusals_are_one_line_and_leave_the_run_alone(setting, uninterrupted, flag, message):
    workdir = uninterrupted if "steps" in flag else setting / "refused"
    before = sorted(p.name for p in uninterrupted.rglob("*"))
    done = run(setting, workdir, flag)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted(p.name for p in uninterrupted.rglob("*")) == before


def test_a_workdir_of_the_old_layout_is_refused_with_the_commit_that_wrote_it(tmp_path):
    config = freeze(base_config())
    old = to_dict(config) | {name: {} for name in ("mabel", "adept", "ase", "coref", "classification")}
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(WorkdirError, match="a run that commit 0fc234d or an earlier one wrote"):
        refuse_other_run(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(freeze(base_config(method="mabel")))))
    with pytest.raises(WorkdirError, match=r"another config: .*objective.name: 'mlm' here, 'mabel' there"):
        refuse_other_run(tmp_path, config)


@pytest.mark.parametrize(("kind", "positions"), [("bert", 40), ("roberta", 38)])
def test_sentences_longer_than_the_model_reads_are_refused_before_anything_is_compiled(kind, positions, tmp_path):
    config = base_config()
    config.model.path = str(tiny_hub.write(tmp_path / "model", kind))
    config.data.corpus, config.data.path = "text", str(tmp_path / "nothing is read of it")
    config.data.max_tokens = config.data.row_tokens = positions + 1
    expected = f"config.data.max_tokens={positions + 1}: {config.model.path} has positions for {positions} tokens"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        train_and_evaluate(freeze(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
