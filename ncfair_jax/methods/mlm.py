"""Masked-language modelling: the task loss of vanilla tuning, CDA and BEC, which differ by their corpus only."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.config import ObjectiveConfig, Rule
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.fields import fraction, section
from ncfair_jax.methods.base import Batch, Method, Metrics, Objective, Partial, stateless
from ncfair_jax.methods.corpus import CORPUS_SWITCHES, corpus_files, corpus_text, load_examples
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.models.base import Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained


@dataclass(frozen=True)
class MaskingConfig(ObjectiveConfig):
    """Of a method that masks tokens to predict them.

    Attributes:
        mask_prob: share of the tokens that are predicted.
        mask_frac, random_frac: shares of those that become [MASK] and a random token.
    """

    mask_prob: float = fraction(0.15)
    mask_frac: float = fraction(0.8)
    random_frac: float = fraction(0.1)


@dataclass(frozen=True)
class MlmRun(TrainedRun):
    """The config of a run of masked-language modelling."""

    objective: MaskingConfig = section(MaskingConfig, name="mlm")


def masking_rules(config: Any) -> Iterator[Rule]:
    """What must hold of `config.objective` where it is a `MaskingConfig`."""
    objective = config.objective
    split = objective.mask_frac + objective.random_frac
    yield Rule("objective.random_frac", split <= 1 + 1e-9, f"mask_frac + random_frac = {split:g} exceeds 1")
    nothing = f"with objective.name={objective.name!r} there is nothing to predict; give a share above 0"
    yield Rule("objective.mask_prob", objective.mask_prob > 0, nothing)


def mlm_objective(model: ModelConfig) -> Objective:
    """Mean cross-entropy (nats) of the original ids at the masked positions of the batch; 0 where nothing is masked.

    Metrics: "mlm_loss" in nats and "mlm_accuracy" (top-1, fraction), per masked position.
    Source: Devlin et al. 2019; as tuned by Bartl et al. 2020 (BEC).
    """

    def partial(params: Params, batch: Batch, rng: Key[Array, ""] | None) -> tuple[Partial, Float[Array, "R T D"]]:
        hidden = family_of(model).hidden(model, params, Rows.of(batch), Ask(dropout_rng=rng)).hidden_states
        return Partial(head_sums(model, params, hidden, batch)), hidden

    def loss(sums: dict[str, Float[Array, ""]]) -> tuple[Float[Array, ""], Metrics]:
        metrics = {
            "mlm_loss": (sums["loss"], sums["masked"]),
            "mlm_accuracy": (sums["correct"], sums["masked"]),
        }
        return sums["loss"] / jnp.maximum(sums["masked"], 1), metrics

    return stateless(partial, loss)


def _examples(config: MlmRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    train, dev = load_examples(config.data, model.tokenizer, config.seed)
    return Examples(train), Examples(dev) if dev else None


def _objective(config: MlmRun, model: Pretrained, examples: Examples) -> Objective:
    del config, examples
    return mlm_objective(model.config)


def _reads(config: MlmRun) -> dict[str, list[Path]]:
    return corpus_files(config.data)


def _describe(config: MlmRun) -> str:
    return corpus_text(config.data)


MLM = Method(MlmRun, _examples, _reads, _describe, _objective, masking_rules, CORPUS_SWITCHES)


def head_sums(
    model: ModelConfig, params: Params, hidden: Float[Array, "R T D"], batch: Batch
) -> dict[str, Float[Array, ""]]:
    """`masked_sums` of the head at the batch's masked positions, the only ones projected onto the vocabulary."""
    at_masks = jnp.take_along_axis(hidden, batch["masked_positions"][..., None], axis=1)  # [R, P, D]
    logits = family_of(model).logits(model, params, family_of(model).features(model, params, at_masks))  # [R, P, V]
    return masked_sums(logits, batch["masked_labels"], batch["masked_weights"])


def masked_sums(
    logits: Float[Array, "R P V"], labels: Int[Array, "R P"], weights: Float[Array, "R P"]
) -> dict[str, Float[Array, ""]]:
    """Sums over masked positions: cross-entropy ("loss", nats), top-1 hits ("correct"), and their number ("masked")."""
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]  # [R, P]
    entropy = jax.nn.logsumexp(logits, axis=-1) - picked
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    return {
        "loss": jnp.sum(entropy * weights),
        "correct": jax.lax.stop_gradient(jnp.sum(correct * weights)),
        "masked": jnp.sum(weights),
    }
