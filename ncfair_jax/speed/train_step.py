"""The train step of a model with random weights on generated sentences: compiled, and timed as a run calls it."""

import importlib.util
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ncfair_jax.aot.memory import memory_of
from ncfair_jax.config import MeshConfig, OptimizerConfig
from ncfair_jax.data.layout import Batch as HostBatch
from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.lexicons.synthetic import synthetic_classes
from ncfair_jax.methods.base import Batch, Carry, Metrics, Objective, evaluate_objective
from ncfair_jax.methods.mlm import mlm_objective
from ncfair_jax.methods.nc3 import ALIGNED, NC3Config, with_nc3
from ncfair_jax.models.base import Params
from ncfair_jax.models.bert import BertConfig
from ncfair_jax.models.dropout import GENERATORS
from ncfair_jax.models.families import family_of
from ncfair_jax.optimizer import make_optimizer
from ncfair_jax.sharding import make_mesh, put_batch, put_tree, state_shardings
from ncfair_jax.speed.contestants import SpeedError
from ncfair_jax.speed.flops import packed_flops
from ncfair_jax.state import TrainState, init_state, jitted_step, make_train_step

TOTAL_STEPS = 1000  # of the learning rate's schedule
NC3_WEIGHT = 100.0  # of the released BEC run; any weight but 0 costs the same
AHEAD = 8  # batches that are made ahead, as `Pipeline.batches` does


class TrainStep:
    """A compiled step of MLM + NC3 ("aligned" settings) on one device, with its state.

    Attributes:
        batch: the batch of step 0, on the host.
        tokens: real tokens of that batch.
        flops: operations of the matrix products of a step.
        compiled: the program.
        compile_seconds: tracing included.
        peak_bytes: the device's memory that the program reserves, its arguments included; None if the compiler does not say.
        done: steps so far.
    """

    def __init__(
        self,
        model: BertConfig,
        pipeline: Pipeline,
        *,
        dropout_bits: str = "threefry",
        nc3: bool = True,
        guarded: bool = True,
    ):
        """Builds the state and compiles the step.

        Args:
            dropout_bits: as of `config.ModelSource`.
            nc3: False leaves the regulariser out.
            guarded: False leaves out the guard against losses that are not finite, and the norm of the gradient.
        """
        self.model, self.pipeline, self.done, self.metrics = model, pipeline, 0, dict[str, Any]()
        self.mesh = make_mesh(MeshConfig(), 1)
        self._everywhere = NamedSharding(self.mesh, P())
        objective = mlm_objective(model)
        if nc3:
            regulariser = NC3Config(weight=NC3_WEIGHT, **ALIGNED)  # type: ignore[arg-type]
            objective = with_nc3(objective, regulariser, synthetic_classes(model.vocab_size), model, 1)
        tx, _ = make_optimizer(OptimizerConfig(), TOTAL_STEPS)
        self.batch = pipeline.batch(0)
        self.tokens = int((self.batch["segment_ids"] > 0).sum())
        self.flops = packed_flops(model, self.batch, transformed=nc3)
        self.put = put_batch(self.batch, self.mesh)
        rng = jax.random.key(1, impl=GENERATORS[dropout_bits])
        state = init_state(jax.tree.map(jnp.asarray, random_params(model)), objective, tx, rng)
        shardings = state_shardings(state, self.mesh, family_of(model).sharding)
        self.state: TrainState = put_tree(state, shardings)
        step = make_train_step(objective, tx) if guarded else make_bare_step(objective, tx)
        began = time.perf_counter()
        self.compiled = jitted_step(step, self.mesh, shardings).lower(self.state, self.put).compile()
        self.compile_seconds = time.perf_counter() - began
        memory = memory_of(self.compiled)
        self.peak_bytes = None if memory is None else memory.peak

    def again(self, steps: int) -> float:
        """Seconds of a step, so many of them queued on the one batch that already lies on the device."""
        began = time.perf_counter()
        for _ in range(steps):
            self._call(self.put | {"step": jax.device_put(np.int32(self.done), self._everywhere)})
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps

    def fresh(self, steps: int) -> float:
        """Seconds of a step, each with a batch of its own, which a thread of the host makes ahead as in a run.

        The clock begins when the first batch is there, so that no batch is in stock if the host is the slower one.
        """
        batches = made_ahead(self.pipeline, self.done, self.done + steps)
        first = next(batches)
        began = time.perf_counter()
        for batch in chain([first], batches):
            self._call(put_batch(batch, self.mesh))
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps

    def batch_seconds(self, number: int) -> float:
        """Seconds that the host takes for a batch, if nothing else happens: making it and handing it over."""
        began = time.perf_counter()
        for step in range(self.done, self.done + number):
            jax.block_until_ready(put_batch(self.pipeline.batch(step), self.mesh))
        return (time.perf_counter() - began) / number

    def _call(self, batch: Batch) -> None:
        self.state, self.metrics = self.compiled(self.state, batch)
        self.done += 1

    def loss(self) -> float:
        """That of the last step.

        Raises:
            SpeedError: if a step was refused: then others were timed than those that a run would do.
        """
        loss = float(self.metrics["loss"][0])
        if (done := int(self.state.step)) != self.done:
            raise SpeedError(f"the state is at step {done} after {self.done} steps: one was refused, loss {loss:g}")
        return loss


def make_bare_step(objective: Objective, tx: optax.GradientTransformation) -> Any:
    """`state.make_train_step` without its guard and without the norm of the gradient, to see what they cost."""

    def bare_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def total(params: Params) -> tuple[jax.Array, tuple[jax.Array, Metrics, Carry]]:
            rng = jax.random.fold_in(state.rng, state.step)
            loss, (metrics, carry) = evaluate_objective(objective, params, state.carry, batch, rng)
            return loss, (loss, metrics, carry)

        grads, (loss, metrics, carry) = jax.grad(total, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, carry, state.rng)
        return new, metrics | {"loss": (loss, jnp.ones(()))}

    return bare_step


def random_params(model: BertConfig) -> Params:
    """Weights as `Family.init` draws them, made on the host: compiling that function takes longer than measuring a step."""
    shapes = jax.eval_shape(lambda: family_of(model).init(model, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        if path[-1].key == "scale":
            return np.ones(leaf.shape, np.float32)
        if leaf.ndim == 1:
            return np.zeros(leaf.shape, np.float32)
        return np.float32(model.initializer_range) * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def made_ahead(pipeline: Pipeline, start: int, stop: int) -> Iterator[HostBatch]:
    """`Pipeline.batches`, or where grain is missing the same from a thread of our own."""
    if importlib.util.find_spec("grain") is not None:
        yield from pipeline.batches(start, stop)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        steps = iter(range(start, stop))
        waiting = deque(pool.submit(pipeline.batch, step) for step in islice(steps, AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(pipeline.batch, step) for step in islice(steps, 1))
