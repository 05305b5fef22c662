"""Batches of a fixed number of rows: the same rows for any number of processes, every example once an epoch, one shape."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ncfair_jax.data import pipeline
from ncfair_jax.data.grouped import Groups
from ncfair_jax.data.layout import PipelineConfig, packed, selecting
from ncfair_jax.data.packing import FlatIndex
from ncfair_jax.data.pipeline import Examples, Pipeline
from tests.data.test_pipeline import CLS, MASK, SEP, SLOTS, SPECIAL, VOCAB, corpus, restore, rows_of


def make(examples=None, **changes) -> Pipeline:
    config = {"seed": 1, "batch_size": 0, "batch_rows": 8, "groups": 4, "row_tokens": 32} | changes
    made = examples if isinstance(examples, Examples) else Examples(corpus(400) if examples is None else examples)
    special = {"special_ids": SPECIAL, "mask_token_id": MASK, "vocab_size": VOCAB, "slot_of_token": SLOTS}
    return Pipeline(made, PipelineConfig(**config), **special)


def numbered(count: int, seed: int = 0) -> list[np.ndarray]:
    """Sentences of which each two differ, whatever is masked, in the second and third token: special ones, so never masked."""
    rng = np.random.default_rng(seed)
    return [
        np.array([CLS, *(SPECIAL[n // 4**k % 4] for k in range(6)), *rng.integers(4, VOCAB, rng.integers(1, 20)), SEP])
        for n in range(count)
    ]


def test_rows_are_full_and_have_one_shape():
    lengths = np.random.default_rng(0).normal(30, 13, 40_000).clip(5, 128).astype(int)
    sentences = [np.full(length, 7, np.int32) for length in lengths]
    pipeline = make(sentences, batch_rows=256, groups=32, row_tokens=128)
    batches = [pipeline.batch(step) for step in range(0, 3 * pipeline.steps_per_epoch, 7)]
    assert {batch["tokens"].shape for batch in batches} == {(1, 256, 128)}
    assert {batch["masked_labels"].shape for batch in batches} == {(1, 256, 32)}
    assert np.mean([pipeline.waste(batch) for batch in batches]) < 0.02
    lengths = [[len(text) for text in restore(batch)] for batch in batches]
    means = [np.mean(of_batch) for of_batch in lengths]
    assert np.std(means) < 1.0  # not the long ones first


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(24, 300),
    groups=st.sampled_from([1, 2, 4, 8]),
    each=st.integers(1, 5),
    accumulation=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**62),
)
def test_every_example_comes_once_an_epoch_and_what_is_left_goes_to_the_next(count, groups, each, accumulation, seed):
    pipeline = make(
        corpus(count, seed=seed % 1000),
        batch_rows=2 * groups * each,
        groups=groups,
        accumulation=accumulation,
        seed=seed,
    )
    epochs = 3
    steps = pipeline.steps_of(epochs)
    made, rows_of_epoch = pipeline._groups, list[int]()
    for group in range(groups):
        taken = [made.take(step, [group]) for step in range(steps)]
        assert all(len(part.starts) - 1 == 2 * each for part in taken)
        ids = np.concatenate([part.ids for part in taken])
        turns = np.concatenate([part.turns for part in taken])
        queue = [
            made._filled(group, epoch).ids for epoch in range(turns[-1] + 1)
        ]  # one epoch behind the other, none left out
        np.testing.assert_array_equal(ids, np.concatenate(queue)[: len(ids)])
        np.testing.assert_array_equal(
            turns, np.repeat(np.arange(len(queue)), [len(part) for part in queue])[: len(ids)]
        )
        rows_of_epoch.append(len(made._plan(group)[1]))
    for epoch in range(2):
        everywhere = np.concatenate([made._filled(group, epoch).ids for group in range(groups)])
        assert sorted(everywhere.tolist()) == list(range(count))
    assert max(rows_of_epoch) - min(rows_of_epoch) <= 1
    assert steps == max(1, epochs * min(rows_of_epoch) // (2 * each))


def test_a_batch_holds_its_examples_with_their_tokens():
    examples = corpus(400)
    pipeline = make(examples, accumulation=2)
    for step in (0, 3, pipeline.steps_per_epoch, 5 * pipeline.steps_per_epoch):
        batch, ids = pipeline.batch(step), pipeline.example_ids(step)
        assert sorted(restore(batch)) == sorted(tuple(examples[i].tolist()) for i in ids)
        assert batch["num_examples"] == len(ids)
        assert batch["tokens"].shape == (2, 4, 32)
        used = rows_of(batch, "masked_weights") > 0
        row = np.nonzero(used)[0]
        pairs = list(zip(row, rows_of(batch, "masked_positions")[used], strict=True))
        assert len(set(pairs)) == len(pairs) > 0
        assert not np.isin(rows_of(batch, "masked_labels")[used], SPECIAL).any()


def test_batches_do_not_depend_on_what_was_asked_before():
    first, second = make(), make()
    far = 4 * first.steps_per_epoch + 2
    for step in (3, far + 40, 0, 17):
        second.batch(step)
    for name, value in first.batch(far).items():
        np.testing.assert_array_equal(value, second.batch(far)[name], err_msg=name)
    assert make(seed=2).example_ids(0).tolist() != first.example_ids(0).tolist()
    one, other = (first.example_ids(epoch * first.steps_per_epoch).tolist() for epoch in (0, 1))
    assert one != other


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_make_the_rows_of_one(process_count, accumulation):
    settings = {"batch_rows": 16, "groups": 8, "accumulation": accumulation, "row_multiple": 8}
    whole = make(**settings)
    shares = [list(make(**settings).batches(2, 30, index, process_count)) for index in range(process_count)]
    assert 2 * whole.steps_per_epoch < 28
    for step, parts in zip(range(2, 30), zip(*shares, strict=True), strict=True):
        expected = whole.batch(step)
        for name, value in expected.items():
            if value.ndim:
                found = np.concatenate([part[name] for part in parts], axis=1)
                np.testing.assert_array_equal(found, value, err_msg=f"{name} of step {step}")
        assert sum(int(part["num_examples"]) for part in parts) == process_count * expected["num_examples"]


def test_a_process_plans_its_own_groups_alone(monkeypatch):
    steps = make(batch_rows=16, groups=8).steps_per_epoch
    planned = []
    original = Groups._plan
    monkeypatch.setattr(Groups, "_plan", lambda self, group: planned.append(group) or original(self, group))
    fresh = make(batch_rows=16, groups=8)
    for step in range(steps):
        fresh.batch(step, 1, 4)
    assert set(planned) == {2, 3}


def test_masks_follow_from_seed_epoch_and_example_whatever_the_rows():
    examples = numbered(300)

    def masked_examples(**changes):
        pipeline, found = make(examples, row_multiple=1, **changes), {}
        for step in range(pipeline.steps_of(1) - 1):
            batch = pipeline.batch(step)
            tokens, segments = rows_of(batch, "tokens"), rows_of(batch, "segment_ids")
            for line, segment in zip(tokens, segments, strict=True):
                for number in range(1, segment.max() + 1):
                    text = tuple(line[segment == number].tolist())
                    found[text[1:7]] = text
        return found

    one, other = masked_examples(), masked_examples(batch_rows=6, groups=3, row_tokens=48)
    both = one.keys() & other.keys()
    assert len(both) > 200
    assert np.mean([one[text] == other[text] for text in both]) > 0.97  # but in rows that would have too many masks
    assert any(MASK in text[7:] for text in one.values())


def test_rows_that_would_have_too_many_masks_are_drawn_again_and_nothing_is_lost(monkeypatch):
    examples = numbered(300)
    free, crowded = make(examples, mask_prob=0.3), make(examples, mask_prob=0.3)
    free = np.concatenate([rows_of(free.batch(step), "tokens") for step in range(20)])
    monkeypatch.setattr(pipeline, "masks_per_row", lambda row_tokens, mask_prob: 12)
    for step in range(crowded.steps_of(2)):
        batch = crowded.batch(step)
        assert batch["masked_labels"].shape == (1, 8, 12)
        ids = crowded.example_ids(step)
        assert sorted(restore(batch)) == sorted(tuple(examples[i].tolist()) for i in ids)
        parts = [crowded.batch(step, index, 2) for index in range(2)]
        np.testing.assert_array_equal(np.concatenate([part["tokens"] for part in parts], axis=1), batch["tokens"])
    limited = np.concatenate([rows_of(crowded.batch(step), "tokens") for step in range(20)])
    assert 2 < np.any(free != limited, axis=1).sum() < 0.3 * len(free)


def first_token(drawn, setting):
    del setting
    first = np.zeros(len(drawn.tokens), bool)
    first[np.cumsum(drawn.lengths) - drawn.lengths] = True
    return selecting(drawn, first)


def lengths_at_first(drawn, index: FlatIndex, rows: int, row_tokens: int):
    found = np.zeros((rows, row_tokens), np.int32)
    first = np.flatnonzero(index.position == 0)
    found[index.row[first], index.column[first]] = drawn.of_examples["number"]
    return {"numbers": found}


def test_other_layouts_whose_examples_stand_apart_go_by_rows_too():
    examples = corpus(200)
    layout = partial(packed, sequences=first_token, arrays=lengths_at_first)
    numbers = {"number": np.arange(200, dtype=np.int32)}
    made = Examples(examples, of_examples=numbers, layout=layout, apart=True, predicted=1)
    pipeline = make(made)
    for step in range(5):
        batch = pipeline.batch(step)
        used = rows_of(batch, "masked_weights") > 0
        at = np.nonzero(used)[0], rows_of(batch, "masked_positions")[used]
        ids = rows_of(batch, "numbers")[at]
        assert sorted(ids.tolist()) == sorted(pipeline.example_ids(step).tolist())
        assert [examples[i][0] for i in ids] == rows_of(batch, "masked_labels")[used].tolist()
        assert rows_of(batch, "positions")[at].max() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4}, "batch_rows=8 and batch_size=4; one of them must be 0"),
        ({"groups": 3}, r"batch_rows=8; must be a multiple of 3 \(groups\)"),
        ({"row_multiple": 3}, r"batch_rows=8; must be a multiple of 3 \(row_multiple and accumulation\)"),
        ({"examples": corpus(3)}, "3 examples do not fill 4 groups of rows; give more text, or fewer groups"),
        ({"examples": Examples(corpus(40), views=2)}, "batch_rows=8: these examples do not stand apart"),
        ({"examples": Examples(corpus(40), strata=np.arange(40) % 2)}, "these examples do not stand apart"),
        ({"examples": Examples(corpus(40), layout=lambda drawn, setting: {})}, "these examples do not stand apart"),
    ],
)
def test_faults(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_groups_that_do_not_divide_over_the_processes():
    with pytest.raises(ValueError, match="4 groups do not divide over 3 processes: make groups a multiple of that"):
        make().batch(0, 0, 3)
