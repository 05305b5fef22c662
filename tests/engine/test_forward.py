"""Evaluating computes in float32 whatever the model trains in; on accelerators with the layers in a loop."""

import dataclasses

import jax
import numpy as np
import pytest

from ncfair_jax.engine import Request, engine, forward_of
from ncfair_jax.engine.forward import evaluation_config
from ncfair_jax.engine.requests import ATTENTION, LOG_PROBS, MEAN_VECTOR
from ncfair_jax.models.hf import Pretrained
from tests import tiny
from tests.rounding import encoder_operations, rounding


@pytest.mark.parametrize(("backend", "looped"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_precision_and_loop_of_a_backend(monkeypatch, backend, looped):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    trained = dataclasses.replace(tiny.MODEL, activation_dtype="bfloat16", attention="cudnn", remat=True)
    assert evaluation_config(trained) == dataclasses.replace(tiny.MODEL, scan_layers=looped)


@pytest.mark.parametrize("ask", [LOG_PROBS, ATTENTION])
def test_the_engine_finds_the_same_with_the_layers_in_a_loop(monkeypatch, ask):
    model = Pretrained(tiny.MODEL, tiny.params(), tiny.TOKENIZER)
    sequences = [np.array([1, 7, 8, 9, 2], np.int32), np.array([1, 20, 2], np.int32)]
    requests = [Request(tokens, np.array([1]), np.array([30]), ask=ask) for tokens in sequences]
    requests += [Request(tokens, ask=MEAN_VECTOR) for tokens in sequences]

    expected = forward_of(model)(requests)
    monkeypatch.setattr(engine, "evaluation_config", lambda config: dataclasses.replace(config, scan_layers=True))
    found = forward_of(model)(requests)
    tolerance = rounding(encoder_operations(tiny.MODEL) + tiny.VOCAB)  # and the softmax
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)
