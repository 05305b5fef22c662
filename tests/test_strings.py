"""A lone string where several are due is refused, by the one check and by every public function that needs it."""

import numpy as np
import pytest

from ncfair_jax.benchmarks.seat import terms
from ncfair_jax.benchmarks.sentences import pseudo_log_likelihoods, word_log_probs
from ncfair_jax.collapse.accumulators import check_choices
from ncfair_jax.collapse.word_sets import word_sets
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.token_building import build
from ncfair_jax.files.rows import split_rows
from ncfair_jax.lexicons.cda import counterfactual
from ncfair_jax.lexicons.lexicon import load_lexicon, make_lexicon
from ncfair_jax.lexicons.matching import whole_words
from ncfair_jax.measurement import MeasureSettings, measure_models
from ncfair_jax.methods.adept.words import collect
from ncfair_jax.methods.ase.rows import encode_rows, mask_pronouns, sentence_pairs
from ncfair_jax.methods.mabel.pairs import build_pairs
from ncfair_jax.report.measured import folder_names
from ncfair_jax.strings import several_strings
from tests import tiny_text

GENDER = load_lexicon("gender")
TEXT = "The nurse was tired."


pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # what the package itself says of a wrong type


@pytest.mark.parametrize("values", [("a", "b"), ["a", "b"], iter(["a", "b"]), {"a": 1, "b": 2}, np.array(["a", "b"])])
def test_several_strings_come_back_as_a_list(values):
    assert several_strings("words", values) == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("he", r"words='he' is a single string; put it in a list: words=\['he'\]"),
        (b"he", "words=b'he' is a single string"),
        (None, "words=None is a NoneType; expected a list of strings"),
        (["he", 3], r"words\[1\] is 3, a int; expected a string"),
        (["he", ["she"]], r"words\[1\] is \['she'\], a list; expected a string"),
    ],
)
def test_what_is_not_several_strings_is_named(values, message):
    with pytest.raises(TypeError, match=message):
        several_strings("words", values)


def test_long_strings_are_cut_in_the_message():
    with pytest.raises(TypeError) as error:
        several_strings("sentences", "x" * 1000)
    assert len(str(error.value)) < 200


CALLS = {
    "word_log_probs": lambda model, out: word_log_probs(model, "[MASK] ran.", ["he"]),
    "word_log_probs, words": lambda model, out: word_log_probs(model, ["[MASK] ran."], "he"),
    "pseudo_log_likelihoods": lambda model, out: pseudo_log_likelihoods(model, TEXT),
    "encode_sentences": lambda model, out: encode_sentences(TEXT, model.tokenizer, 20),
    "build": lambda model, out: build(TEXT, model.tokenizer, 20, out),
    "counterfactual": lambda model, out: counterfactual(TEXT, GENDER, "two_sided"),
    "counterfactual, none": lambda model, out: counterfactual(TEXT, GENDER),
    "whole_words": lambda model, out: whole_words("nurse"),
    "make_lexicon": lambda model, out: make_lexicon("gender", {"female": "she", "male": ["he"]}),
    "collect": lambda model, out: collect(TEXT, model.tokenizer, GENDER, (0, 1), ["nurse"], 20),
    "collect, neutral": lambda model, out: collect([TEXT], model.tokenizer, GENDER, (0, 1), "nurse", 20),
    "sentence_pairs": lambda model, out: sentence_pairs(TEXT, [TEXT]),
    "encode_rows": lambda model, out: encode_rows([mask_pronouns("He ran.")], model.tokenizer, 20, "nurse"),
    "build_pairs": lambda model, out: build_pairs("nyu-mll/multi_nli", out / "pairs.csv", GENDER),
    "split_rows": lambda model, out: list(split_rows(str(out), "train", "the Hub")),
    "word_sets": lambda model, out: word_sets("random", None, np.zeros(1), 0, model.tokenizer),
    "check_choices": lambda model, out: check_choices(model.config, "hidden", "same"),
    "MeasureSettings": lambda model, out: MeasureSettings(word_sets="lexicon"),
    "measure": lambda model, out: measure_models("bert-base-uncased", MeasureSettings(), out),
    "folder_names": lambda model, out: folder_names("bert-base-uncased"),
    "terms": lambda model, out: terms(TEXT),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_public_function_refuses_a_lone_string(name, tmp_path):
    model = tiny_text.pretrained()
    with pytest.raises(TypeError, match="is a single string; put it in a list"):
        CALLS[name](model, tmp_path)
