"""The permutation test of splits, exact and sampled, against plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest

from ncfair_jax.benchmarks.splits import MOST_SPLITS, SplitTest, split_tests


def test_exact_p_by_hand():
    # Of the 6 splits of 1, 3 | 0, 2 only {2, 3} exceeds the sum 4, and {1, 3} equals it.
    assert split_tests([(np.array([1.0, 3.0]), np.array([0.0, 2.0]))]) == [SplitTest(2 / 6, 6)]


def test_equal_sums_count_whatever_their_order_of_addition():
    values = np.array([0.1, 0.2, 0.3, 0.3])
    assert split_tests([(values[:2], values[2:])]) == [SplitTest(1.0, 6)]
    assert split_tests([(np.full(3, 0.1), np.full(3, 0.1))]) == [SplitTest(1.0, 20)]


def test_exact_with_sides_of_unequal_size_equals_a_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.3, 1, 3), rng.normal(0, 1, 6)
    together = np.concatenate([x, y])
    sums = [together[list(chosen)].sum() for chosen in combinations(range(9), 3)]
    assert split_tests([(x, y)]) == [SplitTest(np.mean(np.array(sums) >= x.sum() - 1e-9), math.comb(9, 3))]


def test_sampled_p_agrees_with_a_loop_and_does_not_depend_on_the_other_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.2, 1, 15), rng.normal(0, 1, 15)
    alone = split_tests([(x, y)])[0]
    together = np.concatenate([x, y])
    plain = np.mean([rng.permutation(together)[:15].sum() >= x.sum() for _ in range(20_000)])
    assert alone.splits == MOST_SPLITS
    assert 0.01 < alone.p < 0.99
    assert alone.p == pytest.approx(plain, abs=4 * np.sqrt(plain * (1 - plain) * (1e-5 + 1 / 20_000)))
    assert split_tests([(y, x), (x[:2], y[:2]), (x, y)])[2] == alone


def test_sampled_p_is_never_zero():
    assert split_tests([(np.arange(100.0, 115), np.arange(15.0))]) == [SplitTest(1 / MOST_SPLITS, MOST_SPLITS)]


def test_an_empty_side_is_refused():
    with pytest.raises(ValueError, match="both sides"):
        split_tests([(np.zeros(0), np.ones(2))])
