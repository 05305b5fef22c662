"""Texts to token ids.

A text is text: what looks like a control token in it ("[MASK]", "</s>") is read as the characters it consists of. Control
tokens stand only where they are put by place, around a sequence and in its gaps.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tokenizers
from transformers import BatchEncoding, PreTrainedTokenizerBase

from ncfair_jax.files import notes
from ncfair_jax.files.fingerprint import fingerprint_of
from ncfair_jax.strings import several_strings
from ncfair_jax.vocabulary import template_of, vocabulary_of

BATCH = 1024  # sentences that are encoded at once; the tokenizer needs some 10 kB for each
MASK = "[MASK]"  # how sentences and benchmark files mark a gap, whatever the model's own mask token


def tokenized(tokenizer: PreTrainedTokenizerBase, *texts: list[str], **options: Any) -> BatchEncoding:
    """`tokenizer(*texts, **options)`, with control tokens only where the tokenizer puts them itself."""
    return tokenizer(*texts, split_special_tokens=True, **options)


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[np.ndarray]:
    """Encodes each text as [CLS] s [SEP] (i32[L], 2 <= L), nothing cut.

    Raises:
        TypeError: `texts` is a single string.
    """
    texts = several_strings("texts", texts)
    return [np.array(ids, np.int32) for ids in tokenized(tokenizer, texts)["input_ids"]] if texts else []


def encode_gaps(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Encodes texts with gaps as [CLS] … [SEP], a mask token in each gap.

    Args:
        texts: each as its parts, left of the first gap, between two gaps, and right of the last one.
    Returns:
        For each text its tokens, i32[L], and the places of its gaps, i64[parts − 1]. They are those of the text with the mask
        token written into its gaps: blanks that the mask token takes to itself (RoBERTa: those before it) are gone.
    Raises:
        ValueError: if the tokenizer has no mask token.
    """
    vocabulary = vocabulary_of(tokenizer)
    if vocabulary.mask is None:
        raise ValueError("the tokenizer has no mask token; use the tokenizer of a BERT or RoBERTa model")
    trimmed = [vocabulary.trimmed(parts) for parts in texts]
    # Templates repeat: 10,800 parts of BEC-Pro are 303 distinct ones.
    distinct = list(dict.fromkeys(part for parts in trimmed for part in parts))
    pieces = tokenized(tokenizer, distinct, add_special_tokens=False)["input_ids"] if distinct else []
    of_part = dict(zip(distinct, pieces, strict=True))
    return [vocabulary.masked([of_part[part] for part in parts]) for parts in trimmed]


def encode_sentences(sentences: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[np.ndarray]:
    """Encode each sentence as [CLS] s [SEP] (i32[L], 3 <= L <= `max_tokens`), cut at the end but keeping [SEP].

    What is cut off is noted (see `notes`).

    Raises:
        TypeError: `sentences` is a single string.
        ValueError: if nothing is left of a sentence, naming it; or if `max_tokens` leaves no room for one.
    """
    sentences = several_strings("sentences", sentences)
    refuse_no_room(tokenizer, max_tokens)
    examples, total = list[np.ndarray](), notes.Cut(max_tokens, 0, 0, 0, 0)
    for start in range(0, len(sentences), BATCH):
        batch = sentences[start : start + BATCH]
        encoded, cut = encode_batch(batch, range(start + 1, start + len(batch) + 1), tokenizer, max_tokens)
        examples += [np.array(ids, np.int32) for ids in encoded]
        total = total.plus(cut)
    if total.lost:
        notes.add(total)
    return examples


def refuse_no_room(tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    """Raises ValueError if `max_tokens` leaves no room for a sentence."""
    specials = template_of(tokenizer).specials()
    if max_tokens <= specials:
        raise ValueError(f"max_tokens={max_tokens}; at least {specials + 1} are needed for one token a sentence")


def encode_batch(
    sentences: Sequence[str], numbers: Sequence[int], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[list[int]], notes.Cut]:
    """Some sentences as `encode_sentences` encodes them, and what was cut of them.

    Args:
        numbers: of the sentences in the corpus, by which an error names one.
    Raises:
        ValueError: if nothing is left of a sentence, naming it.
    """
    encoded = tokenized(tokenizer, list(sentences), truncation=True, max_length=max_tokens)["input_ids"]
    specials = template_of(tokenizer).specials()
    for number, sentence, ids in zip(numbers, sentences, encoded, strict=True):
        if len(ids) <= specials:
            raise ValueError(f"sentence {number} ({sentence!r}) has no tokens; remove it from the corpus")
    return encoded, count_cut([len(ids) for ids in encoded], max_tokens, partial(_uncut, tokenizer, sentences))


def _uncut(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], chosen: list[int]) -> Sequence[Sequence[int]]:
    ids: Sequence[Sequence[int]] = tokenized(tokenizer, [texts[i] for i in chosen], verbose=False)["input_ids"]
    return ids


def note_cut(lengths: Sequence[int], max_tokens: int, uncut: Callable[[list[int]], Sequence[Sequence[int]]]) -> None:
    """Notes how many of some texts were cut, and how many tokens that cost; the arguments are those of `count_cut`."""
    cut = count_cut(lengths, max_tokens, uncut)
    if cut.lost:
        notes.add(cut)


def count_cut(
    lengths: Sequence[int], max_tokens: int, uncut: Callable[[list[int]], Sequence[Sequence[int]]]
) -> notes.Cut:
    """How many of some texts were cut, and how many tokens that cost.

    Args:
        lengths: of the texts as encoded.
        uncut: the token ids of the texts with these numbers, without a limit.
    """
    longest = [number for number, length in enumerate(lengths) if length == max_tokens]
    lost = [len(ids) - max_tokens for ids in uncut(longest) if len(ids) > max_tokens] if longest else []
    return notes.Cut(max_tokens, len(lengths), len(lost), sum(lengths) + sum(lost), sum(lost))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """First 16 hex digits of a SHA-256 over vocabulary, ids and special tokens: equal where ids mean the same."""
    content = [sorted(tokenizer.get_vocab().items(), key=lambda item: item[::-1]), sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of what decides how a text is encoded: normalisation, pieces, special tokens, and the library's version."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    how = {name: part for name, part in whole.items() if name not in ("truncation", "padding")}  # of the last call
    return fingerprint_of([json.dumps([tokenizers.__version__, how]).encode()])
