"""What config files are made with: the ConfigDict that the command line reads.

A config file returns `base_config()` with some fields changed. Every field of the method exists there with its final type, so
that `--config.nc3.weight=10` works and a misspelt name fails.
"""

import copy

from ml_collections import ConfigDict

from ncfair_jax.config import ConfigError, to_dict
from ncfair_jax.methods.nc3 import PRESETS
from ncfair_jax.registry import method_named

CONTROL = "control"  # what shipped configs take beside the presets


def base_config(preset: str | None = None, *, method: str = "mlm") -> ConfigDict:
    """All fields of a method with their defaults; `preset` "paper" or "aligned" sets the NC3 fields (not its weight).

    The ConfigDict has three fields more than the run's config: `arms`, a dict from an arm's name to the fields it changes,
    `run_arms`, the names of those to run, and `seeds`; both lists have commas between. With arms, one command runs each of
    them for each seed (see `sweep`).

    Raises:
        ConfigError: for a method that does not exist.
    """
    config = ConfigDict(to_dict(method_named(method).Config()))
    config.objective.name = method
    config.arms = ConfigDict()
    config.run_arms = ""
    config.seeds = ""
    if preset:
        config.nc3.update(PRESETS[preset])
    return config


def with_method(config: ConfigDict, method: str) -> ConfigDict:
    """A copy of a config for another method: fields that both have keep their values, the others have their defaults."""
    if config.objective.name == method:
        return copy.deepcopy(config)
    found = base_config(method=method)
    _keep(found, copy.deepcopy(config))
    found.objective.name = method
    return found


def _keep(config: ConfigDict, other: ConfigDict) -> None:
    for name, value in other.items():
        if name in ("arms",) or (name in config and not isinstance(value, ConfigDict)):
            config[name] = value
        elif name in config:
            _keep(config[name], value)


def published_config(name: str, arg: str | None, model: str, *, method: str = "mlm") -> ConfigDict:
    """What the shipped configs of published models share: a preset with its weight, WikiText-2, and all benchmarks.

    Args:
        arg: what follows the config file's colon: "paper", "aligned" (the default), or "control", which is "aligned" with
            equally frequent neutral words in the place of the fairness words. The config's name ends with it.
    """
    chosen = one_of(arg, ("aligned", "paper", CONTROL))
    config = base_config("aligned" if chosen == CONTROL else chosen, method=method)
    config.name = f"{name}-{chosen}"
    if chosen == CONTROL:
        config.nc3.lexicon += ":frequency-matched"
    config.model.path = model
    config.data.corpus = "hub"
    config.data.path = "Salesforce/wikitext"
    config.data.subset = "wikitext-2-raw-v1"
    config.nc3.weight = 100.0  # paper: as released for BEC; aligned: found on development data (configs/bec_minilm.py)
    config.evals.benchmarks = "stereoset,crows_pairs,bec_pro,masked_lm"
    config.evals.collapse_text = "wikitext2"
    return config


def finetuning_config(name: str, task: str) -> ConfigDict:
    """What the shipped configs of classification share: BERT-base, and the arms of a model and its debiased copy."""
    config = base_config(method="classification")
    config.name = name
    config.model.path = "bert-base-uncased"
    config.classification.task = task
    config.train.collapse_every = 0
    config.arms.base = ConfigDict()  # starts from config.model.path
    config.arms.debiased = ConfigDict({"model": {"path": ""}})
    config.run_arms = "base"
    return config


def parse_arg(arg: str | None, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The names after the colon of `--config=file.py:a,b`.

    Raises:
        ConfigError: for a name that the config file does not have.
    """
    names = tuple(name.strip() for name in (arg or "").split(",") if name.strip())
    for name in names:
        if name not in choices:
            raise ConfigError(f"config argument {name!r}; choose from {', '.join(choices)}")
    return names


def one_of(arg: str | None, choices: tuple[str, ...]) -> str:
    """The one name after the colon; the first of the choices if there is none.

    Raises:
        ConfigError: for a name that the config file does not have, or for several.
    """
    names = parse_arg(arg, choices) or choices[:1]
    if len(names) > 1:
        raise ConfigError(f"config argument {arg!r}; name one of {', '.join(choices)}")
    return names[0]
