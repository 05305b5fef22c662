"""Runs of consecutive examples: a sequence cut into equal ones, some of them end to end, and read a part at a time.

The sequence may lie on disk (`data.token_store`), so nothing here holds more than a part of it.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import overload

import numpy as np

PART = 8192  # examples in memory at once: at 25 tokens each, 1,600 rows of 128


def equal_runs(run: range, number: int) -> list[range]:
    """As `numpy.array_split`: so many runs end to end, the first of them one longer where they cannot all be equal."""
    sizes = [(len(run) + number - 1 - i) // number for i in range(number)]
    return [run[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def group_runs(examples: int, groups: int) -> list[range]:
    """The numbers of the examples of each group: runs of consecutive ones, fewer than `groups` where examples are."""
    return equal_runs(range(examples), min(groups, examples))


def parts(examples: Sequence[np.ndarray], run: range | None = None) -> Iterator[Sequence[np.ndarray]]:
    """The examples of a run (None: all) in order, in as few equal parts of at most `PART` as can be."""
    run = range(len(examples)) if run is None else run
    for part in equal_runs(run, -(-len(run) // PART)):
        yield examples[part.start : part.stop]


class Runs(Sequence[np.ndarray]):
    """Some runs of a sequence of examples end to end."""

    def __init__(self, examples: Sequence[np.ndarray], runs: Sequence[range]):
        """Reads nothing yet."""
        self._examples, self._runs = examples, runs
        self._starts = list(accumulate(map(len, runs), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        wanted = range(len(self))[index]
        if isinstance(wanted, int):
            return self[wanted : wanted + 1][0]
        if wanted.step != 1:
            return [self[i] for i in wanted]
        found: list[np.ndarray] = []
        for start, run in zip(self._starts, self._runs, strict=False):
            part = run[max(0, wanted.start - start) : max(0, wanted.stop - start)]
            if part:
                found += self._examples[part.start : part.stop]
        return found


def split(examples: Sequence[np.ndarray], groups: int, held_out: float) -> tuple[Runs, Runs]:
    """Collected and held-out examples: of every group of consecutive examples, the last ones are held out.

    Args:
        held_out: their share, from 0 to below 1.
    """
    runs = group_runs(len(examples), groups)
    cuts = [len(run) - int(held_out * len(run)) for run in runs]
    collected = [run[:cut] for run, cut in zip(runs, cuts, strict=True)]
    aside = [run[cut:] for run, cut in zip(runs, cuts, strict=True)]
    return Runs(examples, collected), Runs(examples, aside)
