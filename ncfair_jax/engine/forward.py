"""Every forward pass that evaluates or measures: the one place outside training that runs a model.

Two programs run the encoder on a batch of packed rows and hand its hidden states to a pure reduction: `reduce_rows` gives
back what the reduction makes of each row, `accumulate_rows` adds it to a state that stays on the devices. A third, `project`,
multiplies hidden states with the vocabulary.

A batch is a dict of arrays with a leading axis R: "tokens", "segment_ids" and "positions" i32[R,T] (or [B,G,T], R = B · G),
where given "token_types" i32[R,T] and "read" i32[R,P], the columns whose last hidden states are wanted, and whatever else the
reduction looks at.

Letters: R rows of a batch, T tokens a row, P columns read of a row, N = R T, C hidden states that are projected at a time,
or groups of G of them, K targets of each, V vocabulary, D hidden.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from ncfair_jax.engine.batching import fetched
from ncfair_jax.models.base import NSP, Ask, Hidden, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.heads import nsp_logits, nsp_transform
from ncfair_jax.sharding import gathered, put_rows

# XLA times many ways to multiply and to fuse when it compiles for a GPU. That pays over thousands of training steps; here a
# program runs a few dozen times, mostly float32 products at the highest precision, for which cuBLAS's own first choice is
# good: on an H100, compiling CrowS-Pairs' program of BERT-base took 37 s with tuning and 4.6 s without. What tuning picks may
# also differ from process to process, and figures with it in their last digits.
# Other backends take these options and ignore them.
untuned_jit = partial(jax.jit, compiler_options={"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False})

LAYER = "layer_"

Batch = dict[str, Array]
HostBatch = dict[str, np.ndarray]
Combine = Callable[[Float[Array, "G V"]], Float[Array, " V"]]


@runtime_checkable
class Reduction(Protocol):
    """What is made of the hidden states of each row; equal reductions share a program."""

    @property
    def attention(self) -> bool:
        """Whether it looks at the attention that tokens receive."""

    def __call__(self, config: ModelConfig, own: Any, hidden: Hidden, rows: Batch) -> Any:
        """Arrays with a leading axis R; `own` are its parameters."""


@runtime_checkable
class Accumulator(Protocol):
    """What all rows add up to; equal accumulators share a program.

    Attributes:
        features: names that `token_features` knows.
    """

    @property
    def features(self) -> tuple[str, ...]: ...

    def of_rows(self, features: dict[str, Float[Array, "N D"]], rows: Batch, empty: Any, arrays: Any) -> Any:
        """What some rows add up to, given a state of no rows and arrays of the accumulator's own."""

    def all_reduce(self, state: Any, axes: Sequence[str]) -> Any:
        """The sum of the states of all devices along mapped axes, the same on each."""

    def merge(self, state: Any, other: Any) -> Any:
        """The sum of two states."""


def evaluation_config(config: ModelConfig) -> ModelConfig:
    """The model in float32, whatever precision it trains in, and quick to compile.

    The layers are a loop, except on a CPU, where copying their weights together for every batch costs more than it saves.
    """
    return dataclasses.replace(
        config, activation_dtype="float32", attention="xla", remat=False, scan_layers=jax.default_backend() != "cpu"
    )


def reduced(
    config: ModelConfig,
    reduction: Reduction,
    mesh: Mesh | None,
    params: Params,
    own: Any,
    batches: Iterable[HostBatch],
) -> Iterator[Any]:
    """What a reduction makes of each batch, on the host; each is fetched while the device computes the next.

    In float32 at the highest matmul precision.

    Args:
        params, own: of the model, and of the reduction, on the device or replicated over the mesh.
        batches: of one shape, so one program; their rows are shared out over the mesh.
    """

    def start(batch: HostBatch) -> Any:
        with jax.default_matmul_precision("highest"):
            return reduce_rows(config, reduction, mesh, params, own, put_rows(batch, mesh))

    yield from fetched(map(start, batches))


def accumulated(
    config: ModelConfig,
    accumulator: Accumulator,
    mesh: Mesh | None,
    params: Params,
    state: Any,
    arrays: Any,
    batches: Iterable[HostBatch],
) -> Any:
    """The state with all batches in, on the devices; as `reduced` otherwise."""
    for batch in batches:
        with jax.default_matmul_precision("highest"):
            state = accumulate_rows(config, accumulator, mesh, params, state, arrays, put_rows(batch, mesh))
    return state


def projected(
    config: ModelConfig,
    head: str,
    mesh: Mesh | None,
    combine: Combine | None,
    params: Params,
    batches: Iterable[HostBatch],
) -> Iterator[Float[np.ndarray, "C K 2"]]:
    """`project` of each batch of hidden states and targets; as `reduced` otherwise."""

    def start(batch: HostBatch) -> Array:
        with jax.default_matmul_precision("highest"):
            return project(config, head, mesh, combine, params, put_rows(batch, mesh))

    yield from fetched(map(start, batches))


@partial(untuned_jit, static_argnums=(0, 1, 2))
def reduce_rows(
    config: ModelConfig, reduction: Reduction, mesh: Mesh | None, params: Params, own: Any, rows: Batch
) -> Any:
    """What the reduction makes of the rows' hidden states, whole on every device."""
    hidden = hidden_states(config, params, rows, attention=reduction.attention)
    return gathered(reduction(config, own, hidden, rows), mesh)


@partial(untuned_jit, static_argnums=(0, 1, 2))
def accumulate_rows(
    config: ModelConfig,
    accumulator: Accumulator,
    mesh: Mesh | None,
    params: Params,
    state: Any,
    arrays: Any,
    rows: Batch,
) -> Any:
    """The state with one batch of rows in; every device works on its own rows."""

    def of_rows(params: Params, empty: Any, arrays: Any, rows: Batch) -> Any:
        found = accumulator.of_rows(token_features(config, params, rows, accumulator.features), rows, empty, arrays)
        return found if mesh is None else accumulator.all_reduce(found, mesh.axis_names)

    function = of_rows
    if mesh is not None:
        everywhere, shared_out = P(), P(mesh.axis_names)
        function = jax.shard_map(
            of_rows, mesh=mesh, in_specs=(everywhere, everywhere, everywhere, shared_out), out_specs=everywhere
        )
    nothing = jax.tree.map(jnp.zeros_like, state)
    return accumulator.merge(state, function(params, nothing, arrays, rows))


@partial(untuned_jit, static_argnums=(0, 1, 2, 3))
def project(
    config: ModelConfig, head: str, mesh: Mesh | None, combine: Combine | None, params: Params, batch: Batch
) -> Float[Array, "C K 2"]:
    """Log-probability and top-1 flag of every target: "hidden" f32[C,D], "targets" i32[C,K].

    With `combine`, "hidden" is f32[C,G,D], and what it makes of the log-probabilities of each group takes their place.
    """
    hidden = batch["hidden"]
    logits = head_logits(config, head, params, hidden.reshape(-1, hidden.shape[-1]))
    log_norm = jax.nn.logsumexp(logits, axis=1, keepdims=True)
    if combine is not None:
        grouped = (logits - log_norm).reshape(*hidden.shape[:2], -1)  # [C,G,V]
        logits, log_norm = jax.vmap(combine)(grouped), jnp.zeros(())
    chosen = jnp.take_along_axis(logits, batch["targets"], axis=1)
    log_probs = chosen - log_norm
    is_top = chosen >= logits.max(1, keepdims=True)
    values = jnp.stack([log_probs, is_top.astype(jnp.float32)], axis=-1)
    return gathered(values, mesh)


def head_logits(config: ModelConfig, head: str, params: Params, hidden: Float[Array, "C D"]) -> Float[Array, "C V"]:
    """Logits of the language model's head "mlm", or of the next-sentence head "nsp" (V = 2)."""
    if head == NSP:
        return nsp_logits(config, params, nsp_transform(config, params, hidden))
    family = family_of(config)
    return family.logits(config, params, family.features(config, params, hidden))


def hidden_states(
    config: ModelConfig, params: Params, rows: Batch, *, attention: bool = False, all_layers: bool = False
) -> Hidden:
    """The encoder on packed rows, without dropout."""
    row_tokens = rows["tokens"].shape[-1]
    tokens, segment_ids, positions = (
        rows[name].reshape(-1, row_tokens) for name in ("tokens", "segment_ids", "positions")
    )
    packed = Rows(tokens, segment_ids, positions, rows.get("token_types"))
    return family_of(config).hidden(config, params, packed, Ask(rows.get("read"), all_layers, attention))


def layer_names(config: ModelConfig) -> list[str]:
    """`layer_0`, the embeddings, to `layer_L`, the last hidden state (which "hidden" also names)."""
    return [f"{LAYER}{layer}" for layer in range(config.num_layers + 1)]


def token_features(
    config: ModelConfig, params: Params, rows: Batch, features: Sequence[str]
) -> dict[str, Float[Array, "N D"]]:
    """Features of every token by one deterministic forward pass.

    Args:
        features: "hidden", the last hidden state; "transform", what the decoder multiplies; "layer_i", the output of
            layer i with the embeddings as layer 0.
    """
    output = hidden_states(config, params, rows, all_layers=True)
    assert output.all_layers is not None
    found = {}
    for name in features:
        if name == "transform":
            values = family_of(config).features(config, params, output.hidden_states)
        elif name == "hidden":
            values = output.hidden_states
        else:
            values = output.all_layers[int(name.removeprefix(LAYER))]
        found[name] = values.reshape(-1, values.shape[-1])
    return found
