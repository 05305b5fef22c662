"""An implementation of attention beside "xla" on the device at hand: values, gradients, and leaks between segments."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ncfair_jax.models import attention
from ncfair_jax.models.attention import Segments, attend
from ncfair_jax.speed.contestants import LeftOutError, Result, SpeedError

ROWS, TOKENS, HEADS, WIDTH = 2, 256, 2, 64  # two blocks of a kernel in a row, heads as wide as BERT's
TOLERANCE = 0.02  # of the norm: bfloat16 rounds to 1/256, and a gradient is four products in a row
OWN = (0, 2)  # the row and the segment that are looked at for leaks


class Found(NamedTuple):
    """Outputs, and gradients in query, key and value, of a weighted sum of some outputs; f32[R,T,H,C] each."""

    values: np.ndarray
    gradients: list[np.ndarray]


def check(name: str, dtype: str = "bfloat16") -> Result:
    """Errors relative to "xla" in float32, those of "xla" in the same dtype beside them, and what leaks.

    Returns:
        "agrees": whether the errors are rounding and nothing leaks; "leak": relative change of a segment's outputs when all
        other segments change, or the largest gradient that they get from it, whichever is more.
    Raises:
        LeftOutError: if the implementation is not for this device.
        SpeedError: if something is not finite.
    """
    asked: dict[str, Any] = {"dropout_rate": 0.0, "activation_dtype": dtype, "row_tokens": TOKENS}
    if reason := attention.refusal(name, platform=jax.devices()[0].platform, **asked):
        raise LeftOutError(f"attention={name!r} {reason}")
    ids, real = segment_ids(), segment_ids() > 0
    inputs = [jnp.asarray(x, dtype) for x in np.random.default_rng(0).normal(size=(3, ROWS, TOKENS, HEADS, WIDTH))]
    with jax.default_matmul_precision("highest"):
        exact = run("xla", [x.astype(jnp.float32) for x in inputs], ids, real)
    errors = {}
    for kind in dict.fromkeys((name, "xla")):
        found = run(kind, inputs, ids, real)
        of_gradients = [distance(*pair) for pair in zip(found.gradients, exact.gradients, strict=True)]
        errors[kind] = {"values": distance(found.values[real], exact.values[real]), "gradients": max(of_gradients)}
    leak = leaks(name, inputs, ids)
    agrees = leak <= TOLERANCE and all(error <= TOLERANCE for error in errors[name].values())
    return {"attention": name, "dtype": dtype, "errors": errors, "leak": leak, "agrees": agrees}


def segment_ids() -> np.ndarray:
    """i32[R,T]: segments that end within a block, at its end and beyond it, one with a hole, and pads."""
    ids = np.zeros((ROWS, TOKENS), np.int32)
    for row, lengths in enumerate(((30, 98, 40, 60), (5, 200, 51))):
        ids[row, : sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    ids[0, 50] = 0
    return ids


def run(name: str, inputs: list[jax.Array], ids: np.ndarray, counted: np.ndarray) -> Found:
    """Outputs, and gradients of a weighted sum of the outputs at the counted tokens, bool[R,T]."""
    weights = np.random.default_rng(1).normal(size=inputs[0].shape) * counted[..., None, None]

    segments = Segments(jnp.asarray(ids), jnp.asarray(ids))

    def loss(inputs: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        query, key, value = inputs
        values = attend(query, key, value, segments, implementation=name).astype(jnp.float32)
        return jnp.sum(values * weights), values

    (_, values), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(inputs)
    as_float = partial(np.asarray, dtype=np.float32)
    return Found(as_float(values), [as_float(gradient) for gradient in gradients])


def leaks(name: str, inputs: list[jax.Array], ids: np.ndarray) -> float:
    """How much one segment's outputs depend on the others, and how much gradient it gives them; 0 if nothing leaks."""
    own = (np.arange(ROWS)[:, None] == OWN[0]) & (ids == OWN[1])
    wild = [jnp.where(own[..., None, None], x, 100 * x[::-1] + 50) for x in inputs]
    tame, other = (run(name, each, ids, own) for each in (inputs, wild))
    given = max(float(np.abs(gradient[~own]).max()) for gradient in other.gradients)
    return max(distance(other.values[own], tame.values[own]), given)


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """‖found − wanted‖ / ‖wanted‖.

    Raises:
        SpeedError: if that is not finite.
    """
    error = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    if not np.isfinite(error):
        raise SpeedError("values or gradients are not finite")
    return error
