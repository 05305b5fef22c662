"""Classes without a lexicon and a tokenizer, for steps that are timed or compiled without either."""

import numpy as np

from ncfair_jax.lexicons.classes import FairnessClasses

NUM_CLASSES = 271  # about as many as the gender lexicon has with BERT's vocabulary
FIRST_WORD = 999  # ids below are special or unused in BERT's vocabulary


def synthetic_classes(vocab_size: int) -> FairnessClasses:
    """K word ids as the regularised classes: 271, or half of the words of a vocabulary that is too small for them."""
    rng = np.random.default_rng(0)
    first = min(FIRST_WORD, vocab_size // 2)
    number = min(NUM_CLASSES, (vocab_size - first) // 2)
    ids = np.sort(rng.choice(np.arange(first, vocab_size), number, replace=False)).astype(np.int32)
    slots = np.full(vocab_size, number, np.int32)
    slots[ids] = np.arange(number)
    return FairnessClasses(tuple(map(str, ids)), ids, np.zeros(number, np.int32), slots, "synthetic")
