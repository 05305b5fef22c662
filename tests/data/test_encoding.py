import numpy as np
import pytest
from transformers import AutoTokenizer, BertTokenizerFast, RobertaTokenizerFast

from ncfair_jax.data.encoding import encode_gaps, encode_sentences, encode_texts, tokenizer_fingerprint
from ncfair_jax.data.gap import read_gap
from ncfair_jax.files.notes import Cut, collected
from ncfair_jax.tasks.classification.labelled import Labelled, encode_labelled
from tests import tiny_hub


@pytest.fixture
def tokenizer(tmp_path) -> BertTokenizerFast:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\n.", encoding="utf-8")
    return BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))


def test_specials_around_and_kept_when_cut(tokenizer):
    encoded = encode_sentences(["a b.", "abb a b a", "?"], tokenizer, 5)
    assert [ids.tolist() for ids in encoded] == [[2, 5, 6, 8, 3], [2, 5, 7, 7, 3], [2, 1, 3]]
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert encode_sentences([], tokenizer, 5) == []


def test_what_is_cut_off_is_counted(tokenizer):
    with collected() as notes:
        encode_sentences(["a b.", "abb a b a", "a", "a a a a a a a a"], tokenizer, 5)
    assert notes == [Cut(limit=5, sequences=4, cut=2, tokens=5 + 8 + 3 + 10, lost=3 + 5)]
    with collected() as notes:
        encode_sentences(["a b.", "a"], tokenizer, 5)
    assert notes == []


def test_sentence_without_tokens_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"sentence 2 \('\\u200b'\) has no tokens"):
        encode_sentences(["a", "\u200b"], tokenizer, 5)


def test_no_room(tokenizer):
    with pytest.raises(ValueError, match="max_tokens=2; at least 3"):
        encode_sentences(["a"], tokenizer, 2)


def test_roberta_specials(shared):
    folder = shared("data/vocab/roberta-base")
    tokenizer = RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    (ids,) = encode_sentences(["He saw the woman."], tokenizer, 5)
    assert ids.tolist() == [0, 894, 794, 5, 2]


def test_fingerprint_follows_the_vocabulary(tokenizer, tmp_path):
    same = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    assert tokenizer_fingerprint(same) == tokenizer_fingerprint(tokenizer)
    swapped = (tmp_path / "vocab.txt").read_text(encoding="utf-8").replace("a\nb\n", "b\na\n")
    (tmp_path / "vocab.txt").write_text(swapped, encoding="utf-8")  # as many words, other ids
    assert tokenizer_fingerprint(BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))) != tokenizer_fingerprint(same)


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_gaps_give_what_the_mask_token_in_the_text_gives(kind):
    tokenizer = tiny_hub.tokenizer(kind)
    texts = ["the nurse said  # was tired", "# nurse", "the #", "#", "the # said # .", "(#) she", "the#said", "# #"]
    plain = tokenizer([text.replace("#", tokenizer.mask_token) for text in texts])["input_ids"]
    for (tokens, gaps), ids in zip(encode_gaps([t.split("#") for t in texts], tokenizer), plain, strict=True):
        assert tokens.tolist() == ids
        assert gaps.tolist() == [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    assert encode_gaps([], tokenizer) == []


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_control_tokens_in_a_text_are_text(kind):
    tokenizer = tiny_hub.tokenizer(kind)
    text = " ".join(["the", *tokenizer.all_special_tokens, "nurse"])
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for tokens in (*encode_texts([text], tokenizer), *encode_sentences([text], tokenizer, 100)):
        assert not special & set(tokens[1:-1].tolist())
        assert (tokens[0], tokens[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    labelled = encode_labelled([Labelled(text, text, 0)], tokenizer, 100)
    joints = sum(token in special for token in labelled.tokens[0].tolist())
    assert joints == tokenizer.num_special_tokens_to_add(pair=True)
    ((tokens, gaps),) = encode_gaps([(text, text)], tokenizer)
    assert [place for place in range(1, len(tokens) - 1) if tokens[place] in special] == gaps.tolist()


def test_texts_without_control_tokens_are_encoded_as_ever(shared):
    sentences = read_gap(shared("data/gap/gap_flipped.tsv"))[:2000]
    for name in ("minilm6-mlm-adapted", "roberta-tiny-random"):
        tokenizer = AutoTokenizer.from_pretrained(shared(f"models/{name}"))
        plain = tokenizer(sentences)["input_ids"]
        assert [tokens.tolist() for tokens in encode_texts(sentences, tokenizer)] == plain
