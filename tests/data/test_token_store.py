"""The store gives what encoding in memory gives, however many batches it was built in."""

import numpy as np
import pytest

from ncfair_jax.data import encoding
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.token_store import TokenStore, build, temporary_store
from ncfair_jax.files.notes import collected
from tests import tiny_text


@pytest.fixture
def tokenizer():
    return tiny_text.pretrained().tokenizer


def of_lists(examples) -> list[list[int]]:
    return [example.tolist() for example in examples]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_equals_encoding_in_memory(tokenizer, tmp_path, monkeypatch, batch):
    sentences = tiny_text.sentences(50)
    with collected() as wanted_notes:
        wanted = encode_sentences(sentences, tokenizer, 9)
    monkeypatch.setattr(encoding, "BATCH", batch)
    with collected() as notes:
        store = build(iter(sentences), tokenizer, 9, tmp_path)
    assert notes == wanted_notes
    assert wanted_notes[0].sequences == 50 > wanted_notes[0].cut > 0
    assert len(store) == 50
    assert store.lengths.tolist() == [len(example) for example in wanted]
    for found in (store[:], list(store), TokenStore(tmp_path)[:]):
        assert of_lists(found) == of_lists(wanted)
    assert all(example.dtype == np.int32 for example in store)
    for index in (slice(3, 20), slice(-4, None), slice(None, None, -3), slice(7, 7), slice(9, 4), slice(48, 99)):
        assert of_lists(store[index]) == of_lists(wanted[index])
    assert store[-1].tolist() == wanted[-1].tolist()
    for wrong in (50, -51):
        with pytest.raises(IndexError):
            store[wrong]


def test_no_sentences(tokenizer, tmp_path):
    store = build([], tokenizer, 9, tmp_path / "new" / "folder")
    assert (len(store), store[:], store.lengths.tolist()) == (0, [], [])


def test_a_sentence_without_tokens_is_named_by_its_number_in_the_text(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 2)
    with pytest.raises(ValueError, match=r"sentence 5 \('\\u200b'\) has no tokens"):
        build(["he", "she", "he", "she", "\u200b"], tokenizer, 9, tmp_path)


def test_a_temporary_store_leaves_nothing(tokenizer, tmp_path):
    left = tmp_path / "tokens-0" / "left by a killed process"
    left.mkdir(parents=True)
    with temporary_store(["he", "she"], tokenizer, 9, tmp_path) as store:
        assert len(store) == 2
        assert not left.exists()
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no tokens"), temporary_store(["he", "\u200b"], tokenizer, 9, tmp_path):
        pass
    with pytest.raises(KeyError), temporary_store(["he"], tokenizer, 9, tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())
