"""The lists of words that a measurement compares: the lexicon, and controls of neutral words."""

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.lexicons.classes import (
    FairnessClasses,
    classes_of,
    frequency_matched,
    full_vocabulary,
    occurring,
    random_classes,
    refuse_missing_groups,
)
from ncfair_jax.strings import several_strings

LEXICON, EVERYTHING = "lexicon", "full"
WORD_SETS = (LEXICON, "frequency-matched", "random", EVERYTHING)


def word_sets(
    names: Sequence[str], lexicon: FairnessClasses, counts: np.ndarray, seed: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, FairnessClasses]:
    """The named sets, each holding only words that occur in the text.

    "random" draws as many neutral words as words of the lexicon occur, "frequency-matched" a neutral word of about the same
    count for each of them, "full" is every token that is not special. Tokens of all sets count where those of the lexicon
    do: as whole words only, so "full" is every token that occurs as one, or everywhere.

    Args:
        lexicon: classes of the fairness words.
        counts: i64[V], occurrences of each token in the text, by `token_counts` with the boundaries of the lexicon.
    Raises:
        TypeError: `names` is a single string.
        ValueError: for an unknown name, fewer than two words of the lexicon in the text, or none of one of its groups.
    """
    names = several_strings("names", names)
    for name in names:
        if name not in WORD_SETS:
            raise ValueError(f"word set {name!r}; choose from {', '.join(WORD_SETS)}")
    fairness = occurring(lexicon, counts, tokenizer)
    if fairness.num_classes < 2:
        raise ValueError(
            f"{fairness.num_classes} words of the lexicon occur in the text; at least two are needed: give more text"
        )
    refuse_missing_groups(lexicon, counts)
    absent = np.flatnonzero(counts == 0).tolist()
    makers = {
        LEXICON: lambda: fairness,
        "frequency-matched": lambda: frequency_matched(fairness, counts, seed, tokenizer),
        "random": lambda: random_classes(fairness.num_classes, seed, tokenizer, absent, lexicon.boundaries),
        EVERYTHING: lambda: occurring(full_vocabulary(tokenizer, lexicon.boundaries), counts, tokenizer),
    }
    return {name: makers[name]() for name in names}


def union(
    sets: Mapping[str, FairnessClasses], lists: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> FairnessClasses:
    """All words of the sets and of the lists of token ids, i32[N, K]: what one pass over the text has to collect."""
    token_ids = np.unique(np.concatenate([*(x.token_ids for x in sets.values()), lists.ravel()]))
    return classes_of(token_ids, tokenizer, next(iter(sets.values())).boundaries)
