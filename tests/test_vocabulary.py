"""Word boundaries told from token ids, against the word numbers that the tokenizer itself gives."""

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from ncfair_jax.data.texts import text_sentences
from ncfair_jax.vocabulary import whole_words, word_boundaries
from tests import tiny_hub

MODELS = {"wordpiece": "models/minilm6-mlm-adapted", "byte-level": "models/roberta-tiny-random"}
TEXTS = (
    "Marie met ma; Henry's hen (a hen!) ate 2 hens.",
    "SuperMan, Super-Man and Super Man: woman2, 2woman, the he-man.",
    "“Man” said he—she\u00a0smiled\tat\nhim…  twice   today",
    "fiancé fiance\u0301 男人 he🙂Man",
)


def of_texts(tokenizer: PreTrainedTokenizerFast, texts) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
    """Pieces of each text; which are whole words of them, laid end to end, by us and by the tokenizer."""
    encoded = tokenizer(list(texts))
    tokens = [np.array(ids, np.int32) for ids in encoded["input_ids"]]
    positions = np.concatenate([np.arange(len(ids)) for ids in tokens])
    found = whole_words(np.concatenate(tokens), positions, word_boundaries(tokenizer))
    wanted = []
    for text in range(len(tokens)):
        words = [f"special {place}" if word is None else word for place, word in enumerate(encoded.word_ids(text))]
        wanted += [words.count(word) == 1 for word in words]
    return [tokenizer.convert_ids_to_tokens(ids.tolist()) for ids in tokens], found, np.array(wanted)


@pytest.mark.parametrize("kind", MODELS)
def test_boundaries_are_those_of_the_tokenizer(shared, kind):
    tokenizer = AutoTokenizer.from_pretrained(shared(MODELS[kind]))
    sentences = [*TEXTS, *list(text_sentences("wikitext2", str(shared("data"))))[:600]]
    pieces, found, wanted = of_texts(tokenizer, sentences)
    different = np.flatnonzero(found != wanted)
    assert not len(different), [np.concatenate(pieces)[i - 2 : i + 3] for i in different[:5]]
    assert 1000 < wanted.sum() < len(wanted) - 1000


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("wordpiece", "A hen's henna hen-pecked ma: mado", "a hen ' s hen - ma :"),
        ("byte-level", "SuperMan Super-Man", "ĠSuper - Man"),
        ("byte-level", "Man's ManMan 2Man “Man”", "ĠMan 's Ġ2 Man Man"),
    ],
)
def test_fragments_are_no_words(shared, kind, text, words):
    tokenizer = AutoTokenizer.from_pretrained(shared(MODELS[kind]))
    (pieces,), found, _ = of_texts(tokenizer, [" " + text])
    assert [piece for piece, whole in zip(pieces, found, strict=True) if whole][1:-1] == words.split()


def test_letters_behind_a_contraction_are_no_word(shared):
    tokenizer = AutoTokenizer.from_pretrained(shared(MODELS["byte-level"]))
    (pieces,), found, wanted = of_texts(tokenizer, ["'she said"])  # the tokenizer cuts 's|he
    assert pieces == ["<s>", "'s", "he", "Ġsaid", "</s>"]
    assert wanted.tolist() == [True] * 5
    assert found.tolist() == [True, False, False, True, True]


def test_texts_do_not_join():
    tokenizer = BertTokenizerFast(
        vocab={w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "man", "##s"])}
    )
    boundaries = word_boundaries(tokenizer)
    tokens = np.array([5, 6, 5, 6, 5], np.int32)
    assert whole_words(tokens, np.arange(5), boundaries).tolist() == [False, False, False, False, True]
    assert whole_words(tokens, np.array([0, 0, 1, 2, 0]), boundaries).tolist() == [True, True, False, False, True]


def test_characters_of_several_tokens_are_told_by_their_first_bytes():
    tokenizer = tiny_hub.tokenizer("roberta")  # single bytes and a few merges: "Ġshe", "he"
    pieces, found, wanted = of_texts(tokenizer, [" he☃", " heé", " he”he—he", "3 he3", " heheשhe"])
    assert not np.any(found & ~wanted)
    words = np.isin(np.concatenate(pieces), ["Ġhe", "he"])
    assert wanted[words].tolist() == [True, False, True, True, True, True, False, False, False]
    # The first of the three bytes of ☃, ” and — could also begin a letter.
    assert found[words].tolist() == [False, False, False, False, False, True, False, False, False]
