"""The check of attention's kernels, which a device runs: a kernel in Pallas's interpreter passes, a wrong one does not."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas

from ncfair_jax.models import attention
from ncfair_jax.models.attention import KERNELS
from ncfair_jax.speed import kernels
from ncfair_jax.speed.contestants import LeftOutError, SpeedError


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Where kernels are allowed; they run as ordinary operations."""
    call = pallas.pallas_call
    monkeypatch.setattr(pallas, "pallas_call", lambda *args, **kwargs: call(*args, **kwargs | {"interpret": True}))
    monkeypatch.setattr(attention, "refusal", lambda *args, **kwargs: "")
    jax.clear_caches()
    yield
    jax.clear_caches()


def with_kernel(monkeypatch, attend):
    monkeypatch.setitem(KERNELS, "pallas_gpu", KERNELS["pallas_gpu"]._replace(attend=attend))


def test_a_kernel_agrees(on_a_gpu):
    found = kernels.check("pallas_gpu")
    assert found["agrees"] and found["leak"] == 0
    assert set(found["errors"]) == {"pallas_gpu", "xla"}
    for errors in found["errors"].values():
        assert all(1e-4 < error < 0.01 for error in errors.values())  # bfloat16 rounds, and no more


def test_one_that_leaks_a_little_does_not(on_a_gpu, monkeypatch):
    """Too little to be seen in the values."""

    def leaky(query, key, value, segments):
        return attention._xla(query, key, value, segments, 0.0, None) + 1e-3 * value[:, :1]

    with_kernel(monkeypatch, leaky)
    found = kernels.check("pallas_gpu")
    assert found["errors"]["pallas_gpu"]["values"] < kernels.TOLERANCE < found["leak"] and not found["agrees"]


def test_one_with_a_wrong_gradient_does_not(on_a_gpu, monkeypatch):
    def wrong(query, key, value, segments):
        right = attention._xla(query, key, value, segments, 0.0, None)
        return right + 0.1 * (query - jax.lax.stop_gradient(query))

    with_kernel(monkeypatch, wrong)
    found = kernels.check("pallas_gpu")
    errors = found["errors"]["pallas_gpu"]
    assert errors["values"] < kernels.TOLERANCE < errors["gradients"] and not found["agrees"]


def test_one_that_is_not_finite_is_an_error(on_a_gpu, monkeypatch):
    with_kernel(monkeypatch, lambda query, *rest: query * jnp.nan)
    with pytest.raises(SpeedError, match="not finite"):
        kernels.check("pallas_gpu")


def test_one_for_another_device_is_left_out():
    with pytest.raises(LeftOutError, match="attention='cudnn' is for a gpu, and this is a cpu"):
        kernels.check("cudnn")
