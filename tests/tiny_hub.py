"""Tiny Hugging Face folders of both families, with real tokenizers of a few hundred tokens and no file of anybody else."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from transformers import BertTokenizerFast, PreTrainedTokenizerBase, RobertaTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ncfair_jax.files.digests import DIGESTS_FILE
from ncfair_jax.models import bert
from ncfair_jax.models.bert import BertConfig
from ncfair_jax.models.hf import Pretrained, save_pretrained
from tests import tiny

KINDS = ("bert", "roberta")
WORDS = ["the", "a", "he", "she", "nurse", "said", "that", "was", "tired", "man", "woman", "##s", "."]
MERGES = [("Ġ", "s"), ("h", "e"), ("Ġs", "he"), ("Ġ", "he"), ("r", "s"), ("u", "rs")]
SENTENCES = ["The nurse said that she was tired.", " He  said\ttired", "Ünïcode ☃ nurses", ""]


def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """WordPiece of 18 tokens, or byte-level BPE of 267."""
    if kind == "bert":
        return BertTokenizerFast(vocab=_numbered(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    pieces = [*bytes_to_unicode().values(), *("".join(pair) for pair in MERGES)]
    return RobertaTokenizerFast(vocab=_numbered(["<s>", "<pad>", "</s>", "<unk>", *pieces, "<mask>"]), merges=MERGES)


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: index for index, word in enumerate(words)}


def config(kind: str) -> BertConfig:
    """Three rows more than tokens, so that padded vocabularies are met too."""
    family = {"bert": {"pad_token_id": 0}, "roberta": {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}}
    rows = len(tokenizer(kind)) + 3
    return dataclasses.replace(tiny.MODEL, model_type=kind, vocab_size=rows, hidden_dropout=0.1, **family[kind])


def pretrained(kind: str, seed: int = 0) -> Pretrained:
    """Random parameters throughout: no bias is 0 and no LayerNorm scale 1."""
    shapes = jax.eval_shape(lambda: bert.init(config(kind), jax.random.key(0)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(0.5, 0.3, leaf.shape).astype(np.float32), shapes)
    return Pretrained(config(kind), params, tokenizer(kind))


def write(folder: Path, kind: str, seed: int = 0) -> Path:
    """The model as a folder, without digests, as others write it."""
    save_pretrained(folder, pretrained(kind, seed))
    (folder / DIGESTS_FILE).unlink()
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    """Overwrites fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_params(a: object, b: object) -> None:
    """Equal trees, bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
