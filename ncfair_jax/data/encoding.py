"""Sentences to token ids."""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.data import notes
from ncfair_jax.strings import several_strings


def encode_sentences(sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[np.ndarray]:
    """Encode each sentence as [CLS] s [SEP] (i32[L], 3 <= L <= `max_tokens`), cut at the end but keeping [SEP].

    What is cut off is noted (see `notes`).

    Raises:
        TypeError: `sentences` is a single string.
        ValueError: if nothing is left of a sentence, naming it; or if `max_tokens` leaves no room for one.
    """
    sentences = several_strings("sentences", sentences)
    specials = tokenizer.num_special_tokens_to_add()
    if max_tokens <= specials:
        raise ValueError(f"max_tokens={max_tokens}; at least {specials + 1} are needed for one token a sentence")
    if not sentences:
        return []
    encoded = tokenizer(sentences, truncation=True, max_length=max_tokens)["input_ids"]
    for number, (sentence, ids) in enumerate(zip(sentences, encoded, strict=True), start=1):
        if len(ids) <= specials:
            raise ValueError(f"sentence {number} ({sentence!r}) has no tokens; remove it from the corpus")
    note_cut(
        [len(ids) for ids in encoded],
        max_tokens,
        lambda chosen: tokenizer([sentences[i] for i in chosen], verbose=False)["input_ids"],
    )
    return [np.array(ids, np.int32) for ids in encoded]


def note_cut(lengths: Sequence[int], max_tokens: int, uncut: Callable[[list[int]], Sequence[Sequence[int]]]) -> None:
    """Notes how many of some texts were cut, and how many tokens that cost.

    Args:
        lengths: of the texts as encoded.
        uncut: the token ids of the texts with these numbers, without a limit.
    """
    longest = [number for number, length in enumerate(lengths) if length == max_tokens]
    if not longest:
        return
    lost = [len(ids) - max_tokens for ids in uncut(longest) if len(ids) > max_tokens]
    if lost:
        notes.add(notes.Cut(max_tokens, len(lengths), len(lost), sum(lengths) + sum(lost), sum(lost)))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """First 16 hex digits of a SHA-256 over vocabulary, ids and special tokens: equal where ids mean the same."""
    content = [sorted(tokenizer.get_vocab().items(), key=lambda item: item[::-1]), sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
