"""The one attention function, its implementations chosen by config."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ncfair_jax.models.dropout import dropout

Heads = Float[Array, "R T H C"]
Keys = Float[Array, "R S H C"]  # S = T, or a prefix longer
Mask = Bool[Array, "R 1 T S"]


def segment_mask(segment_ids: Int[Array, "R T"]) -> Mask:
    """True where query and key belong to one segment. Pads (0) see the pads, so that no softmax is empty."""
    return segment_ids[:, None, :, None] == segment_ids[:, None, None, :]


def attend(
    query: Heads,
    key: Keys,
    value: Keys,
    mask: Mask,
    *,
    dropout_rate: float = 0.0,
    rng: Key[Array, ""] | None = None,
    implementation: str = "xla",
) -> Heads:
    """Scaled dot-product attention over the True positions of `mask`, with dropout on the probabilities.

    Raises:
        ValueError: if dropout is asked of an implementation that has none.
    """
    if rng is None:
        dropout_rate = 0.0
    return IMPLEMENTATIONS[implementation](query, key, value, mask, dropout_rate, rng)


def _xla(query: Heads, key: Keys, value: Keys, mask: Mask, rate: float, rng: Key[Array, ""] | None) -> Heads:
    # Heads first before the products: left to itself XLA's CPU backend picks a layout that costs the forward pass of an
    # attention block half again as much (CPU time of R=16, T=128, H=12, C=32: 40 against 60 ms; training equal).
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query, key, value))  # [R,H,T,C], [R,H,S,C]
    probs = _probabilities(query, key, mask).astype(value.dtype)  # [R,H,T,S]
    return jnp.einsum("rhts,rhsc->rhtc", dropout(probs, rate, rng), value).transpose(0, 2, 1, 3)


def _probabilities(query: Float[Array, "R H T C"], key: Float[Array, "R H S C"], mask: Mask) -> Float[Array, "R H T S"]:
    logits = jnp.einsum("rhtc,rhsc->rhts", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    return jax.nn.softmax(jnp.where(mask, logits, -1e30), axis=-1)


def received(query: Heads, key: Keys, mask: Mask) -> Float[Array, "R S"]:
    """Attention that each key is paid, averaged over the heads and over the queries that see it (those of its segment).

    The sum over the keys of a segment is 1. Without dropout, whatever the implementation. Beside `attend` in one jitted
    function XLA computes the probabilities of both once.
    """
    probs = _probabilities(query.transpose(0, 2, 1, 3), key.transpose(0, 2, 1, 3), mask)
    return probs.mean(1).sum(1) / mask.sum((1, 2))


def _cudnn(query: Heads, key: Keys, value: Keys, mask: Mask, rate: float, rng: Key[Array, ""] | None) -> Heads:
    if rate > 0.0:
        raise ValueError(
            f"attention='cudnn' has no dropout, but attention_dropout={rate}; set it to 0 or use attention='xla'"
        )
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")


Implementation = Callable[[Heads, Keys, Keys, Mask, float, Key[Array, ""] | None], Heads]
IMPLEMENTATIONS: dict[str, Implementation] = {"xla": _xla, "cudnn": _cudnn}
