"""The one attention function, its implementations chosen by config.

Letters besides those of `base`: S keys: the T tokens of a row and, before them, those of a learned prefix.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from ncfair_jax.models.dropout import dropout
from ncfair_jax.sharding import BATCH_AXES, traced_mesh

Heads = Float[Array, "R Q H C"]
Keys = Float[Array, "R S H C"]
Mask = Bool[Array, "R 1 Q S"]


class Segments(NamedTuple):
    """The segment of each token: it attends to the tokens of its own, and to a prefix. Pads (0) attend to the pads."""

    query: Int[Array, "R Q"]
    key: Int[Array, "R T"]


def attend(
    query: Heads,
    key: Keys,
    value: Keys,
    segments: Segments,
    *,
    dropout_rate: float = 0.0,
    rng: Key[Array, ""] | None = None,
    implementation: str = "xla",
) -> Heads:
    """Scaled dot-product attention within segments, with dropout on the probabilities.

    Every implementation gives the same within rounding. Where there is a prefix, where only some columns ask, and where rows
    have a length that it does not take, a kernel leaves the work to "xla".

    Raises:
        ValueError: if dropout is asked of an implementation that has none.
    """
    if rng is None:
        dropout_rate = 0.0
    if implementation == "xla":
        return _xla(query, key, value, segments, dropout_rate, rng)
    if dropout_rate > 0.0:
        raise ValueError(f"attention={implementation!r} has {_no_dropout(dropout_rate)}")
    kernel, tokens = KERNELS[implementation], segments.key.shape[1]
    if not query.shape[1] == key.shape[1] == tokens or tokens % kernel.row_multiple:
        return _xla(query, key, value, segments, 0.0, None)
    return kernel.attend(query, key, value, segments)


def received(query: Heads, key: Keys, segments: Segments) -> Float[Array, "R S"]:
    """Attention that each key is paid, averaged over the heads and over the queries that see it (those of its segment).

    The sum over the keys of a segment is 1. Without dropout, whatever the implementation. Beside `attend` in one jitted
    function XLA computes the probabilities of both once.
    """
    mask = _mask(segments, key.shape[1])
    probs = _probabilities(query.transpose(0, 2, 1, 3), key.transpose(0, 2, 1, 3), mask)
    return probs.mean(1).sum(1) / mask.sum((1, 2))


def _mask(segments: Segments, keys: int) -> Mask:
    """True where a query sees a key."""
    mask = segments.query[:, None, :, None] == segments.key[:, None, None, :]
    if prefix := keys - mask.shape[-1]:
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (prefix, 0)), constant_values=True)
    return mask


def _xla(query: Heads, key: Keys, value: Keys, segments: Segments, rate: float, rng: Key[Array, ""] | None) -> Heads:
    # Heads first before the products: left to itself XLA's CPU backend picks a layout that costs the forward pass of an
    # attention block half again as much (CPU time of R=16, T=128, H=12, C=32: 40 against 60 ms; training equal).
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))  # [R,H,Q,C], [R,H,S,C]
    probs = _probabilities(query, key, _mask(segments, key.shape[2])).astype(value.dtype)  # [R,H,Q,S]
    return jnp.einsum("rhts,rhsc->rhtc", dropout(probs, rate, rng), value).transpose(0, 2, 1, 3)


def _probabilities(query: Float[Array, "R H Q C"], key: Float[Array, "R H S C"], mask: Mask) -> Float[Array, "R H Q S"]:
    logits = jnp.einsum("rhtc,rhsc->rhts", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    return jax.nn.softmax(jnp.where(mask, logits, -1e30), axis=-1)


def _cudnn(query: Heads, key: Keys, value: Keys, segments: Segments) -> Heads:
    """cuDNN's, which jax partitions over the devices itself. The mask becomes a bias in the dtype of the query."""
    mask = _mask(segments, key.shape[1])
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")


def _pallas_gpu(query: Heads, key: Keys, value: Keys, segments: Segments) -> Heads:
    from jax.experimental.pallas.ops.gpu.attention import mha

    def kernel(query: Array, key: Array, value: Array, segment_ids: Array) -> Array:
        found: Array = mha(query, key, value, segment_ids, sm_scale=query.shape[-1] ** -0.5)
        return found

    return _on_each_device(kernel, query, key, value, segments.key)


def _splash(query: Heads, key: Keys, value: Keys, segments: Segments) -> Heads:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    def kernel(query: Array, key: Array, value: Array, segment_ids: Array) -> Array:
        tokens, heads = query.shape[1:3]
        everything = splash.MultiHeadMask([splash.FullMask((tokens, tokens))] * heads)
        of_row = splash.make_splash_mha_single_device(everything)
        query = query * query.shape[-1] ** -0.5
        query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))  # [R,H,T,C]
        ids = splash.SegmentIds(segment_ids, segment_ids)
        found: Array = jax.vmap(of_row)(query, key, value, ids)
        return found.transpose(0, 2, 1, 3)

    return _on_each_device(kernel, query, key, value, segments.key)


def _on_each_device(
    kernel: Callable[[Array, Array, Array, Array], Array],
    query: Heads,
    key: Keys,
    value: Keys,
    segment_ids: Int[Array, "R T"],
) -> Heads:
    """A Pallas kernel has no rule of how to split it, so every device of the mesh runs it on its own rows and heads.

    The mesh is that of `sharding.on_mesh`; without one there is one device.
    """
    if (mesh := traced_mesh()) is None:
        return kernel(query, key, value, segment_ids)
    heads = P(BATCH_AXES, None, "tensor" if query.shape[2] % mesh.shape["tensor"] == 0 else None, None)
    # Pallas does not tell over which axes its results vary, so jax cannot check it.
    split = jax.shard_map(
        kernel, mesh=mesh, in_specs=(heads, heads, heads, P(BATCH_AXES, None)), out_specs=heads, check_vma=False
    )
    found: Array = split(query, key, value, segment_ids)
    return found


class Kernel(NamedTuple):
    """An implementation that keeps no probabilities in memory, and so has no dropout on them.

    Attributes:
        attend: as `attend`, where there are as many queries as keys.
        platform: of the devices that it is for.
        row_multiple: what the length of a row must be a multiple of.
        dtypes: activation dtypes that it takes.
    """

    attend: Callable[[Heads, Keys, Keys, Segments], Heads]
    platform: str
    row_multiple: int
    dtypes: tuple[str, ...]


KERNELS = {
    "cudnn": Kernel(_cudnn, "gpu", 2, ("bfloat16",)),
    "pallas_gpu": Kernel(_pallas_gpu, "gpu", 128, ("float32", "bfloat16")),
    "splash": Kernel(_splash, "tpu", 128, ("float32", "bfloat16")),
}
IMPLEMENTATIONS = ("xla", *KERNELS)
DEFAULTS = {"gpu": "cudnn"}  # of a platform, where it can do what is asked; not measured yet


def refusal(name: str, *, platform: str, dropout_rate: float, activation_dtype: str, row_tokens: int) -> str:
    """Why an implementation cannot train a model, and what to do instead; "" if it can.

    Args:
        platform: of the devices: "cpu", "gpu" or "tpu".
        dropout_rate: of the attention probabilities.
        row_tokens: length of a row.
    """
    if name == "xla":
        return ""
    kernel = KERNELS[name]
    if platform != kernel.platform:
        return f"is for a {kernel.platform}, and this is a {platform}; use 'xla' or 'auto'"
    if dropout_rate > 0:
        return _no_dropout(dropout_rate)
    if activation_dtype not in kernel.dtypes:
        return f"takes {' or '.join(kernel.dtypes)}, not {activation_dtype}; change activation_dtype or use 'xla'"
    if row_tokens % kernel.row_multiple:
        return f"takes rows of a multiple of {kernel.row_multiple} tokens, not {row_tokens}; change row_tokens or use 'xla'"
    return ""


def default(*, platform: str, **asked: object) -> str:
    """The implementation of a platform's own choice; "xla" where that one refuses, arguments as of `refusal`."""
    name = DEFAULTS.get(platform, "xla")
    return "xla" if refusal(name, platform=platform, **asked) else name  # type: ignore[arg-type]


def _no_dropout(rate: float) -> str:
    return f"no dropout of attention probabilities, but attention_dropout={rate:g}; set it to 0 or use 'xla'"
