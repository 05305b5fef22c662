"""Dynamic masking for masked language modelling, as a pure function of (seed, step or epoch, example, place in the example).

The numbers are those of SplitMix64, which is random access: its n-th number is a hash of its state and n. Generators are
nested: the n-th number of one is the state of another, so the seed, the step or epoch, the sequence and the place of the token
are taken up one after the other. Nothing has to be stored to resume, all tokens of a batch are drawn at once, and an example's
masks do not depend on what shares its batch or its process; nor its row, unless that row would have more masks than it holds.

Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014; the finaliser is David Stafford's
variant 13, as in Sebastiano Vigna's splitmix64.c. The generator passes BigCrush.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ncfair_jax.data.packing import flat_positions

# Keep the streams of one seed apart by purpose: the first number taken up after the seed, or second word of a Philox key.
MASK_STREAM = 0
SHUFFLE_STREAM = 1

GAMMA = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
AGAIN = 1 << 32  # behind the places of all tokens: state of the next try of a sequence whose row has too many masks
PART = 1 << 16  # tokens whose numbers are drawn together: they stay in the processor's cache
STEPS = np.arange(PART, dtype=np.uint64) * np.uint64(GAMMA)  # from the state of a generator to that behind each number

Ids = Sequence[int] | np.ndarray


class MaskedTokens(NamedTuple):
    """`tokens` i32[N] as the model sees them, `selected` bool[N]: where the original token is to be predicted."""

    tokens: np.ndarray
    selected: np.ndarray


def splitmix64(states: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Of each generator the number with this index, from 0: u64[N].

    Args:
        states, numbers: u64[N], or u64[1] for the same one throughout.
    """
    return _finalised(states + np.uint64(GAMMA) + numbers * np.uint64(GAMMA))


def _finalised(mixed: np.ndarray) -> np.ndarray:
    """Stafford's variant 13, in place."""
    shifted = np.empty_like(mixed)
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        np.right_shift(mixed, np.uint64(shift), out=shifted)
        np.bitwise_xor(mixed, shifted, out=mixed)
        np.multiply(mixed, np.uint64(multiplier), out=mixed)
    np.right_shift(mixed, np.uint64(31), out=shifted)
    return np.bitwise_xor(mixed, shifted, out=mixed)


class RowLimit(NamedTuple):
    """Rows of which none may have more than so many selected tokens.

    Attributes:
        row: i64[S], of each sequence.
        most: selected tokens of a row.
        mask_prob: as of `mask_tokens`.
    """

    row: np.ndarray
    most: int
    mask_prob: float


def mask_draws(
    seed: int, turns: int | np.ndarray, sequence_ids: Ids, lengths: Ids, limit: RowLimit | None = None
) -> np.ndarray:
    """One number for each token, from which its masking follows: u64[sum(lengths)], sequence after sequence.

    The number of a token follows from (seed, turn, sequence, its place). All sequences of a row that would have too many
    selected tokens are drawn again: with `planning.masks_per_row` these are fewer than one row in 500, so that the share of
    selected tokens is lower by less than 0.2 % of itself.

    Args:
        turns: steps or epochs, one for all or i64[S].
    """
    lengths = np.asarray(lengths)
    states = _sequence_states(seed, turns, sequence_ids)
    draws = _token_draws(states, lengths)
    if limit is None:
        return draws
    starts = np.cumsum(lengths) - lengths
    tried = _too_many(draws, lengths, np.arange(len(lengths)), limit)
    while tried.size:
        states[tried] = splitmix64(states[tried], np.full(1, AGAIN, np.uint64))
        again = _token_draws(states[tried], lengths[tried])
        draws[np.repeat(starts[tried], lengths[tried]) + flat_positions(lengths[tried])] = again
        tried = _too_many(again, lengths[tried], tried, limit)
    return draws


def _too_many(draws: np.ndarray, lengths: np.ndarray, sequences: np.ndarray, limit: RowLimit) -> np.ndarray:
    """Of some sequences with these draws, all of their rows, those whose rows have too many selected tokens."""
    row = limit.row[sequences]
    selected = np.bincount(row, selected_counts(draws, lengths, limit.mask_prob))
    return sequences[selected[row] > limit.most]


def selected_counts(draws: np.ndarray, lengths: np.ndarray, mask_prob: float) -> np.ndarray:
    """Of each sequence, of at least one token, how many of its draws select, special tokens included: i64[S]."""
    if not len(lengths):
        return np.zeros(0, np.int64)
    return np.add.reduceat(_below(draws, mask_prob), np.cumsum(lengths) - lengths, dtype=np.int64)


def mask_tokens(
    tokens: np.ndarray,
    draws: np.ndarray,
    special: np.ndarray,
    *,
    mask_token_id: int,
    vocab_size: int,
    mask_prob: float = 0.15,
    mask_frac: float = 0.8,
    random_frac: float = 0.1,
) -> MaskedTokens:
    """Select tokens for prediction and replace them: [MASK], a uniformly random id, or left as they are.

    Args:
        tokens: i32[N], original ids.
        draws: u64[N] from `mask_draws`: a number selects its token, and as the state of a generator it says by what the token
            is replaced: the upper half of that number decides the kind, the lower half the random id.
        special: bool[V], ids that are never selected.
        mask_frac, random_frac: fractions of the selected tokens; the remainder stays unchanged. The random id comes
            from the whole vocabulary, special ids included.
    Source: Devlin et al. 2019, section 3.1; whole-vocabulary draw as in the Hugging Face collator.
    """
    chosen = np.flatnonzero(_below(draws, mask_prob))
    chosen = chosen[~special[tokens[chosen]]]
    further = splitmix64(draws[chosen], np.zeros(1, np.uint64))
    kind = (further >> np.uint64(32)) * 2.0**-32
    random_ids = ((further & np.uint64(0xFFFFFFFF)) * np.uint64(vocab_size) >> np.uint64(32)).astype(np.int32)
    kept = np.where(kind < mask_frac + random_frac, random_ids, tokens[chosen])
    inputs = tokens.astype(np.int32)
    inputs[chosen] = np.where(kind < mask_frac, np.int32(mask_token_id), kept)
    selected = np.zeros(len(tokens), bool)
    selected[chosen] = True
    return MaskedTokens(inputs, selected)


def _below(draws: np.ndarray, probability: float) -> np.ndarray:
    """Whether each draw, as a fraction of 2^64, is below a probability; 1 takes all of them, 0 none."""
    limit = int(probability * 2**64)
    return draws <= np.uint64(limit - 1) if limit else np.zeros(len(draws), bool)


def _sequence_states(seed: int, turns: int | np.ndarray, sequence_ids: Ids) -> np.ndarray:
    """State of the generator of each sequence's tokens, u64[S]."""
    state = np.array([seed & (2**64 - 1)], np.uint64)
    for taken in (np.array([MASK_STREAM]), np.atleast_1d(turns), np.asarray(sequence_ids)):
        state = splitmix64(state, taken.astype(np.uint64))
    return state


def _token_draws(states: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The first numbers of each generator, as many as a sequence has tokens, end to end."""
    starts = (np.cumsum(lengths) - lengths).astype(np.uint64)
    # Number n of all is number n - start of its generator; both parts of the product wrap around alike.
    mixed = np.repeat(states + np.uint64(GAMMA) - starts * np.uint64(GAMMA), lengths)
    count = len(mixed)
    mixed += STEPS[:count] if count <= PART else np.arange(count, dtype=np.uint64) * np.uint64(GAMMA)
    return _finalised(mixed)
