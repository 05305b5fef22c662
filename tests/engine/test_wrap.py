"""What answers in a model's stead: groups of requests, combined over the whole vocabulary before targets are looked up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ncfair_jax.engine import Request, RequestError, Wrap, engine, forward, forward_of
from ncfair_jax.engine.requests import ATTENTION, FIRST_VECTOR, MEAN_VECTOR, NEXT_SENTENCE
from tests import tiny
from tests.benchmarks import plain
from tests.engine.test_engine import MODEL, requests

IDENTITY = Wrap("identity", lambda request: [request], lambda log_probs: log_probs[0])
PREFIXES = (np.array([11, 12]), np.array([13, 14, 15, 16, 17]))


def behind(prefix, request):
    """The request about the same text with something in front of it."""
    return request._replace(tokens=np.concatenate([prefix, request.tokens]), positions=request.positions + len(prefix))


def expand(request):
    return [request, *(behind(prefix, request) for prefix in PREFIXES)]


def damped(log_probs, np=jnp):
    """Self-Debias: what a prefix makes likelier is damped. Of three log-probabilities f32[3,V]."""
    probs = np.exp(log_probs)
    weighed = log_probs[0] + np.maximum(-50 * np.maximum(probs[1:].max(0) - probs[0], 0), np.log(0.01))
    return weighed - np.log(np.exp(weighed).sum())


DAMPED = Wrap("damped", expand, damped)


def several(count=50):
    """Requests of few and of many targets, two about the same text among them."""
    made = requests(count)
    tokens, everything = made[0].tokens, np.arange(tiny.VOCAB)
    return [*made, Request(tokens, np.full(tiny.VOCAB, 1), everything), Request(tokens, np.array([2]), np.array([9]))]


def damped_alone(request):
    """Log-probabilities and top-1 of a request, from a pass of each of its group alone."""
    tables = [plain.log_probs(MODEL, one.tokens)[one.positions].astype(np.float64) for one in expand(request)]
    table = np.stack([damped(np.stack(rows), np) for rows in zip(*tables, strict=True)])
    return table[np.arange(len(table)), request.targets], table.argmax(-1) == request.targets


def same(answers, others):
    """Whether all that is answered is equal, bit for bit."""
    for answer, other in zip(answers, others, strict=True):
        for mine, its in zip(answer, other, strict=True):
            assert (mine is None) == (its is None)
            np.testing.assert_array_equal(mine, its) if mine is not None else None


@pytest.mark.parametrize("ask", ["log_probs", ATTENTION])
def test_a_group_of_one_that_stays_as_it_is_gives_the_model_s_own_figures(ask, monkeypatch):
    monkeypatch.setattr(engine, "CPU_LOGITS", 16 * tiny.VOCAB)
    made = [request._replace(ask=ask) for request in several()]
    options = {"batch_tokens": 256}
    same(forward_of(MODEL, wrap=IDENTITY, **options)(made), forward_of(MODEL, **options)(made))


@pytest.mark.parametrize("temperature", [0.5, 3.0, -1.0])
def test_a_temperature_is_that_of_the_whole_distribution(temperature):
    wrap = Wrap("t", lambda request: [request], lambda log_probs: jax.nn.log_softmax(log_probs[0] / temperature))
    made = several(20)
    for request, answer in zip(made, forward_of(MODEL, wrap=wrap)(made), strict=True):
        scaled = plain.log_probs(MODEL, request.tokens)[request.positions].astype(np.float64) / temperature
        table = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
        tolerance = {name: value / min(1, abs(temperature)) for name, value in plain.CLOSE.items()}
        np.testing.assert_allclose(answer.log_probs, table[np.arange(len(table)), request.targets], **tolerance)
        np.testing.assert_array_equal(answer.top1, table.argmax(-1) == request.targets)


@pytest.mark.parametrize("devices", [1, 8])
def test_three_are_combined_as_by_plain_numpy(devices, monkeypatch):
    """Over several batches of rows and of columns; on eight devices as on one."""
    monkeypatch.setattr(engine, "CPU_LOGITS", 16 * tiny.VOCAB)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)) if devices == 8 else None
    shapes, put = [], forward.put_rows
    monkeypatch.setattr(
        forward,
        "put_rows",
        lambda batch, mesh: shapes.append({n: v.shape for n, v in batch.items()}) or put(batch, mesh),
    )
    made, changed = several(100), 0
    for request, answer in zip(made, forward_of(MODEL, wrap=DAMPED, mesh=mesh, batch_tokens=256)(made), strict=True):
        expected, hits = damped_alone(request)
        # A difference of probabilities is multiplied by 50.
        np.testing.assert_allclose(answer.log_probs, expected, **{name: 50 * v for name, v in plain.CLOSE.items()})
        np.testing.assert_array_equal(answer.top1, hits)
        changed += (
            np.abs(answer.log_probs - plain.log_probs(MODEL, request.tokens)[request.positions, request.targets]) > 0.01
        ).sum()
    assert changed > 50
    heads = [shape["hidden"] for shape in shapes if "hidden" in shape]
    assert len(set(heads)) == 1 and heads[0][1:] == (3, MODEL.config.hidden_size)
    assert sum("tokens" in shape for shape in shapes) > 1 and (devices == 8 or len(heads) > 1)


def test_groups_of_other_sizes_in_one_call_and_texts_of_a_group_in_rows_of_another_length():
    """Of a text of even length alone; the last ones of a group are too long for rows of 64 tokens."""
    config = dataclasses.replace(tiny.MODEL, max_positions=200)
    model = MODEL._replace(config=config, params=tiny.params(model=config))
    prefix = np.resize(np.arange(5, 30), 100)

    def mixed(request):
        return [request] if len(request.tokens) % 2 == 0 else [request, behind(prefix, request)]

    made = requests(30)
    wrap = Wrap("mixed", mixed, lambda log_probs: log_probs.mean(0))
    own = forward_of(model)
    for request, answer in zip(made, forward_of(model, wrap=wrap)(made), strict=True):
        expected = np.mean([a.log_probs for a in own(mixed(request))], axis=0)
        np.testing.assert_allclose(answer.log_probs, expected, **plain.CLOSE)


def test_attention_is_that_of_the_first():
    made = [request._replace(ask=ATTENTION) for request in requests(20)]
    wrapped, own = forward_of(MODEL, wrap=DAMPED)(made), forward_of(MODEL)(made)
    for request, answer, plainly in zip(made, wrapped, own, strict=True):
        np.testing.assert_allclose(answer.attention, plainly.attention, **plain.CLOSE)
        np.testing.assert_allclose(answer.log_probs, damped_alone(request)[0], rtol=1e-3, atol=1e-3)


def test_a_program_for_all_batches_and_none_more_without(monkeypatch):
    traced, original = [], forward.head_logits
    monkeypatch.setattr(forward, "head_logits", lambda *args: traced.append(args[-1].shape) or original(*args))
    monkeypatch.setattr(engine, "CPU_LOGITS", 16 * tiny.VOCAB)
    jax.clear_caches()
    wrapped, own = forward_of(MODEL, wrap=DAMPED), forward_of(MODEL)
    for count in (50, 90):
        wrapped(requests(count)), own(requests(count))
    assert traced == [(3 * 4, MODEL.config.hidden_size), (16, MODEL.config.hidden_size)]


@pytest.mark.parametrize("ask", [MEAN_VECTOR, FIRST_VECTOR, NEXT_SENTENCE])
def test_what_it_knows_nothing_of_is_refused(ask):
    model = MODEL._replace(params=MODEL.params | {"nsp": {}})
    with pytest.raises(RequestError, match=r"damped is not defined for (sentence vectors|next sentences); leave these"):
        forward_of(model, wrap=DAMPED)([Request(np.array([1, 7, 2]), np.array([0]), np.array([0]), ask=ask)])


def test_a_group_that_does_not_fit_is_refused():
    tokens = np.arange(5, 5 + tiny.MODEL.max_tokens)
    with pytest.raises(RequestError, match="tokens, but the model takes 1 to"):
        forward_of(MODEL, wrap=DAMPED)([Request(tokens, np.array([1]), np.array([1]))])
    fewer = Wrap("fewer", lambda r: [r, r._replace(positions=r.positions[:0], targets=r.targets[:0])], damped)
    with pytest.raises(ValueError, match="shorter"):
        forward_of(MODEL, wrap=fewer)(requests(1))


def test_no_requests_give_no_answers():
    assert forward_of(MODEL, wrap=DAMPED)([]) == []
