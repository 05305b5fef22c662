"""What is asked of the scorer, checked, merged where sequences are equal, and laid out in rows.

Letters: R rows, T tokens a row, P scored columns a row, N scored columns of all rows, K targets a column, L tokens of a
request, E sequences.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.batching import power_of_two
from ncfair_jax.benchmarks.naming import text_of
from ncfair_jax.data.packing import first_fit_decreasing, flat_index, scatter_rows
from ncfair_jax.models.encoder import ModelConfig
from ncfair_jax.models.hf import Pretrained


class ScorerError(ValueError):
    """A request that this model cannot score; the message quotes its text."""


class Request(NamedTuple):
    """One sequence and what to score in it.

    Attributes:
        tokens: i32[L], special tokens included; whether a scored position is masked is the caller's business.
        positions: i32[P], where to score; may repeat.
        targets: i32[P], the token id whose log-probability is asked for at each position.
        attention_mask: i32[L], 0 where nobody may look (such a position cannot be scored); None: all 1.
        token_types: i32[L]; None: all 0.
        name: what it comes from, for messages, such as "pair 6 ('The nurse …')"; "" = they tell its number.
    """

    tokens: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    attention_mask: np.ndarray | None = None
    token_types: np.ndarray | None = None
    name: str = ""


def named(what: str, text: str) -> str:
    """The name of a request: what of the user's it comes from, and the beginning of its text."""
    return f"{what} ({text[:60]!r}{' …' * (len(text) > 60)})"


def check(requests: Sequence[Request], config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ScorerError for the first request that the model cannot score."""
    # Ids of all requests at once: looking into each takes longer than packing it, and is needed only to name one.
    ids = [np.asarray(part) for request in requests for part in (request.tokens, request.targets)]
    doubtful = bool(ids) and len(_outside(np.concatenate(ids), config.vocab_size)) > 0
    for request in requests:
        if problem := _problem(request, config, doubtful):
            raise ScorerError(f"{request.name or text_of(request.tokens, tokenizer)} {problem}")


def _problem(request: Request, config: ModelConfig, doubtful: bool) -> str:
    """What is wrong with a request, ids only if `doubtful`; "" if nothing is."""
    length, positions = len(request.tokens), np.asarray(request.positions).tolist()
    if length > config.max_tokens:
        return f"has {length} tokens, but the model takes {config.max_tokens}; shorten it or leave it out"
    if len(positions) != len(request.targets):
        return f"has {len(positions)} positions, but {len(request.targets)} targets; give one target each"
    if any(part is not None and len(part) != length for part in (request.attention_mask, request.token_types)):
        return f"has {length} tokens, but an attention_mask or token_types of another length"
    if doubtful and len(unknown := _outside(np.concatenate([request.tokens, request.targets]), config.vocab_size)):
        return (
            f"has id {unknown[0]}, outside the vocabulary of {config.vocab_size}; "
            "was it made with the model's own tokenizer?"
        )
    if positions and (min(positions) < 0 or max(positions) >= length):
        return f"asks for positions {positions} of {length} tokens; count from 0"
    if positions and request.attention_mask is not None and not np.all(np.asarray(request.attention_mask)[positions]):
        return "asks for a position that its attention_mask hides; score attended positions only"
    return ""


def _outside(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    return ids[(ids < 0) | (ids >= vocab_size)]


class Asked(NamedTuple):
    """A distinct sequence, and for each scored position the number of its column and of each target the place there."""

    request: Request
    columns: dict[int, tuple[int, dict[int, int]]]


# Of a request: the number of its sequence, and the columns and places of its targets.
Slots = tuple[int, np.ndarray, np.ndarray]


def merge(requests: Sequence[Request]) -> tuple[list[Asked], list[Slots]]:
    """Merges requests about the same sequence: BEC-Pro needs 12 times fewer forward passes, StereoSet 2 times fewer."""
    index: dict[tuple[bytes, bytes, bytes], int] = {}
    sequences: list[Asked] = []
    slots: list[Slots] = []
    for request in requests:
        key = tuple(
            b"" if part is None else np.asarray(part, np.int32).tobytes()
            for part in (request.tokens, request.attention_mask, request.token_types)
        )
        number = index.setdefault(key, len(sequences))  # type: ignore[arg-type]
        if number == len(sequences):
            sequences.append(Asked(request, {}))
        columns = sequences[number].columns
        asked = zip(np.asarray(request.positions).tolist(), np.asarray(request.targets).tolist(), strict=True)
        places = []
        for position, target in asked:
            column, targets = columns.setdefault(position, (len(columns), {}))
            places.append((column, targets.setdefault(target, len(targets))))
        slots.append((number, *np.array(places, np.int64).reshape(-1, 2).T))  # type: ignore[arg-type]
    return sequences, slots


class Packed(NamedTuple):
    """Sequences in rows. Scored columns are listed row by row, and in a row from left to right of its sequences.

    Attributes:
        rows: tokens, segment_ids, positions, token_types i32[R,T].
        read: the scored columns of each row, i32[R,P]; 0 where there are fewer.
        row, column, rank: of every scored column its row, its place there, and how many of its row precede it, i64[N].
        targets: i32[N,K]; 0 where there are fewer.
        first: of every sequence the number of its first scored column, i64[E].
    """

    rows: dict[str, np.ndarray]
    read: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rank: np.ndarray
    targets: np.ndarray
    first: np.ndarray


def pack(sequences: Sequence[Asked], row_tokens: int) -> Packed:
    """Packs sequences into rows with room for T tokens and P scored columns.

    P is a power of two from 8, and K from 16, where a place more costs next to nothing: benchmarks share their programs.
    """
    lengths = np.array([len(sequence.request.tokens) for sequence in sequences], np.int64)
    counts = np.array([len(sequence.columns) for sequence in sequences], np.int64)
    density = counts.sum() / lengths.sum()
    row_columns = power_of_two(max(8, int(counts.max()), int(1.25 * row_tokens * density)))
    placement = first_fit_decreasing(lengths, row_tokens, counts, row_columns)
    index = flat_index(placement, lengths)
    attended = _laid_out([s.request.attention_mask for s in sequences], lengths, 1)
    types = _laid_out([s.request.token_types for s in sequences], lengths, 0)
    tokens = np.concatenate([s.request.tokens for s in sequences])

    def rows(values: np.ndarray) -> np.ndarray:
        return scatter_rows(values, index, placement.num_rows, row_tokens)

    order = np.lexsort((placement.offset, placement.row))
    ends = np.cumsum(counts[order])
    first = np.zeros(len(sequences), np.int64)
    first[order] = ends - counts[order]
    row = np.repeat(placement.row[order], counts[order])
    listed = [column for i in order for column in sequences[i].columns.items()]
    offset = np.repeat(placement.offset[order], counts[order])
    column = offset + np.array([position for position, _ in listed], np.int64)
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    read = np.zeros((placement.num_rows, row_columns), np.int32)
    read[row, rank] = column
    asked = [list(targets) for _, (_, targets) in listed]
    numbers = np.array([len(targets) for targets in asked], np.int64)
    targets = np.zeros((len(asked), power_of_two(max(16, int(numbers.max())))), np.int32)
    targets[np.arange(targets.shape[1]) < numbers[:, None]] = list(chain.from_iterable(asked))
    packed = {
        "tokens": rows(tokens),
        "segment_ids": rows(np.where(attended > 0, index.segment, 0)),
        "positions": rows(index.position),
        "token_types": rows(types),
    }
    return Packed(packed, read, row, column, rank, targets, first)


def _laid_out(parts: Sequence[np.ndarray | None], lengths: np.ndarray, fill: int) -> np.ndarray:
    """The parts end to end, i32[sum of lengths]; `fill` where there is none."""
    if all(part is None for part in parts):
        return np.full(lengths.sum(), fill, np.int32)
    filled = [np.full(n, fill) if part is None else part for part, n in zip(parts, lengths, strict=True)]
    return np.concatenate(filled).astype(np.int32)


def mask_id(pretrained: Pretrained) -> int:
    """The id of the mask token.

    Raises:
        ScorerError: if the tokenizer has none.
    """
    found = pretrained.tokenizer.mask_token_id
    if found is None:
        raise ScorerError(
            "the tokenizer has no mask token, which masked-LM benchmarks need; use the tokenizer of a BERT or RoBERTa model"
        )
    return int(found)
