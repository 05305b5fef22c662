"""Collapse during training: the tracker's figures against a survey of its own sentences."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from transformers import BertTokenizerFast

from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.survey import survey
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.lexicons.classes import build_classes, occurring, token_counts
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.models import bert
from ncfair_jax.tracker import TRACKED, make_tracker, track
from tests import tiny_text

MESH = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])


def test_figures_are_those_of_its_sentences():
    model = tiny_text.pretrained()
    examples = encode_sentences(tiny_text.sentences(100), model.tokenizer, 32)
    tracker = make_tracker(model, "gender", examples, 20, 32, MESH)
    assert tracker is not None
    assert len(tracker.examples) == 20
    lexicon = build_classes(load_lexicon("gender"), model.tokenizer)
    assert all(np.isin(example, lexicon.token_ids).any() for example in tracker.examples)
    words = occurring(lexicon, token_counts(tracker.examples, len(model.tokenizer)), model.tokenizer)
    (stats,) = survey(
        model.config, model.params, tracker.examples, words, features=("transform",), row_tokens=32, groups=1
    )["transform"]
    expected = measure(stats, bert.classifier(model.params)[0][words.token_ids])
    found = track(tracker, model.params)
    assert {name.removeprefix("lexicon_").removeprefix("control_") for name in found} == set(TRACKED)
    for name in TRACKED:
        assert found[f"lexicon_{name}"] == pytest.approx(expected[name], rel=1e-4)
        assert found[f"control_{name}"] != pytest.approx(expected[name], rel=1e-4)


def test_fragments_are_not_tracked():
    model = tiny_text.pretrained()
    vocab = {{"nomi": "##nomi"}.get(word, word): number for word, number in model.tokenizer.get_vocab().items()}
    model = model._replace(tokenizer=BertTokenizerFast(vocab=vocab, model_max_length=40))
    sentences = ["he bara", "she bara", "hernomi bara", "he shenomi bara", "fathernomi bara"]
    tracker = make_tracker(model, "gender", encode_sentences(sentences, model.tokenizer, 32), 20, 32, MESH)
    assert tracker is not None
    assert len(tracker.examples) == 3
    assert {tracker.classes.words[slot] for slot in tracker.slots["lexicon"]} == {"he", "she"}


def test_text_without_fairness_words_is_not_tracked():
    model = tiny_text.pretrained()
    examples = encode_sentences(["bara doste", "kivil lugan"], model.tokenizer, 32)
    assert make_tracker(model, "gender", examples, 20, 32, MESH) is None
