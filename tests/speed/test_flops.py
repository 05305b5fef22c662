"""Counts against numbers worked out by hand, and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest

from ncfair_jax.models import bert
from ncfair_jax.models.base import Ask, Rows
from ncfair_jax.speed import flops
from tests import tiny

# tiny.MODEL: D=16, F=32, 2 layers, V=60. A token passes 4·16·16 + 2·16·32 = 2048 weights a layer.
ROWS, TOKENS = 3, 8
PROJECTIONS = 2 * 24 * 2048 * 2  # 2 a multiply-add, 24 tokens, 2 layers
ATTENTION = 2 * (3 * 8 * 8) * 16 * 2 * 2  # 192 query-key pairs, 16 wide, scores and sum, 2 layers


def test_encoder():
    assert flops.encoder_flops(tiny.MODEL, ROWS, TOKENS) == PROJECTIONS + ATTENTION == 196_608 + 24_576


def test_last_layer_at_some_columns():
    """2 of 8 tokens: the last layer's keys and values (512 weights) for all 24, its other 1536 for 6, which see 8 each."""
    last = 2 * (24 * 512 + 6 * 1536) + 2 * (3 * 2 * 8) * 16 * 2
    assert flops.encoder_flops(tiny.MODEL, ROWS, TOKENS, read=2) == (PROJECTIONS + ATTENTION) // 2 + last


def test_head():
    assert flops.head_flops(tiny.MODEL, 5) == 2 * 5 * (16 * 16 + 16 * 60) == 12_160


def test_train_is_three_forward_passes_and_the_one_hot_product():
    forward = 196_608 + 24_576 + 12_160 + 2 * 7 * 16 * 16
    counted = flops.train_flops(tiny.MODEL, rows=ROWS, tokens=TOKENS, scored=5, transformed=7, one_hot=(24, 60))
    assert counted == 3 * forward + 2 * 24 * 60 * 16


def test_score():
    assert flops.score_flops(tiny.MODEL, rows=ROWS, tokens=TOKENS, scored=5) == 196_608 + 24_576 + 12_160


@pytest.mark.parametrize("read", [None, 4])
def test_xla_counts_nearly_the_same(read):
    """XLA also counts element-wise work, which a wide layer makes small."""
    model = tiny.MODEL.__class__(**{**tiny.MODEL.__dict__, "hidden_size": 128, "intermediate_size": 512})
    ids = jnp.ones((2, 32), jnp.int32)
    columns = None if read is None else ids[:, :read]
    forward = jax.jit(lambda p: bert.hidden(model, p, Rows(ids, ids, ids), Ask(read=columns)).hidden_states)
    counted = forward.lower(tiny.params(model=model)).compile().cost_analysis()["flops"]
    assert counted == pytest.approx(flops.encoder_flops(model, 2, 32, read), rel=0.05)
