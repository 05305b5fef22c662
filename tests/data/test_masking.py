import numpy as np
import pytest
from scipy import stats

from ncfair_jax.data.masking import RowLimit, mask_draws, mask_tokens, selected_counts, splitmix64
from ncfair_jax.data.planning import masks_per_row

VOCAB, MASK = 1000, 4
SPECIAL = np.arange(VOCAB) < 5
WORD = 2**64 - 1


def by_hand(state: int, number: int) -> int:
    """A number of SplitMix64 as its authors write it down, in Python's integers."""
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def masked(tokens, draws, **settings):
    return mask_tokens(tokens, draws, SPECIAL, mask_token_id=MASK, vocab_size=VOCAB, **settings)


def test_published_numbers():
    """Those that Rosetta Code lists of seed 1234567, and the first ones of splitmix64.c from seed 0."""
    seeds = {
        1234567: [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ],
        0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC],
    }
    for seed, published in seeds.items():
        found = splitmix64(np.array([seed], np.uint64), np.arange(len(published), dtype=np.uint64))
        assert found.tolist() == published == [by_hand(seed, n) for n in range(len(published))]


def test_draws_depend_on_seed_step_and_example_alone():
    together = mask_draws(1, 7, [5, 900, 2], np.array([3, 10, 4]))
    np.testing.assert_array_equal(together[3:13], mask_draws(1, 7, [900], np.array([10])))
    np.testing.assert_array_equal(together[:3], mask_draws(1, 7, [5], np.array([3])))
    mixed = mask_draws(1, np.array([7, 8, 7]), [5, 900, 2], np.array([3, 10, 4]))
    np.testing.assert_array_equal(mixed[3:13], mask_draws(1, 8, [900], np.array([10])))
    np.testing.assert_array_equal(mixed[[0, 1, 2, 13, 14, 15, 16]], together[[0, 1, 2, 13, 14, 15, 16]])
    others = [mask_draws(*key, np.array([3])) for key in ((2, 7, [5]), (1, 8, [5]), (1, 7, [6]), (7, 1, [5]))]
    assert not any((other == together[:3]).any() for other in others)


@pytest.mark.parametrize("seed", [3, 2**62, 2**64 - 1])
def test_draws_are_those_of_nested_generators(seed):
    expected = []
    for turn, sequence, length in ((11, 42, 6), (12, 0, 3), (11, 2**40, 1)):
        state = seed
        for number in (0, turn, sequence):
            state = by_hand(state, number)
        expected += [by_hand(state, place) for place in range(length)]
    found = mask_draws(seed, np.array([11, 12, 11]), np.array([42, 0, 2**40]), np.array([6, 3, 1]))
    assert found.tolist() == expected


def keyed_by(what: str) -> np.ndarray:
    """A million draws of keys that differ in one word by one."""
    count = 1000
    one, lengths = np.zeros(count, np.int64), np.full(count, 1000)
    if what == "seed":
        return np.concatenate([mask_draws(seed, 0, [0], [1000]) for seed in range(count)])
    if what == "turn":
        return mask_draws(0, np.arange(count), one, lengths)
    return mask_draws(0, 0, np.arange(count), lengths)


@pytest.mark.parametrize("what", ["seed", "turn", "sequence"])
def test_draws_are_uniform_and_neighbours_independent(what):
    draws = keyed_by(what).reshape(1000, 1000)
    for shift in (0, 24, 48, 56):  # of all parts of a number, each of 256 bins as full as the others
        bins = np.bincount((draws.ravel() >> np.uint64(shift) & np.uint64(255)).astype(int), minlength=256)
        assert stats.chisquare(bins).pvalue > 1e-4, shift
    unit = draws * 2.0**-64
    assert stats.kstest(unit.ravel(), "uniform").pvalue > 1e-4
    pairs = {
        "next place": (unit[:, :-1], unit[:, 1:]),
        "next key": (unit[:-1], unit[1:]),
        "both": (unit[:-1, 1:], unit[1:, :-1]),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4.5e-3, name  # 4.5 standard errors
        # Both in their lowest 15%, which a linear correlation need not show.
        table = [[np.sum((a < 0.15) & (b < 0.15)), np.sum((a < 0.15) & (b >= 0.15))]]
        table += [[np.sum((a >= 0.15) & (b < 0.15)), np.sum((a >= 0.15) & (b >= 0.15))]]
        assert stats.chi2_contingency(table).pvalue > 1e-4, name
    ones = np.unpackbits(draws.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 4.5 * 0.5 / np.sqrt(64e6)
    assert len(np.unique(draws)) == draws.size


def test_every_bit_of_a_key_changes_half_the_bits_of_a_draw():
    def bits(seed, turn, sequence):
        return np.unpackbits(mask_draws(seed, turn, [sequence], [64]).view(np.uint8))

    start = (5, 3, 77)
    for word in range(3):
        for bit in (0, 1, 7, 20, 40, 62):
            key = list(start)
            key[word] ^= 1 << bit
            changed = (bits(*start) != bits(*key)).mean()
            assert abs(changed - 0.5) < 4.5 * 0.5 / np.sqrt(4096), (word, bit)


def test_hand_made_draws():
    """What replaces a selected token follows from its draw by the generator of that state."""
    tokens = np.array([2, 10, 11, 12, 13, 14, 3], np.int32)
    limit = int(0.15 * 2**64)
    draws = np.array([0, limit - 1, limit, 5, 6, 9, 0], np.uint64)
    result = masked(tokens, draws)
    assert result.selected.tolist() == [False, True, False, True, True, True, False]
    assert result.tokens.dtype == np.int32
    for token, draw, chosen, seen in zip(tokens.tolist(), draws.tolist(), result.selected, result.tokens, strict=True):
        further = by_hand(draw, 0)
        kind = (further >> 32) / 2**32
        expected = MASK if kind < 0.8 else ((further & 0xFFFFFFFF) * VOCAB >> 32) if kind < 0.9 else token
        assert seen == (expected if chosen else token)


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


def test_counts_are_those_of_the_masks_and_bound_them_where_tokens_are_special():
    rng = np.random.default_rng(1)
    lengths, ids = rng.integers(1, 60, 300), rng.permutation(300)
    tokens = rng.integers(0, 10, lengths.sum()).astype(np.int32)
    draws = mask_draws(3, 5, ids, lengths)
    counts, ends = selected_counts(draws, lengths, 0.15), np.cumsum(lengths)
    words = [part.sum() for part in np.split(masked(np.full_like(tokens, 9), draws).selected, ends)[:-1]]
    assert counts.tolist() == words
    fewer = [part.sum() for part in np.split(masked(tokens, draws).selected, ends)[:-1]]
    assert np.all(fewer <= counts) and np.any(fewer < counts)


def test_rows_with_too_many_masks_are_drawn_again_whatever_stands_beside_them():
    lengths, ids, row = np.full(400, 20), np.arange(400), np.arange(400) // 2
    limit = RowLimit(row, 9, 0.15)
    free, limited = mask_draws(0, 0, ids, lengths), mask_draws(0, 0, ids, lengths, limit)
    before, after = (selected_counts(draws, np.full(200, 40), 0.15) for draws in (free, limited))
    over = before > 9
    assert 5 < over.sum() < 50 and after.max() <= 9
    np.testing.assert_array_equal(limited.reshape(200, 40)[~over], free.reshape(200, 40)[~over])
    for number in np.flatnonzero(over)[:5]:
        both = [2 * number, 2 * number + 1]
        alone = mask_draws(0, 0, both, [20, 20], RowLimit(np.zeros(2, np.int64), 9, 0.15))
        np.testing.assert_array_equal(alone, limited.reshape(200, 40)[number])
        assert not np.isin(alone, free).any()


def test_drawing_again_leaves_the_share_of_masks():
    """At the limit that a run has: 32 of 128 tokens."""
    rows = 20_000
    limit = RowLimit(np.arange(rows), masks_per_row(128, 0.15), 0.15)
    draws = mask_draws(0, 0, np.arange(rows), np.full(rows, 128), limit)
    counts = selected_counts(draws, np.full(rows, 128), 0.15)
    wanted = stats.binom(128, 0.15)
    assert wanted.sf(limit.most) < 2e-3 and counts.max() <= limit.most
    assert abs(counts.mean() / wanted.mean() - 1) < 2e-3 + 3 * wanted.std() / wanted.mean() / np.sqrt(rows)


def test_no_sequences():
    nothing = np.zeros(0, np.int64)
    assert mask_draws(0, 0, nothing, nothing, RowLimit(nothing, 9, 0.15)).size == 0
