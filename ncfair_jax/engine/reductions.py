"""What the engine's answers are made of: reductions of the hidden states of packed rows.

Letters: R rows, T tokens a row, P columns read of a row, S segments a row, D hidden, C classes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ncfair_jax.engine.forward import Batch
from ncfair_jax.models.base import Hidden, ModelConfig, Params
from ncfair_jax.models.heads import class_outputs
from ncfair_jax.models.layers import at_columns


@dataclass(frozen=True)
class AtColumns:
    """Last hidden states at the columns `read`, or else at all T; and the attention that tokens receive, if asked for."""

    attention: bool

    def __call__(
        self, config: ModelConfig, own: Any, hidden: Hidden, rows: Batch
    ) -> tuple[Float[Array, "R P D"], Float[Array, "R T"] | None]:
        return hidden.hidden_states, hidden.received_attention


@dataclass(frozen=True)
class SegmentVectors:
    """A vector of every segment of a row, the mean over it or that of its first token; 0 where a row has fewer."""

    first: bool
    segments: int
    attention: ClassVar[bool] = False

    def __call__(self, config: ModelConfig, own: Any, hidden: Hidden, rows: Batch) -> Float[Array, "R S D"]:
        numbers = 1 + jnp.arange(self.segments)
        inside = rows["segment_ids"][:, None, :] == numbers[None, :, None]  # [R,S,T]
        if self.first:
            inside &= rows["positions"][:, None, :] == 0
        weights = inside.astype(hidden.hidden_states.dtype)
        weights /= jnp.maximum(weights.sum(-1, keepdims=True), 1)
        return jnp.einsum("rst,rtd->rsd", weights, hidden.hidden_states)


@dataclass(frozen=True)
class ClassLogits:
    """Outputs of a classifier, whose parameters are `own`, on the hidden states of the segments' first tokens, at "first"
    i32[R,S]."""

    attention: ClassVar[bool] = False

    def __call__(self, config: ModelConfig, own: Params, hidden: Hidden, rows: Batch) -> Float[Array, "R S C"]:
        return class_outputs(config, own, at_columns(hidden.hidden_states, rows["first"]))
