"""Judging computes in float32 whatever the model trains in; on accelerators with the layers in a loop."""

import dataclasses

import jax
import numpy as np
import pytest

from ncfair_jax.benchmarks import embedder, scorer
from ncfair_jax.benchmarks.requests import Request
from ncfair_jax.inference import judging_config
from ncfair_jax.models.hf import Pretrained
from tests import tiny
from tests.rounding import encoder_operations, rounding


@pytest.mark.parametrize(("backend", "looped"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_precision_and_loop_of_a_backend(monkeypatch, backend, looped):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    trained = dataclasses.replace(tiny.MODEL, activation_dtype="bfloat16", attention="cudnn", remat=True)
    assert judging_config(trained) == dataclasses.replace(tiny.MODEL, scan_layers=looped)


@pytest.mark.parametrize("attention", [False, True])
def test_the_engines_find_the_same_with_the_layers_in_a_loop(monkeypatch, attention):
    model = Pretrained(tiny.MODEL, tiny.params(), None)
    sequences = [np.array([1, 7, 8, 9, 2], np.int32), np.array([1, 20, 2], np.int32)]
    requests = [Request(tokens, np.array([1]), np.array([30])) for tokens in sequences]

    def found():
        scores = scorer.score_with_top1(model, requests, attention=attention)
        return scores.log_probs, scores.attention, embedder.embed(model, sequences)

    expected = found()
    for engine in (scorer, embedder):
        monkeypatch.setattr(engine, "judging_config", lambda config: dataclasses.replace(config, scan_layers=True))
    tolerance = rounding(encoder_operations(tiny.MODEL) + tiny.VOCAB)  # and the softmax
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found(), expected)
