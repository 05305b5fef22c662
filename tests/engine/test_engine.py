"""The engine: packed scores equal those of single rows, in order, on one device and on eight, one compilation a bucket."""

import dataclasses

import jax
import numpy as np
import pytest

from ncfair_jax.engine import Request, RequestError, engine, forward, forward_of
from ncfair_jax.engine.requests import (
    ATTENTION,
    CLASS_LOGITS,
    FIRST_VECTOR,
    LOG_PROBS,
    MEAN_VECTOR,
    NEXT_SENTENCE,
    mask_id,
)
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.models.hf import Pretrained
from tests import tiny
from tests.benchmarks import plain
from tests.rounding import encoder_operations, rounding
from tests.tiny import encode

MODEL = Pretrained(tiny.MODEL, tiny.params(), tiny.TOKENIZER)


def requests(count: int = 50) -> list[Request]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        length = int(rng.integers(3, 30))
        tokens = rng.integers(1, tiny.VOCAB, length).astype(np.int32)
        positions = rng.choice(length, int(rng.integers(1, min(4, length))), replace=False)
        made.append(
            Request(tokens, positions.astype(np.int32), rng.integers(0, tiny.VOCAB, len(positions)).astype(np.int32))
        )
    return made


def alone(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and top-1 of one request by a forward pass of its own."""
    log_probs = plain.log_probs(MODEL, request.tokens, request.attention_mask)
    picked = log_probs[request.positions, request.targets]
    return picked, log_probs[request.positions].argmax(-1) == request.targets


def test_packed_equals_alone_and_keeps_the_order():
    made = requests()
    for request, answer in zip(made, forward_of(MODEL)(made), strict=True):
        expected, hits = alone(request)
        np.testing.assert_allclose(answer.log_probs, expected, **plain.CLOSE)
        np.testing.assert_array_equal(answer.top1, hits)


def test_eight_devices_do_what_one_does():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    for a, b in zip(
        plain.log_probs_of(MODEL, requests(), mesh=mesh), plain.log_probs_of(MODEL, requests()), strict=True
    ):
        np.testing.assert_allclose(a, b, **plain.CLOSE)


def test_nobody_sees_an_unattended_token():
    tokens = np.array([1, 7, 8, 3, 9, 2], np.int32)
    hidden = np.array([0, 1, 1, 1, 1, 1], np.int32)
    changed = tokens.copy()
    changed[0] = 50
    at, target = np.array([3]), np.array([20])
    masked, other = plain.log_probs_of(
        MODEL, [Request(tokens, at, target, hidden), Request(changed, at, target, hidden)]
    )
    np.testing.assert_array_equal(masked, other)
    np.testing.assert_allclose(masked, alone(Request(tokens, at, target, hidden))[0], **plain.CLOSE)
    seen, unlike = plain.log_probs_of(MODEL, [Request(tokens, at, target), Request(changed, at, target)])
    assert abs(float(seen[0] - unlike[0])) > 1e-4


def test_batches_after_the_first_of_a_bucket_trace_nothing(monkeypatch):
    """Two buckets, rows of 64 and of 128 tokens, several batches of each: one trace a bucket, none when run again."""
    model = dataclasses.replace(tiny.MODEL, max_positions=128)
    long = [r._replace(tokens=np.resize(r.tokens, 70 + len(r.tokens))) for r in requests(40)]
    traced, batches = tiny.engine_shapes(monkeypatch)
    for _ in range(2):
        forward_of(Pretrained(model, tiny.params(model=model), tiny.TOKENIZER), batch_tokens=512)(requests(200) + long)
    assert traced == [(8, 64), (4, 128)]
    assert min(batches.count(shape) for shape in traced) >= 2 * 3


def test_large_sets_share_their_programs(monkeypatch):
    """Sets of other sizes and other lengths: the same two programs, of the encoder and of the head."""
    traced = []
    for name in ("hidden_states", "head_logits"):
        original = getattr(forward, name)
        monkeypatch.setattr(
            forward,
            name,
            lambda *args, original=original, name=name, **kw: traced.append(name) or original(*args, **kw),
        )
    monkeypatch.setattr(engine, "CPU_LOGITS", 16 * tiny.VOCAB)
    jax.clear_caches()
    for made in (requests(200), requests(333), [r for r in requests(300) if len(r.tokens) < 20]):
        forward_of(MODEL, batch_tokens=512)(made)
    assert sorted(traced) == ["head_logits", "hidden_states"]


def test_a_column_is_projected_once_whatever_the_number_of_its_targets(monkeypatch):
    """Every word of the vocabulary at two positions, asked for in two requests."""
    rows, put = [], forward.put_rows
    monkeypatch.setattr(forward, "put_rows", lambda batch, mesh: rows.append(batch) or put(batch, mesh))
    tokens = np.array([1, 7, 8, 3, 9, 2], np.int32)
    positions, targets = np.repeat([3, 1], tiny.VOCAB), np.tile(np.arange(tiny.VOCAB), 2)
    some = slice(tiny.VOCAB - 5, tiny.VOCAB + 5)
    found = plain.log_probs_of(MODEL, [Request(tokens, positions[i], targets[i]) for i in (some, slice(None))])
    _, head = rows
    assert len(head["hidden"]) == len(head["targets"]) == 2
    expected = plain.log_probs(MODEL, tokens)[positions, targets]
    np.testing.assert_allclose(found[0], expected[some], **plain.CLOSE)
    np.testing.assert_allclose(found[1], expected, **plain.CLOSE)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(np.arange(5, 46), np.array([1]), np.array([1])), r'"w5 w6 .* …" has 41 tokens'),
        (Request(np.array([1, 7, 3]), np.array([3]), np.array([1])), r'"w7 \[MASK\]" asks for positions'),
        (Request(np.array([1, 7, 99]), np.array([1]), np.array([1])), '"w7" has id 99'),
        (Request(np.array([1, 7, 3]), np.array([1, 2]), np.array([1])), "2 positions, but 1 targets"),
        (Request(np.array([1, 7, 3]), np.array([0]), np.array([1]), np.array([0, 1, 1])), "attend"),
    ],
)
def test_impossible_requests_are_quoted(request_, message):
    with pytest.raises(RequestError, match=message):
        plain.log_probs_of(MODEL, [requests(1)[0], request_])


def test_a_score_that_is_not_finite_is_refused_and_its_text_quoted():
    """Position 12 is broken, so only a text of more than 12 tokens is."""
    params = jax.tree.map(np.array, MODEL.params)
    params["embeddings"]["position"]["embedding"][12] = np.nan
    broken = MODEL._replace(params=params)
    short, long = (Request(np.array([1, *range(7, 7 + n), 2]), np.array([1]), np.array([9])) for n in (5, 30))
    (found,) = plain.log_probs_of(broken, [short])
    np.testing.assert_array_equal(found, plain.log_probs_of(MODEL, [short])[0])
    with pytest.raises(NonFiniteError, match=r'a log-probability of "w7 w8 w9 .*" is nan; no figure') as error:
        plain.log_probs_of(broken, [long])
    assert "\n" not in str(error.value)
    params["mlm"]["bias"][9] = np.inf  # a word that is infinitely likely
    with pytest.raises(NonFiniteError, match=r'a log-probability of "w7" is -inf \(and 2 more of 3\)'):
        plain.log_probs_of(broken, [short._replace(tokens=np.array([1, 7, 2]), targets=np.array([8])), short, short])


def test_a_tokenizer_without_a_mask_is_refused():
    class NoMask:
        mask_token_id = None
        name_or_path = "nomask"

    with pytest.raises(RequestError, match="mask"):
        mask_id(MODEL._replace(tokenizer=NoMask()))


def test_no_requests_give_no_scores():
    assert plain.log_probs_of(MODEL, []) == []


def test_attention_paid_to_packed_tokens_is_that_of_a_pass_alone():
    made = [
        request._replace(positions=np.arange(len(request.tokens)), targets=request.tokens) for request in requests(20)
    ]
    answers = forward_of(MODEL)([request._replace(ask=ATTENTION) for request in made])
    width = max(len(request.tokens) for request in made)
    rows = np.stack([np.pad(request.tokens, (0, width - len(request.tokens))) for request in made])
    own = np.stack([np.arange(width) < len(request.tokens) for request in made]).astype(np.int32)
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), rows.shape)
    alone = encode(MODEL.config, MODEL.params, rows, own, positions, received_attention=True).received_attention
    plainly = plain.log_probs_of(MODEL, made)
    for row, (log_probs, _, paid, _) in enumerate(answers):
        np.testing.assert_allclose(paid, alone[row, : len(paid)], atol=rounding(encoder_operations(MODEL.config)))
        np.testing.assert_allclose(paid.sum(), 1, atol=1e-5)
        assert np.ptp(paid) > 1e-4
        np.testing.assert_allclose(log_probs, plainly[row], **plain.CLOSE)
    assert all(answer.attention is None for answer in forward_of(MODEL)(made))


def test_one_call_answers_different_kinds_of_requests_in_their_order():
    made = requests(12)
    asks = [LOG_PROBS, MEAN_VECTOR, ATTENTION, FIRST_VECTOR]
    mixed = [request._replace(ask=asks[i % 4]) for i, request in enumerate(made)]
    answers = forward_of(MODEL)(mixed)
    for i, (request, answer) in enumerate(zip(mixed, answers, strict=True)):
        (alone_,) = forward_of(MODEL)([request])
        assert [field is None for field in answer] == [field is None for field in alone_]
        for mine, other in zip(answer, alone_, strict=True):
            np.testing.assert_allclose(mine, other, **plain.CLOSE) if mine is not None else None
        assert (answer.vector is None) == (i % 2 == 0)


@pytest.mark.parametrize("ask", [NEXT_SENTENCE, CLASS_LOGITS])
def test_a_kind_of_answer_without_a_head_is_refused(ask):
    with pytest.raises(RequestError, match=r"the model has no head for (next sentences|class logits)"):
        forward_of(MODEL)([Request(np.array([1, 7, 2]), np.array([0]), np.array([0]), ask=ask)])
