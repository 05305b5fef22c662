"""Training batches: packed, masked, of fixed shape, each a pure function of (seed, step).

Letters as in `layout`, and A micro-batches of one update.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import count, islice
from typing import final

import numpy as np

from ncfair_jax.data.encoded import Encoded, end_to_end
from ncfair_jax.data.grouped import Filled, Groups, row_starts
from ncfair_jax.data.layout import Batch, Drawn, PipelineConfig, Planned, Setting, packed
from ncfair_jax.data.masking import SHUFFLE_STREAM
from ncfair_jax.data.packing import flat_positions, in_order, round_up
from ncfair_jax.data.planning import best_fit, masks_per_row, row_sizes, sized
from ncfair_jax.sharding import WHOLE, is_whole
from ncfair_jax.vocabulary import WordBoundaries, whole_words

VERSION = 3  # grows whenever a run of the same config and text would get other batches; a run that began with others is refused
PART_ROWS = 256  # rows that are built together: what is made on the way stays in the processor's cache
SAMPLE = 4096  # examples of the batches from which the numbers of rows are chosen; at least 32 batches, at most 128


@dataclass(frozen=True, eq=False)
class Examples:
    """What a method trains on.

    Attributes:
        sequences: encoded, i32[L] each; those of one example follow each other. They may lie on disk (`Encoded`).
        views: sequences of an example: of all, or i64[E] of each.
        of_tokens: by name, what else belongs to the tokens, [L] of each sequence.
        of_examples: by name, what else belongs to the examples, [E, …].
        strata: i32[E], from 0; a batch then holds `batch_size` examples of each stratum, in their order, and an epoch is what
            the smallest fills. None: a batch holds `batch_size` of all.
        layout: (examples of a batch, setting) -> arrays of its rows, [R, …], or, named "example_…", of its examples.
        apart: whether each row is made of its own examples alone, of one sequence each and in any number: then a batch may be
            a number of rows, and a process makes only its own. The layout places the examples where they are planned to go.
        predicted: positions to predict in each example, if examples are apart and the layout does not mask them by chance.
    """

    sequences: Sequence[np.ndarray]
    views: int | np.ndarray = 1
    of_tokens: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    of_examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    strata: np.ndarray | None = None
    layout: Callable[[Drawn, Setting], Batch] = packed
    apart: bool | None = None
    predicted: int | None = None

    @property
    def stand_apart(self) -> bool:
        """`apart`, which examples of the plain layout are unless they say something else."""
        alone = self.strata is None and isinstance(self.views, int) and self.views == 1
        return alone and (self.layout is packed if self.apart is None else self.apart)

    @cached_property
    def encoded(self) -> Encoded:
        """The sequences as parts of one array."""
        return end_to_end(self.sequences)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of all arrays."""
        digest = hashlib.sha256()
        self.encoded.hashed(digest)
        further = {f"token {name}": np.concatenate(values) for name, values in self.of_tokens.items()}
        further |= {f"example {name}": value for name, value in self.of_examples.items()}
        if not isinstance(self.views, int):
            further["views"] = self.views
        if self.strata is not None:
            further["strata"] = self.strata
        for name, value in sorted(further.items()):
            kept = value.astype("<f4" if value.dtype.kind == "f" else "<i4")
            digest.update(f"{name} {value.shape} ".encode() + kept.tobytes())
        return digest.hexdigest()[:16]


@final
class Pipeline:
    """Batches of examples, ready for the train step.

    Args:
        examples: of sequences that fit a row.
        special_ids: ids never selected for prediction.
        slot_of_token: i32[V], class of each token, K for none; None: no classes (K = 0).
        boundaries: a token counts as its class only where the original token is a whole word by them; None: everywhere.
    Raises:
        ValueError: no examples, none with a token that is not special, an example longer than a row, a token id outside
            the vocabulary; or, by rows, examples that do not stand apart, or fewer of them than groups.
    """

    def __init__(
        self,
        examples: Examples,
        config: PipelineConfig,
        *,
        special_ids: Sequence[int],
        mask_token_id: int,
        vocab_size: int,
        slot_of_token: np.ndarray | None = None,
        boundaries: WordBoundaries | None = None,
    ):
        self.examples, self.config = examples, config
        self._tokens, self._starts, self._lengths = (
            examples.encoded.tokens,
            examples.encoded.starts,
            examples.encoded.lengths,
        )
        special = np.zeros(vocab_size, bool)
        special[list(special_ids)] = True
        self._refuse_unusable(special)
        slots = full_slots(slot_of_token, vocab_size)
        no_class = int(slots.max())
        self._setting = Setting(config, special, mask_token_id, slots, no_class, lru_cache(self._sizes))
        self._boundaries = boundaries
        self._of_tokens = {name: np.concatenate(values) for name, values in examples.of_tokens.items()}
        views = examples.views
        # Of millions of examples that are alike, nothing is held for each.
        self._first: np.ndarray | None = None  # sequence of each example, if they have not all as many
        if isinstance(views, int):
            views = np.broadcast_to(np.int64(views), len(self._lengths) // views)
        else:
            self._first = np.cumsum(views) - views
        self._views = views
        self.num_examples = len(views)
        if config.batch_rows:
            if not examples.stand_apart:
                raise ValueError(
                    f"batch_rows={config.batch_rows}: these examples do not stand apart; batch them by batch_size"
                )
            self._groups = Groups(self._lengths, config)
            self.steps_per_epoch = max(1, self._groups.rows_of_epoch // self._groups.rows_of_step)
        else:
            self._strata = strata(examples, self.num_examples)
            self._order = lru_cache(maxsize=2)(self._epoch_order)
            smallest = min(map(len, self._strata))
            # Few development examples make a smaller batch of each stratum.
            self._each = config.batch_size if examples.strata is None else min(config.batch_size, smallest)
            self.steps_per_epoch = -(-smallest // self._each) if examples.strata is None else smallest // self._each

    def _refuse_unusable(self, special: np.ndarray) -> None:
        """Raises if the examples cannot be rows of this vocabulary."""
        if not len(self._lengths):
            raise ValueError("the corpus holds no examples; check the corpus file and its filters")
        row_tokens, vocab_size = self.config.row_tokens, len(special)
        if self._lengths.max() > row_tokens or self._lengths.min() < 1:
            raise ValueError(
                f"examples have {self._lengths.min()} to {self._lengths.max()} tokens, rows hold {row_tokens}: "
                "encode with max_tokens <= row_tokens"
            )
        lowest, highest = self.examples.encoded.token_range
        if lowest < 0 or highest >= vocab_size:
            raise ValueError(
                f"token ids reach from {lowest} to {highest}, the vocabulary has {vocab_size}: tokenizer and model differ"
            )
        if all(special[part].all() for part in self.examples.encoded.parts()):
            raise ValueError(
                "the corpus holds only special tokens, such as that for unknown words: no token of it can be predicted; check "
                "the corpus file and the language and case of the model"
            )

    @property
    def fingerprint(self) -> str:
        """That of the examples."""
        return self.examples.fingerprint

    def steps_of(self, epochs: float) -> int:
        """Steps that so many passes over the examples take; by rows, that the group with the fewest rows fills."""
        if not self.config.batch_rows:
            return int(np.ceil(epochs * self.steps_per_epoch))
        return max(1, int(epochs * self._groups.rows_of_epoch / self._groups.rows_of_step))

    def _epoch_order(self, epoch: int) -> list[np.ndarray]:
        order = []
        for stratum, ids in enumerate(self._strata):
            philox = np.random.Philox(key=[self.config.seed, SHUFFLE_STREAM], counter=[0, 0, stratum, epoch])
            order.append(np.random.Generator(philox).permutation(ids))
        return order

    def example_ids(self, step: int) -> np.ndarray:
        """i64[E] examples of a step, from permutations that are fresh every epoch; by examples the last batch may be short."""
        if self.config.batch_rows:
            return self._groups.take(step, range(self.config.groups)).ids
        epoch, index = divmod(step, self.steps_per_epoch)
        take = slice(index * self._each, (index + 1) * self._each)
        return np.concatenate([ids[take] for ids in self._order(epoch)])

    @cached_property
    def _row_masks(self) -> int:
        """P where rows are planned: what fewer than one in 500 rows would exceed, or what any row of examples has."""
        row_tokens, predicted = self.config.row_tokens, self.examples.predicted
        if predicted is None:
            return masks_per_row(row_tokens, self.config.mask_prob)
        return round_up(predicted * (row_tokens // int(self._lengths.min())), 8)

    def _sizes(self, copies: int) -> tuple[int, ...]:
        """Numbers of rows of batches that have each drawn sequence so many times, chosen from the first whole batches."""
        full = sum(min(self._each, len(ids)) for ids in self._strata)
        number = int(np.clip(SAMPLE // full, 32, 128))
        whole = (ids for ids in map(self.example_ids, count()) if len(ids) == full)
        batches = [np.tile(self._lengths[self._sequences(ids)], copies) for ids in islice(whole, number)]
        rows = np.array([best_fit(lengths, self.config.row_tokens).num_rows for lengths in batches])
        tokens = np.array([lengths.sum() for lengths in batches])
        return row_sizes(rows, tokens, self.config.row_tokens, self.config.multiple)

    def _sequences(self, ids: np.ndarray) -> np.ndarray:
        """i64[S], sequences of examples."""
        views = self._views[ids]
        first = ids * views if self._first is None else self._first[ids]
        return np.repeat(first, views) + flat_positions(views)

    def drawn(self, step: int) -> Drawn:
        """The examples of a step, whatever was asked before."""
        return self._drawn(step, self.example_ids(step), step, None)

    def _drawn(self, step: int, ids: np.ndarray, turns: int | np.ndarray, planned: Planned | None) -> Drawn:
        of_ids = self._sequences(ids)
        lengths = self._lengths[of_ids]
        positions = flat_positions(lengths)
        at = np.repeat(self._starts[of_ids], lengths) + positions
        tokens = self._tokens[at].astype(np.int32, copy=False)
        # Of the examples as they are: a masked or random piece behind a token makes no whole word of it.
        counted = np.ones(len(tokens), bool)
        if self._boundaries is not None:
            counted = whole_words(tokens, positions, self._boundaries)
        of_tokens = {name: flat[at] for name, flat in self._of_tokens.items()}
        of_examples = {name: value[ids] for name, value in self.examples.of_examples.items()}
        views = self._views[ids]
        return Drawn(step, turns, ids, views, of_ids, lengths, tokens, counted, of_tokens, of_examples, planned)

    def batch(self, step: int, process_index: int = 0, process_count: int = 1) -> Batch:
        """One process's share of the batch of a step: what the examples' layout makes of them, split into micro-batches.

        Process p of P gets rows p*R/(A*P) to (p+1)*R/(A*P) of every micro-batch. Where examples stand apart it makes no others.

        Returns:
            Arrays [A, R/A/P, …], those of the examples as a whole [1, …]; step, num_examples i32[]: examples of the whole
            batch, by rows P times those of the process.
        Raises:
            ValueError: rows or groups that do not divide over the processes.
        """
        if self.examples.stand_apart:
            filled, rows, number = self._share(step, process_index, process_count)
            laid = self._laid(step, filled, rows)
        else:
            drawn = self.drawn(step)
            laid, number = self.examples.layout(drawn, self._setting), len(drawn.ids)
        batch = {
            name: value[None] if name.startswith(WHOLE) else split_rows(value, self.config.accumulation)
            for name, value in laid.items()
        }
        if not self.examples.stand_apart:
            batch = process_rows(batch, process_index, process_count)
        return batch | {"step": np.array(step, np.int32), "num_examples": np.array(number, np.int32)}

    def _share(self, step: int, process_index: int, process_count: int) -> tuple[Filled, int, int]:
        """The rows of a step that a process holds: those with examples, the number of all, examples of the whole batch."""
        config = self.config
        if config.batch_rows:
            own = process_share(config.groups, process_index, process_count, "groups", "make groups a multiple of that")
            filled = self._groups.take(step, own)
            return filled, config.batch_rows // process_count, len(filled.ids) * process_count
        ids = self.example_ids(step)
        placement = best_fit(self._lengths[ids], config.row_tokens)
        order = np.argsort(placement.row.astype(np.min_scalar_type(placement.num_rows)), kind="stable")
        starts = row_starts(np.bincount(placement.row, minlength=placement.num_rows))
        own = process_share(
            sized(placement.num_rows, self._setting.sizes(1)) // config.accumulation,
            process_index,
            process_count,
            "rows a micro-batch",
            "make row_multiple a multiple of accumulation * devices",
        )
        there = min(own.stop * config.accumulation, placement.num_rows)
        some = Filled(ids[order], starts, step).some(min(own.start * config.accumulation, there), there)
        return some, len(own) * config.accumulation, len(ids)

    def _laid(self, step: int, filled: Filled, rows: int) -> Batch:
        """What the layout makes of rows that are planned, some of them at a time, with empty rows behind them."""
        parts = []
        for start in range(0, rows, PART_ROWS):
            number = min(PART_ROWS, rows - start)
            some = filled.some(*(min(row, len(filled.starts) - 1) for row in (start, start + number)))
            planned = Planned(in_order(some.starts, self._lengths[some.ids]), number, self._row_masks)
            parts.append(self.examples.layout(self._drawn(step, some.ids, some.turns, planned), self._setting))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts[1:] else parts[0]

    def waste(self, batch: Mapping[str, np.ndarray]) -> float:
        """Fraction of the batch's token places that are pads."""
        return float((batch["segment_ids"] == 0).mean())

    def batches(self, start: int, stop: int, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
        """One process's share of the batches of the steps [start, stop), made ahead of time in a thread."""
        import grain  # here alone: loading it takes a second, and batches can be made and timed without it

        steps = grain.MapDataset.range(start, stop).map(
            lambda step: self.batch(int(step), process_index, process_count)
        )
        yield from steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8))


def full_slots(slot_of_token: np.ndarray | None, vocab_size: int) -> np.ndarray:
    """Class of each token of the model, i32[V], K for none.

    A model may have more embedding rows than its tokenizer has tokens: those belong to no class.
    """
    if slot_of_token is None:
        return np.zeros(vocab_size, np.int32)
    missing = max(0, vocab_size - len(slot_of_token))
    return np.concatenate([slot_of_token, np.full(missing, slot_of_token.max(), np.int32)])


def strata(examples: Examples, count: int) -> list[np.ndarray]:
    """The examples of each stratum, i64; all examples where there are no strata."""
    if examples.strata is None:
        return [np.arange(count)]
    return [np.flatnonzero(examples.strata == stratum) for stratum in range(examples.strata.max() + 1)]


def split_rows(rows: np.ndarray, accumulation: int) -> np.ndarray:
    """[R,...] to [A,R/A,...], dealing the rows out in turn: the fullest come first and would crowd one micro-batch."""
    return np.ascontiguousarray(rows.reshape(-1, accumulation, *rows.shape[1:]).swapaxes(0, 1))


def process_rows(batch: Batch, process_index: int, process_count: int) -> Batch:
    """One process's contiguous share of the rows of every micro-batch; what belongs to the whole batch stays whole."""
    remedy = "make row_multiple a multiple of accumulation * devices"
    rows = process_share(batch["tokens"].shape[1], process_index, process_count, "rows a micro-batch", remedy)
    mine = slice(rows.start, rows.stop)
    return {name: value if is_whole(name, value) else value[:, mine] for name, value in batch.items()}


def process_share(number: int, process_index: int, process_count: int, what: str, remedy: str) -> range:
    """Which of so many things a process holds."""
    if number % process_count:
        raise ValueError(f"{number} {what} do not divide over {process_count} processes: {remedy}")
    share = number // process_count
    return range(process_index * share, (process_index + 1) * share)
