"""Texts as errors quote them."""

import numpy as np
import pytest

from ncfair_jax.engine.naming import MOST_CHARACTERS, quoted, text_of
from tests import tiny_hub


@pytest.mark.parametrize("kind", tiny_hub.KINDS)
def test_the_text_of_tokens(kind):
    tokenizer = tiny_hub.tokenizer(kind)
    tokens = tokenizer(f"she said {tokenizer.mask_token}")["input_ids"]
    assert text_of(tokens, tokenizer) == f'"she said {tokenizer.mask_token}"'
    assert text_of(np.array([*tokens, tokenizer.pad_token_id, -1, 10**6]), tokenizer) == text_of(tokens, tokenizer)
    assert text_of([], tokenizer) == '""'


def test_long_texts_are_cut():
    assert quoted("a" * MOST_CHARACTERS) == f'"{"a" * MOST_CHARACTERS}"'
    assert quoted("word " * 40) == f'"{("word " * 20).strip()} …"'
