"""ADEPT (Yang et al. 2023) and DPCE (Kaneko & Bollegala 2021): neutral words as near to one group's words as to another's.

Both weigh a bias loss, on the words' representations, against a retention loss, which holds the hidden states of attribute
sentences where the original model had them. Letters: K groups, B neutral words of a batch, S layers that represent a word,
L all layers, E words of a batch, W tokens of a word; R, T, D as everywhere.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.config import ConfigError
from ncfair_jax.data.packing import pack_for_inference, round_up
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.files.bucket import path_of
from ncfair_jax.lexicons.lexicon import lexicon_file, shipped_file
from ncfair_jax.methods.adept.config import AdeptRun, describe, rules
from ncfair_jax.methods.adept.words import NEUTRAL, NEUTRAL_FILE, adept_examples, epoch_steps
from ncfair_jax.methods.base import Batch, Method, Metrics, Objective, Partial
from ncfair_jax.methods.corpus import CORPUS_SWITCHES, corpus_files
from ncfair_jax.models.base import EXTRA, PREFIX, Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import BATCH_AXES, put_tree

Layers = Sequence[Float[Array, "R T D"]] | Float[Array, "S R T D"]
LAYERS = {"all": slice(None), "first": slice(0, 1), "last": slice(-1, None)}
BACKBONE = ("embeddings", "encoder", PREFIX)
FREEZE = "^(embeddings|encoder|mlm)/"
PROTOTYPE_ROWS = 64  # rows of a forward pass for the prototypes


def word_representations(
    layers: Layers, rows: Int[Array, "E W"], columns: Int[Array, "E W"], weights: Float[Array, "E W"]
) -> Float[Array, "E S D"]:
    """Of each word and layer, the weighted sum of the hidden states at the word's tokens (their mean for weights 1/W)."""
    picked = jnp.stack([layer[rows, columns].astype(jnp.float32) for layer in layers], axis=1)  # [E, S, W, D]
    return jnp.einsum("eswd,ew->esd", picked, weights)


def adept_bias(prototypes: Float[Array, "K S D"], words: Float[Array, "B S D"], rho: float) -> Float[Array, ""]:
    """How differently the groups are near to the words: mean over pairs of groups of the Jensen–Shannon divergence.

    A group's nearness to the words is the distribution P over them with P_b ∝ exp(-|prototype - word_b|² / 2 rho²), all
    layers laid end to end.

    Returns:
        Bits, from 0 to 1. Gradient reaches the words only.
    Source: Yang et al. 2023, equations of P and L_bias.
    """
    near = jax.lax.stop_gradient(prototypes)[:, None] - words[None]  # [K, B, S, D]
    logprobs = jax.nn.log_softmax(-jnp.sum(jnp.square(near), axis=(2, 3)) / (2 * rho**2), axis=-1)  # [K, B]
    pairs = [jensen_shannon(logprobs[i], logprobs[k]) for i, k in combinations(range(len(logprobs)), 2)]
    return jnp.mean(jnp.stack(pairs))


def jensen_shannon(logp: Float[Array, " B"], logq: Float[Array, " B"]) -> Float[Array, ""]:
    """Jensen–Shannon divergence, in bits, of two distributions given by their natural logarithms (finite)."""
    middle = jnp.logaddexp(logp, logq) - jnp.log(2.0)
    nats = jnp.sum(jnp.exp(logp) * (logp - middle)) + jnp.sum(jnp.exp(logq) * (logq - middle))
    return nats / 2 / jnp.log(2.0)


def dpce_bias(prototypes: Float[Array, "K S D"], words: Float[Array, "B S D"]) -> Float[Array, ""]:
    """Sum over groups of the mean, over words and layers, of the squared inner product of word and prototype.

    The released code squares the mean of the inner products, in which opposite signs cancel.

    Source: Kaneko & Bollegala 2021, equation of L_i.
    """
    inner = jnp.einsum("bsd,ksd->kbs", words, jax.lax.stop_gradient(prototypes))
    return jnp.sum(jnp.mean(jnp.square(inner), axis=(1, 2)))


def squared_distance(hidden: Float[Array, "R T D"], original: Float[Array, "R T D"]) -> Float[Array, "R T"]:
    """Mean squared difference of the hidden states of each token."""
    return jnp.mean(jnp.square(hidden.astype(jnp.float32) - original.astype(jnp.float32)), axis=-1)


def kl_distance(hidden: Float[Array, "R T D"], original: Float[Array, "R T D"]) -> Float[Array, "R T"]:
    """KL(softmax(h0) ‖ softmax(h)) + KL(softmax(-h0) ‖ softmax(-h)) of each token, over its D elements, in bits."""

    def divergence(sign: float) -> Float[Array, "R T"]:
        q, p = (jax.nn.log_softmax(sign * x.astype(jnp.float32), axis=-1) for x in (hidden, original))
        return jnp.sum(jnp.exp(p) * (p - q), axis=-1) / jnp.log(2.0)

    return divergence(1.0) + divergence(-1.0)


DISTANCES: dict[str, Callable[[Any, Any], Array]] = {"mse": squared_distance, "kl": kl_distance}


def retention_sum(layers: Layers, original: Layers, retained: Int[Array, "R T"], distance: str) -> Float[Array, ""]:
    """Sum over the retained tokens of their distance from the original, averaged over all L layers."""
    by_token = sum(DISTANCES[distance](h, h0) for h, h0 in zip(layers, original, strict=True)) / len(layers)
    return jnp.sum(by_token * retained)


def adept_objective(config: AdeptRun, model: ModelConfig, examples: Examples) -> Objective:
    """alpha · bias loss + beta · retention loss, on batches laid out by `words`.

    The prototype of a group is the mean representation of its words over all training examples, made anew every epoch,
    without dropout. The original model lies in the carry, and so in the checkpoints. With a prefix to tune it is the model
    itself, without the prefix: that one is frozen.

    Metrics: "bias_loss" (bits for ADEPT), "retention_loss" (mean over the tokens of attribute sentences), "task_loss".
    """
    adept, hidden = config.adept, family_of(model).hidden
    keys = examples.of_examples["key"]
    chosen = LAYERS[adept.debias_layer]
    num_layers = len(range(model.num_layers + 1)[chosen])
    prototypes_of = make_prototypes(model, examples, adept.debias_layer, config.data.row_tokens)

    def tuned(params: Params) -> Params:
        if not adept.prefix_tokens:
            return params
        return jax.lax.stop_gradient(backbone(params)) | {PREFIX: params[EXTRA][PREFIX]}

    def init(params: Params) -> dict[str, Any]:
        prototypes = jnp.zeros((int(keys.max()), num_layers, model.hidden_size))
        if adept.prefix_tokens:
            return {"prototypes": prototypes}
        # A copy of its own: the state is donated, and one buffer cannot be donated twice.
        return {"prototypes": prototypes, "original": jax.tree.map(jnp.copy, backbone(params))}

    def partial(
        params: Params, carry: dict[str, Any], batch: Batch, rng: Key[Array, ""] | None
    ) -> tuple[Partial, Float[Array, "R T D"]]:
        rows = Rows(batch["tokens"], batch["segment_ids"], batch["positions"])
        frozen = jax.lax.stop_gradient(backbone(params)) if adept.prefix_tokens else carry["original"]
        layers = hidden(model, tuned(params), rows, Ask(dropout_rng=rng, all_layers=True)).all_layers
        original = hidden(model, frozen, rows, Ask(all_layers=True)).all_layers
        assert layers is not None and original is not None
        places = (batch["example_rows"], batch["example_columns"], batch["example_weights"])
        each = len(places[0]) // (len(carry["prototypes"]) + 1)
        words = word_representations(layers[chosen], *(place[:each] for place in places))  # the neutral ones come first
        if adept.algorithm == "adept":
            bias = adept_bias(carry["prototypes"], words, adept.rho)
        else:
            bias = dpce_bias(carry["prototypes"], words)
        retention = retention_sum(layers, original, batch["retained"], adept.retention)
        tokens = jnp.sum(batch["retained"]).astype(jnp.float32)
        return Partial({"bias": bias, "retention": retention, "tokens": tokens}), layers[-1]

    def loss(
        params: Params, carry: dict[str, Any], total: Partial, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Metrics, dict[str, Any]]]:
        del params, step
        bias, retention, tokens = (total.sums[name] for name in ("bias", "retention", "tokens"))
        value = adept.alpha * bias + adept.beta * retention / jnp.maximum(tokens, 1)
        one = jnp.ones(())
        metrics = {"bias_loss": (bias, one), "retention_loss": (retention, tokens), "task_loss": (value, one)}
        return value, (metrics, carry)

    def refresh(params: Params, carry: dict[str, Any]) -> dict[str, Any]:
        return carry | {"prototypes": prototypes_of(tuned(params))}

    return Objective(init, partial, loss, refresh, epoch_steps(keys, config.train.batch_size))


def backbone(params: Params) -> Params:
    """The parameters that hidden states are computed from."""
    return {name: params[name] for name in BACKBONE if name in params}


def make_prototypes(
    model: ModelConfig, examples: Examples, debias_layer: str, row_tokens: int
) -> Callable[[Params], Float[Array, "K S D"]]:
    """The function from parameters to each group's mean word representation over all its examples, without dropout."""
    model = dataclasses.replace(model, attention="xla")  # a kernel has the mesh within the train step alone
    keys, pieces, counts = (examples.of_examples[name] for name in ("key", "pieces", "num_pieces"))
    attributes = np.flatnonzero(keys != NEUTRAL)
    packed = pack_for_inference([examples.sequences[i] for i in attributes.tolist()], row_tokens)
    groups = keys[attributes] - 1
    shares = np.zeros((*packed.tokens.shape, groups.max() + 1), np.float32)  # [R, T, K]: each token's part in each mean
    number = np.bincount(groups)
    for row, offset, group, example in zip(packed.row, packed.offset, groups, attributes, strict=True):
        count = counts[example]
        shares[row, offset + pieces[example, :count], group] += 1 / (count * number[group])
    whole = (packed.tokens, packed.segment_ids, packed.positions, shares)

    @jax.jit
    def part(params: Params, tokens: Array, segment_ids: Array, positions: Array, share: Array) -> Array:
        layers = (
            family_of(model)
            .hidden(model, params, Rows(tokens, segment_ids, positions), Ask(all_layers=True))
            .all_layers
        )
        assert layers is not None
        chosen = [layer.astype(jnp.float32) for layer in layers[LAYERS[debias_layer]]]
        return jnp.stack([jnp.einsum("rtk,rtd->kd", share, layer) for layer in chosen], axis=1)

    def prototypes(params: Params) -> Float[Array, "K S D"]:
        sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
        mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
        rows = round_up(min(PROTOTYPE_ROWS, len(packed.tokens)), mesh.size if mesh else 1)
        total = None
        for start in range(0, len(packed.tokens), rows):
            arrays: list[Any] = [x[start : start + rows] for x in whole]
            arrays = [np.pad(x, ((0, rows - len(x)), *((0, 0),) * (x.ndim - 1))) for x in arrays]
            if mesh is not None:
                arrays = put_tree(arrays, [NamedSharding(mesh, P(BATCH_AXES))] * len(arrays))
            found = part(params, *arrays)
            total = found if total is None else total + found
        assert total is not None
        return total

    return prototypes


def _objective(config: AdeptRun, model: Pretrained, examples: Examples) -> Objective:
    if config.adept.prefix_tokens:
        check_prefix(config, model.params)
    return adept_objective(config, model.config, examples)


def check_prefix(config: AdeptRun, params: Params) -> None:
    """Refuses to tune a prefix of a model that would move, or that has one.

    Raises:
        ConfigError: naming what would move.
    """
    tokens, freeze = f"config.adept.prefix_tokens={config.adept.prefix_tokens}", config.optimizer.freeze
    if PREFIX in params:
        raise ConfigError(f"{tokens}: {config.model.path} has a prefix already; start from the model without it")
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    moving = [path for path in paths if not (freeze and re.search(freeze, path))]
    if moving or re.search(freeze, f"{EXTRA}/{PREFIX}"):
        fault = f"lets {moving[0]} move" if moving else "holds the prefix still"
        raise ConfigError(
            f"{tokens} trains the prefix alone, but config.optimizer.freeze={freeze!r} {fault}; set it to {FREEZE!r}"
        )


def prefix_params(config: AdeptRun, model: ModelConfig, key: Key[Array, ""]) -> Params:
    """A fresh prefix, N(0, initializer_range²) [layers, 2, P, H, C]; {} where none is asked for."""
    if not config.adept.prefix_tokens:
        return {}
    shape = model.prefix_shape(config.adept.prefix_tokens)
    if shape is None:
        raise ConfigError(f"config.adept.prefix_tokens: a {model.model_type} model takes no prefix; set it to 0")
    return {PREFIX: model.initializer_range * jax.random.normal(key, shape)}


def _reads(config: AdeptRun) -> dict[str, list[Path]]:
    neutral = path_of(config.adept.neutral) if config.adept.neutral else shipped_file(NEUTRAL_FILE)
    words = {"adept.lexicon": [lexicon_file(config.adept.lexicon)], "adept.neutral": [neutral]}
    return corpus_files(config.data) | words


ADEPT = Method(
    AdeptRun,
    adept_examples,
    _reads,
    describe,
    _objective,
    rules,
    CORPUS_SWITCHES,
    extra_params=prefix_params,
    accumulates=False,
    dev_metric="task_loss",
)
