"""How errors name what a user gave: by its text, since a request's number means nothing to anyone but the engine."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.vocabulary import vocabulary_of

MOST_CHARACTERS = 100


def quoted(text: str) -> str:
    """A text in quotes, cut to its beginning if it is long."""
    kept = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS].rstrip() + " …"
    return f'"{kept}"'


def text_of(tokens: Sequence[int] | np.ndarray, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a token sequence in quotes, without the special tokens at its ends; masks inside are shown."""
    ids = vocabulary_of(tokenizer).bare(token for token in tokens if 0 <= token < len(tokenizer))
    return quoted(str(tokenizer.decode(ids)).strip())
