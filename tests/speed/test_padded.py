"""The padded form of a packed batch holds the same sentences with the same masks."""

from itertools import chain

import numpy as np
import pytest

from ncfair_jax.data.masking import mask_draws, mask_tokens
from ncfair_jax.speed.padded import IGNORED, Scored, Sentence, load_ragged, pad, save_ragged, unpack
from tests import tiny


def masked_by_hand(pipeline, step: int) -> list[tuple[list[int], list[int]]]:
    """Inputs and labels of a step's examples, without the pipeline's packing."""
    special = np.zeros(tiny.VOCAB, bool)
    special[[tiny.PAD, tiny.CLS, tiny.SEP, tiny.MASK]] = True
    result = []
    for example in pipeline.example_ids(step):
        tokens = tiny.examples()[example]
        draws = mask_draws(pipeline.config.seed, step, [example], np.array([len(tokens)]))
        masked = mask_tokens(tokens, draws, special, mask_token_id=tiny.MASK, vocab_size=tiny.VOCAB)
        labels = np.where(masked.selected, tokens, IGNORED)
        result.append((masked.tokens.tolist(), labels.tolist()))
    return sorted(result)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_unpack_gives_back_the_masked_sentences(accumulation):
    pipeline = tiny.pipeline(accumulation=accumulation, row_multiple=2 * accumulation)
    sentences = unpack(pipeline.batch(3))
    assert sorted((s.tokens.tolist(), s.labels.tolist()) for s in sentences) == masked_by_hand(pipeline, 3)
    assert any((s.labels != IGNORED).any() for s in sentences)
    for sentence in sentences:
        original = np.where(sentence.labels == IGNORED, sentence.tokens, sentence.labels)
        assert sentence.slots.tolist() == tiny.classes().slot_of_token[original].tolist()


def test_pad():
    sentences = [
        Sentence(np.array([1, 7, 2]), np.array([IGNORED, 9, IGNORED]), np.array([6, 3, 6])),
        Sentence(np.array([1, 2]), np.array([IGNORED] * 2), np.array([6, 6])),
    ]
    batch = pad(sentences, 4, pad_token_id=3, no_class=6)
    assert batch.tokens.tolist() == [[1, 7, 2, 3], [1, 2, 3, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, 9, IGNORED, IGNORED], [IGNORED] * 4]
    assert batch.slots.tolist() == [[6, 3, 6, 6], [6, 6, 6, 6]]
    with pytest.raises(ValueError, match="3 tokens, rows are padded to 2"):
        pad(sentences, 2, 3, 6)


def test_stored_groups_come_back(tmp_path):
    groups = [
        [
            Scored(np.array([4, 5, 6]), np.array([1]), np.array([9])),
            Scored(np.array([4]), np.array([0, 0]), np.array([1, 2])),
        ],
        [Scored(np.array([7, 8]), np.array([1]), np.array([3]))],
    ]
    save_ragged(tmp_path / "x.npz", groups)
    loaded = load_ragged(tmp_path / "x.npz", Scored)
    assert [len(group) for group in loaded] == [2, 1]
    for ours, theirs in zip(chain(*loaded), chain(*groups), strict=True):
        assert [part.tolist() for part in ours] == [part.tolist() for part in theirs]
