"""One-sided permutation test of two groups of numbers: does the first lie higher than a random split would have it?

Exact where all splits can be listed, otherwise sampled with the one seen added to both counts.
Source: Caliskan et al. 2017 (WEAT); McGill-NLP/bias-bench:bias_bench/benchmark/seat/weat.py (limits); Phipson and Smyth
2010 (the +1 of a sampled test).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

MOST_SPLITS = 100_000  # exact up to here; otherwise so many less one are drawn
SEED = 0
BLOCK_ELEMENTS = 2**22  # members of splits held at a time
SLACK = 1e-9  # sums of the same numbers in another order are equal


class SplitTest(NamedTuple):
    """p-value, and how many splits it counts: all of them (exact), or MOST_SPLITS with the one seen."""

    p: float
    splits: int


def split_tests(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[SplitTest]:
    """For each pair (x f64[n], y f64[m]) the share of splits of x and y together into n and m whose sum over the first
    part is at least that of x; equality counts.

    Pairs of equal sizes share their splits, a pure function of the sizes, so a result does not depend on the other pairs.

    Raises:
        ValueError: if an x or y is empty.
    """
    if any(len(x) == 0 or len(y) == 0 for x, y in pairs):
        raise ValueError("a permutation test needs values on both sides")
    found: list[SplitTest] = [SplitTest(math.nan, 0)] * len(pairs)
    sizes = [(len(x), len(y)) for x, y in pairs]
    for n, m in dict.fromkeys(sizes):
        members = [i for i, size in enumerate(sizes) if size == (n, m)]
        values = np.stack([np.concatenate(pairs[i]) for i in members], axis=-1).astype(float)  # [n+m,tests]
        least = values[:n].sum(0) - SLACK
        exact = math.comb(n + m, n) <= MOST_SPLITS
        blocks = _all_splits(n, m) if exact else _random_splits(n, m)
        at_least = sum(((block.astype(float) @ values) >= least).sum(0) for block in blocks) + (not exact)
        total = math.comb(n + m, n) if exact else MOST_SPLITS
        for i, count in zip(members, at_least, strict=True):
            found[i] = SplitTest(float(count / total), total)
    return found


def _all_splits(n: int, m: int) -> Iterator[np.ndarray]:
    """Every choice of n out of n + m, as bool[splits,n+m]."""
    chosen = np.array(list(combinations(range(n + m), n)))
    block = np.zeros((len(chosen), n + m), bool)
    np.put_along_axis(block, chosen, True, axis=1)
    yield block


def _random_splits(n: int, m: int) -> Iterator[np.ndarray]:
    """MOST_SPLITS − 1 random choices of n out of n + m, as bool[b,n+m] in blocks."""
    rng = np.random.default_rng(SEED)
    rows = max(1, BLOCK_ELEMENTS // (n + m))
    for start in range(0, MOST_SPLITS - 1, rows):
        keys = rng.random((min(rows, MOST_SPLITS - 1 - start), n + m), dtype=np.float32)
        block = keys < np.partition(keys, n, axis=1)[:, n : n + 1]  # the n smallest keys, faster than sorting them
        for row in np.flatnonzero(block.sum(1) != n):  # equal keys at the border: rare
            block[row] = False
            block[row, np.argsort(keys[row])[:n]] = True
        yield block
