"""Sequences laid out in rows, several to a row; segment masks keep them apart.

Letters: R rows, T tokens a row, P scored columns a row, N scored columns of all rows, K targets a column, E sequences.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from ncfair_jax.data.packing import first_fit_decreasing, flat_index, scatter_rows
from ncfair_jax.engine.batching import power_of_two
from ncfair_jax.engine.forward import HostBatch
from ncfair_jax.engine.requests import Distinct


class Packed(NamedTuple):
    """Sequences in rows.

    Attributes:
        rows: tokens, segment_ids, positions, token_types i32[R,T].
        row, offset: of every sequence its row and its first token there, i64[E].
        segment: of every sequence its number in its row, from 0, i64[E].
    """

    rows: HostBatch
    row: np.ndarray
    offset: np.ndarray
    segment: np.ndarray


class Columns(NamedTuple):
    """Scored columns of packed sequences, listed row by row, and in a row from left to right of its sequences.

    Attributes:
        read: the scored columns of each row, i32[R,P]; 0 where there are fewer.
        row, column, rank: of every scored column its row, its place there, and how many of its row precede it, i64[N].
        targets: i32[N,K]; 0 where there are fewer.
        first: of every sequence the number of its first scored column, i64[E].
    """

    read: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rank: np.ndarray
    targets: np.ndarray
    first: np.ndarray


def pack(sequences: Sequence[Distinct], row_tokens: int) -> Packed:
    """Packs sequences into rows with room for T tokens and, where there are scored columns, for P of them."""
    lengths, counts = sizes(sequences)
    placement = first_fit_decreasing(lengths, row_tokens, counts, row_columns(lengths, counts, row_tokens))
    index = flat_index(placement, lengths)
    attended = _end_to_end([s.request.attention_mask for s in sequences], lengths, 1)

    def rows(values: np.ndarray) -> np.ndarray:
        return scatter_rows(values, index, placement.num_rows, row_tokens)

    packed = {
        "tokens": rows(np.concatenate([s.request.tokens for s in sequences])),
        "segment_ids": rows(np.where(attended > 0, index.segment, 0)),
        "positions": rows(index.position),
        "token_types": rows(_end_to_end([s.request.token_types for s in sequences], lengths, 0)),
    }
    return Packed(packed, placement.row, placement.offset, placement.segment - 1)


def columns_of(packed: Packed, sequences: Sequence[Distinct]) -> Columns:
    """The scored columns of packed sequences, each of which has some.

    P is a power of two from 8, and K from 16, where a place more costs next to nothing: benchmarks share their programs.
    """
    lengths, counts = sizes(sequences)
    order = np.lexsort((packed.offset, packed.row))
    ends = np.cumsum(counts[order])
    first = np.zeros(len(sequences), np.int64)
    first[order] = ends - counts[order]
    row = np.repeat(packed.row[order], counts[order])
    listed = [column for i in order for column in sequences[i].columns.items()]
    column = np.repeat(packed.offset[order], counts[order]) + np.array([position for position, _ in listed], np.int64)
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    num_rows, row_tokens = packed.rows["tokens"].shape
    read = np.zeros((num_rows, row_columns(lengths, counts, row_tokens)), np.int32)
    read[row, rank] = column
    of_columns = [list(targets) for _, (_, targets) in listed]
    numbers = np.array([len(targets) for targets in of_columns], np.int64)
    targets = np.zeros((len(of_columns), power_of_two(max(16, int(numbers.max())))), np.int32)
    targets[np.arange(targets.shape[1]) < numbers[:, None]] = list(chain.from_iterable(of_columns))
    return Columns(read, row, column, rank, targets, first)


def sizes(sequences: Sequence[Distinct]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and scored columns of each sequence, i64[E]."""
    lengths = np.array([len(sequence.request.tokens) for sequence in sequences], np.int64)
    return lengths, np.array([len(sequence.columns) for sequence in sequences], np.int64)


def row_columns(lengths: np.ndarray, counts: np.ndarray, row_tokens: int) -> int:
    """P: room for a quarter more than a row has on average."""
    density = counts.sum() / lengths.sum()
    return power_of_two(max(8, int(counts.max()), int(1.25 * row_tokens * density)))


def _end_to_end(parts: Sequence[np.ndarray | None], lengths: np.ndarray, fill: int) -> np.ndarray:
    """The parts end to end, i32[sum of lengths]; `fill` where there is none."""
    if all(part is None for part in parts):
        return np.full(lengths.sum(), fill, np.int32)
    filled = [np.full(n, fill) if part is None else part for part, n in zip(parts, lengths, strict=True)]
    return np.concatenate(filled).astype(np.int32)
