"""A model's logits in one call, to look at what it predicts. Benchmarks and training do not go through here."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ncfair_jax.models.base import Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained


def logits(
    model: Pretrained,
    tokens: np.ndarray | Array,
    attention_mask: np.ndarray | Array | None = None,
) -> Float[Array, "R T V"]:
    """Logits over the vocabulary at every token, in float32 at the highest precision; without dropout.

    Args:
        tokens: [R, T], one sequence a row, padded on the right.
        attention_mask: [R, T], 1 at tokens, 0 at pads, as tokenizers give it; None: there are no pads.
    Returns:
        Logits; those at pads mean nothing.
    Raises:
        ValueError: for arrays of other shapes, a mask that is not padded on the right, rows that are too long for the model,
            or ids that it does not have.
    """
    ids = np.asarray(tokens)
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
    _check(model.config, ids, mask)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    rows = Rows(*(jnp.asarray(each, jnp.int32) for each in (ids, mask, positions)))
    config = dataclasses.replace(model.config, activation_dtype="float32", remat=False)
    with jax.default_matmul_precision("highest"):
        found: Array = _logits(config, model.params, rows)
    return found


@partial(jax.jit, static_argnums=0)
def _logits(config: ModelConfig, params: Params, rows: Rows) -> Any:
    family = family_of(config)
    hidden = family.hidden(config, params, rows, Ask()).hidden_states
    return family.logits(config, params, family.features(config, params, hidden)).astype(jnp.float32)


def _check(config: ModelConfig, ids: np.ndarray, mask: np.ndarray) -> None:
    if ids.ndim != 2 or ids.shape != mask.shape or not ids.size:
        raise ValueError(
            f"tokens has shape {ids.shape}, attention_mask {mask.shape}; expected two equal [rows, tokens]"
        )
    if not np.isin(mask, (0, 1)).all() or (np.diff(mask.astype(int), axis=1) > 0).any():
        raise ValueError(
            "attention_mask is not 1 at tokens and then 0 at pads; pad on the right (padding_side='right')"
        )
    if ids.shape[1] > config.max_tokens:
        raise ValueError(
            f"tokens has rows of {ids.shape[1]}, the model has positions for {config.max_tokens}; cut them"
        )
    wrong = ids[(mask == 1) & ((ids < 0) | (ids >= config.vocab_size))]
    if len(wrong):
        raise ValueError(f"tokens has the id {wrong[0]}, the model has {config.vocab_size}; take its own tokenizer")
