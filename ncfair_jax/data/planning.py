"""Which row each example of a batch, or of a whole epoch, goes to: best-fit decreasing, planned from lengths alone.

Letters: E examples, T tokens a row, P masked positions a row, R rows.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from ncfair_jax.data.packing import Placement, round_up

RARE = 2e-3  # share of full rows that may have more masks than P


def best_fit(lengths: np.ndarray, row_tokens: int) -> Placement:
    """The longest example first, each into the row with the least room that it fits.

    Args:
        lengths: i64[E], tokens of each example, from 1 to `row_tokens`.
        row_tokens: T.
    """
    longest_first = np.argsort((row_tokens - lengths).astype(np.min_scalar_type(row_tokens)), kind="stable")
    parts, num_rows = plan(np.bincount(lengths, minlength=row_tokens + 1).tolist(), row_tokens)
    length, first, rows, each, before_tokens, before = np.array(parts, np.int64).reshape(-1, 6).T
    counts = rows * each
    place = np.arange(len(lengths)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, nth = np.divmod(place, np.repeat(each, counts))
    nothing = np.empty(len(lengths), np.int64)
    placement = Placement(nothing, nothing.copy(), nothing.copy(), num_rows)
    placement.row[longest_first] = row + np.repeat(first, counts)
    placement.offset[longest_first] = np.repeat(before_tokens, counts) + nth * np.repeat(length, counts)
    placement.segment[longest_first] = np.repeat(before, counts) + nth + 1
    return placement


def plan(counts: Sequence[int], row_tokens: int) -> tuple[list[tuple[int, int, int, int, int, int]], int]:
    """Best-fit decreasing of so many examples of each length, and the number of rows.

    Examples of one length, and rows with the same room, are placed together: what it costs grows with the number of different
    lengths and rooms, not of examples. The bits of one integer say which rooms there are rows with, so the least room that is
    enough is found by two operations.

    Args:
        counts: by length, from 0 to T.
    Returns:
        What rows that follow each other get alike, the longest examples first: tokens of an example, the first row, the number
        of rows, examples in each, the place of the first of them in its row, and examples that were there before.
    Source: histogram packing, Krell et al., arXiv:2107.02027.
    """
    parts: list[tuple[int, int, int, int, int, int]] = []
    rows_with: list[list[tuple[int, int, int]]] = [[] for _ in range(row_tokens + 1)]  # by room: first, rows, examples
    there = num_rows = 0
    for length in range(row_tokens, 0, -1):
        left = counts[length]
        while left:
            if enough := there >> length:
                room = length + (enough & -enough).bit_length() - 1
                first, rows, before = rows_with[room].pop()
                if not rows_with[room]:
                    there ^= 1 << room
            else:
                room, first, before = row_tokens, num_rows, 0
                rows = -(-left // (room // length))
                num_rows += rows
            # A row that an example was put into now has the least room: it takes as many as it can, the last one the rest.
            each = room // length
            if left < each:
                number, each = 1, left
            else:
                number = min(rows, left // each)
            parts.append((length, first, number, each, row_tokens - room, before))
            left -= number * each
            if rest := room - each * length:
                rows_with[rest].append((first, number, before + each))
                there |= 1 << rest
            if number < rows:
                rows_with[room].append((first + number, rows - number, before))
                there |= 1 << room
    return parts, num_rows


def relieved(
    placement: Placement, lengths: np.ndarray, masks: np.ndarray, row_tokens: int, row_masks: int
) -> Placement:
    """The placement, in which no row has more than P masks: rows with more give up the examples with most of them.

    These go to the fullest rows that have room for them, or to new ones.

    Args:
        masks: i64[E], masked positions of each example, at most `row_masks`.
        row_masks: P.
    """
    of_rows = np.bincount(placement.row, masks, placement.num_rows).astype(np.int64)
    if not (over := np.flatnonzero(of_rows > row_masks)).size:
        return placement
    row, moved = placement.row.copy(), list[int]()
    for full in over:
        members = np.flatnonzero(row == full)
        moved += members[np.argsort(-masks[members], kind="stable")][: to_give_up(masks[members], row_masks)].tolist()
    row[moved] = spare = placement.num_rows + len(moved)  # a row that is none
    room = row_tokens - np.bincount(row, lengths, spare + 1).astype(np.int64)[:spare]
    mask_room = row_masks - np.bincount(row, masks, spare + 1).astype(np.int64)[:spare]
    for example in sorted(moved, key=lambda i: -lengths[i]):
        fits = (room >= lengths[example]) & (mask_room >= masks[example])
        chosen = int(np.where(fits, room, row_tokens + 1).argmin())  # of equal rooms the first, so no row stays empty
        row[example] = chosen
        room[chosen] -= lengths[example]
        mask_room[chosen] -= masks[example]
    return in_rows(row, lengths)


def to_give_up(masks: np.ndarray, row_masks: int) -> int:
    """Of a row's examples, how many of those with the most masks must go."""
    left = masks.sum() - np.cumsum(np.sort(masks)[::-1])
    return int(np.argmax(left <= row_masks)) + 1


def in_rows(row: np.ndarray, lengths: np.ndarray) -> Placement:
    """The placement of examples whose rows are known: in the order of their rows, and within a row in their own."""
    if not len(row):
        return Placement(row, row.copy(), row.copy(), 0)
    order = np.argsort(row, kind="stable")
    ordered, ends = row[order], np.cumsum(lengths[order])
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    members = np.diff(np.append(first, len(row)))
    placement = Placement(row, np.empty_like(row), np.empty_like(row), int(row.max()) + 1)
    starts = ends - lengths[order]
    placement.offset[order] = starts - np.repeat(starts[first], members)
    placement.segment[order] = np.arange(len(row)) - np.repeat(first, members) + 1
    return placement


@cache
def masks_per_row(row_tokens: int, mask_prob: float) -> int:
    """P: the smallest multiple of 8 that fewer than `RARE` of full rows have more masks than (32 for T=128 at 15%)."""
    tail, most = 0.0, row_tokens
    while most > 0 and (tail := tail + _binomial(row_tokens, most, mask_prob)) < RARE:
        most -= 1
    return round_up(most, 8)


def _binomial(trials: int, hits: int, probability: float) -> float:
    """Probability of so many hits."""
    if probability in (0.0, 1.0):
        return float(hits == trials * probability)
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(probability) + (trials - hits) * math.log1p(-probability))


def row_sizes(rows: np.ndarray, tokens: np.ndarray, row_tokens: int, multiple: int) -> tuple[int, ...]:
    """Numbers of rows, three at most, that the batches of a run are rounded up to, ascending.

    The largest is one that a batch exceeds less than once in 100,000; the others are those that leave the fewest rows empty.

    Args:
        rows, tokens: i64, of some batches: rows that they need, and tokens.
        multiple: what the numbers are multiples of.
    """
    fill = np.quantile(tokens / (rows * row_tokens), 0.95)  # of a batch that nearly needs another row
    reach = tokens.mean() + 4.3 * tokens.std()
    largest = max(int(np.ceil(reach / (row_tokens * fill))), int(rows.max()))
    top = round_up(largest, multiple)
    step = multiple * max(1, top // multiple // 64)
    needed = np.minimum(-(-rows // multiple) * multiple, top)
    below = range(round_up(int(needed.min()), multiple), top, step)

    def computed(sizes: Sequence[int]) -> int:
        return int(np.array(sizes)[np.searchsorted(sizes, needed)].sum())

    pairs = [(a, b) for a in below for b in below if a < b]
    choices = [(top,), *((a, top) for a in below), *((a, b, top) for a, b in pairs)]
    return min(choices, key=lambda sizes: (computed(sizes), len(sizes)))


def sized(rows: int, sizes: Sequence[int]) -> int:
    """The first of the sizes that is enough for so many rows; beyond the largest, a multiple of an eighth of it."""
    for size in sizes:
        if rows <= size:
            return size
    unit = math.gcd(*sizes)
    return round_up(rows, unit * max(1, sizes[-1] // unit // 8))
