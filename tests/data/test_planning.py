import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ncfair_jax.data.packing import Placement
from ncfair_jax.data.planning import best_fit, in_rows, masks_per_row, plan, relieved, row_sizes, sized


def gap_like(count: int, seed: int = 0) -> np.ndarray:
    """Lengths with the mean and the spread of GAP's sentences."""
    return np.random.default_rng(seed).normal(30, 13, count).clip(5, 128).astype(int)


def plain_best_fit(lengths: list[int], row_tokens: int) -> list[int]:
    """What is left of each row, by the definition: one example after the other, each row looked at."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r, left in enumerate(room) if left >= length]
        row = min(fitting, key=lambda r: room[r], default=None)
        if row is None:
            room.append(row_tokens - length)
        else:
            room[row] -= length
    return sorted(room)


def assert_placed(placement: Placement, lengths: np.ndarray, row_tokens: int) -> None:
    """Every example lies in its row beside the others, and the segments of a row count from 1 in the order of its columns."""
    for number in range(placement.num_rows):
        members = np.flatnonzero(placement.row == number)
        members = members[np.argsort(placement.offset[members])]
        ends = np.cumsum(lengths[members])
        assert len(members) and ends[-1] <= row_tokens
        assert placement.offset[members].tolist() == (ends - lengths[members]).tolist()
        assert placement.segment[members].tolist() == list(range(1, len(members) + 1))
    assert len(lengths) == 0 or placement.row.max() + 1 == placement.num_rows


def test_by_hand():
    placement = best_fit(np.array([3, 9, 4, 6, 1, 1]), 10)
    # 9 | 6 4 | 3, and the ones fill the fullest rows that have room
    assert placement.row.tolist() == [2, 0, 1, 1, 0, 2]
    assert placement.offset.tolist() == [0, 0, 6, 0, 9, 3]
    assert placement.segment.tolist() == [1, 1, 2, 1, 2, 2]
    assert placement.num_rows == 3


@given(st.lists(st.integers(1, 40), max_size=120), st.integers(40, 70))
def test_rows_are_those_of_best_fit_decreasing(lengths, row_tokens):
    array = np.array(lengths, np.int64)
    placement = best_fit(array, row_tokens)
    assert_placed(placement, array, row_tokens)
    filled = np.bincount(placement.row, array, placement.num_rows)
    assert sorted((row_tokens - filled).astype(int).tolist()) == plain_best_fit(lengths, row_tokens)
    again = in_rows(placement.row, array) if lengths else placement
    assert_placed(again, array, row_tokens)


def test_a_large_plan_is_full_and_its_cost_does_not_grow_with_the_examples():
    lengths = gap_like(50_000)
    placement = best_fit(lengths, 128)
    assert lengths.sum() / (128 * placement.num_rows) > 0.995
    parts = [len(plan(np.bincount(gap_like(count), minlength=129).tolist(), 128)[0]) for count in (5_000, 500_000)]
    assert parts[1] < 2 * parts[0] < 5_000


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(20, 40),
    st.integers(5, 9),
)
def test_rows_with_too_many_masks_give_up_as_few_examples_as_do(items, row_tokens, row_masks):
    lengths, masks = np.array(items).T
    planned = best_fit(lengths, row_tokens)
    placement = relieved(planned, lengths, masks, row_tokens, row_masks)
    assert_placed(placement, lengths, row_tokens)
    of_rows = np.bincount(planned.row, masks, planned.num_rows)
    assert np.bincount(placement.row, masks, placement.num_rows).max() <= row_masks
    for row in range(planned.num_rows):
        own = np.sort(masks[planned.row == row])[::-1]
        need = next(k for k in range(len(own) + 1) if own[k:].sum() <= row_masks)
        assert np.sum(placement.row[planned.row == row] != row) <= need
    if of_rows.max() <= row_masks:
        assert placement is planned


def test_capacity_is_exceeded_by_fewer_than_one_in_five_hundred_full_rows():
    for tokens in (32, 128, 512, 4096):
        for share in (0.05, 0.15, 0.5, 0.9):
            most = masks_per_row(tokens, share)
            assert most % 8 == 0
            assert stats.binom.sf(most, tokens, share) < 2e-3
            assert most <= 8 or stats.binom.sf(most - 8, tokens, share) > 2e-3 or most - 8 >= tokens
    assert masks_per_row(128, 0.15) == 32
    assert (masks_per_row(128, 1.0), masks_per_row(128, 0.0)) == (128, 8)


@pytest.mark.parametrize(
    ("examples", "multiple", "padding"), [(16, 1, 0.16), (64, 1, 0.1), (256, 1, 0.1), (1024, 8, 0.1)]
)
def test_three_sizes_serve_a_thousand_batches(examples, multiple, padding):
    def batch(seed):
        lengths = gap_like(examples, seed)
        return best_fit(lengths, 128).num_rows, lengths.sum()

    rows, tokens = np.array([batch(seed) for seed in range(64)]).T
    sizes = row_sizes(rows, tokens, 128, multiple)
    assert len(sizes) <= 3 and all(size % multiple == 0 for size in sizes)
    found = [batch(seed) for seed in range(1000, 2000)]
    used = [sized(needed, sizes) for needed, _ in found]
    assert set(used) <= set(sizes)
    assert all(size >= needed for size, (needed, _) in zip(used, found, strict=True))
    assert 1 - sum(tokens for _, tokens in found) / (128 * sum(used)) < padding


def test_batches_that_are_all_alike_have_one_size_and_larger_ones_grow_by_eighths():
    assert row_sizes(np.array([7, 7]), np.array([800, 800]), 128, 2) == (8,)
    assert [sized(rows, (16, 24, 64)) for rows in (1, 16, 17, 30, 64, 65, 100)] == [16, 16, 24, 64, 64, 72, 104]
    assert sized(9, (8,)) == 16
    assert sized(130, (127,)) % 127 == 0
    assert math.gcd(*(sized(rows, (12, 18, 90)) for rows in range(1, 400))) == 6
