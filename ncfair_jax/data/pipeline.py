"""Training batches: packed, masked, of fixed shape, each a pure function of (seed, step).

An example is one sequence, or several that belong together (`views`, such as a sentence and its counterfactual). What a
method needs besides (other masks, places of words) is a subclass with its own `sequences` and `places`.

Letters: A micro-batches of one update, R rows of the batch, T tokens a row, P masked positions a row, E examples,
S sequences, N tokens of all of them, V vocabulary, K classes.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import grain
import numpy as np

from ncfair_jax.data.masking import SHUFFLE_STREAM, mask_draws, mask_tokens
from ncfair_jax.data.packing import FlatIndex, first_fit_decreasing, flat_index, flat_positions, round_up, scatter_rows
from ncfair_jax.vocabulary import WordBoundaries, whole_words

Batch = dict[str, np.ndarray]
WHOLE = "example_"  # arrays of this name belong to the examples and not to rows: every device and process has them all


class Sequences(NamedTuple):
    """The sequences of one batch, laid end to end.

    Attributes:
        lengths: i64[S].
        original: i32[N], tokens before masking: what labels are.
        tokens: i32[N], as the model sees them.
        selected: bool[N], positions to predict.
        classed: bool[N], tokens that may count as a class; a masked copy beside a clean one does not, nor does a fragment.
    """

    lengths: np.ndarray
    original: np.ndarray
    tokens: np.ndarray
    selected: np.ndarray
    classed: np.ndarray


@dataclass(frozen=True)
class PipelineConfig:
    """How examples become batches.

    Attributes:
        seed: of the order of the examples and of their masks; not negative.
        batch_size: E, examples an update (not rows).
        row_tokens: T.
        accumulation: A, micro-batches an update.
        row_multiple: R is rounded up to a multiple of this (and of A): usually 2 * A * devices.
        mask_prob: fraction of the non-special tokens to predict.
        mask_frac, random_frac: fractions of those replaced by [MASK] and by a random token.
        alignment: class of the feature at position t: of the token at t (`same`) or at t+1 (`next`).
        labels: the classes follow the `original` tokens or the masked `input`.
    """

    seed: int
    batch_size: int
    row_tokens: int = 128
    accumulation: int = 1
    row_multiple: int = 2
    mask_prob: float = 0.15
    mask_frac: float = 0.8
    random_frac: float = 0.1
    alignment: str = "same"
    labels: str = "original"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}; must not be negative")
        for name in ("batch_size", "row_tokens", "accumulation", "row_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; must be at least 1")
        for name in ("mask_prob", "mask_frac", "random_frac"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}; must lie between 0 and 1")
        if self.mask_frac + self.random_frac > 1 + 1e-9:
            raise ValueError(f"mask_frac + random_frac = {self.mask_frac + self.random_frac}; must not exceed 1")
        if self.alignment not in ("same", "next"):
            raise ValueError(f"alignment={self.alignment!r}; choose from ['next', 'same']")
        if self.labels not in ("original", "input"):
            raise ValueError(f"labels={self.labels!r}; choose from ['input', 'original']")


def masks_per_row(row_tokens: int, mask_prob: float) -> int:
    """P: five thirds of the expected masks of a full row, as a multiple of 8 (32 for T=128 at 15%).

    With that slack rows fill up with tokens before their masks run out, and a single long sentence practically never
    has more than P masks, which would cost a compilation.
    """
    return round_up(math.ceil(round(mask_prob * row_tokens * 5 / 3, 6)), 8)


class Pipeline:
    """Batches of a corpus, ready for the train step.

    Args:
        examples: encoded sequences, i32[L] each, with L <= config.row_tokens; those of one example follow each other.
        special_ids: ids never selected for prediction.
        slot_of_token: i32[V], class of each token, K for none; None: no classes (K = 0).
        boundaries: a token counts as its class only where the original token is a whole word by them; None: everywhere.
        views: sequences of an example.
    Raises:
        ValueError: no examples, none with a token that is not special, an example longer than a row, or a token id outside
            the vocabulary.
    """

    def __init__(
        self,
        examples: Sequence[np.ndarray],
        config: PipelineConfig,
        *,
        special_ids: Sequence[int],
        mask_token_id: int,
        vocab_size: int,
        slot_of_token: np.ndarray | None = None,
        boundaries: WordBoundaries | None = None,
        views: int = 1,
    ):
        if not len(examples):
            raise ValueError("the corpus holds no examples; check the corpus file and its filters")
        self._lengths = np.array([len(example) for example in examples], np.int64)
        if self._lengths.max() > config.row_tokens or self._lengths.min() < 1:
            raise ValueError(
                f"examples have {self._lengths.min()} to {self._lengths.max()} tokens, rows hold {config.row_tokens}: "
                "encode with max_tokens <= row_tokens"
            )
        self._tokens = np.concatenate(examples).astype(np.int32)
        self._starts = np.cumsum(self._lengths) - self._lengths
        if self._tokens.min() < 0 or self._tokens.max() >= vocab_size:
            raise ValueError(
                f"token ids reach {self._tokens.max()}, the vocabulary has {vocab_size}: tokenizer and model differ"
            )
        self.config = config
        self.num_examples = len(examples) // views
        self._views = views
        self.steps_per_epoch = -(-self.num_examples // config.batch_size)
        self._special = np.zeros(vocab_size, bool)
        self._special[list(special_ids)] = True
        if self._special[self._tokens].all():
            raise ValueError(
                "the corpus holds only special tokens, such as that for unknown words: no token of it can be predicted; check "
                "the corpus file and the language and case of the model"
            )
        self._mask_token_id = mask_token_id
        self._slot_of_token = np.zeros(vocab_size, np.int32) if slot_of_token is None else slot_of_token
        if len(self._slot_of_token) < vocab_size:
            # A model may have more embedding rows than its tokenizer has tokens: those belong to no class.
            missing = np.full(vocab_size - len(self._slot_of_token), self._slot_of_token.max(), np.int32)
            self._slot_of_token = np.concatenate([self._slot_of_token, missing])
        self._no_class = int(self._slot_of_token.max())
        # Of the examples as they are: a masked or random piece behind a token makes no whole word of it.
        self._counted = np.ones(len(self._tokens), bool)
        if boundaries is not None:
            self._counted = whole_words(self._tokens, flat_positions(self._lengths), boundaries)
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the examples' token ids and boundaries."""
        digest = hashlib.sha256(self._lengths.astype("<i8").tobytes())
        digest.update(self._tokens.astype("<i4").tobytes())
        return digest.hexdigest()[:16]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        philox = np.random.Philox(key=[self.config.seed, SHUFFLE_STREAM], counter=[0, 0, 0, epoch])
        return np.random.Generator(philox).permutation(self.num_examples)

    def example_ids(self, step: int) -> np.ndarray:
        """i64[E] examples of a step: a fresh permutation every epoch, whose last batch may be short."""
        epoch, index = divmod(step, self.steps_per_epoch)
        start = index * self.config.batch_size
        return self._order(epoch)[start : start + self.config.batch_size]

    def batch(self, step: int) -> Batch:
        """The batch of a step, whatever was asked before.

        Returns:
            tokens, segment_ids (0 = pad), positions (from 0 in each segment), slots (K = no class): i32[A,R/A,T];
            masked_positions (columns of the row), masked_labels i32[A,R/A,P] and masked_weights f32[A,R/A,P] (0 where
            unused); step, num_examples i32[]. R takes few values in a run. P doubles for a batch with an example that
            has more than P masks, so no masked position is ever dropped.
        """
        config = self.config
        ids = self.example_ids(step)
        lengths, original, tokens, selected, classed = self.sequences(ids, step)
        mask_counts = np.add.reduceat(selected, np.cumsum(lengths) - lengths, dtype=np.int64)
        row_masks = masks_per_row(config.row_tokens, config.mask_prob)
        while mask_counts.max() > row_masks:
            row_masks *= 2
        placement = first_fit_decreasing(lengths, config.row_tokens, mask_counts, row_masks)
        index = flat_index(placement, lengths)
        rows = round_up(placement.num_rows, math.lcm(config.row_multiple, config.accumulation))
        class_tokens = original if config.labels == "original" else tokens
        slots = np.where(classed, self._slot_of_token[class_tokens], self._no_class)
        slots = aligned_slots(slots, index, self._no_class, config.alignment)
        packed = {
            "tokens": scatter_rows(tokens, index, rows, config.row_tokens),
            "segment_ids": scatter_rows(index.segment, index, rows, config.row_tokens),
            "positions": scatter_rows(index.position, index, rows, config.row_tokens),
            "slots": scatter_rows(slots, index, rows, config.row_tokens, fill=self._no_class),
            **masked_targets(original, selected, index, rows, row_masks),
        }
        extra = self.places(ids, index, rows)
        packed |= {name: value for name, value in extra.items() if not name.startswith(WHOLE)}
        batch = {name: split_rows(value, config.accumulation) for name, value in packed.items()}
        batch |= {name: value[None] for name, value in extra.items() if name.startswith(WHOLE)}
        batch["step"] = np.array(step, np.int32)
        batch["num_examples"] = np.array(len(ids), np.int32)
        return batch

    def laid_end_to_end(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lengths i64[S], tokens i32[N] and which of them may count as a class, bool[N], of the examples' sequences."""
        of_ids = (np.asarray(ids)[:, None] * self._views + np.arange(self._views)).ravel()
        places = [slice(self._starts[i], self._starts[i] + self._lengths[i]) for i in of_ids]
        tokens, counted = (np.concatenate([flat[place] for place in places]) for flat in (self._tokens, self._counted))
        return self._lengths[of_ids], tokens, counted

    def masked(self, ids: np.ndarray, step: int) -> Sequences:
        """The sequences of the examples, masked for prediction by draws of (seed, step, sequence)."""
        config = self.config
        lengths, original, counted = self.laid_end_to_end(ids)
        of_ids = (np.asarray(ids)[:, None] * self._views + np.arange(self._views)).ravel()
        found = mask_tokens(
            original,
            mask_draws(config.seed, step, of_ids, lengths),
            self._special,
            mask_token_id=self._mask_token_id,
            vocab_size=len(self._special),
            mask_prob=config.mask_prob,
            mask_frac=config.mask_frac,
            random_frac=config.random_frac,
        )
        return Sequences(lengths, original, found.tokens, found.selected, counted)

    def sequences(self, ids: np.ndarray, step: int) -> Sequences:
        """What the batch holds of these examples: here, each sequence masked."""
        return self.masked(ids, step)

    def places(self, ids: np.ndarray, index: FlatIndex, rows: int) -> Batch:
        """Further arrays of the batch: of the rows, [R, …], or, named "example_…", of the examples as a whole."""
        del ids, index, rows
        return {}

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


def aligned_slots(slots: np.ndarray, index: FlatIndex, no_class: int, alignment: str) -> np.ndarray:
    """Class slot i32[N] of the feature at each token, from the slot of each token (examples laid end to end).

    `next` gives every feature the slot of the token after it, and none to an example's last feature: the released
    training loss, whose code kept the shift of a causal model.
    """
    if alignment == "same":
        return slots
    following = np.append(slots[1:], no_class)
    first_of_example = np.append(index.position[1:] == 0, True)
    return np.where(first_of_example, no_class, following)


def masked_targets(
    original: np.ndarray, selected: np.ndarray, index: FlatIndex, num_rows: int, row_masks: int
) -> dict[str, np.ndarray]:
    """Columns, labels and weights [R,P] of the selected tokens, in the order of the columns."""
    chosen = np.flatnonzero(selected)
    chosen = chosen[np.lexsort((index.column[chosen], index.row[chosen]))]
    row = index.row[chosen]
    per_row = np.bincount(row, minlength=num_rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(per_row) - per_row, per_row)
    positions = np.zeros((num_rows, row_masks), np.int32)
    labels = np.zeros((num_rows, row_masks), np.int32)
    weights = np.zeros((num_rows, row_masks), np.float32)
    positions[row, place] = index.column[chosen]
    labels[row, place] = original[chosen]
    weights[row, place] = 1
    return {"masked_positions": positions, "masked_labels": labels, "masked_weights": weights}


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


def is_whole(name: str, value: np.ndarray) -> bool:
    """Whether every process and device has all of an array of a batch."""
    return value.ndim == 0 or name.startswith(WHOLE)


class Examples(NamedTuple):
    """What a method trains on.

    Attributes:
        sequences: encoded, those of one example after each other.
        views: sequences of an example.
        kind: the pipeline that makes batches of them, and its further arguments.
    """

    sequences: list[np.ndarray]
    views: int = 1
    kind: type[Pipeline] = Pipeline
    arguments: Mapping[str, Any] = MappingProxyType({})
