"""How the engines cut their work into batches of few shapes, so that few programs are compiled, with little padding.

Letters: R rows of a batch, T tokens a row, E sequences.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ncfair_jax.data.packing import first_fit_decreasing

SHORTEST_ROW = 64
CPU_BATCH_TOKENS = 2048  # of 1024 to 8192 the fastest (MiniLM, two cores)
ACCELERATOR_BATCH_TOKENS = 16384  # per device
# An operation of attention's small products and softmax takes six times as long as one of the layer's large products
# (MiniLM, two cores: 20 and 122 GFLOP/s).
ATTENTION_COST = 6


def power_of_two(least: int) -> int:
    """Smallest power of two that is at least `least` (and 1)."""
    return 1 << max(0, least - 1).bit_length()


def buckets(lengths: np.ndarray, hidden_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Row lengths (powers of two) and the numbers of the sequences that go there: one compilation each.

    Args:
        lengths: tokens of each sequence, i64[E].
    """
    if len(lengths) == 0:
        return
    shortest = np.array([power_of_two(max(int(length), SHORTEST_ROW)) for length in lengths])
    rows = shortest.copy()
    for row_tokens in np.unique(shortest):
        members = shortest == row_tokens
        rows[members] = cheaper_row(lengths[members], int(row_tokens), hidden_size)
    for row_tokens in np.unique(rows):
        yield int(row_tokens), np.flatnonzero(rows == row_tokens)


def cheaper_row(lengths: np.ndarray, row_tokens: int, hidden_size: int) -> int:
    """T or 2T, whichever takes less time: long rows have fewer pads, short rows less attention across segments.

    A layer makes 24 D² + 4 T D operations a token, the second kind slower: a multiple of 6 D + ATTENTION_COST T.
    """

    def cost(tokens: int) -> int:
        return first_fit_decreasing(lengths, tokens).num_rows * tokens * (6 * hidden_size + ATTENTION_COST * tokens)

    return min(row_tokens, 2 * row_tokens, key=cost)


def default_batch_tokens() -> int:
    """R·T of a batch on each device of this backend."""
    return CPU_BATCH_TOKENS if jax.default_backend() == "cpu" else ACCELERATOR_BATCH_TOKENS


def batch_size(total: int, most: int, devices: int = 1) -> int:
    """Rows of a batch on each device: the largest power of two that is at most `most`, or for a set below a quarter of that,
    the smallest that holds it.

    So all but small sets share one program. Empty rows of a last batch take less time than another program takes to compile.
    """
    each = -(-total // devices)
    largest = power_of_two(most // 2 + 1)
    return largest if 4 * each >= largest else power_of_two(each)


def batches(rows: Mapping[str, np.ndarray], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of `size` rows of the arrays, the last one filled up with zeros."""
    for start in range(0, len(next(iter(rows.values()))), size):
        yield {name: pad_rows(values[start : start + size], size) for name, values in rows.items()}


def fetched(batches: Iterable[Any]) -> Iterator[Any]:
    """Results of batches (trees of arrays) on the host; each is fetched while the device computes the next."""
    pending = None
    for ahead in batches:
        if pending is not None:
            yield jax.tree.map(np.asarray, pending)
        pending = ahead
    if pending is not None:
        yield jax.tree.map(np.asarray, pending)


def regroup(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The rows of the pieces in their order, in groups of `size`; the last group is filled up with zeros."""
    waiting: list[np.ndarray] = []
    for piece in pieces:
        waiting.append(piece)
        if sum(map(len, waiting)) >= size:
            rows = np.concatenate(waiting)
            whole = len(rows) - len(rows) % size
            yield from np.split(rows[:whole], whole // size)
            waiting = [rows[whole:]]
    if any(map(len, waiting)):
        yield pad_rows(np.concatenate(waiting), size)


def pad_rows(values: np.ndarray, rows: int) -> np.ndarray:
    """The rows, and zeros up to `rows` of them."""
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])
