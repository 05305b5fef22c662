"""Spans of a document as candidate mentions: their vectors, their scores, and which of them are kept.

All functions are of one document (batches vmap them). Letters: L tokens of the document (segments end to end, pads
included), W longest span, D hidden size, F feature size, S = 3D + F span size, U hidden units, K spans kept.

A span is its first token and its width: candidate [i, w] covers the tokens i to i + w.

Sources: Lee et al. 2017 (arXiv:1707.07045), Lee et al. 2018 (arXiv:1804.05392), Joshi et al. 2019 (arXiv:1908.09091).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ncfair_jax.models.base import Params
from ncfair_jax.models.dropout import dropout
from ncfair_jax.models.layers import linear

ROUNDS = 16  # in which spans are taken; 1920 tokens with random scores, or sums of scores of start and end, need 6 to 8


class Kept(NamedTuple):
    """The spans that may corefer, in the order of the document; `real` is False where there are fewer than K."""

    starts: Int[Array, " K"]
    ends: Int[Array, " K"]
    real: Bool[Array, " K"]


def ffnn(params: Params, x: Float[Array, "... I"], rate: float, rng: Key[Array, ""] | None) -> Float[Array, "..."]:
    """One hidden layer with ReLU and dropout, one output."""
    inner = jax.nn.relu(linear(params["hidden"], x))
    return linear(params["output"], dropout(inner, rate, rng))[..., 0]


def candidates(sentences: Int[Array, " L"], max_width: int) -> Bool[Array, "L W"]:
    """Which spans are candidates: those inside one sentence.

    Args:
        sentences: sentence of each token, -1 where it belongs to none (special tokens and pads).
    """
    ends = jnp.arange(len(sentences))[:, None] + jnp.arange(max_width)[None]  # [L, W]
    last = jnp.take(sentences, ends, mode="fill", fill_value=-1)
    return (last == sentences[:, None]) & (last >= 0)


def mention_scores(
    params: Params, states: Float[Array, "L D"], rate: float, rng: Key[Array, ""] | None
) -> Float[Array, "L W"]:
    """How much each span looks like a mention: FFNN(span vector) + FFNN(width).

    Equal to the FFNN of `span_vectors`, but no vector is ever made: the first layer is linear in the vector's parts, so it is
    applied to tokens instead of spans, and a scan over the widths keeps the softmax over the growing span. That
    needs 1/W of the products and O(L·U) memory. Scores of spans beyond the document are finite and mean nothing.
    """
    size, layers = states.shape[1], params["mention"]
    table = params["span"]["width"]["embedding"]
    parts = jnp.split(layers["hidden"]["kernel"], [size, 2 * size, 2 * size + table.shape[1]])
    starts, ends, heads = (states @ parts[i] for i in (0, 1, 3))  # [L, U]
    widths = table @ parts[2] + layers["hidden"]["bias"][None]  # [W, U]
    logits = linear(params["span"]["head"], states)[:, 0]  # [L]
    prior = ffnn(params["width_prior"], params["width_prior"]["width"]["embedding"], rate, _fold(rng, len(table)))

    @jax.checkpoint  # else the hidden units of all L · W spans would be kept for the backward pass
    def widen(softmax: Any, item: Any) -> Any:
        peak, weight, total = softmax
        width, by_width, by_prior = item
        logit = jnp.roll(logits, -width)
        higher = jnp.maximum(peak, logit)
        keep, add = jnp.exp(peak - higher), jnp.exp(logit - higher)
        weight = weight * keep + add
        total = total * keep[:, None] + add[:, None] * jnp.roll(heads, -width, axis=0)
        inner = starts + jnp.roll(ends, -width, axis=0) + by_width[None] + total / weight[:, None]
        inner = dropout(jax.nn.relu(inner), rate, _fold(rng, width))
        return (higher, weight, total), linear(layers["output"], inner)[:, 0] + by_prior

    nothing = (jnp.full_like(logits, -jnp.inf), jnp.zeros_like(logits), jnp.zeros_like(heads))
    _, scores = jax.lax.scan(widen, nothing, (jnp.arange(len(table)), widths, prior))
    return scores.T


def span_vectors(
    params: Params, states: Float[Array, "L D"], starts: Int[Array, " K"], ends: Int[Array, " K"]
) -> Float[Array, "K S"]:
    """[first token; last token; width embedding; mean of the span's tokens under a learned softmax]."""
    table = params["span"]["width"]["embedding"]
    inside = starts[:, None] + jnp.arange(len(table))[None]  # [K, W]
    logits = jnp.take(linear(params["span"]["head"], states)[:, 0], inside, mode="clip")
    weights = jax.nn.softmax(jnp.where(inside <= ends[:, None], logits, -jnp.inf), axis=1)
    heads = jnp.einsum("kw,kwd->kd", weights, jnp.take(states, inside, axis=0, mode="clip"))
    return jnp.concatenate([states[starts], states[ends], table[ends - starts], heads], axis=1)


def keep_spans(scores: Float[Array, "L W"], allowed: Bool[Array, "L W"], limit: Int[Array, ""], capacity: int) -> Kept:
    """The best `limit` spans that do not cross: taken by falling score, passing over those that overlap a taken one in part.

    Done in rounds: a span is taken if it is better than all it crosses that are still open, which closes those. That ends
    with the same spans as taking one by one, in rounds instead of thousands of steps; what is open after the last is passed
    over.

    Args:
        allowed: the candidates.
        limit: most spans of this document, at most `capacity` (K).
    """
    size, max_width = scores.size, scores.shape[1]
    order = jnp.argsort(jnp.where(allowed, -scores, jnp.inf).ravel())
    rank = jnp.zeros(size, jnp.int32).at[order].set(jnp.arange(size, dtype=jnp.int32)).reshape(scores.shape)

    def play(state: tuple[Array, Array]) -> tuple[Array, Array]:
        still_open, taken = state
        wins = still_open & (rank < best_crossing(jnp.where(still_open, rank, size), size))
        loses = best_crossing(jnp.where(wins, rank, size), size) < size
        return still_open & ~wins & ~loses, taken | wins

    nothing = jnp.zeros_like(allowed)
    # A loop until none is open would ask all devices after each round, which waits on them and can lock up a CPU backend.
    _, taken = jax.lax.fori_loop(0, ROUNDS, lambda _, state: play(state), (allowed, nothing))
    ranks = jnp.sort(jnp.where(taken, rank, size).ravel())[:capacity]
    real = (ranks < size) & (jnp.arange(len(ranks)) < limit)
    numbers = jnp.sort(jnp.where(real, jnp.take(order, ranks, mode="clip"), size))
    real = numbers < size
    starts, widths = (jnp.where(real, x, 0) for x in (numbers // max_width, numbers % max_width))
    return Kept(starts, starts + widths, real)


def best_crossing(rank: Int[Array, "L W"], none: int) -> Int[Array, "L W"]:
    """Lowest rank among the spans that cross each span, `none` where there are none.

    Args:
        rank: of each span; `none`, above all others, for spans that are not there.
    """
    nobody = jnp.full(len(rank), none, rank.dtype)

    def later(best: Array, column: Array) -> tuple[Array, Array]:
        """From the spans that begin inside and end beyond [i + 1, w] to those of [i, w + 1], which ends there too."""
        best = jnp.append(jnp.minimum(best, column)[1:], nobody[:1])
        return best, best

    def earlier(best: Array, column: Array) -> tuple[Array, Array]:
        """From the best that begins before i - 1 and ends at i + w to the best that begins before i and ends there."""
        best = jnp.append(nobody[:1], jnp.minimum(best, column)[:-1])
        return best, best

    beyond = jax.lax.cummin(rank[:, 1:], axis=1, reverse=True)  # begins here, ends after this one
    _, right = jax.lax.scan(later, nobody, beyond.T)
    _, ends_here = jax.lax.scan(earlier, nobody, rank[:, 1:].T, reverse=True)
    left = jax.lax.cummin(ends_here, axis=0)
    crossing = jnp.minimum(right, left).T  # [L, W - 1]; a span of one token crosses none
    return jnp.concatenate([nobody[:, None], crossing], axis=1)


def _fold(rng: Key[Array, ""] | None, number: Any) -> Key[Array, ""] | None:
    return None if rng is None else jax.random.fold_in(rng, number)
