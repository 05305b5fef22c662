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

from ncfair_jax.data.masking import mask_draws, mask_tokens
from ncfair_jax.data.packing import FlatIndex, first_fit_decreasing, flat_index, round_up, scatter_rows

Batch = dict[str, np.ndarray]


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


class Setting(NamedTuple):
    """What is the same for all batches of a pipeline.

    Attributes:
        config: sizes, masking and classes.
        special: bool[V], ids that are never selected for prediction.
        mask_token_id: of [MASK].
        slot_of_token: i32[V], class of each token, K for none.
        no_class: K.
    """

    config: PipelineConfig
    special: np.ndarray
    mask_token_id: int
    slot_of_token: np.ndarray
    no_class: int


class Drawn(NamedTuple):
    """The examples of one batch, their sequences laid end to end.

    Attributes:
        step: of the batch.
        ids: i64[E], the examples.
        views: i64[E], sequences of each.
        sequence_ids: i64[S].
        lengths: i64[S].
        tokens: i32[N].
        counted: bool[N], tokens that may count as a class: not fragments of words.
        of_tokens, of_examples: those of `Examples`, [N] and [E, …].
    """

    step: int
    ids: np.ndarray
    views: np.ndarray
    sequence_ids: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray
    counted: np.ndarray
    of_tokens: Mapping[str, np.ndarray]
    of_examples: Mapping[str, np.ndarray]


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
    """The sequences masked for prediction, by draws of (seed, step, sequence)."""
    config = setting.config
    found = mask_tokens(
        drawn.tokens,
        mask_draws(config.seed, drawn.step, drawn.sequence_ids, drawn.lengths),
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
        run. P doubles for a batch with an example that has more than P masks, so no masked position is ever dropped.
    """
    config = setting.config
    lengths, original, tokens, selected, classed = sequences(drawn, setting)
    mask_counts = np.add.reduceat(selected, np.cumsum(lengths) - lengths, dtype=np.int64)
    row_masks = masks_per_row(config.row_tokens, config.mask_prob)
    while mask_counts.max() > row_masks:
        row_masks *= 2
    placement = first_fit_decreasing(lengths, config.row_tokens, mask_counts, row_masks)
    index = flat_index(placement, lengths)
    rows = round_up(placement.num_rows, math.lcm(config.row_multiple, config.accumulation))
    class_tokens = original if config.labels == "original" else tokens
    slots = np.where(classed, setting.slot_of_token[class_tokens], setting.no_class)
    slots = aligned_slots(slots, index, setting.no_class, config.alignment)
    return {
        "tokens": scatter_rows(tokens, index, rows, config.row_tokens),
        "segment_ids": scatter_rows(index.segment, index, rows, config.row_tokens),
        "positions": scatter_rows(index.position, index, rows, config.row_tokens),
        "slots": scatter_rows(slots, index, rows, config.row_tokens, fill=setting.no_class),
        **masked_targets(original, selected, index, rows, row_masks),
        **arrays(drawn, index, rows, config.row_tokens),
    }


def masks_per_row(row_tokens: int, mask_prob: float) -> int:
    """P: five thirds of the expected masks of a full row, as a multiple of 8 (32 for T=128 at 15%).

    With that slack rows fill up with tokens before their masks run out, and a single long sentence practically never
    has more than P masks, which would cost a compilation.
    """
    return round_up(math.ceil(round(mask_prob * row_tokens * 5 / 3, 6)), 8)


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
