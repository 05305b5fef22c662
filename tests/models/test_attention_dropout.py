"""Attention against a plain numpy softmax, and the statistics and locality of dropout masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.models import bert
from ncfair_jax.models.attention import attend, segment_mask
from ncfair_jax.models.base import Ask, Rows
from ncfair_jax.models.dropout import LEVELS, dropout, keep_mask
from tests import tiny
from tests.rounding import rounding

R, T, H, C = 2, 7, 3, 5
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 0, 2, 0]], np.int32)


@pytest.fixture(scope="module")
def qkv():
    return np.random.default_rng(0).normal(size=(3, R, T, H, C)).astype(np.float32)


def test_attention_equals_numpy_over_each_segment(qkv):
    out = np.asarray(attend(*qkv, segment_mask(SEGMENTS)))
    query, key, value = qkv.astype(np.float64)
    for row in range(R):
        for token in range(T):
            seen = SEGMENTS[row] == SEGMENTS[row, token]
            for head in range(H):
                weights = np.exp(key[row, seen, head] @ query[row, token, head] / np.sqrt(C))
                expected = weights @ value[row, seen, head] / weights.sum()
                np.testing.assert_allclose(out[row, token, head], expected, atol=1e-5)


def test_large_logits_neither_overflow_nor_reach_the_masked(qkv):
    query, key, value = 1e4 * qkv[0], 1e4 * qkv[1], qkv[2]
    poisoned = np.where((SEGMENTS == 0)[..., None, None], np.float32(1e6), value)
    plain, other = (attend(query, key, v, segment_mask(SEGMENTS)) for v in (value, poisoned))
    real = SEGMENTS > 0
    assert np.isfinite(np.asarray(plain)).all()
    np.testing.assert_array_equal(np.asarray(plain)[real], np.asarray(other)[real])


def test_attention_dropout_acts_on_probabilities_and_keeps_the_mean():
    zeros, ones = jnp.zeros((64, 16, 2, 4)), jnp.ones((64, 16, 2, 4))  # equal logits: probabilities 1/16
    mask = jnp.ones((64, 1, 16, 16), bool)
    out = np.asarray(attend(zeros, zeros, ones, mask, dropout_rate=0.25, rng=jax.random.key(0)))[..., 0]
    kept = out * 16 * 0.75  # how many of 16 probabilities survived
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
    count = kept.size * 16
    assert abs(kept.sum() / count - 0.75) < 4 * np.sqrt(0.25 * 0.75 / count)
    assert len(np.unique(np.round(kept))) > 4  # a mask for every query, not one for all
    assert not np.array_equal(kept[..., 0], kept[..., 1])  # and for every head
    np.testing.assert_array_equal(attend(zeros, zeros, ones, mask, dropout_rate=0.25), 1)  # no key, no dropout


@pytest.mark.parametrize(("rate", "shape"), [(0.1, (40, 20, 50)), (0.9, (7, 30, 401))])
def test_rate_within_four_sigma_on_every_lane(rate, shape):
    kept = np.asarray(keep_mask(jax.random.key(1), rate, shape))
    assert kept.shape == shape
    for lane in range(4):  # four neighbours share a Threefry block; each quarter must have the rate of the whole
        part = kept[..., lane::4]
        assert abs(part.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / part.size)
    product = (kept[..., :-1] != kept[..., 1:]).mean()  # neighbours differ as often as independent draws do
    expected = 2 * rate * (1 - rate)
    assert abs(product - expected) < 4 * np.sqrt(expected / kept.size)


@pytest.mark.parametrize("width", [4, 33])
def test_masks_of_earlier_rows_ignore_later_rows(width):
    few, many = (np.asarray(keep_mask(jax.random.key(2), 0.3, (rows, 5, width))) for rows in (2, 9))
    np.testing.assert_array_equal(few, many[:2])
    assert not np.array_equal(many[0], many[1])


def test_mask_is_the_same_however_it_is_laid_out():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    split = jax.jit(lambda key: keep_mask(key, 0.3, (16, 6, 10)), out_shardings=sharding)(jax.random.key(3))
    np.testing.assert_array_equal(split, keep_mask(jax.random.key(3), 0.3, (16, 6, 10)))


def test_dropout_rescales_by_the_rate_that_is_drawn():
    x = jnp.full((50, 64), 3.0)
    rate = 0.1
    out = np.asarray(dropout(x, rate, jax.random.key(4)))
    drawn = round(rate * LEVELS) / LEVELS
    np.testing.assert_allclose(np.unique(out), [0, 3 / (1 - drawn)], rtol=rounding(2))
    np.testing.assert_array_equal(dropout(x, rate, None), x)
    np.testing.assert_array_equal(dropout(x, 0.0, jax.random.key(4)), x)
    assert dropout(x.astype(jnp.bfloat16), rate, jax.random.key(4)).dtype == jnp.bfloat16


def test_gradient_flows_through_the_kept_only():
    x = jnp.ones((8, 32))
    out, gradient = jax.value_and_grad(lambda v: dropout(v, 0.4, jax.random.key(6)).sum())(x)
    kept = np.asarray(keep_mask(jax.random.key(6), 0.4, x.shape))
    np.testing.assert_allclose(gradient, kept / (1 - round(0.4 * LEVELS) / LEVELS), rtol=rounding(2))
    np.testing.assert_allclose(out, np.sum(gradient), rtol=rounding(x.size))


def test_every_place_of_every_layer_draws_its_own_mask(monkeypatch):
    """Embeddings, and in each layer the probabilities, the attention output and the feed-forward output."""
    keys, params = [], tiny.params()

    def record(x, rate, rng):
        keys.append(tuple(jax.random.key_data(rng).tolist()))
        return x

    monkeypatch.setattr("ncfair_jax.models.attention.dropout", record)
    monkeypatch.setattr("ncfair_jax.models.bert.dropout", record)
    config = dataclasses.replace(tiny.MODEL, hidden_dropout=0.1, attention_dropout=0.1)
    tokens = np.ones((1, 4), np.int32)
    positions = np.arange(4, dtype=np.int32)[None]
    for seed in (0, 1):
        bert.hidden(config, params, Rows(tokens, tokens, positions), Ask(dropout_rng=jax.random.key(seed)))
    assert len(keys) == len(set(keys)) == 2 * (1 + 3 * config.num_layers)


def test_cudnn_with_dropout_is_refused_only_while_training(qkv):
    mask = segment_mask(SEGMENTS)
    with pytest.raises(ValueError, match=r"attention='cudnn' has no dropout, but attention_dropout=0\.1; set it to 0"):
        attend(*qkv, mask, dropout_rate=0.1, rng=jax.random.key(0), implementation="cudnn")
    config = dataclasses.replace(tiny.MODEL, attention="cudnn", attention_dropout=0.1)
    tokens = np.ones((1, 4), np.int32)
    with pytest.raises(ValueError, match="attention='cudnn' has no dropout"):
        bert.hidden(config, tiny.params(), Rows(tokens, tokens, tokens), Ask(dropout_rng=jax.random.key(0)))
