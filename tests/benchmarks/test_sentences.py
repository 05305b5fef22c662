"""A user's own sentences against a plain forward pass of each."""

import numpy as np
import pytest

from ncfair_jax.benchmarks.sentences import pseudo_log_likelihoods, with_gaps, word_log_probs
from ncfair_jax.engine import RequestError
from ncfair_jax.models.hf import load_pretrained
from tests import tiny_hub
from tests.benchmarks import plain


@pytest.fixture(scope="module", params=tiny_hub.KINDS)
def model(request):
    return plain.pretrained(request.param)


def tokens_of(model, sentence):
    return np.array(model.tokenizer(sentence.replace("[MASK]", model.tokenizer.mask_token))["input_ids"], np.int32)


def test_words_get_the_log_probabilities_of_a_plain_pass(model):
    sentences = ["the nurse said that [MASK] was tired.", "he said [MASK] nurse"]
    words = ["he", "she"]
    found = word_log_probs(model, sentences, words)
    blank = " " if model.config.model_type == "roberta" else ""
    ids = [model.tokenizer(blank + word, add_special_tokens=False)["input_ids"][0] for word in words]
    for values, sentence in zip(found, sentences, strict=True):
        tokens = tokens_of(model, sentence)
        (place,) = np.flatnonzero(tokens == model.tokenizer.mask_token_id)
        np.testing.assert_allclose(values, plain.log_probs(model, tokens)[place, ids], **plain.CLOSE)


def test_the_context_matters_more_than_the_tolerance(model):
    (first,), (second,) = word_log_probs(model, ["the [MASK] said that", "she [MASK] said that"], ["he"])
    assert abs(first - second) > 1e-3  # a hundred times the tolerance of these tests


def test_a_word_at_the_start_of_a_sentence_carries_no_blank():
    model = plain.pretrained("roberta")
    ids = {text: model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("he", " he")}
    assert len(ids["he"]) == len(ids[" he"]) == 1
    assert ids["he"] != ids[" he"]
    for sentence, text in (("[MASK] was tired", "he"), ("that [MASK] was tired", " he"), ("([MASK] was tired", "he")):
        tokens = tokens_of(model, sentence)
        (place,) = np.flatnonzero(tokens == model.tokenizer.mask_token_id)
        ((value,),) = word_log_probs(model, [sentence], ["he"])
        np.testing.assert_allclose(value, plain.log_probs(model, tokens)[place, ids[text][0]], **plain.CLOSE)


@pytest.mark.parametrize(
    ("sentence", "word", "message"),
    [
        ("the nurse said", "he", "write exactly one"),
        ("[MASK] said [MASK]", "he", "has 2"),
        ("[MASK] said", "nurses", "one token"),
        ("[MASK] said", "doctor", "one token"),
    ],
)
def test_impossible_questions_are_refused(sentence, word, message):
    with pytest.raises(RequestError, match=message):
        word_log_probs(plain.pretrained("bert"), [sentence], [word])


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_control_tokens_of_the_user_are_text(kind):
    model = plain.pretrained(kind)
    ids, mask = model.tokenizer.all_special_ids, model.tokenizer.mask_token_id
    others = " ".join(token for token in model.tokenizer.all_special_tokens if token != "[MASK]")
    ((tokens, place),) = with_gaps(model, [f"he {others} said {others} [MASK] {others}"])
    unknown = model.tokenizer.unk_token_id  # characters that the tiny vocabularies do not know
    assert [int(token) for token in tokens if token in ids and token != unknown] == [tokens[0], mask, tokens[-1]]
    assert tokens[place] == mask
    with pytest.raises(RequestError, match=r"'<mask>' is \[|'\[SEP\]' is \["):
        word_log_probs(model, ["[MASK] said"], ["<mask>" if kind == "roberta" else "[SEP]"])
    (values,) = pseudo_log_likelihoods(model, [model.tokenizer.mask_token])
    assert len(values) > 1


def test_the_gap_is_where_it_was_marked(shared):
    """PyTorch's log-probability in "I typed <mask> and then [MASK] left.", "<mask>" encoded with split_special_tokens.

    At "<mask>" read as a mask it would be -14.086, and beside it -13.947.
    """
    model = load_pretrained(shared("models/roberta-tiny-random"))
    ((value,),) = word_log_probs(model, ["I typed <mask> and then [MASK] left."], ["he"])
    assert value == pytest.approx(-14.4126, abs=1e-4)


def test_pseudo_log_likelihoods_mask_one_token_at_a_time(model):
    sentences = ["The nurse said that she was tired.", "", "he said"]
    found = pseudo_log_likelihoods(model, sentences)
    for values, sentence in zip(found, sentences, strict=True):
        tokens = tokens_of(model, sentence)
        assert len(values) == len(tokens) - 2
        for place, value in enumerate(values, start=1):
            masked = tokens.copy()
            masked[place] = model.tokenizer.mask_token_id
            np.testing.assert_allclose(value, plain.log_probs(model, masked)[place, tokens[place]], **plain.CLOSE)
    assert pseudo_log_likelihoods(model, []) == []
