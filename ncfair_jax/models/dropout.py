"""Dropout whose mask is cheap to draw and whose earlier rows do not depend on how many rows follow."""

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Bool, Float, Key

LEVELS = 1 << 16  # a mask element costs 16 random bits, so rates are exact to 1/65536


def keep_mask(rng: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability 1 - rate (rounded to a multiple of 1/65536).

    One Threefry block (64 bits) serves four neighbours of the last axis; its counter is the flat index of the block,
    as under `jax_threefry_partitionable`. So the mask of row r depends on (rng, r, shape[1:]) only, whatever the
    sharding and however many rows follow. `jax.random.bits(..., uint16)` would spend a block on every element.
    """
    key = jax.random.key_data(rng)
    blocks = (*shape[:-1], -(-shape[-1] // 4))
    count = jnp.zeros(blocks, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(blocks))):  # below 2^32 blocks = 2^34 elements the low counter word is enough
        count += jax.lax.broadcasted_iota(jnp.uint32, blocks, axis) * jnp.uint32(stride)
        stride *= blocks[axis]
    words = threefry2x32_p.bind(key[0], key[1], jnp.zeros_like(count), count)
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    bits = jnp.stack(halves, axis=-1).reshape(*shape[:-1], -1)[..., : shape[-1]]
    return bits >= jnp.uint32(round(rate * LEVELS))


def dropout(x: Float[Array, "..."], rate: float, rng: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Zeroes elements with probability `rate` and rescales the others to keep the mean; identity without rng."""
    if rng is None or rate == 0.0:
        return x
    scale = 1.0 / (1.0 - round(rate * LEVELS) / LEVELS)
    return jnp.where(keep_mask(rng, rate, x.shape), x * jnp.asarray(scale, x.dtype), jnp.zeros((), x.dtype))
