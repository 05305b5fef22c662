"""Arms × seeds of one config, each an ordinary run in its own workdir, and one table of them all."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from ncfair_jax import stopping
from ncfair_jax.arms import AGAINST, arm_config, arm_folder, arm_names, before_folder, run_seeds
from ncfair_jax.config import ConfigError, RunConfig, differences, short_hash
from ncfair_jax.exits import DIVERGED, DONE, STOPPED_BY_SIGTERM
from ncfair_jax.files.atomic import is_there, write_json, write_text
from ncfair_jax.files.locking import held, held_by_all
from ncfair_jax.files.records import read_record
from ncfair_jax.finished import refuse_other_content, training_content
from ncfair_jax.launcher import finish, one_line_errors, prepare_jax
from ncfair_jax.manifest import BEGUN, FAILED, FINISHED, STOPPED, Entry, Manifest
from ncfair_jax.registry import freeze, validate
from ncfair_jax.report.arms import arms_figures, arms_text
from ncfair_jax.report.collapse_figures import draw_training
from ncfair_jax.stopping import stage, stoppable, told
from ncfair_jax.train import train_and_evaluate
from ncfair_jax.workdir import RESULT_FILE
from ncfair_jax.world import TRUTH_FILE, write_world

FIGURES_FILE = "figures.json"


class Outcome(NamedTuple):
    """The table to show, and a sentence for each run whose loss grew."""

    table: str
    diverged: list[str]


class PlannedRun(NamedTuple):
    """What `train_and_evaluate` takes: a config, its workdir, and the folder of the figures of its starting model."""

    config: RunConfig
    workdir: Path
    before_folder: Path


Runs = dict[tuple[str, int], PlannedRun]  # by arm and seed, in the order to run


class SweepError(ValueError):
    """Runs that failed while others went on; one line."""


def run_config(config: ConfigDict, workdir: Path | None) -> Outcome:
    """Runs a config, or all of its arms.

    Args:
        workdir: None = runs/<name of the config>-<its hash>.
    """
    frozen = freeze(config)
    validate(frozen)
    workdir = workdir or Path("runs") / f"{frozen.name}-{short_hash(frozen)}"
    if config.run_arms:
        return run_arms(config, workdir)
    for field, value in (("world.sentences", frozen.world.sentences), ("seeds", config.seeds)):
        if value:
            raise ConfigError(f"config.{field}={value!r} has no effect without arms; name them in config.run_arms")
    result = train_and_evaluate(frozen, workdir)
    return Outcome(result["table"], result["diverged"])


def run_arms(config: ConfigDict, workdir: Path, jobs: int = 0, cache: str = "") -> Outcome:
    """Runs every arm for every seed (what is finished is not run again) and returns the table, also in workdir/table.md.

    workdir/figures.json holds what the table is made of: `launch/report.py --table=workdir/figures.json` prints it again.

    An arm is a nested dict of the fields it changes. In paths, "@world/x" is file x of the generated world and "@NAME" the
    exported model of arm NAME with the same seed. "against" beside the fields names the arm it is compared with in the table,
    instead of the first. `config.run_arms` names the arms to run, in order.

    Args:
        jobs: 0 runs all in this process; otherwise each run is a process of its own, and so many seeds run side by side.
        cache: folder of compiled programs for those processes; "" = none.
    Raises:
        SweepError: if a process failed, when all that can run has run.
        ConfigError: for a field that an arm changes but the config lacks, an "@NAME" that no earlier arm has, no arm to run, or
            an arm or a seed that is named twice. Every arm is checked before the first one starts.
    """
    seeds, names = run_seeds(config), arm_names(config)
    if not names:
        raise ConfigError(f"config.run_arms={config.run_arms!r} names no arm; choose from {', '.join(config.arms)}")
    runs: Runs = {}
    for seed in seeds:
        for name in names:
            run = arm_config(config, name, seed, workdir)
            runs[name, seed] = PlannedRun(run, arm_folder(workdir, name, seed), before_folder(run, workdir))
    for run, folder, _ in runs.values():
        validate(run)
        if (folder / RESULT_FILE).exists():  # what it started from must be there, and unchanged
            refuse_other_content(folder, run, training_content(run))
    with stoppable(), held(workdir) if jobs else held_by_all(workdir), stage("running a sweep"):
        return _run_all(config, runs, workdir, jobs, cache)


def _run_all(config: ConfigDict, runs: Runs, workdir: Path, jobs: int, cache: str) -> Outcome:
    """Runs what `run_arms` has checked."""
    seeds, names = run_seeds(config), arm_names(config)
    # With jobs this process leaves the accelerator to the others until they are done, so it must not ask jax yet.
    refuse_other_world(workdir / "world", config)
    writes = bool(jobs) or jax.process_index() == 0
    manifest = Manifest(workdir, [_entry(key, run, workdir) for key, run in runs.items()], writes)
    if config.world.sentences and writes and not is_there(workdir / "world"):
        world = config.world
        write_world(workdir / "world", sentences=world.sentences, bias=world.bias, seed=world.seed)
    if not jobs and jax.process_count() > 1:
        multihost_utils.sync_global_devices("world")  # the others read what process 0 wrote
    if jobs:
        run_in_processes(runs, manifest, jobs, cache)
    results = {}
    for key, run in runs.items():
        with manifest.running(*key):
            results[key] = train_and_evaluate(*run)
    folders = {name: [runs[name, seed].workdir for seed in seeds] for name in names}
    against = {name: other for name in names if (other := config.arms[name].get(AGAINST, "")) in names}
    figures = arms_figures(folders, {name: [results[name, seed] for seed in seeds] for name in names}, against)
    table = arms_text(figures)
    if jax.process_index() == 0:
        write_json(workdir / FIGURES_FILE, figures)
        write_text(workdir / "table.md", table + "\n")
        if "train" in config and config.train.collapse_every:
            first = seeds[0]
            draw_training({name: runs[name, first].workdir for name in names}, workdir / "figures")
    diverged = [f"{name}-seed{seed}: {text}" for (name, seed), x in results.items() for text in x["diverged"]]
    return Outcome(table, diverged)


def _entry(key: tuple[str, int], run: PlannedRun, workdir: Path) -> Entry:
    folder, start = (str(path.relative_to(workdir)) for path in (run.workdir, run.before_folder))
    return Entry(*key, folder, run.config.model.path, start)


def refuse_other_world(folder: Path, config: ConfigDict) -> None:
    """A generated world belongs to one choice of its settings.

    Raises:
        SweepError: if the one that is there was generated with others.
    """
    if not config.world.sentences or not is_there(folder):
        return
    wanted = config.world.to_dict()
    made = read_record(
        folder / TRUTH_FILE,
        {name: type(value) for name, value in wanted.items()},
        f"delete {folder} to generate it again",
    )
    if lines := differences(wanted, {name: made.get(name) for name in wanted}, "config.world"):
        raise SweepError(
            f"{folder} was generated with other settings: {'; '.join(lines)}. Use another --workdir, or delete it"
        )


def run_in_processes(runs: Runs, manifest: Manifest, jobs: int, cache: str) -> None:
    """One process for each run that is not finished; the arms of a seed in order, `jobs` seeds side by side.

    Ctrl-C and SIGTERM to this process end them with SIGTERM: they save and leave. If this process is killed, they end.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with jax's threads can hang
    processes: list[Any] = []

    def run_seed(seed: int) -> str:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # for the processes too: a terminal sends it to all
        for (name, its_seed), run in runs.items():
            if its_seed != seed or stopping.received():
                continue
            manifest.mark(name, seed, BEGUN)
            process = context.Process(target=run_alone, args=(run, cache))
            processes.append(process)
            process.start()
            process.join()
            done = process.exitcode in (DONE, DIVERGED)
            manifest.mark(name, seed, FINISHED if done else STOPPED if stopping.received() else FAILED)
            if not done:
                return f"{name}-seed{seed} (status {process.exitcode})"  # later arms may start from what it exports
        return ""

    with stopping.deferred(), ThreadPoolExecutor(jobs) as pool:
        seeds = list(dict.fromkeys(seed for _, seed in runs))
        waiting = [pool.submit(run_seed, seed) for seed in seeds]
        asked = set[int]()  # a second signal would end them before they have saved
        while wait(waiting, timeout=0.5).not_done:
            for process in processes if stopping.received() else ():
                if process.is_alive() and process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        failed = [text for done in waiting if (text := done.result())]
        if stopping.received():  # runs that a signal ended have not failed
            raise stopping.interrupted("; its runs have saved")
    if failed:
        raise SweepError(f"these runs failed: {', '.join(failed)}; what they said stands above, the rest is kept")


def run_alone(run: PlannedRun, cache: str) -> None:
    """What the process of one run does; its exit code says how it ended (`exits`)."""
    end_with_parent()
    with told(), one_line_errors():
        prepare_jax(cache)
        finish("", train_and_evaluate(*run)["diverged"])


def end_with_parent() -> None:
    """Ends this process when its parent is gone: nobody would know of it. What it was doing goes on when the sweep does."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(STOPPED_BY_SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
