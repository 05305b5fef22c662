"""Which earlier span each kept span refers to: a cheap score of all pairs, a full one of the best, and their likelihood.

All functions are of one document. Letters as in `spans`, and C antecedents that are fully scored for each span. The
dummy antecedent (none) has the score 0 and is no column of the arrays.

Sources: Lee et al. 2018 (arXiv:1804.05392, coarse-to-fine), Joshi et al. 2019 (arXiv:1908.09091), without higher order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ncfair_jax.models.base import Params
from ncfair_jax.models.dropout import dropout
from ncfair_jax.models.layers import linear

DISTANCES = 10  # buckets of a distance: 0, 1, 2, 3, 4, 5-7, 8-15, 16-31, 32-63, 64 and more


class Antecedents(NamedTuple):
    """The best antecedents of each span: their indices among the K, scores, and which exist."""

    spans: Int[Array, "K C"]
    scores: Float[Array, "K C"]
    real: Bool[Array, "K C"]


class SpanContext(NamedTuple):
    """What tells two spans apart besides their text."""

    speakers: Int[Array, " K"]
    segments: Int[Array, " K"]
    genre: Int[Array, ""]


def distance_bucket(distance: Int[Array, "..."]) -> Int[Array, "..."]:
    """Bucket of a distance, in kept spans: 0 to 9."""
    log2 = jnp.floor(jnp.log2(jnp.maximum(distance, 1).astype(jnp.float32))).astype(jnp.int32)
    return jnp.clip(jnp.where(distance <= 4, distance, log2 + 3), 0, DISTANCES - 1)


def coarse_antecedents(
    params: Params,
    vectors: Float[Array, "K S"],
    mentions: Float[Array, " K"],
    real: Bool[Array, " K"],
    capacity: int,
    rate: float,
    rng: Key[Array, ""] | None,
) -> Antecedents:
    """The best C earlier spans by m_i + m_j + (W v_i)·v_j + prior(distance).

    Args:
        mentions: m, the mention scores.
        real: as in `Kept`.
        capacity: C, at most K.
    """
    rngs = (None,) * 3 if rng is None else tuple(jax.random.split(rng, 3))
    count = len(vectors)
    sources = dropout(linear(params["coarse"], vectors), rate, rngs[0])
    products = sources @ dropout(vectors, rate, rngs[1]).T  # [K, K]
    features = dropout(params["distance_prior"]["distance"]["embedding"], rate, rngs[2])
    prior = linear(params["distance_prior"]["output"], features)[:, 0]
    numbers = jnp.arange(count)
    distances = numbers[:, None] - numbers[None]
    scores = mentions[:, None] + mentions[None] + products + prior[distance_bucket(distances)]
    earlier = (distances > 0) & real[:, None] & real[None]
    ranked, index = jax.lax.top_k(jnp.where(earlier, scores, -jnp.inf), capacity)
    exist = jnp.take_along_axis(earlier, index, axis=1)
    return Antecedents(index, jnp.where(exist, ranked, 0), exist)


def fine_scores(
    params: Params,
    vectors: Float[Array, "K S"],
    index: Int[Array, "K C"],
    context: SpanContext,
    rate: float,
    rng: Key[Array, ""] | None,
) -> Float[Array, "K C"]:
    """FFNN([v_i; v_j; v_i∘v_j; same speaker; genre; segments between; spans between]) of each span and antecedent.

    The first layer is linear in its parts: those of one span alone are multiplied before the pairs are made.
    """
    rngs = (None,) * 5 if rng is None else tuple(jax.random.split(rng, 5))
    layers, tables = params["fine"], params["pair"]
    size = vectors.shape[1]
    first, second, product, features = jnp.split(layers["hidden"]["kernel"], [size, 2 * size, 3 * size])
    segments_apart = context.segments[:, None] - context.segments[index]
    rows = (
        ("speaker", (context.speakers[:, None] == context.speakers[index]).astype(jnp.int32)),
        ("genre", jnp.broadcast_to(context.genre, index.shape)),
        ("segment", jnp.clip(segments_apart, 0, len(tables["segment"]["embedding"]) - 1)),
        ("distance", distance_bucket(jnp.arange(len(vectors))[:, None] - index)),
    )
    inner = (vectors @ first)[:, None] + (vectors @ second)[index] + (vectors[:, None] * vectors[index]) @ product
    inner += layers["hidden"]["bias"][None, None]
    for (name, row), kernel, key in zip(rows, jnp.split(features, len(rows)), rngs[1:], strict=True):
        table = dropout(tables[name]["embedding"], rate, key)
        inner += (table @ kernel)[row]
    return linear(layers["output"], dropout(jax.nn.relu(inner), rate, rngs[0]))[..., 0]


def marginal_loss(antecedents: Antecedents, real: Bool[Array, " K"], clusters: Int[Array, " K"]) -> Float[Array, ""]:
    """Sum over spans of -log P(one of its gold antecedents), of the dummy where there is none among the C; nats.

    Args:
        clusters: gold cluster of each span from 1; 0 = no mention.
    """
    scores = jnp.where(antecedents.real, antecedents.scores, -jnp.inf)
    same = (clusters[:, None] == clusters[antecedents.spans]) & (clusters[:, None] > 0) & antecedents.real
    dummy = jnp.zeros((len(scores), 1))
    any_antecedent = jnp.any(same, axis=1, keepdims=True)
    gold = jnp.concatenate([jnp.where(any_antecedent, -jnp.inf, dummy), jnp.where(same, scores, -jnp.inf)], axis=1)
    everything = jnp.concatenate([dummy, scores], axis=1)
    losses = jax.nn.logsumexp(everything, axis=1) - jax.nn.logsumexp(gold, axis=1)
    return jnp.sum(jnp.where(real, losses, 0))


def best_antecedents(antecedents: Antecedents) -> Int[Array, " K"]:
    """Index of each span's best antecedent; -1 where the dummy's score of 0 is not surpassed."""
    scores = jnp.where(antecedents.real, antecedents.scores, -jnp.inf)
    best = jnp.argmax(scores, axis=1)
    rows = jnp.arange(len(scores))
    return jnp.where(scores[rows, best] > 0, antecedents.spans[rows, best], -1)
