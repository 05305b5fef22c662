import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfair_jax.data.packing import first_fit_decreasing, pack_for_inference, round_up


def test_by_hand():
    placement = first_fit_decreasing(np.array([3, 9, 4, 6, 1]), 10)
    # 9 | 6 4 | 3, and the 1 goes to the first row with room
    assert placement.row.tolist() == [2, 0, 1, 1, 0]
    assert placement.offset.tolist() == [0, 0, 6, 0, 9]
    assert placement.segment.tolist() == [1, 1, 2, 1, 2]
    assert placement.num_rows == 3


def test_second_capacity_opens_a_row():
    lengths, masks = np.array([4, 3, 3]), np.array([2, 2, 0])
    assert first_fit_decreasing(lengths, 10, masks, 4).num_rows == 1
    placement = first_fit_decreasing(lengths, 10, masks, 3)
    assert placement.row.tolist() == [0, 1, 0]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(20, 40),
    st.integers(5, 8),
)
def test_no_overlap_no_overflow_and_first_fit(items, row_tokens, row_masks):
    lengths, masks = np.array(items).T
    placement = first_fit_decreasing(lengths, row_tokens, masks, row_masks)
    used = np.zeros((placement.num_rows, row_tokens), int)
    for row, offset, length in zip(placement.row, placement.offset, lengths, strict=True):
        used[row, offset : offset + length] += 1
        assert offset + length <= row_tokens
    assert used.max() == 1
    assert np.bincount(placement.row, masks, placement.num_rows).max() <= row_masks
    # plain first fit as the reference
    room: list[list[int]] = []
    for i in np.argsort(-lengths, kind="stable"):
        fits = (r for r, (tokens, left) in enumerate(room) if tokens >= lengths[i] and left >= masks[i])
        row = next(fits, len(room))
        if row == len(room):
            room.append([row_tokens, row_masks])
        room[row][0] -= lengths[i]
        room[row][1] -= masks[i]
        assert placement.row[i] == row


def test_example_too_long_for_a_row():
    with pytest.raises(ValueError, match="an example has 11 tokens and 0 masks; a row holds 10 and 0"):
        first_fit_decreasing(np.array([3, 11]), 10)
    with pytest.raises(ValueError, match="3 tokens and 7 masks; a row holds 10 and 6"):
        first_fit_decreasing(np.array([3]), 10, np.array([7]), 6)


@pytest.mark.parametrize(("value", "multiple", "expected"), [(0, 4, 4), (1, 4, 4), (4, 4, 4), (5, 4, 8), (7, 1, 7)])
def test_round_up(value, multiple, expected):
    assert round_up(value, multiple) == expected


def test_inference_rows_give_every_example_back():
    rng = np.random.default_rng(0)
    examples = [rng.integers(1, 99, rng.integers(1, 16)).astype(np.int32) for _ in range(101)]
    packed = pack_for_inference(examples, 16, row_multiple=8)
    assert packed.tokens.shape == packed.segment_ids.shape == packed.positions.shape
    assert packed.tokens.shape[0] % 8 == 0
    for example, row, offset in zip(examples, packed.row, packed.offset, strict=True):
        place = slice(offset, offset + len(example))
        np.testing.assert_array_equal(packed.tokens[row, place], example)
        np.testing.assert_array_equal(packed.positions[row, place], np.arange(len(example)))
        segment = packed.segment_ids[row, offset]
        assert segment > 0
        assert (packed.segment_ids[row, place] == segment).all()
        assert (packed.segment_ids[row] == segment).sum() == len(example)
    assert (packed.segment_ids > 0).sum() == sum(map(len, examples))
    assert not packed.tokens[packed.segment_ids == 0].any()


def test_nothing_to_pack_is_one_empty_block():
    packed = pack_for_inference([], 8, row_multiple=2)
    assert packed.tokens.shape == (2, 8)
    assert not packed.segment_ids.any()
