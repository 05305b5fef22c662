"""Words in context: which words of which sentences become examples, how many, and where a batch says they are."""

import json
from collections import Counter

import numpy as np
import pytest
from transformers import BertTokenizerFast

from ncfair_jax.config import ConfigError
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.lexicons.lexicon import SHIPPED, load_lexicon, make_lexicon
from ncfair_jax.methods.adept.words import (
    NEUTRAL,
    WordExample,
    adept_examples,
    chosen_groups,
    collect,
    made_of,
    neutral_words,
    quotas,
    select,
)
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from tests import tiny_hub, tiny_text
from tests.rounding import rounding

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
WORDS = [
    "she",
    "he",
    "her",
    "man",
    "nurse",
    "##s",
    "##ner",
    "doctor",
    "the",
    "sees",
    "likes",
    "step",
    "mother",
    "'",
    "s",
]
LEXICON = make_lexicon("g", {"f": ["she", "her", "step mother", "mother"], "m": ["he", "man"]}, [("she", "he")])


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(SPECIAL + WORDS)}, model_max_length=40)


def found(sentences, tokenizer, max_tokens=16, groups=(0, 1), neutral=("nurse", "nurses", "doctor", "man")):
    """(key, word, the word's pieces as text) of every example."""
    return [
        (example.key, example.word, tokenizer.convert_ids_to_tokens(example.tokens[example.pieces].tolist()))
        for example in collect(sentences, tokenizer, LEXICON, groups, neutral, max_tokens)
    ]


def test_every_listed_word_once_a_sentence_and_neutral_ones_only_without_attributes(tokenizer):
    sentences = [
        "She sees the nurse",
        "He likes her , he likes the man's doctor",
        "The nurses likes the doctor",
        "nurse",
    ]
    assert found(sentences, tokenizer) == [
        (1, "she", ["she"]),
        (2, "he", ["he"]),
        (1, "her", ["her"]),
        (2, "man", ["man"]),
        (NEUTRAL, "nurses", ["nurse", "##s"]),
        (NEUTRAL, "doctor", ["doctor"]),
    ]


def test_words_match_whole_and_the_longest_first(tokenizer):
    assert found(["the manner sees the doctor"], tokenizer) == [(NEUTRAL, "doctor", ["doctor"])]
    assert found(["the step mother sees"], tokenizer) == [(1, "step mother", ["step", "mother"])]


def test_accents_apart_from_their_letter_belong_to_the_word(tokenizer):
    lexicon = make_lexicon("g", {"f": ["fianc\u00e9e"], "m": ["man"]})
    examples = collect(["the fiance\u0301e sees", "the man\u0301 sees"], tokenizer, lexicon, (0, 1), (), 16)
    assert [(example.word, len(example.pieces)) for example in examples] == []  # unknown to this vocabulary
    examples = collect(["the e\u0301 man sees"], tokenizer, lexicon, (0, 1), (), 16)
    (example,) = examples
    assert tokenizer.convert_ids_to_tokens(example.tokens[example.pieces].tolist()) == ["man"]  # after a shifted place


def test_first_place_is_taken(tokenizer):
    (example,) = collect(["the man likes the man"], tokenizer, LEXICON, (0, 1), (), 16)
    assert example.pieces.tolist() == [2]  # after [CLS] the


def test_words_that_the_cut_touches_and_unknown_ones_are_left_out(tokenizer):
    sentence = "the the the nurses sees the"
    assert found([sentence], tokenizer, max_tokens=7) == [(NEUTRAL, "nurses", ["nurse", "##s"])]
    assert found([sentence], tokenizer, max_tokens=6) == []  # [CLS] the the the nurse [SEP]
    assert found([sentence], tokenizer, max_tokens=5) == []  # more words than max_tokens
    assert found(["the zebra sees"], tokenizer, neutral=["zebra"]) == []


def test_words_of_groups_left_out_still_keep_a_sentence_from_being_neutral(tokenizer):
    lexicon = make_lexicon("g", {"a": ["she"], "b": ["he"], "c": ["man"]})
    examples = collect(["the man sees the doctor", "he sees"], tokenizer, lexicon, (0, 1), ["doctor"], 16)
    assert [(example.key, example.word) for example in examples] == [(2, "he")]


def test_byte_level_vocabularies_find_words_inside_a_sentence(tmp_path):
    tokenizer = tiny_hub.tokenizer("roberta")
    lexicon = make_lexicon("g", {"f": ["woman"], "m": ["man"]})
    examples = collect(["Now the woman sees the man ."], tokenizer, lexicon, (0, 1), (), 40)
    assert sorted(example.word for example in examples) == ["man", "woman"]
    for example in examples:
        assert tokenizer.decode(example.tokens[example.pieces]).strip() == example.word


def test_quotas_share_a_word_out_among_its_partners():
    counts = Counter(her=100, him=40, his=70, she=31, he=29)
    pairs = [("her", "him"), ("her", "his"), ("she", "he")]
    assert quotas(counts, pairs, "final") == Counter(her=100, him=40, his=60)
    assert quotas(counts, pairs, "quality") == Counter(her=100, him=40, his=60, she=29, he=29)
    assert quotas(counts, pairs, "reliability") == Counter(her=100, him=40, his=70)
    assert quotas(counts, [*pairs, ("queen", "him")], "raw") == counts  # a pair with an unseen word is skipped
    assert quotas(counts, [], "final") == Counter(her=100, him=40, his=70, she=31)


def test_select_takes_the_first_of_each_word():
    examples = [WordExample(key, word, np.array([i]), np.array([0])) for i, (key, word) in enumerate(
        [(1, "she"), (0, "nurse"), (1, "she"), (2, "he"), (0, "nurse")]
    )]  # fmt: skip
    chosen = select(examples, Counter(she=1))
    assert [int(example.tokens[0]) for example in chosen] == [0, 1, 4]


def test_shipped_neutral_words_are_in_no_lexicon():
    words = neutral_words("")
    listed = {word.lower() for name in SHIPPED for group in load_lexicon(name).words for word in group}
    assert len(words) == len(set(words)) > 200
    assert all(word == word.lower() for word in words)
    assert not listed & set(words)


def test_own_neutral_words(tmp_path):
    (tmp_path / "words.txt").write_text("Nurse\n\nhair salon\nnurse\n")
    assert neutral_words(tmp_path / "words.txt") == ["nurse", "hair salon"]


def test_groups_by_name():
    religion = load_lexicon("religion")
    assert chosen_groups(religion, "") == list(range(5))
    assert chosen_groups(religion, "islam, judaism") == [2, 0]
    with pytest.raises(ConfigError, match=r"no group 'isalm'; choose from judaism"):
        chosen_groups(religion, "isalm,judaism")
    with pytest.raises(ConfigError, match="two groups or more"):
        chosen_groups(religion, "islam")


def pipeline(batch_size=3, counts=(20, 7, 11)):
    """Random sentences; example i's word has 1 to 3 tokens."""
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    sentences = [np.array([1, *rng.integers(5, 60, rng.integers(5, 12)), 2], np.int32) for _ in keys]
    pieces = [np.arange(start, start + rng.integers(1, 4)) for start in rng.integers(1, 4, len(keys))]
    config = PipelineConfig(seed=1, batch_size=batch_size, row_tokens=32)
    settings = {"special_ids": [0, 1, 2, 3], "mask_token_id": 3, "vocab_size": 60}
    return Pipeline(made_of(sentences, keys, pieces), config, **settings), sentences, keys, pieces


def test_batches_hold_each_key_equally_often_and_say_where_the_words_are():
    made, sentences, keys, pieces = pipeline()
    assert made.steps_per_epoch == 2  # 7 examples of the smallest key
    for step in range(5):
        ids, batch = made.example_ids(step), made.batch(step)
        assert keys[ids].tolist() == [0] * 3 + [1] * 3 + [2] * 3
        tokens, rows = batch["tokens"][0], batch["example_rows"][0]
        for place, example in enumerate(ids):
            used = batch["example_weights"][0, place] > 0
            columns = batch["example_columns"][0, place]
            assert tokens[rows[place, used], columns[used]].tolist() == sentences[example][pieces[example]].tolist()
            np.testing.assert_allclose(batch["example_weights"][0, place].sum(), 1, rtol=rounding(3))
        expected = sorted(np.concatenate([sentences[i] for i in ids if keys[i] != NEUTRAL]).tolist())
        assert sorted(tokens[batch["retained"][0] == 1].tolist()) == expected
        assert not batch["masked_weights"].any()
        np.testing.assert_array_equal(pipeline()[0].batch(step)["tokens"], batch["tokens"])


def test_an_epoch_has_no_example_twice_and_the_next_one_another_order():
    made = pipeline()[0]
    epochs = [np.concatenate([made.example_ids(2 * epoch + i) for i in range(2)]) for epoch in range(3)]
    assert all(len(set(epoch.tolist())) == 18 for epoch in epochs)
    assert sorted(epochs[0]) != sorted(epochs[1])


def test_few_development_examples_make_a_smaller_batch():
    assert len(pipeline(batch_size=16)[0].example_ids(0)) == 3 * 7


def test_fingerprint_knows_the_words():
    made, sentences, keys, pieces = pipeline()
    other = made_of(sentences, keys, [p[:1] for p in pieces])
    moved = made_of(sentences, np.roll(keys, 1), pieces)
    assert made.fingerprint == pipeline()[0].fingerprint
    assert len({made.fingerprint, other.fingerprint, moved.fingerprint}) == 3


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A model, and a config of a text in its words."""
    folder = tmp_path_factory.mktemp("setting")
    (folder / "text.txt").write_text("\n".join(tiny_text.sentences(200)) + "\n")
    (folder / "neutral.txt").write_text("\n".join(tiny_text.NEUTRAL) + "\n")
    config = base_config(method="adept")
    config.data.update(corpus="text", path=str(folder / "text.txt"), max_tokens=32, row_tokens=32)
    config.adept.update(neutral=str(folder / "neutral.txt"), mode="quality")
    config.train.batch_size = 8
    return tiny_text.pretrained(), config, folder


def test_examples_of_a_corpus(setting):
    model, config, _ = setting
    config = config.copy_and_resolve_references()
    config.data.dev_examples = 40
    train, dev = adept_examples(freeze(config), model)
    counts = np.bincount(train.strata)
    assert counts[1] == counts[2] > 8  # balanced pairs
    trained = {tuple(tokens.tolist()) for tokens in train.sequences}
    assert not trained & {tuple(tokens.tolist()) for tokens in dev.sequences}
    assert np.bincount(dev.strata).min() >= 2


def test_too_few_examples_are_refused_by_name(setting):
    model, config, folder = setting
    config = config.copy_and_resolve_references()
    config.train.batch_size = 5000
    with pytest.raises(ConfigError, match=r"sentences of the neutral words, at least 5000 are needed; give more text"):
        adept_examples(freeze(config), model)
    config.train.batch_size = 8
    (folder / "lexicon.json").write_text(
        json.dumps({"attribute": "g", "groups": {"one": ["he"], "two": ["queen"]}, "pairs": [["he", "queen"]]})
    )
    config.adept.lexicon = str(folder / "lexicon.json")
    with pytest.raises(ConfigError, match=r"0 sentences of the group 'one'"):
        adept_examples(freeze(config), model)
