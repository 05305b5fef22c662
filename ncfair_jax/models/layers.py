"""Parts of which families are built."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.models.attention import Segments
from ncfair_jax.models.base import Ask, Hidden, ModelConfig, Params
from ncfair_jax.sharding import Rules, keep_laid_out, keep_rows


def per_feature(vector: Float[Array, " D"], ndim: int) -> Array:
    """The vector shaped to meet the last axis of an ndim-array (rank promotion written out)."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


def linear(params: Params, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
    """x · kernel + bias."""
    y = x @ params["kernel"]
    return y + per_feature(params["bias"], y.ndim)


def gelu(x: Array) -> Array:
    """x · Φ(x) by erf, as BERT has it (not the tanh approximation)."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


def dense(config: ModelConfig, features: int, name: str) -> nn.Dense:
    """A linear layer in the activation dtype; fresh kernels are N(0, initializer_range²), biases 0."""
    return nn.Dense(
        features,
        dtype=jnp.dtype(config.activation_dtype),
        kernel_init=nn.initializers.normal(config.initializer_range),
        name=name,
    )


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, computed in float32 whatever comes in; the result has `dtype`."""

    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        inverse_sd = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        normal = centred * inverse_sd * per_feature(scale, x.ndim) + per_feature(bias, x.ndim)
        return normal.astype(self.dtype)


class Table(nn.Module):
    """An embedding table. Ids beyond it give NaN, so the mistake shows; clamping would hide it."""

    rows: int
    width: int
    config: ModelConfig

    @nn.compact
    def __call__(self, ids: Int[Array, "R T"]) -> Float[Array, "R T D"]:
        init = nn.initializers.normal(self.config.initializer_range)
        table = self.param("embedding", init, (self.rows, self.width))
        return jnp.take(table, ids, axis=0, mode="fill", fill_value=jnp.nan)


def at_columns(x: Float[Array, "R T D"], columns: Int[Array, "R Q"]) -> Float[Array, "R Q D"]:
    """Of each row, the vectors at its columns."""
    return jnp.take_along_axis(x, columns[..., None], axis=1)


# x [R,Q,D], seen [R,T,D], segments, the layer's parameters, its part of the prefix and its key
# -> output [R,Q,D], attention paid [R,T] or None
Layer = Callable[
    [Array, Array, Segments, Params, Array | None, Key[Array, ""] | None], tuple[Array, Float[Array, "R T"] | None]
]


def key_of(rng: Key[Array, ""] | None, number: int | Int[Array, ""]) -> Key[Array, ""] | None:
    """The dropout key of a layer by its number from 1; 0 are the embeddings. None where there is no dropout."""
    return None if rng is None else jax.random.fold_in(rng, number)


def stack(
    config: ModelConfig,
    layer: Layer,
    layers: list[Params],
    x: Float[Array, "R T D"],
    segment_ids: Int[Array, "R T"],
    prefix: Float[Array, "L 2 P H C"] | None,
    ask: Ask,
    sharding: Rules,
) -> Hidden:
    """A stack whose layers are all alike, as one loop or one after the other: the same numbers within rounding.

    A loop compiles in the time of one layer and costs a copy of the weights, made anew in each call. Where the last layer
    computes some columns only (`ask.read`), it comes after the loop.

    Args:
        layer: its key is None without dropout.
        layers: parameters of each.
        x: what the first layer takes.
        sharding: the family's; in a loop XLA would add up the gradients of whole weights on every device.
    """
    in_loop = (len(layers) - (ask.read is not None)) * config.scan_layers
    if config.remat:  # a loop's body is not merged with the forward pass, so nothing need be done against it
        layer = jax.checkpoint(layer, prevent_cse=not in_loop)

    def one(seen: Array, number: Any, weights: Params, learned: Array | None, read: Array | None) -> tuple[Any, Any]:
        queried, ids = seen, segment_ids
        if read is not None:
            queried, ids = at_columns(seen, read), jnp.take_along_axis(segment_ids, read, axis=1)
        key = key_of(ask.dropout_rng, number + 1)
        weights = keep_laid_out(weights, sharding)
        output, paid = layer(queried, seen, Segments(ids, segment_ids), weights, learned, key)
        return keep_rows(output), paid

    def step(seen: Array, inputs: tuple[Any, Params, Array | None]) -> tuple[Array, tuple[Any, Any]]:
        output, paid = one(seen, *inputs, None)
        return output, (output if ask.all_layers else None, paid)

    x = keep_rows(x)
    outputs: list[Any] = [x]
    paid: list[Any] = []
    if in_loop:
        weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers[:in_loop])
        learned = None if prefix is None else prefix[:in_loop]
        x, (each, paid_each) = jax.lax.scan(step, x, (jnp.arange(in_loop), weights, learned))
        outputs.extend(each if ask.all_layers else [x])
        paid.extend([] if paid_each is None else paid_each)
    for number in range(in_loop, len(layers)):
        learned = None if prefix is None else prefix[number]
        read = ask.read if number == len(layers) - 1 else None
        output, its_paid = one(outputs[-1], number, layers[number], learned, read)
        outputs.append(output)
        paid.extend([] if its_paid is None else [its_paid])
    whole = jnp.stack(paid).mean(0) if ask.received_attention else None
    return Hidden(outputs[-1], tuple(outputs) if ask.all_layers else None, whole)
