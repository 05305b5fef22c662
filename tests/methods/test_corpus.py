"""Where the sentences of a run come from: the same from memory and from a store, which runs share."""

import json
from pathlib import Path

import numpy as np
import pytest

from ncfair_jax.config import ConfigError, DataConfig
from ncfair_jax.data import token_building
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Examples, Pipeline
from ncfair_jax.files.fingerprint import cache_folder
from ncfair_jax.methods import corpus
from ncfair_jax.methods.corpus import load_examples, load_sentences
from tests import tiny_text


@pytest.fixture
def tokenizer():
    return tiny_text.pretrained().tokenizer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(tiny_text.sentences(60)))
    return path


def stores() -> set[str]:
    return {path.name for path in (cache_folder() / "tokens").iterdir()}


def test_the_swap_reads_possessives_as_the_config_asks(tmp_path):
    (tmp_path / "text.txt").write_text("The car is his.\nShe ran.\n")

    def swapped(**changes):
        return load_sentences(DataConfig(corpus="text", path=str(tmp_path / "text.txt"), **changes), seed=0)[0]

    assert swapped(counterfactual="one_sided") == ["The car is hers.", "He ran."]
    assert swapped(counterfactual="one_sided", possessives="next_word") == ["The car is her.", "He ran."]
    assert swapped() == ["The car is his.", "She ran."]


def folder_of_texts(text: Path) -> dict:
    folder = text.parent / "texts"
    folder.mkdir()
    lines = text.read_text().split("\n")
    (folder / "a.txt").write_text("\n".join(lines[:20]))
    (folder / "b.txt").write_text("\n".join(lines[20:]))
    return {"corpus": "text", "path": str(folder)}


def data_set(text: Path) -> dict:
    folder = text.parent / "set"
    folder.mkdir()
    rows = [json.dumps({"text": line}) for line in text.read_text().split("\n")]
    (folder / "train.jsonl").write_text("\n".join(rows))
    return {"corpus": "hub", "path": str(folder)}


SOURCES = {
    "file": lambda text: {"corpus": "text", "path": str(text)},
    "folder": folder_of_texts,
    "hub": data_set,
    "stream": lambda text: data_set(text) | {"streaming": True},
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_text_a_folder_and_a_data_set_of_the_hub_go_through_a_store(text, tokenizer, source):
    config = DataConfig(**SOURCES[source](text), max_tokens=9)
    train, dev = load_examples(config, tokenizer, seed=0)
    assert isinstance(train.tokens, np.memmap)
    assert [found.tolist() for found in train] == [
        wanted.tolist() for wanted in encode_sentences(tiny_text.sentences(60), tokenizer, 9)
    ]
    assert len(dev) == 0


@pytest.mark.parametrize("swap", ["none", "one_sided", "two_sided"])
def test_it_gives_what_memory_gives(text, tokenizer, swap):
    config = DataConfig(corpus="text", path=str(text), max_tokens=9, counterfactual=swap, dev_examples=7)
    found = load_examples(config, tokenizer, seed=3)
    for part, sentences in zip(found, load_sentences(config, seed=3), strict=True):
        wanted = encode_sentences(sentences, tokenizer, 9)
        assert [each.tolist() for each in part] == [each.tolist() for each in wanted]


def test_runs_share_a_store_and_have_their_own_development_sentences(text, tokenizer, monkeypatch):
    config = DataConfig(corpus="text", path=str(text), dev_examples=7)
    first, again, other = (Examples(load_examples(config, tokenizer, seed)[0]).fingerprint for seed in (0, 0, 1))
    assert first == again != other
    assert len(stores()) == 1
    monkeypatch.setattr(token_building, "encode_piece", None)  # nothing is encoded again
    load_examples(config, tokenizer, seed=2)


@pytest.mark.parametrize(
    "change",
    [{"max_tokens": 8}, {"max_examples": 50}, {"counterfactual": "one_sided"}, {"counterfactual": "two_sided"}],
)
def test_what_changes_the_tokens_makes_another_store(text, tokenizer, change):
    config = {"corpus": "text", "path": str(text), "max_tokens": 9}
    load_examples(DataConfig(**config), tokenizer, seed=0)
    load_examples(DataConfig(**config | change), tokenizer, seed=0)
    assert len(stores()) == 2


def test_so_do_another_text_tokenizer_and_version(text, tokenizer, monkeypatch):
    config = DataConfig(corpus="text", path=str(text))
    load_examples(config, tokenizer, seed=0)
    text.write_text(text.read_text() + "\nhe ran")
    load_examples(config, tokenizer, seed=0)
    assert len(stores()) == 2
    tokenizer.backend_tokenizer.normalizer = None
    load_examples(config, tokenizer, seed=0)
    assert len(stores()) == 3
    monkeypatch.setattr(corpus, "STORE_VERSION", 99)
    load_examples(config, tokenizer, seed=0)
    assert len(stores()) == 4


def test_more_development_sentences_than_there_are_is_refused(text, tokenizer):
    config = DataConfig(corpus="text", path=str(text), dev_examples=60)
    with pytest.raises(ConfigError, match="dev_examples=60 leaves nothing of 60 examples"):
        load_examples(config, tokenizer, seed=0)


def test_a_text_that_cannot_be_read_leaves_no_store(tmp_path, tokenizer):
    (tmp_path / "text.txt").write_bytes(b"good\n\xff\xfe\xff\n")
    with pytest.raises(ValueError, match=r"text\.txt"):
        load_examples(DataConfig(corpus="text", path=str(tmp_path / "text.txt")), tokenizer, seed=0)
    assert not stores()


@pytest.mark.parametrize("how", [{"batch_size": 7}, {"batch_size": 0, "batch_rows": 4, "groups": 2}])
def test_batches_are_those_of_memory(text, tokenizer, how):
    config = DataConfig(corpus="text", path=str(text), max_tokens=9, counterfactual="two_sided", dev_examples=7)
    stored, _ = load_examples(config, tokenizer, seed=3)
    held = encode_sentences(load_sentences(config, seed=3)[0], tokenizer, 9)

    def pipeline(sequences):
        words = {"special_ids": tokenizer.all_special_ids, "mask_token_id": tokenizer.mask_token_id}
        settings = PipelineConfig(seed=5, row_tokens=32, **how)
        return Pipeline(Examples(sequences), settings, **words, vocab_size=len(tokenizer))

    ours, theirs = pipeline(stored), pipeline(held)
    assert ours.steps_per_epoch == theirs.steps_per_epoch > 1
    for step in range(3 * ours.steps_per_epoch):
        for name, wanted in theirs.batch(step).items():
            found = ours.batch(step)[name]
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted, err_msg=name)
