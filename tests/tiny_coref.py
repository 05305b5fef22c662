"""Tiny documents in CoNLL format whose coreference can be learnt: he and she refer to the man or woman before them."""

import dataclasses
from pathlib import Path

import numpy as np

from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.coreference.conll import Document, in_order, write_conll
from tests import tiny, tiny_text

REFERENTS = {"man": "he", "woman": "she"}


def pretrained(layers: int = 2) -> Pretrained:
    """Random weights of the words of `tiny_text`."""
    found = tiny_text.pretrained()
    model = dataclasses.replace(found.config, num_layers=layers)
    return found._replace(config=model, params=tiny.params(3, model))


def documents(count: int, seed: int = 0) -> list[Document]:
    """Two to five sentences each; the article "bara" belongs to the mention "bara man"."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        sentences: list[tuple[str, ...]] = []
        mentions: dict[str, list[tuple[int, int]]] = {name: [] for name in REFERENTS}
        words = 0
        for sentence in range(2 + number % 4):
            text: list[str] = []
            for name, pronoun in REFERENTS.items():
                start = words + len(text)
                if sentence == 0:
                    text += ["bara", name]
                    mentions[name].append((start, start + 1))
                elif rng.integers(2):
                    text.append(pronoun)
                    mentions[name].append((start, start))
                text.append(str(rng.choice(["domi", "kiste", "luvil"])))
            sentences.append(tuple(text))
            words += len(text)
        clusters = in_order(found for found in mentions.values() if len(found) > 1)
        made.append(Document(f"bn/tiny/{number}", 0, tuple(sentences), ("-",) * len(sentences), clusters))
    return made


def write(path: Path, count: int, seed: int = 0) -> Path:
    """The documents in a file."""
    write_conll(path, documents(count, seed))
    return path
