"""What the config of every method has that trains."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ncfair_jax.config import ROW_GROUPS, ConfigError, OptimizerConfig, Rule, RunConfig, TrainConfig
from ncfair_jax.fields import section
from ncfair_jax.methods.nc3 import NC3Config
from ncfair_jax.unread import Switch

WORD_EMBEDDING = "embeddings/word/embedding"


@dataclass(frozen=True)
class TrainedRun(RunConfig):
    """The config of a method that trains: an optimizer, the loop, and the regulariser that goes with every loss."""

    optimizer: OptimizerConfig = section(OptimizerConfig)
    train: TrainConfig = section(TrainConfig)
    nc3: NC3Config = section(NC3Config)


SWITCHES = (
    Switch(("nc3.ema_decay",), lambda config: config.nc3.window == "ema", "config.nc3.window='ema'"),
    Switch(
        ("data.dev_examples",),
        lambda config: config.train.dev_every > 0 or config.train.collapse_every > 0,
        "config.train.dev_every or config.train.collapse_every is above 0",
    ),
    Switch(
        ("train.collapse_sentences",),
        lambda config: config.train.collapse_every > 0,
        "config.train.collapse_every is above 0",
    ),
    Switch(("train.row_groups",), lambda config: config.train.batch_rows > 0, "config.train.batch_rows is above 0"),
)


def rules(config: TrainedRun) -> Iterator[Rule]:
    """What must hold of every run that trains."""
    train = config.train
    parts = f"does not divide into train.accumulation={train.accumulation} micro-batches"
    yield Rule("train.batch_size", train.batch_size % train.accumulation == 0, parts)
    yield Rule("train.batch_rows", train.batch_rows % train.accumulation == 0, parts)
    yield Rule("train.batch_size", train.batch_size + train.batch_rows > 0, "set this or train.batch_rows above 0")
    both = f"train.batch_size={train.batch_size} says how large a batch is as well; set one of the two to 0"
    yield Rule("train.batch_rows", not (train.batch_rows and train.batch_size), both)
    if train.batch_rows:
        some = math.gcd(train.batch_rows, ROW_GROUPS)
        divides = f"train.row_groups={train.groups} must divide it; try train.row_groups={some}"
        yield Rule("train.batch_rows", train.batch_rows % train.groups == 0, divides)
    yield Rule("train.epochs", train.steps > 0 or train.epochs > 0, "with train.steps=0 there is nothing to do")
    if train.dev_every or train.best:
        yield Rule("data.dev_examples", config.data.dev_examples > 0, "a development loss needs sentences")
    if train.best:
        yield Rule("train.dev_every", train.dev_every > 0, "train.best needs a development loss")
        whole = f"must be a multiple of train.dev_every={train.dev_every}, so that a checkpoint has its own figure"
        yield Rule("train.save_every", train.save_every % train.dev_every == 0, whole)
    ends = f"the run ends within the warm-up, train.steps={train.steps}; shorten it"
    yield Rule("optimizer.warmup_steps", train.steps == 0 or config.optimizer.warmup_steps < train.steps, ends)
    refuse_useless_freeze(config)


def refuse_useless_freeze(config: TrainedRun) -> None:
    """Refuses to hold everything still, or what alone the regulariser would move.

    Raises:
        ConfigError: naming the pattern.
    """
    pattern, nc3 = config.optimizer.freeze, config.nc3
    if not pattern:
        return
    try:
        frozen = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"config.optimizer.freeze={pattern!r} is no regular expression: {error}") from None
    if frozen.search("") is not None:
        raise ConfigError(f"config.optimizer.freeze={pattern!r} matches every parameter: nothing is left to train")
    if nc3.weight > 0 and frozen.search(WORD_EMBEDDING) and nc3.gradient == "classifier":
        raise ConfigError(
            f"config.nc3.weight={nc3.weight:g} on a frozen classifier: config.optimizer.freeze={pattern!r} holds "
            f"{WORD_EMBEDDING} still, so the regulariser moves nothing; set nc3.weight=0 or nc3.gradient='both'"
        )
