"""Few shapes, few pads: row lengths, batch sizes, regrouped rows."""

import numpy as np

from ncfair_jax.engine import batching


def test_row_lengths_are_those_that_take_less_time():
    """At D = 768: 40 tokens leave 24 pads in a row of 64 and 8 in one of 128; 20 tokens fit rows of 64 as well."""
    assert batching.cheaper_row(np.full(300, 40), 64, 768) == 128
    assert batching.cheaper_row(np.full(300, 20), 64, 768) == 64
    assert batching.cheaper_row(np.full(300, 40), 64, 8) == 64  # a narrow layer spends most on attention
    assert [row for row, _ in batching.buckets(np.repeat([40, 80], 3), 768)] == [128, 256]
    found = list(batching.buckets(np.array([40] * 300 + [120] * 300), 768))  # both go to rows of 128: one packing
    assert [(row, len(members)) for row, members in found] == [(128, 600)]
    assert list(batching.buckets(np.zeros(0, np.int64), 768)) == []


def test_all_but_small_sets_share_one_batch_size():
    assert {batching.batch_size(rows, 32) for rows in range(8, 1000)} == {32}
    assert [batching.batch_size(rows, 32) for rows in (1, 2, 3, 5, 7)] == [1, 2, 4, 8, 8]
    assert [batching.batch_size(rows, 32, devices=8) for rows in (1, 9, 50, 64, 1000)] == [1, 2, 8, 32, 32]
    assert [batching.batch_size(1000, most) for most in (0, 1, 3, 64, 100)] == [1, 1, 2, 64, 64]


def test_power_of_two():
    assert [batching.power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 64, 65)] == [1, 1, 2, 4, 4, 8, 64, 128]


def test_regrouped_rows_are_the_same_rows():
    pieces = [np.arange(2 * n).reshape(n, 2) + 100 * i for i, n in enumerate((3, 0, 1, 9, 2))]
    groups = list(batching.regroup(pieces, 4))
    assert [len(group) for group in groups] == [4, 4, 4, 4]
    np.testing.assert_array_equal(np.concatenate(groups)[:15], np.concatenate(pieces))
    assert not groups[-1][3:].any()
    assert list(batching.regroup([], 4)) == list(batching.regroup([np.zeros((0, 2))], 4)) == []
    assert [len(group) for group in batching.regroup(iter(pieces[:1]), 3)] == [3]


def test_results_are_fetched_one_behind():
    """The batch after a result has been asked for by the time the result is handed out."""
    asked = []
    seen = [(value, list(asked)) for value in batching.fetched((asked.append(i) or np.array(i)) for i in range(3))]
    assert [int(value) for value, _ in seen] == [0, 1, 2]
    assert [done for _, done in seen] == [[0, 1], [0, 1, 2], [0, 1, 2]]
    assert list(batching.fetched([])) == []
