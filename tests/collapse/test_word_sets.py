"""Word sets hold words of the text only, and their union is what is collected."""

import numpy as np
import pytest

from ncfair_jax.collapse.word_sets import WORD_SETS, union, word_sets
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.lexicons.classes import build_classes, token_counts
from ncfair_jax.lexicons.lexicon import LexiconError, load_lexicon
from tests import tiny_text


@pytest.fixture(scope="module")
def text():
    tokenizer = tiny_text.pretrained().tokenizer
    sentences = [line for line in tiny_text.sentences(150) if "him" not in line.split() and "bara" not in line.split()]
    counts = token_counts(encode_sentences(sentences, tokenizer, 32), len(tokenizer))
    return tokenizer, build_classes(load_lexicon("gender"), tokenizer), counts


def test_sets_hold_occurring_words(text):
    tokenizer, lexicon, counts = text
    sets = word_sets(WORD_SETS, lexicon, counts, 0, tokenizer)
    assert set(sets["lexicon"].words) == set(tiny_text.GENDER) - {"him"}
    assert set(sets["full"].words) == set(tiny_text.WORDS) - {"him", "bara"}
    for name in ("random", "frequency-matched"):
        assert sets[name].num_classes == 9
        assert not set(sets[name].words) & {*tiny_text.GENDER, "bara"}
    ours, matched = (np.sort(counts[sets[name].token_ids]) for name in ("lexicon", "frequency-matched"))
    assert np.abs(np.log(ours / matched)).mean() < 0.2
    lists = np.array([sets["random"].token_ids, sets["lexicon"].token_ids])
    some = {"lexicon": sets["lexicon"]}
    assert union(some, lists, tokenizer).num_classes == 18
    assert union(some, np.zeros((0, 0), np.int32), tokenizer).words == sets["lexicon"].words


def test_wrong_calls(text):
    tokenizer, lexicon, counts = text
    with pytest.raises(ValueError, match="'common'; choose from lexicon"):
        word_sets(["common"], lexicon, counts, 0, tokenizer)
    with pytest.raises(ValueError, match="0 words of the lexicon occur"):
        word_sets(["lexicon"], lexicon, np.zeros_like(counts), 0, tokenizer)
    only_men = counts.copy()
    only_men[lexicon.token_ids[lexicon.group == lexicon.groups.index("female")]] = 0
    with pytest.raises(LexiconError, match=r"no word of the lexicon's group 'female' .* occurs in the text"):
        word_sets(["lexicon"], lexicon, only_men, 0, tokenizer)
