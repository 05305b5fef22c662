"""The coreference model on top of the encoder: its parameters, and what it finds in a batch of documents.

Letters as in `spans` and `antecedents`, and B documents of G segments (rows) of T tokens each: L = G · T.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.models.base import Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.tasks.coreference.antecedents import (
    DISTANCES,
    Antecedents,
    SpanContext,
    coarse_antecedents,
    fine_scores,
)
from ncfair_jax.tasks.coreference.config import CorefConfig
from ncfair_jax.tasks.coreference.spans import Kept, candidates, keep_spans, mention_scores, span_vectors

GENRES = ("bc", "bn", "mz", "nw", "pt", "tc", "wb")  # of OntoNotes; any other is the eighth
MOST_SPANS = 3900  # kept of one document


class Ranked(NamedTuple):
    """What the model makes of each document of a batch; every array has a leading axis B."""

    kept: Kept
    antecedents: Antecedents


def init_coref(config: CorefConfig, model: ModelConfig, rng: Key[Array, ""]) -> Params:
    """Fresh parameters: matrices and embeddings N(0, initializer_range²), biases 0."""
    size, feature, units = model.hidden_size, config.feature_size, config.hidden_units
    span = 3 * size + feature
    keys = iter(jax.random.split(rng, 32))

    def matrix(*shape: int) -> Array:
        return model.initializer_range * jax.random.normal(next(keys), shape)

    def layer(inputs: int, outputs: int) -> Params:
        return {"kernel": matrix(inputs, outputs), "bias": jnp.zeros(outputs)}

    def network(inputs: int) -> Params:
        return {"hidden": layer(inputs, units), "output": layer(units, 1)}

    def table(rows: int) -> Params:
        return {"embedding": matrix(rows, feature)}

    pair = {"speaker": 2, "genre": len(GENRES) + 1, "segment": config.max_segments, "distance": DISTANCES}
    return {
        "span": {"width": table(config.max_width), "head": layer(size, 1)},
        "mention": network(span),
        "width_prior": {"width": table(config.max_width), **network(feature)},
        "coarse": layer(span, span),
        "distance_prior": {"distance": table(DISTANCES), "output": layer(feature, 1)},
        "pair": {name: table(rows) for name, rows in pair.items()},
        "fine": network(3 * span + len(pair) * feature),
    }


def rank(
    model: ModelConfig, config: CorefConfig, params: Params, own: Params, batch: dict[str, Array], rng: Any
) -> tuple[Ranked, Float[Array, "R T D"]]:
    """Kept spans and their antecedents' scores.

    Args:
        params: the encoder's.
        own: as `init_coref` makes them.
        batch: tokens, segment_ids, positions, sentences, speakers i32[B,G,T] and genre i32[B]; see `documents`.
        rng: typed key; None: no dropout.
    Returns:
        The result and the hidden states of the B · G rows.
    """
    row_tokens = batch["tokens"].shape[-1]
    rows = (batch[name].reshape(-1, row_tokens) for name in ("tokens", "segment_ids", "positions"))
    encoder_rng, span_rng = (None, None) if rng is None else jax.random.split(rng)
    hidden = family_of(model).hidden(model, params, Rows(*rows), Ask(dropout_rng=encoder_rng)).hidden_states
    return rank_spans(config, own, hidden, batch, span_rng), hidden


def rank_spans(
    config: CorefConfig, own: Params, hidden: Float[Array, "R T D"], batch: dict[str, Array], rng: Any
) -> Ranked:
    """The result of `rank`, from the hidden states of its rows."""
    documents, segments, row_tokens = batch["tokens"].shape
    keys = None if rng is None else jax.random.split(rng, documents)
    length = segments * row_tokens
    states = hidden.reshape(documents, length, -1).astype(jnp.float32)
    spans = min(MOST_SPANS, length * config.max_width, max(1, int(config.span_ratio * length)))

    def one(states: Array, document: dict[str, Array], rng: Any) -> Ranked:
        rngs = (None,) * 3 if rng is None else tuple(jax.random.split(rng, 3))
        rate = config.dropout
        sentences = document["sentences"].ravel()
        allowed = candidates(sentences, config.max_width)
        scores = mention_scores(own, states, rate, rngs[0])
        tokens = jnp.sum(document["segment_ids"] > 0).astype(jnp.float32)
        limit = jnp.clip(jnp.floor(config.span_ratio * tokens).astype(jnp.int32), 1, spans)
        kept = keep_spans(jax.lax.stop_gradient(scores), allowed, limit, spans)
        vectors = span_vectors(own, states, kept.starts, kept.ends)
        mentions = scores[kept.starts, kept.ends - kept.starts]
        most = min(config.max_antecedents, spans)
        found = coarse_antecedents(own, vectors, mentions, kept.real, most, rate, rngs[1])
        context = SpanContext(document["speakers"].ravel()[kept.starts], kept.starts // row_tokens, document["genre"])
        fine = fine_scores(own, vectors, found.spans, context, rate, rngs[2])
        return Ranked(kept, found._replace(scores=found.scores + fine))

    inputs = {name: batch[name] for name in ("sentences", "speakers", "segment_ids", "genre")}
    return jax.vmap(one, in_axes=(0, 0, None if rng is None else 0))(states, inputs, keys)


def gold_clusters(ranked: Ranked, gold: Int[Array, "B L W"]) -> Int[Array, "B K"]:
    """Gold cluster of each kept span, 0 for none."""
    return jax.vmap(lambda kept, table: jnp.where(kept.real, table[kept.starts, kept.ends - kept.starts], 0))(
        ranked.kept, gold
    )
