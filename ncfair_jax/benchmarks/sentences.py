"""A user's own sentences in a few lines.

pretrained = load_pretrained("google-bert/bert-base-uncased")
word_log_probs(pretrained, ["The nurse said that [MASK] was tired."], ["he", "she", "they"])  # [[-2.1, -0.4, -5.0]]
pseudo_log_likelihoods(pretrained, ["The nurse was tired."])
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ncfair_jax.benchmarks.crows_pairs import one_mask_each
from ncfair_jax.benchmarks.results import Table
from ncfair_jax.data.encoding import MASK, encode_gaps, encode_texts
from ncfair_jax.engine import forward_of
from ncfair_jax.engine.requests import Request, RequestError, first_log_probs, mask_id, named, scored_log_probs
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.strings import several_strings
from ncfair_jax.vocabulary import template_of


def word_log_probs(
    pretrained: Pretrained, sentences: Sequence[str], words: Sequence[str], *, mesh: Mesh | None = None
) -> list[list[float]]:
    """Natural log-probability of each word at the [MASK] of each sentence.

    Raises:
        TypeError: `sentences` or `words` is a single string.
        RequestError: if a sentence has not exactly one [MASK], or a word is not one token of the vocabulary.
    """
    sentences, words = several_strings("sentences", sentences), several_strings("words", words)
    requests = []
    gaps = with_gaps(pretrained, sentences)
    for number, (sentence, (tokens, place)) in enumerate(zip(sentences, gaps, strict=True), start=1):
        targets = [gap_token(pretrained, sentence, word) for word in words]
        for word, target in zip(words, targets, strict=True):
            if target is None:
                raise RequestError(
                    f"{word!r} is {_pieces(pretrained, sentence, word)} in this vocabulary; choose a word that is one token"
                )
        name = named(f"sentence {number}", sentence)
        requests.append(Request(tokens, np.full(len(words), place), np.array(targets), name=name))
    return [scored_log_probs(answer).tolist() for answer in forward_of(pretrained, mesh=mesh)(requests)]


def with_gaps(pretrained: Pretrained, sentences: Sequence[str]) -> list[tuple[np.ndarray, int]]:
    """Token ids of sentences with one [MASK] each, i32[L], and the position of the model's own mask token in its place.

    Raises:
        RequestError: if a sentence has not exactly one [MASK].
    """
    mask_id(pretrained)  # refuses a tokenizer without one
    for sentence in sentences:
        if sentence.count(MASK) != 1:
            raise RequestError(f"{sentence!r} has {sentence.count(MASK)} {MASK}; write exactly one")
    encoded = encode_gaps([sentence.split(MASK) for sentence in sentences], pretrained.tokenizer)
    return [(tokens, int(gaps[0])) for tokens, gaps in encoded]


def gap_token(pretrained: Pretrained, sentence: str, word: str) -> int | None:
    """The token id of a word at the [MASK] of a sentence; None if it is several or unknown to the vocabulary."""
    tokens: Any = pretrained.tokenizer.convert_tokens_to_ids(_pieces(pretrained, sentence, word))
    return int(tokens[0]) if len(tokens) == 1 and tokens[0] != pretrained.tokenizer.unk_token_id else None


def _pieces(pretrained: Pretrained, sentence: str, word: str) -> list[str]:
    # A byte-level BPE has two tokens for most words: with the blank before it, and without, as at a sentence's start.
    after_blank = sentence.partition(MASK)[0][-1:].isspace()
    blank = " " if after_blank else ""  # which changes nothing for WordPiece
    return list(pretrained.tokenizer.tokenize(blank + word, split_special_tokens=True))


def filled(table: Table, forms: Sequence[tuple[str, str]]) -> Table:
    """The sentences of a table of pronouns in two versions, as a `DrillDown` has them.

    Args:
        table: "text" with [MASK] for the pronoun, and a column for each form.
        forms: of every row the columns of the stereotyped and of the other pronoun.
    """
    rows = list(enumerate(zip(table["text"], forms, strict=True)))
    return {
        version: [text.replace(MASK, table[form[side]][row]) for row, (text, form) in rows]
        for side, version in enumerate(("stereotyped", "other"))
    }


def pseudo_log_likelihoods(
    pretrained: Pretrained, sentences: Sequence[str], *, mesh: Mesh | None = None
) -> list[np.ndarray]:
    """For each sentence, the log-probability of each of its tokens, masked alone (special ones left out, f32[·]).

    Raises:
        TypeError: `sentences` is a single string.
    """
    sentences = several_strings("sentences", sentences)
    encoded = encode_texts(sentences, pretrained.tokenizer)
    mask, template = mask_id(pretrained), template_of(pretrained.tokenizer)
    names = [named(f"sentence {number}", sentence) for number, sentence in enumerate(sentences, start=1)]
    requests = [
        r for tokens, name in zip(encoded, names, strict=True) for r in one_mask_each(tokens, mask, template, name)
    ]
    values = first_log_probs(forward_of(pretrained, mesh=mesh)(requests)).astype(np.float32)
    counts = [len(tokens) - template.specials() for tokens in encoded]
    return [values[end - count : end] for count, end in zip(counts, np.cumsum(counts), strict=True)]
