import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from ncfair_jax.data import layout, pipeline
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.gap import read_gap
from ncfair_jax.data.layout import PipelineConfig
from ncfair_jax.data.pipeline import Examples, Pipeline, process_rows
from ncfair_jax.data.planning import masks_per_row
from ncfair_jax.lexicons.classes import build_classes
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.vocabulary import WordBoundaries

VOCAB, CLS, SEP, MASK = 90, 1, 2, 3
SPECIAL = [0, CLS, SEP, MASK]
CLASS_IDS = np.array([10, 11, 20, 50], np.int32)
SLOTS = np.full(VOCAB, 4, np.int32)
SLOTS[CLASS_IDS] = np.arange(4)


def corpus(count: int, longest: int = 20, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.array([CLS, *rng.integers(4, VOCAB, rng.integers(1, longest - 1)), SEP], np.int32) for _ in range(count)]


def make(examples=None, slots=SLOTS, boundaries=None, **changes) -> Pipeline:
    config = PipelineConfig(**{"seed": 1, "batch_size": 8, "row_tokens": 32} | changes)
    examples = corpus(50) if examples is None else examples
    examples = examples if isinstance(examples, Examples) else Examples(examples)
    words = {"slot_of_token": slots, "boundaries": boundaries}
    return Pipeline(examples, config, special_ids=SPECIAL, mask_token_id=MASK, vocab_size=VOCAB, **words)


def rows_of(batch, name):
    """[A,R/A,...] as [R,...]."""
    return batch[name].reshape(-1, batch[name].shape[-1])


def restore(batch) -> list[tuple[int, ...]]:
    """The original examples of a batch, read back from its rows."""
    tokens, segments = rows_of(batch, "tokens").copy(), rows_of(batch, "segment_ids")
    used = rows_of(batch, "masked_weights") > 0
    row = np.nonzero(used)[0]
    tokens[row, rows_of(batch, "masked_positions")[used]] = rows_of(batch, "masked_labels")[used]
    return [
        tuple(line[segment == number].tolist())
        for line, segment in zip(tokens, segments, strict=True)
        for number in range(1, segment.max() + 1)
    ]


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    accumulation=st.integers(1, 3),
    row_multiple=st.integers(1, 6),
    mask_prob=st.sampled_from([0.0, 0.15, 0.5, 1.0]),
    seed=st.integers(0, 2**62),
    step=st.integers(0, 200),
)
def test_every_batch_holds_its_examples_once_with_their_tokens(
    count, batch_size, accumulation, row_multiple, mask_prob, seed, step
):
    examples = corpus(count, longest=30, seed=seed)
    pipeline = make(
        examples,
        batch_size=batch_size,
        accumulation=accumulation,
        row_multiple=row_multiple,
        mask_prob=mask_prob,
        seed=seed,
    )
    batch = pipeline.batch(step)
    ids = pipeline.example_ids(step)
    assert sorted(restore(batch)) == sorted(tuple(examples[i].tolist()) for i in ids)
    assert batch["num_examples"] == len(ids) > 0
    assert batch["step"] == step
    assert batch["tokens"].shape[0] == accumulation
    assert (batch["tokens"].shape[0] * batch["tokens"].shape[1]) % row_multiple == 0
    # no two weights on one position, no special or pad selected
    used = rows_of(batch, "masked_weights") > 0
    pairs = list(zip(np.nonzero(used)[0], rows_of(batch, "masked_positions")[used], strict=True))
    assert len(pairs) == len(set(pairs))
    assert not np.isin(rows_of(batch, "masked_labels")[used], SPECIAL).any()
    assert all(rows_of(batch, "segment_ids")[row, column] > 0 for row, column in pairs)
    if mask_prob == 1.0:
        assert used.sum() == sum(len(examples[i]) - 2 for i in ids)  # none dropped
    for name, array in batch.items():
        assert array.dtype == (np.float32 if name == "masked_weights" else np.int32), name


def test_positions_restart_in_every_segment_and_pads_are_empty():
    batch = make().batch(0)
    tokens, segments, positions = (rows_of(batch, name) for name in ("tokens", "segment_ids", "positions"))
    for segment, position in zip(segments, positions, strict=True):
        for number in range(1, segment.max() + 1):
            np.testing.assert_array_equal(position[segment == number], np.arange((segment == number).sum()))
    assert not tokens[segments == 0].any()
    assert not positions[segments == 0].any()
    assert (rows_of(batch, "slots")[segments == 0] == 4).all()


@pytest.mark.parametrize("labels", ["original", "input"])
@pytest.mark.parametrize("alignment", ["same", "next"])
def test_slots_against_a_plain_loop(labels, alignment):
    batch = make(alignment=alignment, labels=labels, mask_prob=0.4).batch(2)
    tokens, segments = rows_of(batch, "tokens").copy(), rows_of(batch, "segment_ids")
    if labels == "original":
        used = rows_of(batch, "masked_weights") > 0
        tokens[np.nonzero(used)[0], rows_of(batch, "masked_positions")[used]] = rows_of(batch, "masked_labels")[used]
    expected = np.full(tokens.shape, 4)
    for r, t in itertools.product(range(tokens.shape[0]), range(tokens.shape[1])):
        source = t if alignment == "same" else t + 1
        if source < tokens.shape[1] and segments[r, t] and segments[r, source] == segments[r, t]:
            expected[r, t] = SLOTS[tokens[r, source]]
    np.testing.assert_array_equal(rows_of(batch, "slots"), expected)
    assert (expected < 4).any()


def test_without_classes_and_with_more_embeddings_than_tokens():
    assert not make(slots=None).batch(0)["slots"].any()  # K = 0
    short = make(slots=SLOTS[:80]).batch(0)["slots"]
    full = make(slots=np.append(SLOTS[:80], [4] * 10).astype(np.int32)).batch(0)["slots"]
    np.testing.assert_array_equal(short, full)


def test_batches_do_not_depend_on_what_was_asked_before():
    first, second = make(), make()
    wanted = first.batch(11)
    for step in (3, 40, 0):
        second.batch(step)
    for name, value in second.batch(11).items():
        np.testing.assert_array_equal(value, wanted[name])


def test_each_epoch_is_a_new_permutation_with_a_short_last_batch():
    pipeline = make()
    assert (pipeline.num_examples, pipeline.steps_per_epoch) == (50, 7)
    epochs = [np.concatenate([pipeline.example_ids(7 * epoch + i) for i in range(7)]) for epoch in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(50))
    assert len(pipeline.example_ids(6)) == 2
    assert len({tuple(order) for order in epochs}) == 3
    assert make(seed=2).example_ids(0).tolist() != pipeline.example_ids(0).tolist()


def test_masks_of_an_example_follow_from_seed_step_and_example():
    examples = corpus(50)

    def masked_examples(**changes):
        pipeline = make(examples, **changes)
        found = {}
        batch = pipeline.batch(3)
        tokens, segments = rows_of(batch, "tokens"), rows_of(batch, "segment_ids")
        for line, segment, original in zip(tokens, segments, rows_of(restored(batch), "tokens"), strict=True):
            for number in range(1, segment.max() + 1):
                found[tuple(original[segment == number])] = tuple(line[segment == number])
        return found

    def restored(batch):
        batch = batch | {"tokens": batch["tokens"].copy()}
        for micro in range(batch["tokens"].shape[0]):
            used = batch["masked_weights"][micro] > 0
            place = np.nonzero(used)[0], batch["masked_positions"][micro][used]
            batch["tokens"][micro][place] = batch["masked_labels"][micro][used]
        return batch

    whole = masked_examples(batch_size=50)
    packed_otherwise = masked_examples(batch_size=50, row_tokens=64, row_multiple=4, accumulation=2)
    assert whole == packed_otherwise
    partners = masked_examples(batch_size=5)
    assert len(partners) == 5
    assert all(whole[original] == inputs for original, inputs in partners.items())
    assert any(original != inputs for original, inputs in whole.items())


def long_sentence(**changes):
    return make(Examples([np.array([CLS, *range(10, 40), SEP], np.int32)], **changes), mask_prob=0.15)


def test_where_rows_are_not_planned_before_one_sentence_with_more_masks_doubles_them(monkeypatch):
    monkeypatch.setattr(layout, "masks_per_row", lambda row_tokens, mask_prob: 8)
    together = long_sentence(apart=False)
    shapes = {step: together.batch(step)["masked_weights"] for step in range(60)}
    for weights in shapes.values():
        assert weights.shape[-1] == (8 if weights.sum() <= 8 else 16)
    assert {weights.shape[-1] for weights in shapes.values()} == {8, 16}


def test_where_rows_are_planned_a_sentence_with_more_masks_is_drawn_again(monkeypatch):
    monkeypatch.setattr(pipeline, "masks_per_row", lambda row_tokens, mask_prob: 8)
    apart = long_sentence()
    counts = [apart.batch(step)["masked_weights"] for step in range(60)]
    assert {weights.shape[-1] for weights in counts} == {8}
    assert {int(weights.sum()) for weights in counts} >= {3, 4, 5, 6, 7, 8}


@pytest.mark.parametrize(
    ("tokens", "prob", "expected"), [(128, 0.15, 32), (512, 0.15, 104), (128, 0.0, 8), (128, 1.0, 128)]
)
def test_masks_per_row(tokens, prob, expected):
    assert masks_per_row(tokens, prob) == expected


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_share_the_rows_of_one_packing(process_count):
    pipeline = make(batch_size=24, accumulation=2, row_multiple=16)
    shares = [list(pipeline.batches(2, 5, index, process_count)) for index in range(process_count)]
    for step, parts in zip(range(2, 5), zip(*shares, strict=True), strict=True):
        for name, whole in pipeline.batch(step).items():
            if whole.ndim:
                np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], axis=1), whole)
            else:
                assert all(part[name] == whole for part in parts)


def test_rows_that_do_not_divide_over_the_processes():
    batch = make(row_multiple=2).batch(0)
    with pytest.raises(ValueError, match="rows a micro-batch do not divide over 5 processes: make row_multiple"):
        process_rows(batch, 0, 5)
    with pytest.raises(ValueError, match="do not divide over 5 processes"):  # also from the prefetching thread
        next(make(row_multiple=2).batches(0, 1, 0, 5))


def test_stopping_early_and_an_empty_range():
    iterator = make().batches(0, 10_000)
    assert [int(next(iterator)["step"]) for _ in range(3)] == [0, 1, 2]
    iterator.close()
    assert list(make().batches(4, 4)) == []


def test_fingerprint_follows_tokens_and_boundaries():
    examples = corpus(5)
    assert make(examples).fingerprint == make(examples, seed=9).fingerprint
    joined = [np.concatenate(examples[:2]), *examples[2:]]
    assert len({make(e, row_tokens=64).fingerprint for e in (examples, examples[:4], joined)}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0; must be at least 1"),
        ({"seed": -1}, "seed=-1; must not be negative"),
        ({"mask_prob": 1.5}, "mask_prob=1.5; must lie between 0 and 1"),
        ({"mask_frac": 0.8, "random_frac": 0.3}, "must not exceed 1"),
        ({"alignment": "last"}, r"alignment='last'; choose from \['next', 'same'\]"),
        ({"labels": "mine"}, r"labels='mine'; choose from \['input', 'original'\]"),
        ({"row_tokens": 8}, "tokens, rows hold 8: encode with max_tokens <= row_tokens"),
        ({"examples": []}, "the corpus holds no examples"),
        ({"examples": [np.array([1, 95, 2], np.int32)]}, "token ids reach from 1 to 95, the vocabulary has 90"),
    ],
)
def test_faults(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


# Tokens 70 to 89 continue a word, as ## pieces do.
BOUNDARIES = WordBoundaries(np.arange(VOCAB) < 70, np.zeros(VOCAB, np.int8), np.zeros(VOCAB, np.int8))
FRAGMENTS = [np.array([CLS, 10, 70, 10, 11, 4, 20, 71, 50, SEP], np.int32)] * 4  # whole: the second 10, 11, 50


def slots_of(batch) -> list[list[int]]:
    """Slots of every example of a batch."""
    slots, segments = rows_of(batch, "slots"), rows_of(batch, "segment_ids")
    return [
        slots[row][segments[row] == s].tolist() for row in range(len(slots)) for s in range(1, segments[row].max() + 1)
    ]


@pytest.mark.parametrize("mask_prob", [0.0, 0.9])
@pytest.mark.parametrize("alignment", ["same", "next"])
def test_a_fragment_is_no_class_whatever_is_masked(mask_prob, alignment):
    pipeline = make(FRAGMENTS, boundaries=BOUNDARIES, mask_prob=mask_prob, alignment=alignment)
    same = [4, 4, 4, 0, 1, 4, 4, 4, 3, 4]
    for step in range(5):
        assert slots_of(pipeline.batch(step)) == [same if alignment == "same" else [*same[1:], 4]] * 4
    everywhere = slots_of(make(FRAGMENTS, mask_prob=mask_prob).batch(0))[0]
    assert everywhere == [4, 0, 4, 0, 1, 4, 2, 4, 3, 4]


def test_with_labels_of_the_input_the_place_decides_and_the_seen_token_names_the_class():
    settings = {"labels": "input", "mask_prob": 1.0, "mask_frac": 0.0, "random_frac": 1.0}
    pipeline = make(FRAGMENTS, boundaries=BOUNDARIES, **settings)
    whole = np.array([False, False, False, True, True, True, False, False, True, False])
    listed = 0
    for step in range(40):
        batch = pipeline.batch(step)
        tokens, segments = rows_of(batch, "tokens"), rows_of(batch, "segment_ids")
        seen = [
            tokens[row][segments[row] == s] for row in range(len(tokens)) for s in range(1, segments[row].max() + 1)
        ]
        for ours, ids in zip(slots_of(batch), seen, strict=True):
            assert ours == np.where(whole, SLOTS[ids], 4).tolist()
            listed += int(np.sum(SLOTS[ids] < 4))
    assert listed > 20


@pytest.fixture(scope="module")
def gap_pipeline(shared):
    tokenizer = BertTokenizerFast(vocab=str(shared("data/vocab/bert-base-uncased-vocab.txt")), do_lower_case=True)
    examples = encode_sentences(read_gap(shared("data/gap/gap_flipped.tsv")), tokenizer, 128)
    classes = build_classes(load_lexicon("gender"), tokenizer)

    def build(**changes) -> Pipeline:
        return Pipeline(
            Examples(examples),
            PipelineConfig(**{"seed": 42, "batch_size": 64} | changes),
            special_ids=tokenizer.all_special_ids,
            mask_token_id=tokenizer.mask_token_id,
            vocab_size=len(tokenizer),
            slot_of_token=classes.slot_of_token,
            boundaries=classes.boundaries,
        )

    return build


def test_a_corpus_of_special_tokens_only_is_refused():
    message = "the corpus holds only special tokens, such as that for unknown words"
    with pytest.raises(ValueError, match=message):
        make([np.array([CLS, MASK, SEP], np.int32), np.array([CLS, SEP], np.int32)])
    make([np.array([CLS, MASK, SEP], np.int32), np.array([CLS, 5, SEP], np.int32)])


def test_gap_epoch_wastes_below_ten_percent_in_a_handful_of_shapes(gap_pipeline):
    pipeline = gap_pipeline()
    start = time.process_time()
    batches = [pipeline.batch(step) for step in range(pipeline.steps_per_epoch)]
    milliseconds = (time.process_time() - start) / len(batches) * 1000
    assert np.mean([pipeline.waste(batch) for batch in batches]) < 0.10
    assert len({batch["tokens"].shape for batch in batches}) <= 3
    assert {batch["masked_labels"].shape[-1] for batch in batches} == {32}
    assert milliseconds < 10  # 0.7 on an idle core; the bound leaves room for a busy machine
    masked = sum(batch["masked_weights"].sum() for batch in batches)
    words = sum((batch["segment_ids"] > 0).sum() for batch in batches) - 2 * pipeline.num_examples
    assert abs(masked - 0.15 * words) < 4 * np.sqrt(words * 0.15 * 0.85)
    assert sum(int(batch["num_examples"]) for batch in batches) == pipeline.num_examples
    assert sum((batch["slots"] < batch["slots"].max()).sum() for batch in batches) > 10_000
