"""Span vectors and scores against plain numpy, and the selection against the loop it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.tasks.coreference.config import CorefConfig
from ncfair_jax.tasks.coreference.model import init_coref
from ncfair_jax.tasks.coreference.spans import candidates, keep_spans, mention_scores, span_vectors
from tests import tiny

CONFIG = CorefConfig(hidden_units=7, feature_size=3, max_width=4)
PARAMS = jax.tree.map(  # no bias is 0
    lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32),
    init_coref(CONFIG, tiny.MODEL, jax.random.key(0)),
)
LENGTH = 9
STATES = np.random.default_rng(0).normal(size=(LENGTH, tiny.MODEL.hidden_size)).astype(np.float32)


def numpy_vector(start: int, end: int) -> np.ndarray:
    head = PARAMS["span"]["head"]
    logits = [float(STATES[i] @ head["kernel"][:, 0] + head["bias"][0]) for i in range(start, end + 1)]
    weights = np.exp(logits) / np.sum(np.exp(logits))
    mean = sum(w * STATES[i] for w, i in zip(weights, range(start, end + 1), strict=True))
    width = PARAMS["span"]["width"]["embedding"][end - start]
    return np.concatenate([STATES[start], STATES[end], width, mean])


def numpy_ffnn(layers, x):
    inner = np.maximum(x @ layers["hidden"]["kernel"] + layers["hidden"]["bias"], 0)
    return float(inner @ layers["output"]["kernel"][:, 0] + layers["output"]["bias"][0])


SPANS = [(start, start + width) for start in range(LENGTH) for width in range(4) if start + width < LENGTH]


def test_vectors_and_scores_against_numpy():
    starts, ends = np.array(SPANS, np.int32).T
    vectors = span_vectors(PARAMS, jnp.asarray(STATES), jnp.asarray(starts), jnp.asarray(ends))
    np.testing.assert_allclose(vectors, [numpy_vector(*span) for span in SPANS], rtol=1e-5, atol=1e-5)
    scores = jax.jit(lambda states: mention_scores(PARAMS, states, 0.0, None))(STATES)
    assert scores.shape == (LENGTH, 4) and np.all(np.isfinite(scores))
    prior = PARAMS["width_prior"]
    expected = [
        numpy_ffnn(PARAMS["mention"], numpy_vector(a, b)) + numpy_ffnn(prior, prior["width"]["embedding"][b - a])
        for a, b in SPANS
    ]
    np.testing.assert_allclose(scores[starts, ends - starts], expected, rtol=1e-5, atol=1e-4)


def test_large_head_logits_stay_finite():
    """Tokens whose logits lie hundreds apart: the softmax of a span must not lose the smaller ones where they are alone."""
    params = PARAMS | {"span": PARAMS["span"] | {"head": jax.tree.map(lambda x: 1000 * x, PARAMS["span"]["head"])}}

    def total(states):
        return jnp.sum(mention_scores(params, states, 0.0, None)[:6])

    value, gradient = jax.value_and_grad(total)(jnp.asarray(STATES))
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_dropout_needs_a_key_and_changes_scores():
    plain, dropped = (mention_scores(PARAMS, jnp.asarray(STATES), 0.5, rng) for rng in (None, jax.random.key(1)))
    np.testing.assert_array_equal(plain, mention_scores(PARAMS, jnp.asarray(STATES), 0.0, None))
    assert np.mean(np.abs(plain - dropped) > 1e-3) > 0.9


def test_candidates_lie_inside_sentences():
    found = candidates(jnp.array([-1, 0, 0, -1, 1, 1, 1, -1, -1]), 3)
    spans = {(int(start), int(start + width)) for start, width in np.argwhere(np.asarray(found))}
    assert spans == {(1, 1), (1, 2), (2, 2), (4, 4), (4, 5), (4, 6), (5, 5), (5, 6), (6, 6)}


def numpy_keep(scores, allowed, limit):
    """Lee et al. 2018, as a loop over all pairs."""
    kept = []
    for start, width in sorted(np.argwhere(allowed).tolist(), key=lambda span: -scores[tuple(span)]):
        end = start + width
        crossing = any(a < start <= b < end or start < a <= end < b for a, b in kept)
        if not crossing and len(kept) < limit:
            kept.append((start, end))
    return sorted(kept)


@pytest.mark.parametrize("limit", [1, 6, 40])
def test_kept_spans_equal_the_loop(limit):
    keep = jax.jit(keep_spans, static_argnums=3)
    for seed in range(15):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(20, 6)).astype(np.float32)
        sentences = jnp.asarray(np.repeat([-1, 0, 1, -1], [2, 9, 7, 2]))
        allowed = candidates(sentences, 6)
        kept = keep(jnp.asarray(scores), allowed, jnp.asarray(limit), 40)
        count = int(kept.real.sum())
        assert np.all(kept.real[:count])
        found = list(zip(kept.starts[:count].tolist(), kept.ends[:count].tolist(), strict=True))
        assert found == numpy_keep(scores, np.asarray(allowed), limit)
    assert count == limit or (limit == 40 and 16 <= count < 40)


def test_equal_scores_go_by_place():
    kept = keep_spans(jnp.zeros((6, 3)), candidates(jnp.zeros(6, jnp.int32), 3), jnp.asarray(18), 18)
    found = list(zip(kept.starts.tolist(), kept.ends.tolist(), strict=True))[: int(kept.real.sum())]
    assert found == numpy_keep(np.zeros((6, 3)), np.asarray(candidates(jnp.zeros(6, jnp.int32), 3)), 18)
