"""Sequences laid out in rows, several to a row; segment masks keep them apart.

Letters: R rows, T tokens a row, P scored columns a row, N scored columns of all rows, K targets a column, E sequences,
G of them in a group.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from ncfair_jax.data.packing import first_fit_decreasing, flat_index, flat_positions, scatter_rows
from ncfair_jax.engine.batching import power_of_two
from ncfair_jax.engine.forward import HostBatch
from ncfair_jax.engine.requests import Distinct


class Packed(NamedTuple):
    """Sequences in rows; those of a group follow one another.

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
        groups: the scored columns that are combined, one of each sequence of a group, in the order of the first:
            i64[N/G,G].
        targets: of these, i32[N/G,K]; 0 where there are fewer.
        first: of every group of sequences the number of its first in `groups`, i64[E/G].
    """

    read: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rank: np.ndarray
    groups: np.ndarray
    targets: np.ndarray
    first: np.ndarray


def pack(distinct: Sequence[Distinct], row_tokens: int) -> Packed:
    """Packs sequences into rows with room for T tokens and, where there are scored columns, for P of them."""
    lengths, counts = (values.ravel() for values in sizes(distinct))
    placement = first_fit_decreasing(lengths, row_tokens, counts, row_columns(lengths, counts, row_tokens))
    index = flat_index(placement, lengths)
    requests = [request for one in distinct for request in one.group]
    attended = _end_to_end([request.attention_mask for request in requests], lengths, 1)

    def rows(values: np.ndarray) -> np.ndarray:
        return scatter_rows(values, index, placement.num_rows, row_tokens)

    packed = {
        "tokens": rows(np.concatenate([request.tokens for request in requests])),
        "segment_ids": rows(np.where(attended > 0, index.segment, 0)),
        "positions": rows(index.position),
        "token_types": rows(_end_to_end([request.token_types for request in requests], lengths, 0)),
    }
    return Packed(packed, placement.row, placement.offset, placement.segment - 1)


def columns_of(packed: Packed, distinct: Sequence[Distinct]) -> Columns:
    """The scored columns of packed sequences, each of which has some.

    P is a power of two from 8, and K from 16, where a place more costs next to nothing: benchmarks share their programs.
    """
    lengths, counts = (values.ravel() for values in sizes(distinct))
    order = np.lexsort((packed.offset, packed.row))
    begin = np.zeros(len(counts), np.int64)  # of every sequence the number of its first scored column
    begin[order] = np.cumsum(counts[order]) - counts[order]
    row = np.repeat(packed.row[order], counts[order])
    column = np.repeat(packed.offset[order], counts[order]) + _columns_in_sequence(order, distinct)
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    num_rows, row_tokens = packed.rows["tokens"].shape
    read = np.zeros((num_rows, row_columns(lengths, counts, row_tokens)), np.int32)
    read[row, rank] = column
    groups, targets, first = _grouped(begin.reshape(len(distinct), -1), distinct)
    return Columns(read, row, column, rank, groups, targets, first)


def _columns_in_sequence(order: np.ndarray, distinct: Sequence[Distinct]) -> np.ndarray:
    """Where the scored columns stand in their sequences, i64[N], sequence by sequence in the order given, i64[E]."""
    counts = np.array([len(one.columns) for one in distinct], np.int64)
    columns = np.array([column for one in distinct for column in one.columns], np.int64)  # [N/G,G]
    of_group, in_group = np.divmod(order, columns.shape[1])
    number = np.repeat((np.cumsum(counts) - counts)[of_group], counts[of_group]) + flat_positions(counts[of_group])
    return columns[number, np.repeat(in_group, counts[of_group])]


def _grouped(begin: np.ndarray, distinct: Sequence[Distinct]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`groups`, `targets` and `first` of Columns, from the number of each sequence's first scored column, i64[E/G,G]."""
    order = np.argsort(begin[:, 0])
    counts = np.array([len(distinct[i].columns) for i in order], np.int64)
    first = np.zeros(len(distinct), np.int64)
    first[order] = np.cumsum(counts) - counts
    groups = np.repeat(begin[order], counts, axis=0) + flat_positions(counts)[:, None]
    of_columns = [list(targets) for i in order for _, targets in distinct[i].columns.values()]
    numbers = np.array([len(targets) for targets in of_columns], np.int64)
    targets = np.zeros((len(of_columns), power_of_two(max(16, int(numbers.max())))), np.int32)
    targets[np.arange(targets.shape[1]) < numbers[:, None]] = list(chain.from_iterable(of_columns))
    return groups, targets, first


def sizes(distinct: Sequence[Distinct]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and scored columns of each sequence, i64[E/G,G]."""
    lengths = np.array([[len(request.tokens) for request in one.group] for one in distinct], np.int64)
    counts = np.array([len(one.columns) for one in distinct], np.int64)
    return lengths, np.broadcast_to(counts[:, None], lengths.shape)


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
