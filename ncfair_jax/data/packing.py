"""Packing of several examples into one row of fixed length.

Letters: R rows, T tokens a row, P masked positions a row, E examples, N = tokens of all examples together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Placement(NamedTuple):
    """Where every example sits, i64[E]: its row, its first token in the row, its segment (from 1 in each row)."""

    row: np.ndarray
    offset: np.ndarray
    segment: np.ndarray
    num_rows: int


class PackedRows(NamedTuple):
    """Packed examples for inference. `segment_ids` is 0 at pads; example e starts at [row[e], offset[e]]."""

    tokens: np.ndarray  # i32[R,T]
    segment_ids: np.ndarray  # i32[R,T]
    positions: np.ndarray  # i32[R,T]
    row: np.ndarray  # i64[E]
    offset: np.ndarray  # i64[E]
    token_types: np.ndarray  # i32[R,T]


class FlatIndex(NamedTuple):
    """Addresses of the N tokens of all examples, in the order of the examples."""

    row: np.ndarray  # i64[N]
    column: np.ndarray  # i64[N]
    position: np.ndarray  # i64[N], from 0 in each example
    segment: np.ndarray  # i64[N]

    def places(self, row_tokens: int) -> np.ndarray:
        """Where the tokens lie in the rows end to end, i64[N]."""
        return self.row * row_tokens + self.column


def first_fit_decreasing(
    lengths: np.ndarray, row_tokens: int, masks: np.ndarray | None = None, row_masks: int = 0
) -> Placement:
    """Place the longest example first, each into the first row with room for its tokens and for its masked positions.

    Args:
        lengths: i64[E], tokens of each example, between 1 and `row_tokens`.
        row_tokens: T.
        masks: i64[E], masked positions of each example, at most `row_masks`; None: no second capacity.
        row_masks: P.
    Raises:
        ValueError: if an example fits no row at all.
    """
    lengths = np.asarray(lengths)
    needs_masks = np.zeros_like(lengths) if masks is None else np.asarray(masks)
    if (lengths > row_tokens).any() or (needs_masks > row_masks).any():
        raise ValueError(
            f"an example has {lengths.max()} tokens and {needs_masks.max()} masks; "
            f"a row holds {row_tokens} and {row_masks}: truncate the examples or enlarge the row"
        )
    row = np.zeros(len(lengths), np.int64)
    offset = np.zeros(len(lengths), np.int64)
    segment = np.zeros(len(lengths), np.int64)
    token_room = np.full(len(lengths), row_tokens)  # there are never more rows than examples
    mask_room = np.full(len(lengths), row_masks)
    filled = np.zeros(len(lengths), np.int64)
    num_rows = first_open = 0
    smallest = int(lengths.min(initial=row_tokens))
    for example in np.argsort(-lengths, kind="stable"):
        length, need = lengths[example], needs_masks[example]
        while first_open < num_rows and token_room[first_open] < smallest:
            first_open += 1  # nothing fits there any more; keeps whole corpora fast
        window = slice(first_open, num_rows + 1)  # the last one is a new row, where everything fits
        chosen = first_open + int(((token_room[window] >= length) & (mask_room[window] >= need)).argmax())
        row[example], offset[example], segment[example] = chosen, row_tokens - token_room[chosen], filled[chosen] + 1
        token_room[chosen] -= length
        mask_room[chosen] -= need
        filled[chosen] += 1
        num_rows = max(num_rows, chosen + 1)
    return Placement(row, offset, segment, num_rows)


def flat_index(placement: Placement, lengths: np.ndarray) -> FlatIndex:
    """Row, column, position and segment of every token when the examples are laid end to end."""
    position = flat_positions(lengths)
    return FlatIndex(
        row=np.repeat(placement.row, lengths),
        column=np.repeat(placement.offset, lengths) + position,
        position=position,
        segment=np.repeat(placement.segment, lengths),
    )


def in_order(starts: np.ndarray, lengths: np.ndarray) -> Placement:
    """The placement of examples that lie in the order of their rows.

    Args:
        starts: i64[R + 1], the first example of each row, and the number of examples.
        lengths: i64[E].
    """
    sizes = np.diff(starts)
    begins = np.cumsum(lengths) - lengths
    first = np.repeat(starts[:-1], sizes)
    row = np.repeat(np.arange(len(sizes)), sizes)
    return Placement(row, begins - begins[first], np.arange(len(lengths)) - first + 1, len(sizes))


def flat_positions(lengths: np.ndarray) -> np.ndarray:
    """Place of every token in its example, i64[N], when the examples are laid end to end."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def scatter_rows(values: np.ndarray, index: FlatIndex, num_rows: int, row_tokens: int, fill: int = 0) -> np.ndarray:
    """Put one value a token into i32[R,T]; pads get `fill`."""
    rows = np.full((num_rows, row_tokens), fill, np.int32)
    rows[index.row, index.column] = values
    return rows


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value` and not 0."""
    return max(1, -(-value // multiple)) * multiple


def pack_for_inference(
    examples: Sequence[np.ndarray],
    row_tokens: int,
    row_multiple: int = 1,
    token_types: Sequence[np.ndarray] | None = None,
) -> PackedRows:
    """Pack unmasked examples (i32[L] each, L <= `row_tokens`) into rows; R is a multiple of `row_multiple`.

    Pads hold token 0 and segment 0; attention must follow the segment ids, never the pad token. Token types (i32[L] of each
    example) are 0 if not given.
    """
    lengths = np.array([len(example) for example in examples], np.int64)
    placement = first_fit_decreasing(lengths, row_tokens)
    index = flat_index(placement, lengths)
    num_rows = round_up(placement.num_rows, row_multiple)
    tokens = np.concatenate(examples) if len(examples) else np.zeros(0, np.int32)
    types = np.concatenate(token_types) if token_types else np.zeros_like(tokens)
    return PackedRows(
        tokens=scatter_rows(tokens, index, num_rows, row_tokens),
        segment_ids=scatter_rows(index.segment, index, num_rows, row_tokens),
        positions=scatter_rows(index.position, index, num_rows, row_tokens),
        row=placement.row,
        offset=placement.offset,
        token_types=scatter_rows(types, index, num_rows, row_tokens),
    )
