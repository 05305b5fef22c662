"""Arms × seeds of one config, each an ordinary run in its own workdir, and one table of them all."""

import copy
import dataclasses
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ncfair_jax.config import ConfigError, RunConfig, freeze, short_hash, validate
from ncfair_jax.data.generated import write_world
from ncfair_jax.judge import arms_table
from ncfair_jax.run_log import write_text
from ncfair_jax.train import train_and_evaluate

PATHS = (("model", "path"), ("data", "path"), ("evals", "data"), ("evals", "collapse_text"))


def run_arms(config: ConfigDict, workdir: Path) -> str:
    """Runs every arm for every seed (what is finished is not run again) and returns the table, also in workdir/table.md.

    An arm is a nested dict of the fields it changes. In paths, "@world/x" is file x of the generated world and "@NAME" the
    exported model of arm NAME with the same seed. `config.run_arms` names the arms to run, in order.

    Raises:
        ConfigError: for a field that an arm changes but the config lacks, or an "@NAME" that no earlier arm has. Every
            arm is checked before the first one starts.
    """
    seeds = [int(seed) for seed in str(config.seeds).split(",") if seed.strip()] or [config.seed]
    names = arm_names(config)
    runs = {}
    for seed in seeds:
        for name in names:
            runs[name, seed] = arm_config(config, name, seed, workdir), arm_folder(workdir, name, seed)
    for run, _ in runs.values():
        validate(run)
    if config.world.sentences and not (workdir / "world").exists() and jax.process_index() == 0:
        world = config.world
        write_world(workdir / "world", sentences=world.sentences, bias=world.bias, seed=world.seed)
    results = {key: train_and_evaluate(run, folder, before_folder(run, workdir)) for key, (run, folder) in runs.items()}
    folders = {name: [runs[name, seed][1] for seed in seeds] for name in names}
    table = arms_table(folders, {name: [results[name, seed] for seed in seeds] for name in names})
    if jax.process_index() == 0:
        write_text(workdir / "table.md", table + "\n")
    return table


def arm_names(config: ConfigDict) -> list[str]:
    """Names of the arms to run, in order."""
    names = [name.strip() for name in config.run_arms.split(",") if name.strip()]
    for name in names:
        if name not in config.arms:
            raise ConfigError(f"config.run_arms names {name!r}; choose from {', '.join(config.arms)}")
    return names


def before_folder(run: RunConfig, workdir: Path) -> Path:
    """Where the figures of a run's starting model go: one folder for all runs that start from the same model."""
    same = dataclasses.replace(RunConfig(), model=run.model, evals=run.evals)
    return workdir / "start" / short_hash(same)


def arm_folder(workdir: Path, name: str, seed: int) -> Path:
    """Workdir of one run."""
    return workdir / f"{name}-seed{seed}"


def arm_config(config: ConfigDict, name: str, seed: int, workdir: Path) -> RunConfig:
    """The config of one run: the arm's changes made, references resolved."""
    run = copy.deepcopy(config)
    run.name, run.seed = f"{config.name}-{name}", seed
    change(run, config.arms[name], f"arm {name!r}")
    names = arm_names(config)
    earlier = names[: names.index(name)]
    for section, field in PATHS:
        run[section][field] = resolve(run[section][field], earlier, seed, workdir)
    return freeze(run)


def change(config: ConfigDict, changes: ConfigDict, where: str) -> None:
    """Sets fields that exist to the values of a nested dict."""
    for name, value in changes.items():
        if name not in config:
            raise ConfigError(f"{where} changes {name!r}, which the config does not have there")
        if isinstance(value, ConfigDict):
            change(config[name], value, f"{where}, {name}")
        else:
            config[name] = value


def resolve(value: str, earlier: list[str], seed: int, workdir: Path) -> str:
    """A path with its "@world/…" or "@NAME" reference made real."""
    if not value.startswith("@"):
        return value
    head, _, rest = value[1:].partition("/")
    if head == "world":
        return str(workdir / "world" / rest)
    if head not in earlier:
        raise ConfigError(
            f"{value!r} refers to arm {head!r}; earlier arms: {', '.join(earlier) or 'none'}, or @world/…"
        )
    return str(arm_folder(workdir, head, seed) / "export")
