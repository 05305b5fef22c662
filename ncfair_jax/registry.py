"""Methods and tasks by name, and what a config of one of them is: a new method is a file of its own, and a line here."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ncfair_jax.benchmarks import finetuned
from ncfair_jax.config import ConfigError, Rule, RunConfig, build, check, core_rules, paths, to_dict
from ncfair_jax.methods import training
from ncfair_jax.methods.adept.loss import ADEPT
from ncfair_jax.methods.ase.loss import ASE
from ncfair_jax.methods.base import Method
from ncfair_jax.methods.mabel.loss import MABEL
from ncfair_jax.methods.mlm import MLM
from ncfair_jax.tasks.classification.loss import CLASSIFICATION
from ncfair_jax.tasks.coreference.loss import COREF
from ncfair_jax.unread import CORE_SWITCHES, refuse_unread

METHODS: dict[str, Method] = {
    "mlm": MLM,
    "mabel": MABEL,
    "adept": ADEPT,
    "ase": ASE,
    "classification": CLASSIFICATION._replace(evaluate=finetuned.classifier, judged_on=finetuned.classifier_files),
    "coref": COREF._replace(evaluate=finetuned.coreference, judged_on=finetuned.coreference_files),
}
SWEEP_FIELDS = ("arms", "run_arms", "seeds")  # that a ConfigDict has besides those of a run


def method_named(name: str) -> Method:
    """A method or task by its name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"config.objective.name={name!r}: choose from {', '.join(sorted(METHODS))}")
    return METHODS[name]


def method_of(config: RunConfig) -> Method:
    """The method of a run."""
    return method_named(config.objective.name)


def freeze(config: ConfigDict) -> RunConfig:
    """The frozen twin of a ConfigDict without arms.

    Raises:
        ConfigError: for a method that does not exist or that the config was not made for, and as `config.build`.
    """
    if not hasattr(config, "to_dict"):  # one that could not be read says why here
        raise ConfigError(
            f"get_config of the config file returned a {type(config).__name__}; it must return base_config()"
        )
    tree = {name: value for name, value in config.to_dict().items() if name not in SWEEP_FIELDS}
    name, there = tree["objective"]["name"], frozenset(_leaves(tree))
    wanted = paths(method_named(name).Config)
    for other, method in METHODS.items():
        if there != wanted and there == paths(method.Config):
            raise ConfigError(
                f"config.objective.name={name!r}: this config is one of {other!r} and has no fields of {name!r}; take a config "
                f"file of {name!r}, or make one with base_config(method={name!r})"
            )
    for path in sorted(there - wanted):
        if text := of_another(path, name):
            raise ConfigError(text)
    return build(method_named(name).Config, tree)


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield path + name


def of_another(path: str, name: str) -> str:
    """One line on a field that the method `name` lacks, and others have or have its section; "" for any other field."""
    own, head = paths(METHODS[name].Config), path.partition(".")[0]
    if path in own:
        return ""
    there = {other: paths(method.Config) for other, method in METHODS.items()}
    others = [other for other, of in there.items() if path in of]
    if not others and head not in _sections(own):
        others = [other for other, of in there.items() if head in _sections(of)]
    return f"config.{path}: {name} has no such field; it is one of {', '.join(others)}" if others else ""


def _sections(fields: Iterable[str]) -> set[str]:
    return {field.partition(".")[0] for field in fields}


def validate(config: RunConfig) -> None:
    """Refuses what cannot work before anything is loaded or compiled.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """
    check(config, _rules)
    trains = training.SWITCHES if isinstance(config, training.TrainedRun) else ()
    refuse_unread(config, (*method_of(config).switches, *trains, *CORE_SWITCHES))


def _rules(config: RunConfig) -> Iterator[Rule]:
    method, name = method_of(config), config.objective.name
    yield from method.rules(config)
    yield from core_rules(config)
    if isinstance(config, training.TrainedRun):
        yield from training.rules(config)
        split = f"{name} compares the examples of a batch with each other, so splitting it would change the loss; set it to 1"
        yield Rule("train.accumulation", config.train.accumulation == 1 or method.accumulates, split)
        many = f"{name} compares the examples of a batch with each other, so their number matters; set it to 0"
        yield Rule("train.batch_rows", config.train.batch_rows == 0 or method.accumulates, many)
    own = f"{name} is judged on its own task; set it to ''"
    yield Rule("evals.benchmarks", method.evaluate is None or not config.evals.benchmarks, own)


def training_text(tree: Mapping[str, Any]) -> str:
    """What a run trained on, from its config.json; one of an earlier version may lack fields, or have more."""
    method = method_named(tree["objective"]["name"])
    return method.describe(_known(method.Config, tree))


def _known(kind: type, tree: Mapping[str, Any]) -> Any:
    """A config of the fields that a tree has, the others at their defaults."""
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in tree:
            value = tree[field.name]
            of: Any = field.type
            values[field.name] = _known(of, value) if isinstance(value, Mapping) else value
    return dataclasses.replace(kind(), **values)


def all_defaults() -> dict[str, Any]:
    """Every field of every method at its default, as a nested dict."""
    found: dict[str, Any] = {}
    for method in METHODS.values():
        for name, value in to_dict(method.Config()).items():
            found[name] = value | found.get(name, {}) if isinstance(value, dict) else value
    return found
