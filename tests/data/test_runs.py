import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfair_jax.data import runs
from ncfair_jax.data.runs import Runs, equal_runs, group_runs, parts, split


@given(st.integers(0, 50), st.integers(1, 20), st.integers(0, 9))
def test_equal_runs_are_those_of_numpy(length, number, start):
    found = equal_runs(range(start, start + length), number)
    assert [list(run) for run in found] == [x.tolist() for x in np.array_split(np.arange(length) + start, number)]


def test_no_examples_are_no_groups():
    assert group_runs(0, 20) == []
    assert group_runs(3, 20) == [range(1), range(1, 2), range(2, 3)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))), st.slices(30))
def test_runs_are_the_lists_end_to_end(chosen, index):
    examples = [np.array([number]) for number in range(20)]
    joined = Runs(examples, [range(start, start + length) for start, length in chosen])
    wanted = [start + i for start, length in chosen for i in range(length)]
    assert [int(x[0]) for x in joined[index]] == wanted[index]
    assert [int(x[0]) for x in joined] == wanted
    assert len(joined) == len(wanted)
    if wanted:
        assert int(joined[-1][0]) == wanted[-1]
    with pytest.raises(IndexError):
        joined[len(wanted)]


def test_parts_are_few_and_equal(monkeypatch):
    monkeypatch.setattr(runs, "PART", 4)
    examples = [np.array([number]) for number in range(10)]
    assert [[int(x[0]) for x in part] for part in parts(examples)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [[int(x[0]) for x in part] for part in parts(examples, range(2, 7))] == [[2, 3, 4], [5, 6]]
    assert list(parts([])) == []


@given(st.integers(1, 60), st.integers(1, 20), st.floats(0, 0.99))
def test_a_split_keeps_the_groups(length, groups, held_out):
    """The collected examples, cut into groups again, are those of the groups before the split."""
    examples = [np.array([number]) for number in range(length)]
    collected, _ = split(examples, groups, held_out)
    cut = [run[: len(run) - int(held_out * len(run))] for run in group_runs(length, groups)]
    regrouped = [[int(x[0]) for x in collected[run.start : run.stop]] for run in group_runs(len(collected), groups)]
    assert regrouped == [list(run) for run in cut]
