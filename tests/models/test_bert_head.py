"""The masked-LM head against a plain numpy computation, its tie to the word embeddings, and fresh parameters."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ncfair_jax.models import bert
from tests import tiny, tiny_hub

D, V = tiny.MODEL.hidden_size, tiny.VOCAB


@pytest.fixture(scope="module")
def params():
    """Every number random, biases and scales too.

    The kernel has mean 0: with all inputs of GELU far below 0 its outputs are tiny, and LayerNorm, dividing by their
    deviation, would magnify float32's rounding of 1 + erf (there 3e-5).
    """
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda: tiny.params())
    params = jax.tree.map(lambda leaf: rng.normal(0.5, 0.3, leaf.shape).astype(np.float32), shapes)
    params["mlm"]["transform"]["kernel"] -= np.float32(0.5)
    return params


def test_head_equals_numpy_in_float64(params):
    hidden = np.random.default_rng(0).normal(size=(3, 5, D)).astype(np.float32)
    mlm = jax.tree.map(np.float64, params["mlm"])
    inner = hidden.astype(np.float64) @ mlm["transform"]["kernel"] + mlm["transform"]["bias"]
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    normal = (inner - inner.mean(-1, keepdims=True)) / np.sqrt(inner.var(-1, keepdims=True) + 1e-12)
    features = normal * mlm["norm"]["scale"] + mlm["norm"]["bias"]
    table = params["embeddings"]["word"]["embedding"].astype(np.float64)
    ours = bert.features(tiny.MODEL, params, hidden)
    np.testing.assert_allclose(ours, features, atol=5e-6)
    np.testing.assert_allclose(bert.logits(tiny.MODEL, params, ours), features @ table.T + mlm["bias"], atol=2e-5)


def test_any_number_of_leading_axes(params):
    hidden = np.random.default_rng(1).normal(size=(2, 3, 4, D)).astype(np.float32)
    features = bert.features(tiny.MODEL, params, hidden)
    logits = bert.logits(tiny.MODEL, params, features)
    assert (features.shape, logits.shape) == ((2, 3, 4, D), (2, 3, 4, V))
    one = bert.logits(tiny.MODEL, params, bert.features(tiny.MODEL, params, hidden[1, 2, 3]))
    np.testing.assert_allclose(logits[1, 2, 3], one, atol=1e-5)


def test_classifier_is_the_word_table_and_gets_the_gradient(params):
    weight, bias = bert.classifier(params)
    assert weight is params["embeddings"]["word"]["embedding"]
    assert bias is params["mlm"]["bias"]
    grads = jax.grad(lambda p: bert.logits(tiny.MODEL, p, jnp.ones(D))[7])(params)
    expected = np.zeros((V, D))
    expected[7] = 1
    np.testing.assert_array_equal(grads["embeddings"]["word"]["embedding"], expected)
    np.testing.assert_array_equal(grads["mlm"]["bias"], np.eye(V)[7])


def test_bfloat16_head_returns_float32_near_the_float32_head(params):
    half = dataclasses.replace(tiny.MODEL, activation_dtype="bfloat16")
    hidden = np.random.default_rng(2).normal(size=(6, D)).astype(np.float32)
    exact = bert.features(tiny.MODEL, params, hidden)
    features = bert.features(half, params, hidden.astype(jnp.bfloat16))
    logits = bert.logits(half, params, features)
    assert features.dtype == logits.dtype == jnp.float32
    # Inputs, kernel and the sum are rounded to 2^-8 relative; a logit adds 16 products of order 1.
    np.testing.assert_allclose(features, exact, atol=0.05)
    np.testing.assert_allclose(logits, bert.logits(tiny.MODEL, params, exact), atol=0.2)
    assert float(jnp.abs(logits - bert.logits(tiny.MODEL, params, exact)).max()) > 1e-4  # bfloat16 is really used


def test_fresh_parameters_are_as_documented():
    config = dataclasses.replace(tiny.MODEL, hidden_size=64, intermediate_size=128, initializer_range=0.05)
    init = jax.jit(partial(bert.init, config))
    fresh = init(jax.random.key(4))
    for path, leaf in flatten_dict(fresh, sep="/").items():
        assert leaf.dtype == jnp.float32, path
        if path.endswith("scale"):
            np.testing.assert_array_equal(leaf, 1, err_msg=path)
        elif path.endswith("bias"):
            np.testing.assert_array_equal(leaf, 0, err_msg=path)
        else:  # standard deviation of n normals: relative standard error 1/sqrt(2n)
            assert abs(np.std(leaf) / 0.05 - 1) < 5 / math.sqrt(2 * leaf.size), path
    again, other = init(jax.random.key(4)), init(jax.random.key(5))
    tiny_hub.assert_same_params(fresh, again)
    assert not np.array_equal(fresh["mlm"]["transform"]["kernel"], other["mlm"]["transform"]["kernel"])


def test_both_families_have_one_tree_of_the_same_paths():
    trees = [
        flatten_dict(
            jax.eval_shape(lambda k=kind: bert.init(tiny_hub.config(k), jax.random.key(0))),
            sep="/",
        )
        for kind in tiny_hub.KINDS
    ]
    assert trees[0].keys() == trees[1].keys()
    assert {"encoder/layer_1/attention/query/kernel", "mlm/transform/kernel", "mlm/bias"} <= trees[0].keys()
    assert len(trees[0]) == 5 + 2 * 16 + 5
