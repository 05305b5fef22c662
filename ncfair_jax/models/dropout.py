"""Dropout whose mask is cheap to draw, from the bits of the key's own generator.

With Threefry a mask is the same on any number of devices, and rows that follow do not change it. The hardware's generators
("rbg", "unsafe_rbg") draw a whole mask at once: it is the same only for the same shape, devices and software.
"""

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Key, UInt32

from ncfair_jax.sharding import BATCH_AXES, batch_shards, traced_mesh

GENERATORS = {"threefry": "threefry2x32", "rbg": "rbg", "unsafe_rbg": "unsafe_rbg"}  # jax's name of each
LEVELS = 1 << 16  # a mask element costs 16 random bits, so rates are exact to 1/65536


def keep_mask(rng: Key[Array, ""], rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability 1 - rate (rounded to a multiple of 1/65536); each word of random bits serves several elements."""
    width = shape[-1]
    if jax.random.key_impl(rng) == GENERATORS["threefry"]:
        words = _threefry_words(rng, (*shape[:-1], -(-width // 4)))
    else:
        words = [_hardware_words(rng, (*shape[:-1], -(-width // 2)))]
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    bits = jnp.stack(halves, axis=-1).reshape(*shape[:-1], -1)[..., :width]
    return bits >= jnp.uint32(round(rate * LEVELS))


def _threefry_words(rng: Key[Array, ""], blocks: tuple[int, ...]) -> list[UInt32[Array, "..."]]:
    """Two words for each block; they depend on the key and the block's flat index alone.

    So the mask of row r depends on (rng, r, shape[1:]) only, whatever the sharding and however many rows follow.
    `jax.random.bits(..., uint16)` would spend a block on every element.
    """
    key = jax.random.key_data(rng)
    count = jnp.zeros(blocks, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(blocks))):  # below 2^32 blocks = 2^34 elements the low counter word is enough
        count += jax.lax.broadcasted_iota(jnp.uint32, blocks, axis) * jnp.uint32(stride)
        stride *= blocks[axis]
    return list(threefry2x32_p.bind(key[0], key[1], jnp.zeros_like(count), count))


def _hardware_words(rng: Key[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Words of the key's own generator. On a mesh (`sharding.on_mesh`) every device draws those of its own rows.

    XLA does not split these generators: without this every device would draw the words of all.
    """
    mesh = traced_mesh()
    shards = 1 if mesh is None else batch_shards(mesh)
    if shards == 1 or shape[0] % shards:
        return jax.random.bits(rng, shape, jnp.uint32)

    def own_rows(rng: Key[Array, ""]) -> UInt32[Array, "..."]:
        rng = jax.random.fold_in(rng, jax.lax.axis_index(BATCH_AXES))
        return jax.random.bits(rng, (shape[0] // shards, *shape[1:]), jnp.uint32)

    found: Array = jax.shard_map(own_rows, mesh=mesh, in_specs=P(), out_specs=P(BATCH_AXES), check_vma=False)(rng)
    return found


def dropout(x: Float[Array, "..."], rate: float, rng: Key[Array, ""] | None) -> Float[Array, "..."]:
    """Zeroes elements with probability `rate` and rescales the others to keep the mean; identity without rng."""
    if rng is None or rate == 0.0:
        return x
    scale = 1.0 / (1.0 - round(rate * LEVELS) / LEVELS)
    return jnp.where(keep_mask(rng, rate, x.shape), x * jnp.asarray(scale, x.dtype), jnp.zeros((), x.dtype))
