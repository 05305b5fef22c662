"""Dynamic masking for masked language modelling, as a pure function of (seed, step, example).

The draws come from numpy's Philox, a counter-based generator: the key holds the seed, the counter the step and the
example. Nothing has to be stored to resume, and an example's masks do not depend on what shares its batch or its row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Second word of the Philox key: keeps the streams of one seed apart by purpose.
MASK_STREAM = 0
SHUFFLE_STREAM = 1


class MaskedTokens(NamedTuple):
    """`tokens` i32[N] as the model sees them, `selected` bool[N]: where the original token is to be predicted."""

    tokens: np.ndarray
    selected: np.ndarray


def mask_draws(seed: int, step: int, example_ids: Sequence[int] | np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Uniform numbers for masking: f64[3, sum(lengths)] in [0, 1), example after example.

    The three rows decide selection, the kind of replacement and the random token. The numbers of example e follow from
    (seed, step, e, its length) alone.
    """
    counter = np.array([0, 0, step, 0], np.uint64)  # examples are 2^192 draws apart, steps 2^128
    generator = np.random.Generator(np.random.Philox(key=[seed, MASK_STREAM]))
    # Setting the state of one generator costs a tenth of building one per example.
    state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": np.array([seed, MASK_STREAM], np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    draws = []
    for example, length in zip(example_ids, lengths, strict=True):
        counter[3] = example
        generator.bit_generator.state = state
        draws.append(generator.random((3, int(length))))
    return np.concatenate(draws, axis=1)


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
        draws: f64[3, N] from `mask_draws`.
        special: bool[V], ids that are never selected.
        mask_frac, random_frac: fractions of the selected tokens; the remainder stays unchanged. The random id comes
            from the whole vocabulary, special ids included.
    Source: Devlin et al. 2019, section 3.1; whole-vocabulary draw as in the Hugging Face collator.
    """
    select, kind, replacement = draws
    selected = (select < mask_prob) & ~special[tokens]
    random_ids = (replacement * vocab_size).astype(np.int32)
    masked = selected & (kind < mask_frac)
    randomised = selected & (kind >= mask_frac) & (kind < mask_frac + random_frac)
    inputs = np.where(masked, np.int32(mask_token_id), np.where(randomised, random_ids, tokens))
    return MaskedTokens(inputs.astype(np.int32), selected)
