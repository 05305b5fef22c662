import numpy as np
import pytest

from ncfair_jax.data.masking import mask_draws, mask_tokens

VOCAB, MASK = 1000, 4
SPECIAL = np.arange(VOCAB) < 5


def masked(tokens, draws, **settings):
    return mask_tokens(tokens, draws, SPECIAL, mask_token_id=MASK, vocab_size=VOCAB, **settings)


def test_draws_depend_on_seed_step_and_example_alone():
    together = mask_draws(1, 7, [5, 900, 2], np.array([3, 10, 4]))
    np.testing.assert_array_equal(together[:, 3:13], mask_draws(1, 7, [900], np.array([10])))
    np.testing.assert_array_equal(together[:, :3], mask_draws(1, 7, [5], np.array([3])))
    others = [mask_draws(*key, np.array([3])) for key in ((2, 7, [5]), (1, 8, [5]), (1, 7, [6]), (7, 1, [5]))]
    assert not any((other == together[:, :3]).any() for other in others)


def test_draws_are_those_of_philox_at_the_named_counter():
    generator = np.random.Generator(np.random.Philox(key=[3, 0], counter=[0, 0, 11, 42]))
    np.testing.assert_array_equal(mask_draws(3, 11, [42], np.array([6])), generator.random((3, 6)))


def test_hand_made_draws():
    tokens = np.array([2, 10, 11, 12, 13, 3], np.int32)
    draws = np.array(
        [
            [0.0, 0.14, 0.16, 0.01, 0.01, 0.0],
            [0.0, 0.79, 0.0, 0.85, 0.95, 0.0],
            [0.5, 0.5, 0.5, 0.25, 0.5, 0.5],
        ]
    )
    result = masked(tokens, draws)
    assert result.selected.tolist() == [False, True, False, True, True, False]
    assert result.tokens.tolist() == [2, MASK, 11, 250, 13, 3]
    assert result.tokens.dtype == np.int32


def test_frequencies_within_four_sigma_on_a_hundred_thousand_tokens():
    rng = np.random.default_rng(0)
    lengths = np.full(2000, 50)
    tokens = rng.integers(5, VOCAB, lengths.sum()).astype(np.int32)
    specials = rng.random(tokens.size) < 0.04
    tokens[specials] = rng.integers(0, 5, specials.sum())
    result = masked(tokens, mask_draws(0, 0, range(2000), lengths))
    assert not result.selected[SPECIAL[tokens]].any()
    np.testing.assert_array_equal(result.tokens[~result.selected], tokens[~result.selected])

    def within_four_sigma(hits: int, trials: int, probability: float) -> bool:
        return abs(hits - trials * probability) <= 4 * np.sqrt(trials * probability * (1 - probability))

    chosen = result.selected.sum()
    assert within_four_sigma(chosen, (~SPECIAL[tokens]).sum(), 0.15)
    became_mask = (result.tokens == MASK)[result.selected].sum()
    unchanged = (result.tokens == tokens)[result.selected].sum()
    # A random token is [MASK] or the token itself once in V draws each.
    assert within_four_sigma(became_mask, chosen, 0.8 + 0.1 / VOCAB)
    assert within_four_sigma(unchanged, chosen, 0.1 + 0.1 / VOCAB)
    randomised = result.tokens[result.selected & (result.tokens != MASK) & (result.tokens != tokens)]
    assert within_four_sigma((randomised < VOCAB // 2).sum(), randomised.size, 0.5)
    assert randomised.max() > VOCAB * 0.98


@pytest.mark.parametrize(("prob", "expected"), [(0.0, 0), (1.0, 40)])
def test_extremes(prob, expected):
    tokens = np.full(40, 9, np.int32)
    result = masked(tokens, mask_draws(0, 0, [0], np.array([40])), mask_prob=prob, mask_frac=1.0, random_frac=0.0)
    assert result.selected.sum() == expected == (result.tokens == MASK).sum()
