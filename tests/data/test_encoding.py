import numpy as np
import pytest
from transformers import BertTokenizerFast, RobertaTokenizerFast

from ncfair_jax.data.encoding import encode_sentences, tokenizer_fingerprint
from ncfair_jax.data.notes import Cut, collected


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
