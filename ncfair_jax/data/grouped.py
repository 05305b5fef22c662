"""Batches of a fixed number of rows: the examples of an epoch are dealt to groups, and each group fills its own rows.

Lengths decide who goes where, and nothing that differs between epochs or processes: examples are dealt to the groups in the
order of their lengths, so that all groups fill about equally many rows, each by one plan that serves all epochs. What an epoch
decides, as a function of (seed, epoch), is which of the examples of a length takes which place, and the order of the rows.

The rows of all epochs of a group follow each other in a queue, from which step k takes rows [k·b, (k + 1)·b). So what is left
of an epoch goes to the next one, and nothing has to be stored to resume. A process asks for the groups whose rows it holds, and
all know from lengths alone where an epoch ends.

Letters: G groups, b rows of a group in a batch, E examples.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.masking import SHUFFLE_STREAM
from ncfair_jax.data.packing import flat_positions
from ncfair_jax.data.planning import best_fit, plan


class Filled(NamedTuple):
    """Rows with the examples that are in them.

    Attributes:
        ids: i64[S], examples in the order of their rows and columns.
        starts: i64[R + 1], where each row begins in `ids`, and where the last one ends.
        turns: i64[S], epoch of each example; or the step, of all of them.
    """

    ids: np.ndarray
    starts: np.ndarray
    turns: int | np.ndarray

    def some(self, start: int, stop: int) -> "Filled":
        """The rows [start, stop), as far as they are there."""
        starts = self.starts[start : stop + 1]
        part = slice(starts[0], starts[-1])
        turns = self.turns[part] if isinstance(self.turns, np.ndarray) else self.turns
        return Filled(self.ids[part], starts - starts[0], turns)


def joined(parts: Sequence[Filled]) -> Filled:
    """Rows of several epochs or groups one after the other."""
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    turns = [np.broadcast_to(part.turns, len(part.ids)) for part in parts]
    return Filled(np.concatenate([part.ids for part in parts]), row_starts(sizes), np.concatenate(turns))


class Groups:
    """The rows of every group and epoch, from lengths, as functions of what is asked alone."""

    def __init__(self, lengths: np.ndarray, config: PipelineConfig):
        """Plans nothing yet.

        Args:
            lengths: i64[E], tokens of each example.
        Raises:
            ValueError: fewer examples than groups.
        """
        if len(lengths) < config.groups:
            raise ValueError(
                f"{len(lengths)} examples do not fill {config.groups} groups of rows; give more text, or fewer groups"
            )
        self._config, self._lengths = config, lengths
        shorter = (config.row_tokens - lengths).astype(np.min_scalar_type(config.row_tokens))
        self._by_length = np.argsort(shorter, kind="stable").astype(np.int32 if len(lengths) < 2**31 else np.int64)
        self.rows_of_step = config.batch_rows // config.groups
        self._order = lru_cache(maxsize=2)(self._epoch_order)
        self._filled = lru_cache(maxsize=2 * config.groups)(self._epoch_rows)
        self._places = lru_cache(maxsize=config.groups)(self._plan)

    @cached_property
    def rows_of_epoch(self) -> int:
        """Rows that the group with the fewest fills in an epoch."""
        wide = self._config.row_tokens + 1
        lengths = self._lengths[self._by_length]
        groups = range(self._config.groups)
        counts = (np.bincount(lengths[self._members(group)], minlength=wide).tolist() for group in groups)
        return min(plan(count, wide - 1)[1] for count in counts)

    def take(self, step: int, groups: Sequence[int]) -> Filled:
        """The rows of a step that these groups fill, group after group."""
        start, stop = step * self.rows_of_step, (step + 1) * self.rows_of_step
        found: list[Filled] = []
        for group in groups:
            rows = len(self._places(group)[1])
            for epoch in range(start // rows, (stop - 1) // rows + 1):
                first = epoch * rows
                found.append(self._filled(group, epoch).some(max(0, start - first), min(stop - first, rows)))
        return joined(found)

    def _members(self, group: int) -> np.ndarray:
        """Ranks by length of a group's examples: of each G that follow each other one, to and fro."""
        groups, count = self._config.groups, len(self._lengths)
        turn = np.arange(-(-count // groups), dtype=self._by_length.dtype)
        ranks = turn * groups + np.where(turn % 2, groups - 1 - group, group)
        return ranks[ranks < count]

    def _plan(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """In the order of a group's rows and columns the ranks of its examples, and how many are in each row."""
        ranks = self._members(group)
        placement = best_fit(self._lengths[self._by_length[ranks]], self._config.row_tokens)
        order = np.argsort(placement.row * self._config.row_tokens + placement.offset)
        return ranks[order], np.bincount(placement.row, minlength=placement.num_rows)

    def _philox(self, epoch: int, stream: int) -> np.random.Generator:
        counter = [0, 0, stream, epoch]
        return np.random.Generator(np.random.Philox(key=[self._config.seed, SHUFFLE_STREAM], counter=counter))

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """All examples, the longest first, those of one length in the order of an epoch."""
        order, generator = self._by_length.copy(), self._philox(epoch, 0)
        ends = np.cumsum(np.bincount(self._lengths)[::-1]).tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            generator.shuffle(order[start:end])
        return order

    def _epoch_rows(self, group: int, epoch: int) -> Filled:
        """The rows of a group in an epoch."""
        ranks, sizes = self._places(group)
        shuffled = self._philox(epoch, 1 + group).permutation(len(sizes))
        starts = row_starts(sizes)[:-1][shuffled]
        sizes = sizes[shuffled]
        ids = self._order(epoch)[ranks[np.repeat(starts, sizes) + flat_positions(sizes)]]
        return Filled(ids, row_starts(sizes), epoch)


def row_starts(sizes: np.ndarray) -> np.ndarray:
    """Where each row begins, and where the last one ends, i64[R + 1], from the number of examples of each."""
    return np.concatenate([[0], np.cumsum(sizes)])
