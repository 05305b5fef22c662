"""Parts of which families are built."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from ncfair_jax.models.attention import Mask, segment_mask
from ncfair_jax.models.base import ModelConfig, Params


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


def queries(
    seen: Float[Array, "R T D"], mask: Mask, read: Int[Array, "R Q"] | None
) -> tuple[Float[Array, "R A D"], Bool[Array, "R 1 A S"]]:
    """What the last layer computes: of `seen`, and of the mask, the columns `read` (None: all)."""
    if read is None:
        return seen, mask
    return at_columns(seen, read), jnp.take_along_axis(mask, read[:, None, :, None], axis=2)


def attention_mask(segment_ids: Int[Array, "R T"], prefix: Float[Array, "L 2 P H C"] | None) -> Mask:
    """Who sees whom: the tokens of a segment each other, and all a prefix."""
    mask = segment_mask(segment_ids)
    if prefix is not None:
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (prefix.shape[2], 0)), constant_values=True)
    return mask


# x [R,Q,D], seen [R,T,D], mask, the layer's parameters and part of the prefix -> output [R,Q,D], attention paid [R,T] or None
Layer = Callable[[Array, Array, Mask, Params, Array | None], tuple[Array, Array | None]]


def looped(
    layer: Layer,
    layers: list[Params],
    x: Float[Array, "R T D"],
    mask: Mask,
    prefix: Any,
    read: Int[Array, "R Q"] | None,
) -> tuple[tuple[Array, ...], Float[Array, "L R T"] | None]:
    """A stack whose layers are all alike, all but the last as one loop.

    Args:
        layers: parameters of each.
        x: what the first layer takes.
        prefix: [L,2,P,H,C] or None.
        read: columns that the last layer computes; None: all.
    Returns:
        `x` and every layer's output, and the attention each layer pays if `layer` tells.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers[:-1])

    def step(seen: Array, inputs: tuple[Params, Array | None]) -> tuple[Array, tuple[Array, Array | None]]:
        output, paid = layer(seen, seen, mask, *inputs)
        return output, (output, paid)

    paid: Any
    seen, (outputs, paid) = jax.lax.scan(step, x, (stacked, None if prefix is None else prefix[:-1]))
    queried, its_mask = queries(seen, mask, read)
    last, paid_last = layer(queried, seen, its_mask, layers[-1], None if prefix is None else prefix[-1])
    return (x, *outputs, last), None if paid_last is None else jnp.concatenate([paid, paid_last[None]])
