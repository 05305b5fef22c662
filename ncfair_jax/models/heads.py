"""Heads on top of the encoder: of masked language modelling (with the classifier rows that the fairness losses look at), and of
classification."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from ncfair_jax.models.dropout import dropout
from ncfair_jax.models.encoder import Encoder, LayerNorm, ModelConfig, Params, dense, gelu, per_feature


class MlmHead(nn.Module):
    """Everything of the head but the decoder matrix, which is the word embedding table."""

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
        config = self.config
        self.param("bias", nn.initializers.zeros, (config.vocab_size,))  # read by mlm_logits
        inner = gelu(dense(config, config.hidden_size, "transform")(hidden))
        return LayerNorm(config.layer_norm_eps, jnp.float32, name="norm")(inner)


def mlm_transform(config: ModelConfig, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Features that the decoder multiplies: dense, exact GELU, LayerNorm. The result is float32."""
    features: Any = MlmHead(config).apply({"params": params["mlm"]}, hidden)
    return features


def mlm_logits(config: ModelConfig, params: Params, transformed: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits over the vocabulary in float32: transformed · word embeddings + output bias."""
    dtype = jnp.dtype(config.activation_dtype)
    weight, bias = classifier(params)
    logits = jnp.einsum(
        "...d,vd->...v", transformed.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32
    )
    return logits + per_feature(bias, logits.ndim)


def nsp_transform(config: ModelConfig, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """BERT's pooler, to be applied to the first token of a sequence: dense and tanh, in float32."""
    pooler = params["nsp"]["pooler"]
    inner = hidden.astype(jnp.float32) @ pooler["kernel"]
    return jnp.tanh(inner + per_feature(pooler["bias"], inner.ndim))


def nsp_logits(config: ModelConfig, params: Params, transformed: Float[Array, "... D"]) -> Float[Array, "... 2"]:
    """Logits of BERT's next-sentence head in float32: 0, the second text follows the first; 1, it is a random one."""
    head = params["nsp"]["classifier"]
    logits = transformed @ head["kernel"]
    return logits + per_feature(head["bias"], logits.ndim)


def classifier(params: Params) -> tuple[Float[Array, "V D"], Float[Array, " V"]]:
    """Weight and bias of the output layer: the tied word embeddings and the decoder bias."""
    return params["embeddings"]["word"]["embedding"], params["mlm"]["bias"]


def class_outputs(
    config: ModelConfig, head: Params, first: Float[Array, "... D"], dropout_rng: Key[Array, ""] | None = None
) -> Float[Array, "... C"]:
    """Outputs of a classifier on the hidden states of first tokens, float32: with a "pooler" tanh(dense), then "classifier".

    Dropout as in `BertForSequenceClassification` and `RobertaForSequenceClassification` of transformers.
    """
    keys = (None, None) if dropout_rng is None else jax.random.split(dropout_rng)
    x = first.astype(jnp.float32)
    if "pooler" in head:
        if config.model_type == "roberta":
            x = dropout(x, config.hidden_dropout, keys[0])
        x = jnp.tanh(linear(head["pooler"], x))
    return linear(head["classifier"], dropout(x, config.hidden_dropout, keys[1]))


def linear(params: Params, x: Float[Array, "... D"]) -> Float[Array, "... C"]:
    """x · kernel + bias."""
    return x @ params["kernel"] + per_feature(params["bias"], x.ndim)


def init_params(config: ModelConfig, rng: Key[Array, ""]) -> Params:
    """Fresh float32 parameters: matrices and embeddings N(0, initializer_range²), biases 0, LayerNorm 1 and 0."""
    ids = jnp.zeros((1, 1), jnp.int32)
    encoder_rng, head_rng = jax.random.split(rng)
    params: dict[str, Any] = dict(Encoder(config, train=False).init(encoder_rng, ids, ids, ids, ids)["params"])
    params["mlm"] = MlmHead(config).init(head_rng, jnp.zeros((1, config.hidden_size)))["params"]
    return params
