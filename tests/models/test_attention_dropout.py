"""Attention against a plain numpy softmax, and the statistics and locality of dropout masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax.config import MeshConfig
from ncfair_jax.models import bert
from ncfair_jax.models.attention import Segments, attend
from ncfair_jax.models.base import Ask, Rows
from ncfair_jax.models.dropout import GENERATORS, LEVELS, dropout, keep_mask
from ncfair_jax.sharding import make_mesh, on_mesh
from tests import tiny
from tests.rounding import rounding

R, T, H, C = 2, 7, 3, 5
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 0, 2, 0]], np.int32)
EACH = Segments(SEGMENTS, SEGMENTS)


@pytest.fixture(scope="module")
def qkv():
    return np.random.default_rng(0).normal(size=(3, R, T, H, C)).astype(np.float32)


def test_attention_equals_numpy_over_each_segment(qkv):
    out = np.asarray(attend(*qkv, EACH))
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
    plain, other = (attend(query, key, v, EACH) for v in (value, poisoned))
    real = SEGMENTS > 0
    assert np.isfinite(np.asarray(plain)).all()
    np.testing.assert_array_equal(np.asarray(plain)[real], np.asarray(other)[real])


def test_attention_dropout_acts_on_probabilities_and_keeps_the_mean():
    zeros, ones = jnp.zeros((64, 16, 2, 4)), jnp.ones((64, 16, 2, 4))  # equal logits: probabilities 1/16
    one = Segments(*[jnp.ones((64, 16), jnp.int32)] * 2)
    out = np.asarray(attend(zeros, zeros, ones, one, dropout_rate=0.25, rng=jax.random.key(0)))[..., 0]
    kept = out * 16 * 0.75  # how many of 16 probabilities survived
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
    count = kept.size * 16
    assert abs(kept.sum() / count - 0.75) < 4 * np.sqrt(0.25 * 0.75 / count)
    assert len(np.unique(np.round(kept))) > 4  # a mask for every query, not one for all
    assert not np.array_equal(kept[..., 0], kept[..., 1])  # and for every head
    np.testing.assert_array_equal(attend(zeros, zeros, ones, one, dropout_rate=0.25), 1)  # no key, no dropout


@pytest.mark.parametrize("generator", list(GENERATORS.values()))
@pytest.mark.parametrize(("rate", "shape"), [(0.1, (40, 20, 50)), (0.9, (7, 30, 401))])
def test_rate_within_four_sigma_on_every_lane(rate, shape, generator):
    kept, other = (np.asarray(keep_mask(jax.random.key(seed, impl=generator), rate, shape)) for seed in (1, 2))
    assert kept.shape == shape
    for lane in range(4):  # neighbours share a word or a block of words; each quarter must have the rate of the whole
        part = kept[..., lane::4]
        assert abs(part.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / part.size)
    expected = 2 * rate * (1 - rate)  # how often independent draws differ: neighbours, rows, and masks of two keys
    for differs in (kept[..., :-1] != kept[..., 1:], kept[:-1] != kept[1:], kept != other):
        assert abs(differs.mean() - expected) < 4 * np.sqrt(expected / differs.size)


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


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_every_device_draws_the_hardwares_bits_for_its_own_rows(eight_devices, generator):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), 8)
    rng = jax.device_put(jax.random.key(3, impl=generator), NamedSharding(mesh, P()))  # as a state's
    shape = (16, 60, 33)
    draw = jax.jit(on_mesh(lambda key: keep_mask(key, 0.3, shape), mesh))
    kept = draw(rng)
    assert kept.sharding.shard_shape(shape) == (4, 60, 33)
    assert "all-gather" not in draw.lower(rng).compile().as_text()
    np.testing.assert_array_equal(kept, draw(rng))
    rows = np.asarray(kept)
    assert abs(rows.mean() - 0.7) < 4 * np.sqrt(0.21 / rows.size)
    differs = (rows[:, None] != rows[None]).mean((2, 3))[~np.eye(16, dtype=bool)]  # no two rows share their bits
    assert np.abs(differs - 0.42).max() < 5 * np.sqrt(0.42 / rows[0].size)
    uneven = jax.jit(on_mesh(lambda key: keep_mask(key, 0.3, (3, 7)), mesh))(rng)
    np.testing.assert_array_equal(uneven, keep_mask(jax.random.key(3, impl=generator), 0.3, (3, 7)))


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


def test_every_layer_draws_its_mask_by_its_number_scanned_or_not(monkeypatch):
    """The keys themselves, so that a loop that repeats one layer's masks would be seen."""
    config = dataclasses.replace(tiny.MODEL, num_layers=3, hidden_dropout=0.1, attention_dropout=0.1)
    params = tiny.params(model=config)
    tokens = np.ones((1, 4), np.int32)
    positions = np.arange(4, dtype=np.int32)[None]

    def keys(scanned: bool) -> list[tuple]:
        found = []

        def record(x, rate, rng):
            jax.debug.callback(lambda data: found.append(tuple(data.tolist())), jax.random.key_data(rng), ordered=True)
            return x

        monkeypatch.setattr("ncfair_jax.models.attention.dropout", record)
        monkeypatch.setattr("ncfair_jax.models.bert.dropout", record)
        looped = dataclasses.replace(config, scan_layers=scanned)
        rows, ask = Rows(tokens, tokens, positions), Ask(dropout_rng=jax.random.key(3))
        jax.jit(lambda params: bert.hidden(looped, params, rows, ask))(params)
        jax.effects_barrier()
        return found

    unrolled = keys(False)
    assert len(set(unrolled)) == 1 + 3 * config.num_layers
    assert keys(True) == unrolled
