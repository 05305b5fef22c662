"""ASE: masked pronouns, with stereotype neutralisation and elastic weight consolidation (Park et al., WSDM 2023).

    loss = MLM over the masked pronouns + sn_weight · SN + ewc_weight · EWC

Gender direction, initial parameters and their Fisher information are made once, before the first update, and lie in the
carry. Deliberate differences from the released code: the Fisher information is that of single examples with the data's
pronouns as labels (there: squares of gradients summed over all sentences so far, labels the input itself, on a WinoBias test
file), scaled to mean 1; and the direction compares words encoded alone (there: two long texts of all words).
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.data.layout import Batch as HostBatch
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.lexicons.lexicon import lexicon_file, load_lexicon
from ncfair_jax.methods.ase.config import SWITCHES, AseConfig, AseRun, describe
from ncfair_jax.methods.ase.inputs import direction_rows, fisher_rows
from ncfair_jax.methods.ase.rows import (
    load_rows,
    load_stereotypes,
    made_of,
    pair_files,
    stereotypes_file,
)
from ncfair_jax.methods.base import Batch, Method, Metrics, Objective, Partial
from ncfair_jax.methods.mlm import head_sums, mlm_objective
from ncfair_jax.models.base import Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained


class AseInputs(NamedTuple):
    """What is computed from before the first update: see `direction_rows` and `fisher_rows`; None where not needed."""

    direction: HostBatch | None
    fisher: HostBatch | None


def ase_objective(model: ModelConfig, config: AseConfig, inputs: AseInputs) -> Objective:
    """Pronoun MLM plus what has a weight above 0.

    Metrics: those of MLM, "sn" (mean absolute projection of a stereotype token on the direction) and "ewc" (the penalty
    before its weight).
    """
    mlm = mlm_objective(model)
    outside = dataclasses.replace(model, attention="xla")  # a kernel has the mesh within the train step alone
    neutralises, consolidates = config.sn_weight > 0, config.ewc_weight > 0

    def init(params: Params) -> dict[str, Any]:
        carry: dict[str, Any] = {}
        if neutralises:
            carry["direction"] = jnp.zeros((model.hidden_size,))
        if consolidates:
            carry |= {name: jax.tree.map(jnp.zeros_like, params) for name in ("anchor", "fisher")}
        return carry

    def partial(
        params: Params, carry: dict[str, Any], batch: Batch, rng: Key[Array, ""] | None
    ) -> tuple[Partial, Float[Array, "R T D"]]:
        part, hidden = mlm.partial(params, (), batch, rng)
        if not neutralises:
            return part, hidden
        sums = neutralisation_sums(hidden, carry["direction"], batch["marked"])
        return Partial(part.sums | sums), hidden

    def loss(
        params: Params, carry: dict[str, Any], total: Partial, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Metrics, dict[str, Any]]]:
        value, (metrics, _) = mlm.loss(params, (), total, step)
        if neutralises:
            projection, marked = total.sums["projection"], total.sums["marked"]
            metrics = metrics | {"sn": (projection, marked)}
            per = jnp.maximum(marked, 1) if config.sn_reduce == "mean" else 1.0
            value += config.sn_weight * projection / per
        if consolidates:
            penalty = ewc_penalty(params, carry["anchor"], carry["fisher"])
            metrics = metrics | {"ewc": (penalty, jnp.ones(()))}
            value += config.ewc_weight * penalty
        return value, (metrics, carry)

    def refresh(params: Params, carry: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if neutralises:
            made["direction"] = gender_direction(outside, params, inputs.direction)
        if consolidates:
            fisher = fisher_diagonal(outside, params, inputs.fisher)
            # Copied: the step gives its state's buffers away, and no buffer can be given away twice.
            made["anchor"] = jax.tree.map(jnp.copy, params)
            made["fisher"] = mean_one(fisher) if config.fisher_scale == "mean_one" else fisher
        return carry | made

    return Objective(init, partial, loss, refresh if neutralises or consolidates else None)


def neutralisation_sums(
    hidden: Float[Array, "R T D"], direction: Float[Array, " D"], marked: Int[Array, "R T"]
) -> dict[str, Float[Array, ""]]:
    """Sum of |<h, g>| over the marked tokens ("projection", in units of the hidden states), and their number ("marked").

    Source: Park et al. 2023, stereotype neutralisation; NLPlab-skku/BERT-ASE.
    """
    projection = jnp.einsum("rtd,d->rt", hidden.astype(jnp.float32), direction)
    weights = marked.astype(jnp.float32)
    return {"projection": jnp.sum(jnp.abs(projection) * weights), "marked": jnp.sum(weights)}


def ewc_penalty(params: Params, anchor: Params, fisher: Params) -> Float[Array, ""]:
    """Sum over all parameters of F (θ - θ*)². Source: Kirkpatrick et al. 2017, without their factor 1/2, as in ASE."""
    terms = jax.tree.map(lambda p, a, f: jnp.sum(f * jnp.square(p - a)), params, anchor, fisher)
    return sum(jax.tree.leaves(terms), start=jnp.zeros(()))


@functools.partial(jax.jit, static_argnums=0)
def gender_direction(model: ModelConfig, params: Params, rows: Batch) -> Float[Array, " D"]:
    """Unit vector of the weighted sum of the last layer's hidden states, without dropout; from the first to the second group.

    Args:
        rows: as of `direction_rows`.
    """
    hidden = family_of(model).hidden(model, params, Rows.of(rows), Ask()).hidden_states
    total = jnp.einsum("rt,rtd->d", rows["weights"], hidden.astype(jnp.float32))
    return total / jnp.maximum(jnp.linalg.norm(total), 1e-12)


@functools.partial(jax.jit, static_argnums=0)
def fisher_diagonal(model: ModelConfig, params: Params, rows: Batch) -> Params:
    """Diagonal of the empirical Fisher information: mean over examples of the squared gradient of an example's loss.

    The loss of an example is the mean cross-entropy (nats) of its masked tokens, without dropout. One example at a time: the
    memory is that of a gradient and of the sum.

    Args:
        rows: as of `fisher_rows`, N examples.
    Returns:
        A tree like params, in nats² per unit² of the parameter.
    """

    def loss(params: Params, row: Batch) -> Float[Array, ""]:
        row = {name: value[None] for name, value in row.items()}
        hidden = family_of(model).hidden(model, params, Rows.of(row), Ask()).hidden_states
        sums = head_sums(model, params, hidden, row)
        return sums["loss"] / sums["masked"]

    def add(total: Params, row: Batch) -> tuple[Params, None]:
        gradient = jax.grad(loss)(params, row)
        return jax.tree.map(lambda t, g: t + jnp.square(g), total, gradient), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), rows)
    return jax.tree.map(lambda t: t / rows["tokens"].shape[0], total)


def mean_one(fisher: Params) -> Params:
    """Scaled so that the mean over all parameters is 1: a weight then means the same for models of any size and loss."""
    leaves = jax.tree.leaves(fisher)
    mean = sum(jnp.sum(leaf) for leaf in leaves) / float(sum(leaf.size for leaf in leaves))
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(mean, np.finfo(np.float32).tiny), fisher)


def _examples(config: AseRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    train, dev = load_rows(config, model.tokenizer, load_stereotypes(config.ase.stereotypes))
    return made_of(train), made_of(dev) if dev else None


def _objective(config: AseRun, model: Pretrained, examples: Examples) -> Objective:
    settings, tokenizer = config.ase, model.tokenizer
    direction = fisher = None
    if settings.sn_weight > 0:
        lexicon = load_lexicon(config.data.lexicon)
        direction = direction_rows(lexicon, tokenizer, settings.direction, model.config.max_tokens)
    if settings.ewc_weight > 0:
        masked = examples.of_tokens["masked"]
        fisher = fisher_rows(examples.sequences, masked, settings.fisher_examples, tokenizer.mask_token_id)
    return ase_objective(model.config, settings, AseInputs(direction, fisher))


def _reads(config: AseRun) -> dict[str, list[Path]]:
    words = {"data.lexicon": [lexicon_file(config.data.lexicon)]}
    return pair_files(config) | words | {"ase.stereotypes": [stereotypes_file(config.ase.stereotypes)]}


ASE = Method(AseRun, _examples, _reads, describe, _objective, switches=SWITCHES)
