"""Heads that stand on any family: of next sentences and of classes of texts. A family's own head is in its file."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ncfair_jax.models.base import NSP, ModelConfig, Params
from ncfair_jax.models.dropout import dropout
from ncfair_jax.models.families import family_of
from ncfair_jax.models.layers import linear


def nsp_transform(config: ModelConfig, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The pooler of the pre-training, to be applied to the first token of a sequence: dense and tanh, in float32."""
    del config
    return jnp.tanh(linear(params[NSP]["pooler"], hidden.astype(jnp.float32)))


def nsp_logits(config: ModelConfig, params: Params, transformed: Float[Array, "... D"]) -> Float[Array, "... 2"]:
    """Logits of the next-sentence head in float32: 0, the second text follows the first; 1, it is a random one."""
    del config
    return linear(params[NSP]["classifier"], transformed)


def class_outputs(
    config: ModelConfig, head: Params, first: Float[Array, "... D"], dropout_rng: Key[Array, ""] | None = None
) -> Float[Array, "... C"]:
    """Outputs of a classifier on the hidden states of first tokens, float32: with a "pooler" tanh(dense), then "classifier".

    Dropout as in `BertForSequenceClassification` and `RobertaForSequenceClassification` of transformers: in families without a
    pooler of the pre-training the dense layer is part of the fresh head, and its inputs are dropped, too.
    """
    keys = (None, None) if dropout_rng is None else jax.random.split(dropout_rng)
    x = first.astype(jnp.float32)
    if "pooler" in head:
        if "pooler" not in family_of(config).extras:
            x = dropout(x, config.hidden_dropout, keys[0])
        x = jnp.tanh(linear(head["pooler"], x))
    return linear(head["classifier"], dropout(x, config.hidden_dropout, keys[1]))
