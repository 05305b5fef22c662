"""Training batches: packed, masked, of fixed shape, each a pure function of (seed, step).

Letters as in `layout`, and A micro-batches of one update.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import final

import grain
import numpy as np

from ncfair_jax.data.layout import Batch, Drawn, PipelineConfig, Setting, packed
from ncfair_jax.data.masking import SHUFFLE_STREAM
from ncfair_jax.data.packing import flat_positions
from ncfair_jax.sharding import WHOLE, is_whole
from ncfair_jax.vocabulary import WordBoundaries, whole_words


@dataclass(frozen=True, eq=False)
class Examples:
    """What a method trains on.

    Attributes:
        sequences: encoded, i32[L] each; those of one example follow each other.
        views: sequences of an example: of all, or i64[E] of each.
        of_tokens: by name, what else belongs to the tokens, [L] of each sequence.
        of_examples: by name, what else belongs to the examples, [E, …].
        strata: i32[E], from 0; a batch then holds `batch_size` examples of each stratum, in their order, and an epoch is what
            the smallest fills. None: a batch holds `batch_size` of all.
        layout: (examples of a batch, setting) -> arrays of its rows, [R, …], or, named "example_…", of its examples.
    """

    sequences: Sequence[np.ndarray]
    views: int | np.ndarray = 1
    of_tokens: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    of_examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    strata: np.ndarray | None = None
    layout: Callable[[Drawn, Setting], Batch] = packed

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of all arrays."""
        lengths = np.array([len(sequence) for sequence in self.sequences], "<i8")
        digest = hashlib.sha256(lengths.tobytes())
        digest.update(np.concatenate(self.sequences).astype("<i4").tobytes())
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
        ValueError: no examples, none with a token that is not special, an example longer than a row, or a token id outside
            the vocabulary.
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
        sequences = examples.sequences
        if not len(sequences):
            raise ValueError("the corpus holds no examples; check the corpus file and its filters")
        self._lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        if self._lengths.max() > config.row_tokens or self._lengths.min() < 1:
            raise ValueError(
                f"examples have {self._lengths.min()} to {self._lengths.max()} tokens, rows hold {config.row_tokens}: "
                "encode with max_tokens <= row_tokens"
            )
        self._tokens = np.concatenate(sequences).astype(np.int32)
        self._starts = np.cumsum(self._lengths) - self._lengths
        if self._tokens.min() < 0 or self._tokens.max() >= vocab_size:
            raise ValueError(
                f"token ids reach {self._tokens.max()}, the vocabulary has {vocab_size}: tokenizer and model differ"
            )
        special = np.zeros(vocab_size, bool)
        special[list(special_ids)] = True
        if special[self._tokens].all():
            raise ValueError(
                "the corpus holds only special tokens, such as that for unknown words: no token of it can be predicted; check "
                "the corpus file and the language and case of the model"
            )
        slots = full_slots(slot_of_token, vocab_size)
        self.examples, self.config = examples, config
        self._setting = Setting(config, special, mask_token_id, slots, int(slots.max()))
        # Of the examples as they are: a masked or random piece behind a token makes no whole word of it.
        self._counted = np.ones(len(self._tokens), bool)
        if boundaries is not None:
            self._counted = whole_words(self._tokens, flat_positions(self._lengths), boundaries)
        self._of_tokens = {name: np.concatenate(values) for name, values in examples.of_tokens.items()}
        views = examples.views
        self._views = np.full(len(sequences) // views, views) if isinstance(views, int) else views
        self._first = np.cumsum(self._views) - self._views  # sequence of each example
        self.num_examples = len(self._views)
        self._strata = strata(examples, self.num_examples)
        smallest = min(map(len, self._strata))
        # Few development examples make a smaller batch of each stratum.
        self._each = config.batch_size if examples.strata is None else min(config.batch_size, smallest)
        self.steps_per_epoch = -(-smallest // self._each) if examples.strata is None else smallest // self._each
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @property
    def fingerprint(self) -> str:
        """That of the examples."""
        return self.examples.fingerprint

    def _epoch_order(self, epoch: int) -> list[np.ndarray]:
        order = []
        for stratum, ids in enumerate(self._strata):
            philox = np.random.Philox(key=[self.config.seed, SHUFFLE_STREAM], counter=[0, 0, stratum, epoch])
            order.append(np.random.Generator(philox).permutation(ids))
        return order

    def example_ids(self, step: int) -> np.ndarray:
        """i64[E] examples of a step, from permutations that are fresh every epoch; the last batch of all may be short."""
        epoch, index = divmod(step, self.steps_per_epoch)
        take = slice(index * self._each, (index + 1) * self._each)
        return np.concatenate([ids[take] for ids in self._order(epoch)])

    def drawn(self, step: int) -> Drawn:
        """The examples of a step, whatever was asked before."""
        ids = self.example_ids(step)
        views = self._views[ids]
        of_ids = np.repeat(self._first[ids], views) + flat_positions(views)
        lengths = self._lengths[of_ids]
        at = np.repeat(self._starts[of_ids], lengths) + flat_positions(lengths)
        return Drawn(
            step,
            ids,
            views,
            of_ids,
            lengths,
            self._tokens[at],
            self._counted[at],
            {name: flat[at] for name, flat in self._of_tokens.items()},
            {name: value[ids] for name, value in self.examples.of_examples.items()},
        )

    def batch(self, step: int) -> Batch:
        """The batch of a step: what the examples' layout makes of them, split into micro-batches.

        Returns:
            Arrays [A, R/A, …], those of the examples as a whole [1, …]; step, num_examples i32[].
        """
        drawn = self.drawn(step)
        laid = self.examples.layout(drawn, self._setting)
        batch = {
            name: value[None] if name.startswith(WHOLE) else split_rows(value, self.config.accumulation)
            for name, value in laid.items()
        }
        batch["step"] = np.array(step, np.int32)
        batch["num_examples"] = np.array(len(drawn.ids), np.int32)
        return batch

    def waste(self, batch: Mapping[str, np.ndarray]) -> float:
        """Fraction of the batch's token places that are pads."""
        return float((batch["segment_ids"] == 0).mean())

    def batches(self, start: int, stop: int, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
        """Batches of the steps [start, stop), made ahead of time in a thread.

        Process p of P gets rows p*R/(A*P) to (p+1)*R/(A*P) of every micro-batch of the one global packing.
        """
        steps = grain.MapDataset.range(start, stop).map(
            lambda step: process_rows(self.batch(int(step)), process_index, process_count)
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
    """One process's contiguous share of the rows of every micro-batch; scalars stay whole."""
    rows = batch["tokens"].shape[1]
    if rows % process_count:
        raise ValueError(
            f"{rows} rows a micro-batch do not divide over {process_count} processes: "
            "make row_multiple a multiple of accumulation * devices"
        )
    share = rows // process_count
    mine = slice(process_index * share, (process_index + 1) * share)
    return {name: value if is_whole(name, value) else value[:, mine] for name, value in batch.items()}
