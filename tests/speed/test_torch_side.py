"""The PyTorch contestants compute what ours computes where the definitions coincide (dropout off)."""

import dataclasses
import time

import numpy as np
import pytest

from ncfair_jax.engine import forward_of
from ncfair_jax.engine.requests import MEAN_VECTOR, Request
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.speed import compare, ours
from ncfair_jax.speed.padded import Scored, unpack

pytestmark = pytest.mark.parity
STEPS = 4


def settings(world, **changes):
    return compare.Settings(str(world / "small"), str(world / "data"), **changes)


def torch_settings(torch_side, training, folder, **changes):
    run = training.run
    fields = {
        "folder": folder,
        "token_ids": run.classes.token_ids,
        "mask_token_id": run.model.tokenizer.mask_token_id,
        "pad_token_id": 0,
        "weight": run.config.nc3.weight,
        "learning_rate": run.config.optimizer.learning_rate,
        "total_steps": STEPS,
        "dropout": False,
    }
    return torch_side.TorchSettings(**fields | changes)


@pytest.fixture(scope="module")
def training(world):
    """Ours without dropout, so that losses can be compared; on one device, as the contestants run."""
    config = ours.training_config(str(world / "small"), compare.gap_file(settings(world)), 8, STEPS, "paper")
    model = dataclasses.replace(config.model, hidden_dropout=0.0, attention_dropout=0.0)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=1e-3)  # four steps must be seen to move the loss
    return ours.Training(dataclasses.replace(config, model=model, optimizer=optimizer), range(STEPS))


def test_fair_losses_equal_ours_step_by_step(training, world):
    """MLM + 100 NC3 with clipping, AdamW and decay. 1e-4 relative: float32 sums in another order, over four updates."""
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    step = torch_side.make_step("fair", torch_settings(torch_side, training, str(world / "small")))
    batches = [training.run.pipeline.batch(k) for k in range(STEPS)]
    theirs = [step(unpack(batch)) for batch in batches]
    mine = [training.step(k) for k in range(STEPS)]
    np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    assert abs(mine[-1] - mine[0]) > 1e-2


def test_released_loss_without_regulariser_is_the_mlm_loss_of_padded_rows(training, world):
    """Padding with attended [MASK] tokens changes the loss; the release's own effect must be there."""
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    sentences = unpack(training.run.pipeline.batch(0))
    base = torch_settings(torch_side, training, str(world / "small"), weight=0.0)
    released, fair = (torch_side.make_step(style, base)(sentences) for style in torch_side.STYLES)
    assert np.isfinite(released)
    assert released == pytest.approx(fair, rel=0.5)
    assert released != pytest.approx(fair, rel=1e-6)


def test_vocabulary_sums_equal_word_sums_of_the_next_token():
    """Where nothing is padded the one-hot product and the index sum are the same sums."""
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    import torch
    from transformers import BertConfig

    config = BertConfig(vocab_size=50, hidden_size=6)
    rng = np.random.default_rng(0)
    word_ids = np.array([5, 8, 13, 21], np.int64)
    slot_of_token = np.full(50, 4)
    slot_of_token[word_ids] = np.arange(4)
    tokens = rng.integers(0, 25, (3, 9))
    slots = np.full_like(tokens, 4)
    slots[:, :-1] = slot_of_token[tokens[:, 1:]]
    batch = torch_side._tensors(torch_side.PaddedBatch(tokens, np.ones_like(tokens), tokens, slots))
    features = torch.from_numpy(rng.normal(size=(3, 9, 6)).astype(np.float32))
    moments = []
    for kind in (torch_side.VocabularySums, torch_side.WordSums):
        sums = kind(config, torch.from_numpy(word_ids))
        sums.add(features, batch)
        sums.add(features * 2, batch)
        moments.append(sums.moments())
    (count, total), (expected_count, expected_total) = moments
    assert expected_count.sum() > 0
    torch.testing.assert_close(count, expected_count)
    torch.testing.assert_close(total, expected_total)


def test_scorers_agree(world):
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    pretrained = load_pretrained(world / "small", offline=True)
    requests = compare.flat(compare.crows_requests(pretrained, settings(world, pairs=1)))[:30]
    theirs = torch_side.make_scorer(str(world / "small"))(requests)
    mine = ours.make_scorer(str(world / "small"))([Request(*request) for request in requests])
    np.testing.assert_allclose(np.concatenate(mine), np.concatenate(theirs), atol=1e-4)


def test_embedders_agree(world):
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    sequences = [np.arange(5, 5 + length) for length in (3, 12, 30)]
    nothing = np.zeros(0, np.int64)
    theirs = torch_side.make_embedder(str(world / "small"))([Scored(tokens, nothing, nothing) for tokens in sequences])
    requests = [Request(tokens.astype(np.int32), ask=MEAN_VECTOR) for tokens in sequences]
    mine = [answer.vector for answer in forward_of(load_pretrained(world / "small", offline=True))(requests)]
    np.testing.assert_allclose(mine, np.stack(theirs), atol=1e-5)


@pytest.mark.parametrize("fast", [1, 2])
def test_the_faster_number_of_threads_is_chosen(monkeypatch, fast):
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    now = {"threads": 2}
    monkeypatch.setattr(torch_side.torch, "get_num_threads", lambda: now["threads"])
    monkeypatch.setattr(torch_side.torch, "set_num_threads", lambda threads: now.update(threads=threads))
    assert torch_side.choose_threads(lambda: time.sleep(0.0 if now["threads"] == fast else 0.1)) == fast
    assert now["threads"] == fast


def test_unknown_style(training, world):
    torch_side = pytest.importorskip("ncfair_jax.speed.torch_side", exc_type=ImportError)
    with pytest.raises(ValueError, match="choose from release, fair"):
        torch_side.make_step("fast", torch_settings(torch_side, training, str(world / "small")))
