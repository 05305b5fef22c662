"""Floating-point operations of a step, counted from its shapes.

Matrix products count 2 per multiply-add; LayerNorm, softmax, GELU, dropout and the optimizer are left out, as is usual.
The gradient of a matrix product is two of the same size, so a training step is three forward passes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ncfair_jax.models.base import ModelConfig
from ncfair_jax.models.bert import BertConfig

TRAIN_PASSES = 3  # forward, gradient to the inputs, gradient to the weights


def encoder_flops(config: ModelConfig, rows: int, tokens: int, read: int | None = None) -> int:
    """Forward pass of all layers over R rows of T tokens, pads included because they are computed like the rest.

    Args:
        read: tokens a row that the last layer computes, from the keys and values of all; None: all.
    """
    return (config.num_layers - 1) * layer_flops(config, rows, tokens, tokens) + layer_flops(
        config, rows, tokens, tokens if read is None else read
    )


def layer_flops(config: ModelConfig, rows: int, tokens: int, computed: int) -> int:
    """Forward pass of a layer for `computed` of the T tokens of each row, which attend to all of them."""
    assert isinstance(config, BertConfig), "counted of BERT's layers"
    hidden, inner = config.hidden_size, config.intermediate_size
    keys_and_values = 2 * tokens * 2 * hidden * hidden
    others = 2 * computed * (2 * hidden * hidden + 2 * hidden * inner)
    attention = 2 * computed * tokens * 2 * hidden  # scores and weighted sum
    return rows * (keys_and_values + others + attention)


def transform_flops(config: ModelConfig, positions: int) -> int:
    """Forward pass of the dense layer before the decoder."""
    return 2 * positions * config.hidden_size * config.hidden_size


def head_flops(config: ModelConfig, positions: int) -> int:
    """Forward pass of the masked-LM head: transform and projection onto the vocabulary."""
    return transform_flops(config, positions) + 2 * positions * config.hidden_size * config.vocab_size


def class_sum_flops(config: ModelConfig, positions: int, classes: int) -> int:
    """Class sums as a product of a one-hot matrix [positions, classes] with the features; it has no gradient."""
    return 2 * positions * classes * config.hidden_size


def train_flops(
    config: ModelConfig, *, rows: int, tokens: int, scored: int, transformed: int = 0, one_hot: tuple[int, int] = (0, 0)
) -> int:
    """One training step.

    Args:
        rows, tokens: R and T as computed.
        scored: positions projected onto the vocabulary.
        transformed: further positions that pass the transform only (NC3 on "transform" features).
        one_hot: (positions, classes) of class sums made by a matrix product; sums by index are not matrix products.
    """
    differentiated = (
        encoder_flops(config, rows, tokens) + head_flops(config, scored) + transform_flops(config, transformed)
    )
    return TRAIN_PASSES * differentiated + class_sum_flops(config, *one_hot)


def packed_flops(model: ModelConfig, batch: Mapping[str, Any], *, transformed: bool) -> int:
    """Operations of one train step on a packed batch; `transformed`: NC3 sends every token through the head's transform.

    The sums of the K classes are left out: an index sum on a CPU, below 1% as a product elsewhere.
    """
    rows, tokens = int(np.prod(batch["tokens"].shape[:-1])), batch["tokens"].shape[-1]
    return train_flops(
        model,
        rows=rows,
        tokens=tokens,
        scored=batch["masked_positions"].size,
        transformed=rows * tokens if transformed else 0,
    )


def score_flops(config: ModelConfig, *, rows: int, tokens: int, scored: int, read: int | None = None) -> int:
    """One scoring pass: forward only. `scored` of all positions are projected; `read` as of `encoder_flops`."""
    return encoder_flops(config, rows, tokens, read) + head_flops(config, scored)


def pool_flops(config: ModelConfig, rows: int, tokens: int, segments: int) -> int:
    """Means over S segments of packed rows, made by a matrix product [S, T] · [T, D] a row."""
    return 2 * rows * segments * tokens * config.hidden_size
