"""How the examples of one batch become rows: pure functions of what was drawn.

A method hands over how its examples are laid out (`Examples.layout`): `packed` with its own choice of sequences and of further
arrays, or a function of its own.

Letters: R rows of the batch, T tokens a row, P masked positions a row, E examples, S sequences, N tokens of all of them, V
vocabulary, K classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ncfair_jax.data.masking import RowLimit, mask_draws, mask_tokens
from ncfair_jax.data.packing import FlatIndex, Placement, flat_index
from ncfair_jax.data.planning import best_fit, masks_per_row, relieved, sized

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class PipelineConfig:
    """How examples become batches.

    Attributes:
        seed: of the order of the examples and of their masks; not negative.
        batch_size: E, examples an update (not rows); 0: by rows.
        row_tokens: T.
        accumulation: A, micro-batches an update.
        row_multiple: R is a multiple of this (and of A): usually A * devices. By examples R is rounded up to one.
        batch_rows: R, rows an update; 0: by examples.
        groups: by rows, G: parts that the examples of an epoch are dealt to, each of which fills R/G rows of every batch.
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
    batch_rows: int = 0
    groups: int = 1
    mask_prob: float = 0.15
    mask_frac: float = 0.8
    random_frac: float = 0.1
    alignment: str = "same"
    labels: str = "original"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}; must not be negative")
        size = "batch_rows" if self.batch_rows else "batch_size"
        for name in (size, "row_tokens", "accumulation", "row_multiple", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; must be at least 1")
        if self.batch_rows and self.batch_size:
            raise ValueError(f"batch_rows={self.batch_rows} and batch_size={self.batch_size}; one of them must be 0")
        for name, parts in {"row_multiple and accumulation": self.multiple, "groups": self.groups}.items():
            if self.batch_rows % parts:
                raise ValueError(f"batch_rows={self.batch_rows}; must be a multiple of {parts} ({name})")
        for name in ("mask_prob", "mask_frac", "random_frac"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}; must lie between 0 and 1")
        if self.mask_frac + self.random_frac > 1 + 1e-9:
            raise ValueError(f"mask_frac + random_frac = {self.mask_frac + self.random_frac}; must not exceed 1")
        if self.alignment not in ("same", "next"):
            raise ValueError(f"alignment={self.alignment!r}; choose from ['next', 'same']")
        if self.labels not in ("original", "input"):
            raise ValueError(f"labels={self.labels!r}; choose from ['input', 'original']")

    @property
    def multiple(self) -> int:
        """What R is a multiple of."""
        return math.lcm(self.row_multiple, self.accumulation)


class Setting(NamedTuple):
    """What is the same for all batches of a pipeline.

    Attributes:
        config: sizes, masking and classes.
        special: bool[V], ids that are never selected for prediction.
        mask_token_id: of [MASK].
        slot_of_token: i32[V], class of each token, K for none.
        no_class: K.
        sizes: (how often a batch has each drawn sequence) -> the numbers of rows that batches are rounded up to, ascending.
    """

    config: PipelineConfig
    special: np.ndarray
    mask_token_id: int
    slot_of_token: np.ndarray
    no_class: int
    sizes: Callable[[int], tuple[int, ...]]


class Planned(NamedTuple):
    """Rows that were planned before anything was drawn.

    Attributes:
        placement: of the sequences that are drawn, which lie in the order of their rows and columns.
        rows: R, empty ones included.
        row_masks: P.
    """

    placement: Placement
    rows: int
    row_masks: int


class Drawn(NamedTuple):
    """The examples of one batch, or of some of its rows, their sequences laid end to end.

    Attributes:
        step: of the batch.
        turns: what the masks follow from, besides seed and sequence: the step, or by rows the epoch of each sequence, i64[S].
        ids: i64[E], the examples.
        views: i64[E], sequences of each.
        sequence_ids: i64[S].
        lengths: i64[S].
        tokens: i32[N].
        counted: bool[N], tokens that may count as a class: not fragments of words.
        of_tokens, of_examples: those of `Examples`, [N] and [E, …].
        planned: where they go; None: the layout places them.
    """

    step: int
    turns: int | np.ndarray
    ids: np.ndarray
    views: np.ndarray
    sequence_ids: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray
    counted: np.ndarray
    of_tokens: Mapping[str, np.ndarray]
    of_examples: Mapping[str, np.ndarray]
    planned: Planned | None = None


class Sequences(NamedTuple):
    """The sequences that a batch holds, laid end to end.

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


def masked(drawn: Drawn, setting: Setting) -> Sequences:
    """The sequences masked for prediction, by draws of (seed, step or epoch, sequence); in planned rows P a row at most."""
    config, planned = setting.config, drawn.planned
    limit = None if planned is None else RowLimit(planned.placement.row, planned.row_masks, config.mask_prob)
    found = mask_tokens(
        drawn.tokens,
        mask_draws(config.seed, drawn.turns, drawn.sequence_ids, drawn.lengths, limit),
        setting.special,
        mask_token_id=setting.mask_token_id,
        vocab_size=len(setting.special),
        mask_prob=config.mask_prob,
        mask_frac=config.mask_frac,
        random_frac=config.random_frac,
    )
    return Sequences(drawn.lengths, drawn.tokens, found.tokens, found.selected, drawn.counted)


def selecting(drawn: Drawn, selected: np.ndarray) -> Sequences:
    """The sequences as they are, some tokens to be predicted: selected, bool[N]."""
    return Sequences(drawn.lengths, drawn.tokens, drawn.tokens, selected, drawn.counted)


def nothing_more(drawn: Drawn, index: FlatIndex, rows: int, row_tokens: int) -> Batch:
    """No further arrays."""
    del drawn, index, rows, row_tokens
    return {}


def packed(
    drawn: Drawn,
    setting: Setting,
    *,
    sequences: Callable[[Drawn, Setting], Sequences] = masked,
    arrays: Callable[[Drawn, FlatIndex, int, int], Batch] = nothing_more,
) -> Batch:
    """Rows filled with several sequences each.

    Args:
        sequences: what the batch holds of the examples.
        arrays: (drawn, addresses of the tokens, R, T) -> further arrays: of the rows, [R, …], or, named "example_…", of the
            examples as a whole.
    Returns:
        tokens, segment_ids (0 = pad), positions (from 0 in each segment), slots (K = no class): i32[R,T]; masked_positions
        (columns of the row), masked_labels i32[R,P] and masked_weights f32[R,P] (0 where unused). R takes few values in a
        run. By examples P doubles for a batch with an example that has more than P masks, so no masked position is ever
        dropped.
    """
    config, row_tokens = setting.config, setting.config.row_tokens
    lengths, original, tokens, selected, classed = sequences(drawn, setting)
    placement, rows, row_masks = drawn.planned or planned_here(drawn, lengths, selected, setting)
    if drawn.planned is not None:
        # The tokens come in the order of the rows, so it is enough to know which places are filled.
        where = np.arange(row_tokens) < np.bincount(placement.row, lengths, rows)[:, None]
    else:
        where = flat_index(placement, lengths).places(row_tokens)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    positions = np.arange(len(tokens), dtype=np.int32) - np.repeat(starts, lengths)
    slots = setting.slot_of_token.take(original if config.labels == "original" else tokens)
    if not classed.all():
        slots[~classed] = setting.no_class
    slots = aligned_slots(slots, positions, setting.no_class, config.alignment)

    def table(values: np.ndarray, fill: int = 0) -> np.ndarray:
        filled = np.full(rows * row_tokens, fill, values.dtype)
        filled[where.ravel()] = values
        return filled.reshape(rows, row_tokens)

    chosen = np.flatnonzero(selected)
    at = np.flatnonzero(table(selected)) if drawn.planned is not None else where[chosen]
    batch = {
        "tokens": table(tokens),
        "segment_ids": table(np.repeat(placement.segment.astype(np.int32), lengths)),
        "positions": table(positions),
        "slots": table(slots, fill=setting.no_class),
        **masked_targets(original[chosen], at, (rows, row_tokens, row_masks)),
    }
    return batch if arrays is nothing_more else batch | arrays(drawn, flat_index(placement, lengths), rows, row_tokens)


def planned_here(drawn: Drawn, lengths: np.ndarray, selected: np.ndarray, setting: Setting) -> Planned:
    """Where the sequences of a whole batch go that was not planned before, and P, which doubles until it is enough for each."""
    config = setting.config
    masks = np.add.reduceat(selected, np.cumsum(lengths) - lengths, dtype=np.int64)
    row_masks = masks_per_row(config.row_tokens, config.mask_prob)
    while masks.max() > row_masks:
        row_masks *= 2
    placement = relieved(best_fit(lengths, config.row_tokens), lengths, masks, config.row_tokens, row_masks)
    sizes = setting.sizes(len(lengths) // len(drawn.lengths))
    return Planned(placement, sized(placement.num_rows, sizes), row_masks)


def aligned_slots(slots: np.ndarray, positions: np.ndarray, no_class: int, alignment: str) -> np.ndarray:
    """Class slot i32[N] of the feature at each token, from the slot of each token (examples laid end to end).

    `next` gives every feature the slot of the token after it, and none to an example's last feature: the released
    training loss, whose code kept the shift of a causal model.
    """
    if alignment == "same":
        return slots
    following = np.append(slots[1:], no_class)
    first_of_example = np.append(positions[1:] == 0, True)
    return np.where(first_of_example, no_class, following)


def masked_targets(labels: np.ndarray, places: np.ndarray, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Columns, labels and weights [R,P] of the tokens to predict, in the order of the columns.

    Args:
        labels: i32, original ids of these tokens.
        places: i64, row · T + column of each.
        shape: R, T and P.
    """
    num_rows, row_tokens, row_masks = shape
    if np.any(places[1:] < places[:-1]):
        in_order = np.argsort(places)
        labels, places = labels[in_order], places[in_order]
    row, column = np.divmod(places, row_tokens)
    per_row = np.bincount(row, minlength=num_rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(per_row) - per_row, per_row)
    positions = np.zeros((num_rows, row_masks), np.int32)
    of_positions = np.zeros((num_rows, row_masks), np.int32)
    weights = np.zeros((num_rows, row_masks), np.float32)
    positions[row, place] = column
    of_positions[row, place] = labels
    weights[row, place] = 1
    return {"masked_positions": positions, "masked_labels": of_positions, "masked_weights": weights}
