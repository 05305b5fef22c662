"""A bare product of two square matrices in jax: what a device can do at most, which the figures of a step stand beside."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ncfair_jax.speed.timing import QUEUED, matmul_rate


def make_matmul(size: int, dtype: str = "float32", times: int = 1) -> Callable[[], None]:
    """So many products, one after the other, to be timed. The numbers are normal: zeros would be multiplied faster."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in (0, 1))
    product = jax.jit(jnp.matmul)

    def timed() -> None:
        for _ in range(times):
            found = product(a, b)
        jax.block_until_ready(found)

    return timed


def bare_rate(dtype: str, size: int = 0) -> float:
    """FLOP/s of the bare product, the best of a few. Size 0: 8192 on an accelerator, 2048 on a CPU."""
    on_cpu = jax.default_backend() == "cpu"
    times = 1 if on_cpu else QUEUED
    rate = matmul_rate(lambda size: make_matmul(size, dtype, times), size or (2048 if on_cpu else 8192), repeats=5)
    return rate * times * 1e9
