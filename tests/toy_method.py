"""Three methods that the package does not know, as someone would add them: one edits, one trains, one wraps the model.

A line in `registry.METHODS` is all that they need besides.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ncfair_jax.config import ObjectiveConfig, RunConfig
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.engine import Forward, Request, Wrap
from ncfair_jax.engine.requests import MEAN_VECTOR
from ncfair_jax.fields import not_negative, positive, section
from ncfair_jax.methods.base import Method, Objective, Partial, stateless
from ncfair_jax.methods.corpus import CORPUS_SWITCHES, corpus_files, corpus_text, load_examples
from ncfair_jax.methods.mlm import MaskingConfig, masking_rules, mlm_objective
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.models.edits import Edit
from ncfair_jax.models.hf import Pretrained


def examples_of(config: Any, model: Pretrained) -> tuple[Examples, Examples | None]:
    train, dev = load_examples(config.data, model.tokenizer, config.seed)
    return Examples(train), Examples(dev) if dev else None


def reads(config: Any) -> dict[str, list[Path]]:
    return corpus_files(config.data)


def describe(config: Any) -> str:
    return corpus_text(config.data)


# --- a method that edits


@dataclass(frozen=True)
class FlattenConfig:
    """By what one direction of the hidden states is divided."""

    divisor: float = positive(2.0)


@dataclass(frozen=True)
class FlattenRun(RunConfig):
    """The config of a run of "flatten"."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="flatten")
    flatten: FlattenConfig = section(FlattenConfig)


def flatten(config: FlattenRun, model: Pretrained, examples: Examples, forward: Forward) -> Edit:
    """Divides the hidden states along the mean of the sentences' vectors."""
    size = model.config.hidden_size
    answers = forward([Request(tokens, ask=MEAN_VECTOR) for tokens in examples.sequences])
    mean = np.mean([answer.vector for answer in answers], axis=0)
    along = np.outer(mean, mean) / (mean @ mean)
    matrix = np.eye(size) - along * (1 - 1 / config.flatten.divisor)
    return Edit(jnp.asarray(matrix, jnp.float32), jnp.arange(size, dtype=jnp.float32) / size)


FLATTEN = Method(FlattenRun, examples_of, reads, describe, switches=CORPUS_SWITCHES, edit=flatten)


# --- a method that trains


@dataclass(frozen=True)
class ShrinkConfig:
    """Weight of the size of the hidden states in the loss."""

    weight: float = not_negative(1.0)


@dataclass(frozen=True)
class ShrinkRun(TrainedRun):
    """The config of a run of "shrink"."""

    objective: MaskingConfig = section(MaskingConfig, name="shrink")
    shrink: ShrinkConfig = section(ShrinkConfig)


def shrink(config: ShrinkRun, model: Pretrained, examples: Examples) -> Objective:
    """Masked-language modelling, and the mean square of the hidden states.

    Metrics: those of MLM, and "size".
    """
    del examples
    mlm = mlm_objective(model.config)

    def partial(params, batch, rng):
        part, hidden = mlm.partial(params, (), batch, rng)
        real = (batch["segment_ids"] > 0).astype(jnp.float32)
        square = jnp.sum(jnp.mean(jnp.square(hidden), axis=-1) * real)
        return Partial(part.sums | {"square": square, "tokens": jnp.sum(real)}), hidden

    def loss(sums):
        value, (metrics, _) = mlm.loss({}, (), Partial(sums), jnp.zeros((), jnp.int32))
        size = sums["square"] / sums["tokens"]
        return value + config.shrink.weight * size, metrics | {"size": (sums["square"], sums["tokens"])}

    return stateless(partial, loss)


SHRINK = Method(ShrinkRun, examples_of, reads, describe, shrink, masking_rules, CORPUS_SWITCHES)


# --- a method that acts when the model is asked


@dataclass(frozen=True)
class OppositeConfig:
    """What the log-probabilities are multiplied by, up to the normalisation."""

    factor: float = -1.0


@dataclass(frozen=True)
class OppositeRun(RunConfig):
    """The config of a run of "opposite"."""

    objective: ObjectiveConfig = section(ObjectiveConfig, name="opposite")
    opposite: OppositeConfig = section(OppositeConfig)


def opposite(config: OppositeRun, model: Pretrained) -> Wrap:
    """What is likely becomes unlikely."""
    del model
    factor = config.opposite.factor

    def combine(log_probs):
        return jax.nn.log_softmax(factor * log_probs[0])

    return Wrap(f"opposite, factor {factor:g}", lambda request: [request], combine)


OPPOSITE = Method(OppositeRun, examples_of, reads, describe, switches=CORPUS_SWITCHES, wrap=opposite)
