"""The kernels beside `xla`: values, gradients, leaks between segments, devices, and what they refuse.

The Pallas kernels run in Pallas's interpreter. cuDNN's cannot run here: its program is made and looked at, no more.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import pallas

from ncfair_jax.config import MeshConfig, ModelSource
from ncfair_jax.fields import Allowed
from ncfair_jax.models import attention, bert
from ncfair_jax.models.attention import IMPLEMENTATIONS, KERNELS, Segments, attend
from ncfair_jax.models.base import Ask, Rows
from ncfair_jax.sharding import make_mesh, on_mesh
from tests import tiny
from tests.rounding import encoder_operations, rounding

R, T, H, C = 2, 256, 2, 32  # two blocks of a kernel in a row
PALLAS = ("pallas_gpu", "splash")


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels run as ordinary operations."""
    call = pallas.pallas_call
    monkeypatch.setattr(pallas, "pallas_call", lambda *args, **kwargs: call(*args, **kwargs | {"interpret": True}))
    jax.clear_caches()
    yield
    jax.clear_caches()


def packed() -> Segments:
    """Segments that end within a block, at its end and beyond it, one that has a hole, and pads."""
    ids = np.zeros((R, T), np.int32)
    for row, lengths in enumerate(((30, 98, 40, 60), (5, 200, 51))):
        ids[row, : sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    ids[0, 50] = 0
    return Segments(ids, ids)


def heads(dtype=jnp.float32):
    return [jnp.asarray(x, dtype) for x in np.random.default_rng(0).normal(size=(3, R, T, H, C)).astype(np.float32)]


def with_gradients(name: str, segments: Segments, *inputs):
    """The outputs and the gradients of a weighted sum of them, pads left out: they mean nothing."""
    weights = np.random.default_rng(1).normal(size=(R, T, H, C)) * (segments.query > 0)[..., None, None]

    def loss(inputs):
        out = attend(*inputs, segments, implementation=name)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    return np.asarray(out), [np.asarray(grad) for grad in grads]


@pytest.mark.parametrize("name", PALLAS)
def test_kernels_give_the_values_and_gradients_of_xla(interpreted, name):
    segments = packed()
    (out, grads), (expected, wanted) = (with_gradients(each, segments, *heads()) for each in (name, "xla"))
    real = segments.query > 0
    # A logit adds C products, an output and a gradient T of them; all are of the size of a few units.
    np.testing.assert_allclose(out[real], expected[real], atol=rounding(C + T, 4))
    for ours, theirs in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=rounding(C + 2 * T, 4))


@pytest.mark.parametrize("name", [*PALLAS, "xla"])
def test_nothing_leaks_from_one_segment_into_another(interpreted, name):
    """Neither values nor gradients: what the others hold may be anything, and gets no gradient."""
    segments = packed()
    own = (np.arange(R)[:, None] == 0) & (segments.query == 2)  # across the border of two blocks, with a hole
    query, key, value = heads()
    wild = [jnp.where(own[..., None, None], x, 100 * x[::-1] + 50) for x in (query, key, value)]

    def loss(inputs):
        out = attend(*inputs, segments, implementation=name)
        return jnp.sum(jnp.where(own[..., None, None], out, 0.0)), out

    found = [jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs) for inputs in ([query, key, value], wild)]
    np.testing.assert_array_equal(*(np.asarray(out)[own] for (_, out), _ in found))
    for tame, other in zip(*(grads for _, grads in found), strict=True):
        np.testing.assert_array_equal(np.asarray(tame)[own], np.asarray(other)[own])
        assert not np.asarray(other)[~own].any()


@pytest.mark.parametrize("name", PALLAS)
def test_every_device_runs_a_kernel_on_its_own_rows_and_heads(interpreted, eight_devices, name):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), 8)
    inputs = [jnp.concatenate([x, 2 * x]) for x in heads()]
    segments = Segments(*(np.concatenate([ids, ids[::-1]]) for ids in packed()))
    call = jax.jit(on_mesh(lambda *inputs: attend(*inputs, segments, implementation=name), mesh))
    placed = jax.device_put(inputs, jax.NamedSharding(mesh, jax.P(("data", "fsdp"), None, "tensor", None)))
    alone = jax.jit(lambda *inputs: attend(*inputs, segments, implementation=name))(*inputs)
    found = call(*placed)
    np.testing.assert_array_equal(found, alone)
    assert found.sharding.shard_shape(found.shape) == (1, T, 1, C)
    assert "all-gather" not in call.lower(*placed).compile().as_text()


@pytest.mark.parametrize("name", PALLAS)
def test_a_model_learns_with_a_kernel_as_with_xla(interpreted, name):
    """In a loop of layers that are computed again in the backward pass."""
    config = dataclasses.replace(tiny.MODEL, max_positions=128, remat=True, scan_layers=True, hidden_dropout=0.1)
    ids = packed().query[:, :128]
    tokens = np.random.default_rng(2).integers(tiny.FIRST_WORD, tiny.VOCAB, ids.shape).astype(np.int32)
    rows = Rows(tokens, ids, np.arange(128, dtype=np.int32)[None] * np.ones_like(ids))

    def loss(params, attention):
        model = dataclasses.replace(config, attention=attention)
        found = bert.hidden(model, params, rows, Ask(dropout_rng=jax.random.key(0))).hidden_states
        return jnp.mean(jnp.sin(found) * (ids > 0)[..., None])

    params = tiny.params(model=config)
    ours, theirs = (jax.jit(jax.grad(loss), static_argnums=1)(params, each) for each in (name, "xla"))
    tolerance = rounding(2 * encoder_operations(config) + 128)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), ours, theirs)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_with_a_prefix_or_few_columns_every_implementation_is_xla(name):
    """None of the kernels could run here, so it is none of them."""
    segments, (query, key, value) = packed(), heads()
    few = Segments(segments.query[:, :3], segments.key)
    longer = [jnp.concatenate([x[:, :5], x], axis=1) for x in (key, value)]
    for queries, keys, asked in ((query[:, :3], (key, value), few), (query, longer, segments)):
        found, expected = (attend(queries, *keys, asked, implementation=each) for each in (name, "xla"))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "platform", "calls"),
    [
        ("cudnn", "cuda", ("__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward")),
        ("pallas_gpu", "cuda", ("mha_forward", "mha_backward")),
        ("splash", "tpu", ("tpu_custom_call",)),
    ],
)
def test_the_program_for_the_real_device_has_the_kernel(monkeypatch, name, platform, calls):
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    segments = packed()

    def grads(inputs):
        return jax.grad(lambda inputs: attend(*inputs, segments, implementation=name).astype(jnp.float32).sum())(inputs)

    made = export.export(jax.jit(grads), platforms=[platform], disabled_checks=UNCHECKED)(heads(jnp.bfloat16))
    text = made.mlir_module()
    assert all(call in text for call in calls)
    assert made.out_avals[0].dtype == jnp.bfloat16


# Exported programs are kept for years, which these calls do not promise; this one is only looked at.
UNCHECKED = [
    export.DisabledSafetyCheck.custom_call(name)
    for name in ("__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward", "__gpu$xla.gpu.triton")
]

ASKED = {"dropout_rate": 0.0, "activation_dtype": "bfloat16", "row_tokens": 128}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("cudnn", {"platform": "cpu"}, "is for a gpu, and this is a cpu; use 'xla' or 'auto'"),
        ("splash", {"platform": "gpu"}, "is for a tpu, and this is a gpu"),
        (
            "cudnn",
            {"dropout_rate": 0.1},
            r"no dropout of attention probabilities, but attention_dropout=0\.1; set it to 0",
        ),
        ("cudnn", {"activation_dtype": "float32"}, "takes bfloat16, not float32"),
        ("splash", {"platform": "tpu", "row_tokens": 96}, "a multiple of 128 tokens, not 96"),
    ],
)
def test_what_a_kernel_cannot_do_is_refused_with_the_remedy(name, changes, reason):
    from re import search

    asked = ASKED | {"platform": "gpu"} | changes
    assert search(reason, attention.refusal(name, **asked))
    assert attention.refusal("xla", **asked) == ""


def test_the_default_is_a_kernel_only_where_it_can_do_what_is_asked():
    assert {platform: attention.default(platform=platform, **ASKED) for platform in ("cpu", "gpu", "tpu")} == {
        "cpu": "xla",
        "gpu": "cudnn",
        "tpu": "xla",
    }
    assert attention.default(platform="gpu", **ASKED | {"dropout_rate": 0.1}) == "xla"


def test_the_field_takes_every_implementation():
    (field,) = (field for field in dataclasses.fields(ModelSource) if field.name == "attention")
    allowed: Allowed = field.metadata["allowed"]
    assert all(map(allowed.holds, ("auto", *IMPLEMENTATIONS)))
    assert not allowed.holds("flash")
