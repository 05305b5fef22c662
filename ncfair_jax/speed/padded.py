"""The sentences of a packed training batch, one row each, as PyTorch code pads them: same sentences, same masks.

Letters: E sentences, L tokens of one, T tokens of a padded row, K classes ("no class" is K).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RELEASED_LENGTH = 256  # the release pads every sentence to this, after the longest sentence of GAP counted in words
IGNORED = -100  # label of a position without loss, PyTorch's convention


class Sentence(NamedTuple):
    """One masked sentence: `tokens` as the model sees them, `labels` (IGNORED where not predicted), class `slots`; i64[L]."""

    tokens: np.ndarray
    labels: np.ndarray
    slots: np.ndarray


class Scored(NamedTuple):
    """One sequence to score: `tokens` i64[L], and the `targets` whose log-probability is asked for at `positions`, i64[P]."""

    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


class PaddedBatch(NamedTuple):
    """i64[E,T] each; `attention_mask` is 1 at real tokens."""

    tokens: np.ndarray
    attention_mask: np.ndarray
    labels: np.ndarray
    slots: np.ndarray


def unpack(batch: Mapping[str, np.ndarray]) -> list[Sentence]:
    """The sentences of a batch of `data.pipeline`, in the order of its rows and segments."""
    tokens, segments, slots = (_rows(batch[name]) for name in ("tokens", "segment_ids", "slots"))
    positions, values, weights = (
        _rows(batch[name]) for name in ("masked_positions", "masked_labels", "masked_weights")
    )
    labels = np.full(tokens.shape, IGNORED, np.int64)
    row, place = np.nonzero(weights)
    labels[row, positions[row, place]] = values[row, place]
    sentences = []
    for r, segment_of in enumerate(segments):
        for segment in range(1, segment_of.max(initial=0) + 1):
            here = segment_of == segment
            sentences.append(Sentence(tokens[r, here], labels[r, here], slots[r, here]))
    return sentences


def _rows(values: np.ndarray) -> np.ndarray:
    """[A,R/A,...] to [R,...] in i64, micro-batch after micro-batch."""
    return values.reshape(-1, *values.shape[2:]).astype(np.int64)


def pad(sentences: Sequence[Sentence], length: int, pad_token_id: int, no_class: int) -> PaddedBatch:
    """Pads every sentence to `length`.

    Raises:
        ValueError: for a sentence that is longer.
    """
    longest = max(len(sentence.tokens) for sentence in sentences)
    if longest > length:
        raise ValueError(f"a sentence has {longest} tokens, rows are padded to {length}; encode with fewer max_tokens")
    shape = (len(sentences), length)
    padded = PaddedBatch(
        np.full(shape, pad_token_id, np.int64),
        np.zeros(shape, np.int64),
        np.full(shape, IGNORED, np.int64),
        np.full(shape, no_class, np.int64),
    )
    for e, sentence in enumerate(sentences):
        size = len(sentence.tokens)
        padded.tokens[e, :size] = sentence.tokens
        padded.attention_mask[e, :size] = 1
        padded.labels[e, :size] = sentence.labels
        padded.slots[e, :size] = sentence.slots
    return padded


def save_ragged(path: Path, groups: Sequence[Sequence[Sentence | Scored]]) -> None:
    """Writes groups of sentences (one group an optimizer step) or of requests (one group a pair) as one npz file.

    The PyTorch workers read it, so that no JAX runs in their processes.
    """
    items = [item for group in groups for item in group]
    columns: dict[str, Any] = {}
    for name in items[0]._fields:
        values = [np.asarray(getattr(item, name), np.int64) for item in items]
        columns[name] = np.concatenate(values)
        columns[f"{name}_ends"] = np.cumsum([len(value) for value in values])
    columns["group_ends"] = np.cumsum([len(group) for group in groups])
    np.savez(path, **columns)


def load_ragged(path: Path, kind: type[Sentence] | type[Scored]) -> list[list]:
    """The groups that `save_ragged` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        columns = [np.split(stored[name], stored[f"{name}_ends"][:-1]) for name in kind._fields]
        items = [kind(*values) for values in zip(*columns, strict=True)]
        ends = stored["group_ends"]
    return [items[start:end] for start, end in zip(np.append(0, ends), ends, strict=False)]
