"""Special tokens and word boundaries, against what the tokenizers themselves give."""

import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ncfair_jax.data.texts import text_sentences
from ncfair_jax.vocabulary import (
    pieces_of,
    plain_words,
    template_of,
    text_of_piece,
    vocabulary_of,
    whole_words,
    word_boundaries,
    word_forms,
)
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


FOLDERS = {
    "tiny bert": "", "tiny roberta": "",
    **{name: f"models/{name}" for name in ("minilm6-mlm", "roberta-tiny-random")},
    **{name: f"models/tiny/{name}" for name in (
        "albert", "camembert", "distilbert", "electra", "gemma", "gemma2", "gpt2", "gpt_neox", "llama", "llama3", "modernbert",
        "modernbert_decoder", "qwen2", "qwen3", "xlm_roberta",
    )},
}  # fmt: skip
TEXT_PAIRS = [("The nurse said that she was tired.", "He said"), ("a", "Ünïcode ☃ nurses"), ("she", "  she  ")]


@pytest.fixture(params=FOLDERS)
def tokenizer(request, shared) -> PreTrainedTokenizerBase:
    if not FOLDERS[request.param]:
        return tiny_hub.tokenizer(request.param.removeprefix("tiny "))
    return AutoTokenizer.from_pretrained(shared(FOLDERS[request.param]))


def test_sequences_of_the_template_are_those_of_the_tokenizer(tokenizer):
    template = template_of(tokenizer)
    assert template.specials() == tokenizer.num_special_tokens_to_add()
    assert template.specials(texts=2) == tokenizer.num_special_tokens_to_add(pair=True)
    for texts in TEXT_PAIRS:
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        whole = tokenizer(texts[0])["input_ids"]
        assert template.around(first).tolist() == whole
        assert whole[template.inside(len(whole))] == first
        pair = tokenizer(*texts, return_token_type_ids=True)
        tokens, types = template.pair(first, second)
        assert tokens.tolist() == pair["input_ids"]
        assert types.tolist() == pair["token_type_ids"]
        assert tokens.dtype == types.dtype == np.int32


def test_special_tokens_are_the_tokenizers_own(tokenizer):
    vocabulary = vocabulary_of(tokenizer)
    assert (vocabulary.mask, vocabulary.pad, vocabulary.unknown) == (
        tokenizer.mask_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    )
    assert list(vocabulary.special_ids) == sorted(tokenizer.all_special_ids)
    assert vocabulary.size == len(tokenizer)
    assert hash(vocabulary) == hash(vocabulary_of(tokenizer))
    within, at_start = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" she", "she"))
    if not vocabulary.marks_blanks:
        assert within == at_start


def test_masks_stand_where_the_tokenizer_puts_them(tokenizer):
    vocabulary = vocabulary_of(tokenizer)
    if vocabulary.mask is None:
        pytest.skip("a decoder")
    for parts in (["The ", " said"], ["", " said that ", " was ", "."], ["she said", ""]):
        pieces = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in vocabulary.trimmed(parts)]
        tokens, places = vocabulary.masked(pieces)
        text = tokenizer.mask_token.join(parts)
        if (
            vocabulary.marks_blanks and parts[0] == ""
        ):  # SentencePiece puts a blank in front of a text that begins with one
            continue
        if type(tokenizer.backend_tokenizer.model).__name__ != "Unigram":
            assert tokens.tolist() == tokenizer(text)["input_ids"], text
        assert (tokens[places] == vocabulary.mask).all()
        assert len(places) == len(parts) - 1 == (tokens == vocabulary.mask).sum()
        padded = [*tokens.tolist(), *[vocabulary.pad] * 3]
        assert vocabulary.bare(padded) == tokens[vocabulary.template.inside(len(tokens))].tolist()


def test_forms_of_words():
    assert word_forms("nurse") == (" nurse", " Nurse", "Nurse")
    assert [text_of_piece(piece) for piece in ("Ġnurse", "▁nurse", "nurse", "##s")] == [
        " nurse",
        " nurse",
        "nurse",
        "##s",
    ]
    tokenizer = tiny_hub.tokenizer("bert")
    words = tokenizer.convert_ids_to_tokens(plain_words(tokenizer).tolist())
    assert words == ["the", "he", "she", "nurse", "said", "that", "was", "tired", "man", "woman"]
    assert pieces_of(["nurse", " Nurses"], tokenizer) == [
        tokenizer.convert_tokens_to_ids(pieces) for pieces in (["nurse"], ["nurse", "##s"])
    ]
    assert pieces_of([], tokenizer) == []
