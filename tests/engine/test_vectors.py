"""Vectors of packed rows are those of one sequence at a time; shapes, meshes and errors."""

import dataclasses

import jax
import numpy as np
import pytest

from ncfair_jax.engine import Request, RequestError, forward_of
from ncfair_jax.engine.requests import FIRST_VECTOR, MEAN_VECTOR
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.models.hf import Pretrained
from tests import tiny
from tests.benchmarks import plain


def embed(model, sequences, ask=MEAN_VECTOR, **options):
    """Vectors f32[E,D] that the engine answers."""
    return np.array([a.vector for a in forward_of(model, **options)([Request(s, ask=ask) for s in sequences])])


def sequences(model, count, seed=0):
    """Random sequences of 3 to 20 ids below the special ones of either family, the first also last."""
    rng = np.random.default_rng(seed)
    made = [rng.integers(5, model.config.vocab_size - 4, rng.integers(3, 21)).astype(np.int32) for _ in range(count)]
    return [*made, made[0]]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("ask", [MEAN_VECTOR, FIRST_VECTOR])
def test_packed_equals_one_at_a_time(kind, ask):
    model = plain.pretrained(kind)
    given = sequences(model, 30)
    found = embed(model, given, ask=ask, batch_tokens=128)
    for tokens, vector in zip(given, found, strict=True):
        hidden = plain.hidden_states(model, tokens)
        np.testing.assert_allclose(vector, hidden.mean(0) if ask == MEAN_VECTOR else hidden[0], atol=1e-5)
    assert found.dtype == np.float32
    assert not np.allclose(found[0], found[1])


def test_eight_devices_equal_one():
    model = plain.pretrained("bert")
    given = sequences(model, 40)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    np.testing.assert_allclose(embed(model, given, mesh=mesh), embed(model, given), atol=1e-5)


def test_batches_after_the_first_of_a_bucket_trace_nothing(monkeypatch):
    """Two buckets, rows of 64 and of 128 tokens, several batches of each: one trace a bucket, none when run again."""
    config = dataclasses.replace(tiny.MODEL, max_positions=128)
    model = Pretrained(config, tiny.params(model=config), tiny.TOKENIZER)
    short = sequences(model, 60)
    long = [np.resize(tokens, 70 + len(tokens)) for tokens in short[:20]]
    traced, batches = tiny.engine_shapes(monkeypatch)
    for _ in range(2):
        embed(model, short + long, batch_tokens=256)
    assert traced == [(4, 64), (2, 128)]
    assert min(batches.count(shape) for shape in traced) >= 2 * 3


def test_no_sequences_no_vectors():
    model = plain.pretrained("bert")
    assert len(embed(model, [])) == 0


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.full(41, 6), "41 tokens"),
        (np.zeros(0), "0 tokens"),
        (np.array([1, 99]), "id 99"),
        (np.array([-1]), "id -1"),
    ],
)
def test_sequences_that_cannot_be_embedded_are_named(tokens, message):
    with pytest.raises(RequestError, match=f'" has .*{message}'):
        embed(plain.pretrained("bert"), [np.array([5, 6]), tokens.astype(np.int32)])


def test_a_vector_that_is_not_finite_is_refused_and_its_text_quoted():
    model = plain.pretrained("bert")
    broken = jax.tree.map(np.array, model.params)
    broken["encoder"]["layer_1"]["norm"]["scale"][7] = np.inf
    tokens = np.array(model.tokenizer("the nurse said")["input_ids"], np.int32)
    with pytest.raises(NonFiniteError, match=r'the vector of "the nurse said" is -?(inf|nan)'):
        embed(model._replace(params=broken), [tokens])


def test_an_unknown_kind_of_answer_is_refused():
    with pytest.raises(ValueError, match="choose from"):
        embed(plain.pretrained("bert"), [np.array([5, 6])], ask="max")
