"""Scores of pairs and the likelihood of gold antecedents, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from ncfair_jax.tasks.coreference.antecedents import (
    Antecedents,
    SpanContext,
    best_antecedents,
    coarse_antecedents,
    distance_bucket,
    fine_scores,
    marginal_loss,
)
from tests.rounding import rounding
from tests.tasks.coreference.test_spans import CONFIG, PARAMS, numpy_ffnn
from tests.tiny import MODEL

SIZE = 3 * MODEL.hidden_size + CONFIG.feature_size
VECTORS = np.random.default_rng(1).normal(size=(7, SIZE)).astype(np.float32)
MENTIONS = np.random.default_rng(2).normal(size=7).astype(np.float32)
BUCKETS = [0, 1, 2, 3, 4, 5, 5, 5, *[6] * 8, *[7] * 16, *[8] * 32, *[9] * 40]  # of the distances 0 to 103


def test_distance_buckets():
    assert distance_bucket(jnp.arange(104)).tolist() == BUCKETS


def numpy_coarse(i: int, j: int) -> float:
    layer, prior = PARAMS["coarse"], PARAMS["distance_prior"]
    product = (VECTORS[i] @ layer["kernel"] + layer["bias"]) @ VECTORS[j]
    feature = prior["distance"]["embedding"][BUCKETS[i - j]]
    return float(
        MENTIONS[i] + MENTIONS[j] + product + (feature @ prior["output"]["kernel"] + prior["output"]["bias"])[0]
    )


def test_coarse_scores_keep_the_best_earlier_spans():
    real = np.array([True] * 6 + [False])
    found = coarse_antecedents(PARAMS, *map(jnp.asarray, (VECTORS, MENTIONS, real)), 3, 0.0, None)
    for i in range(7):
        expected = sorted(((numpy_coarse(i, j), j) for j in range(i)), reverse=True)[:3] if real[i] else []
        count = len(expected)
        assert found.real[i].tolist() == [True] * count + [False] * (3 - count)
        assert found.spans[i][:count].tolist() == [j for _, j in expected]
        np.testing.assert_allclose(found.scores[i][:count], [score for score, _ in expected], rtol=1e-5, atol=1e-4)
    assert np.all(np.isfinite(found.scores))


def test_fine_scores_are_those_of_the_written_out_pairs():
    spans = np.random.default_rng(3).integers(0, 7, (7, 4)).astype(np.int32)
    context = SpanContext(np.array([0, 1, 0, 1, 2, 0, 0]), np.array([0, 0, 0, 1, 3, 6, 7]), np.array(3))
    found = fine_scores(PARAMS, jnp.asarray(VECTORS), jnp.asarray(spans), jax.tree.map(jnp.asarray, context), 0.0, None)
    tables = {name: table["embedding"] for name, table in PARAMS["pair"].items()}
    for (i, c), j in np.ndenumerate(spans):
        features = [
            tables["speaker"][int(context.speakers[i] == context.speakers[j])],
            tables["genre"][3],
            tables["segment"][np.clip(context.segments[i] - context.segments[j], 0, CONFIG.max_segments - 1)],
            tables["distance"][BUCKETS[max(i - j, 0)]],
        ]
        pair = np.concatenate([VECTORS[i], VECTORS[j], VECTORS[i] * VECTORS[j], *features])
        np.testing.assert_allclose(found[i, c], numpy_ffnn(PARAMS["fine"], pair), rtol=1e-4, atol=2e-3)


def antecedents() -> Antecedents:
    """Four spans with two columns: ln 2 and ln 3 as scores, so that softmaxes are fractions."""
    spans = [[0, 0], [0, 0], [1, 0], [0, 2]]
    scores = np.log([[1, 1], [2, 1], [3, 2], [2, 3]])
    real = [[False, False], [True, False], [True, True], [True, True]]
    return Antecedents(jnp.asarray(spans), jnp.asarray(scores, jnp.float32), jnp.asarray(real))


def test_marginal_loss_by_hand():
    real = jnp.array([True] * 4)
    # Span 0: only the dummy. 1: antecedent 0 is gold, 2 of 1 + 2. 2: no mention, dummy 1 of 1 + 3 + 2.
    # 3: gold are 0 (weight 2), not 2 (a non-mention), of 1 + 2 + 3.
    # Four logarithms, each of a sum of up to three terms.
    loss = marginal_loss(antecedents(), real, jnp.array([5, 5, 0, 5]))
    np.testing.assert_allclose(loss, -np.log([1, 2 / 3, 1 / 6, 2 / 6]).sum(), rtol=rounding(4 * 4))
    # Both antecedents of span 3 are gold, and so is that of span 2; spans of clusters of their own want the dummy.
    loss = marginal_loss(antecedents(), real, jnp.array([1, 2, 1, 1]))
    np.testing.assert_allclose(loss, -np.log([1, 1 / 3, 2 / 6, 5 / 6]).sum(), rtol=rounding(4 * 4))
    # A span that is none counts nothing, and nothing is divided by zero.
    value, gradient = jax.value_and_grad(
        lambda scores: marginal_loss(
            antecedents()._replace(scores=scores), real.at[1].set(False), jnp.array([1, 1, 1, 1])
        )
    )(antecedents().scores)
    np.testing.assert_allclose(value, -np.log([1, 5 / 6, 5 / 6]).sum(), rtol=rounding(4 * 4))
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[1])


def test_best_antecedents():
    found = antecedents()
    assert best_antecedents(found).tolist() == [-1, 0, 1, 2]
    assert best_antecedents(found._replace(scores=found.scores - np.float32(np.log(2.5)))).tolist() == [-1, -1, 1, 2]
