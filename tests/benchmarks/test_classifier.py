"""One compilation for all calls of a row length; that packed outputs are those of examples alone is tested with the method."""

import jax
import numpy as np
import pytest

from ncfair_jax.benchmarks import classifier
from ncfair_jax.engine import engine
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.tasks.classification.labelled import Labelled
from tests import tiny, tiny_tasks

HEAD = {"classifier": {"kernel": np.zeros((tiny.MODEL.hidden_size, 3), np.float32), "bias": np.zeros(3, np.float32)}}


def test_batches_after_the_first_trace_nothing(monkeypatch):
    model = tiny_tasks.pretrained()
    words = ("old", "tall", "man", "king", "he", "she", "likes", "sleeps", "the", ".")
    examples = [Labelled(f"the {a} man likes the {b} king .", f"{a} sleeps {b}", 0) for a in words for b in words]
    monkeypatch.setattr(engine, "default_batch_tokens", lambda: 256)
    traced, batches = tiny.engine_shapes(monkeypatch)
    for count in (80, 30):
        assert len(classifier.outputs(model, HEAD, examples[:count], 32, 32)) == count
    assert traced == [(8, 32)]
    assert batches.count((8, 32)) == len(batches) >= 2 * 2


def test_an_output_that_is_not_finite_is_refused_and_its_text_quoted():
    head = jax.tree.map(np.copy, HEAD)
    head["classifier"]["bias"][2] = np.nan
    with pytest.raises(NonFiniteError, match=r"the classifier's output for \"she sleeps\" is nan"):
        classifier.outputs(tiny_tasks.pretrained(), head, [Labelled("she sleeps", "", 1)], 32, 32)


def test_no_examples_no_outputs():
    model = tiny_tasks.pretrained()
    assert classifier.outputs(model, HEAD, [], 32, 32).shape == (0, 3)
    np.testing.assert_allclose(classifier.log_probs(np.array([[0.0, np.log(3.0)]])), np.log([[0.25, 0.75]]))
