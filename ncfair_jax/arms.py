"""The arms of a sweep: what each changes in the config, for which seeds, and where its run goes."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from ncfair_jax.config import ConfigError, RunConfig, short_hash
from ncfair_jax.recipes import with_method
from ncfair_jax.registry import freeze

PATHS = (("model", "path"), ("data", "path"), ("evals", "data"), ("evals", "collapse_text"))
AGAINST = "against"


def arm_names(config: ConfigDict) -> list[str]:
    """Names of the arms to run, in order."""
    names = [name.strip() for name in config.run_arms.split(",") if name.strip()]
    for name in names:
        if name not in config.arms:
            raise ConfigError(f"config.run_arms names {name!r}; choose from {', '.join(config.arms)}")
        if (other := config.arms[name].get(AGAINST, "")) and other not in config.arms:
            raise ConfigError(
                f"arm {name!r} is compared against {other!r}, which is no arm; choose from {', '.join(config.arms)}"
            )
        if other == name:
            raise ConfigError(f"arm {name!r} is compared against itself; name another arm")
    if len(set(names)) < len(names):
        raise ConfigError(f"config.run_arms={config.run_arms!r} names an arm twice; name each once")
    return names


def run_seeds(config: ConfigDict) -> list[int]:
    """The seeds to run every arm for, in order; `config.seed` where none are listed.

    Raises:
        ConfigError: for a seed that is not a whole number from 0, or is there twice.
    """
    listed = [seed.strip() for seed in config.seeds.split(",") if seed.strip()]
    for seed in listed:
        if not seed.isdecimal():
            raise ConfigError(
                f"config.seeds={config.seeds!r}: {seed!r} is not a whole number from 0; list them as 0,1,2"
            )
    seeds = [int(seed) for seed in listed] or [config.seed]
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"config.seeds={config.seeds!r} names a seed twice; name each once")
    return seeds


def before_folder(run: RunConfig, workdir: Path) -> Path:
    """Where the figures of a run's starting model go: one folder for all runs that start from the same model."""
    same = dataclasses.replace(RunConfig(), model=run.model, evals=run.evals)
    return workdir / "start" / short_hash(same)


def arm_folder(workdir: Path, name: str, seed: int) -> Path:
    """Workdir of one run."""
    return workdir / f"{name}-seed{seed}"


def arm_config(config: ConfigDict, name: str, seed: int, workdir: Path) -> RunConfig:
    """The config of one run: the arm's changes made, references resolved."""
    changes = {field: value for field, value in config.arms[name].items() if field != AGAINST}
    run = with_method(config, changes.get("objective", {}).get("name", config.objective.name))
    run.name, run.seed = f"{config.name}-{name}", seed
    change(run, ConfigDict(changes), f"arm {name!r}")
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
