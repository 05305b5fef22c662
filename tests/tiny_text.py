"""A tiny BERT folder and a text in its words: gender words and enough neutral words to draw controls from."""

import dataclasses
from pathlib import Path

import numpy as np
from transformers import BertTokenizerFast

from ncfair_jax.models.hf import Pretrained, save_pretrained
from tests import tiny

GENDER = ["he", "she", "him", "her", "man", "woman", "boy", "girl", "father", "mother"]
NEUTRAL = [
    a + b for a in ("ba", "do", "ki", "lu", "me", "no") for b in ("ra", "ste", "vil", "gan", "pom", "tek", "lo", "mi")
]
WORDS = GENDER + NEUTRAL
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]


def pretrained(seed: int = 3) -> Pretrained:
    """Random weights."""
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(SPECIAL + WORDS)}, model_max_length=40)
    model = dataclasses.replace(tiny.MODEL, vocab_size=len(SPECIAL + WORDS))
    return Pretrained(model, tiny.params(seed, model), tokenizer)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Every word in about one sentence of nine, common words more often."""
    rng = np.random.default_rng(seed)
    weights = rng.permutation(1 / np.arange(1, len(WORDS) + 1) ** 0.5)
    return [" ".join(rng.choice(WORDS, rng.integers(4, 12), p=weights / weights.sum())) for _ in range(count)]


def write(folder: Path, seed: int = 3, count: int = 200) -> tuple[Path, Path]:
    """The model folder and the text file, one sentence a line."""
    save_pretrained(folder / f"model-{seed}", pretrained(seed))
    text = folder / "text.txt"
    text.write_text("\n".join(sentences(count)) + "\n", encoding="utf-8")
    return folder / f"model-{seed}", text
