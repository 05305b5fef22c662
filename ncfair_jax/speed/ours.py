"""ncfair_jax's own contestants: the real train step and the real scorer, timed as a run calls them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ncfair_jax.config import RunConfig
from ncfair_jax.data.packing import round_up
from ncfair_jax.engine import Request, engine, forward_of
from ncfair_jax.engine.batching import batch_size, buckets, default_batch_tokens, power_of_two
from ncfair_jax.engine.packing import columns_of, pack, sizes
from ncfair_jax.engine.requests import ATTENTION, merge, scored_log_probs
from ncfair_jax.methods.base import Batch
from ncfair_jax.models.base import ModelConfig
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.prepare import prepare_training, start_state
from ncfair_jax.recipes import base_config
from ncfair_jax.registry import freeze
from ncfair_jax.sharding import make_mesh, put_batch
from ncfair_jax.speed.flops import encoder_flops, packed_flops, pool_flops, score_flops
from ncfair_jax.speed.train_step import NC3_WEIGHT
from ncfair_jax.state import TrainState, jitted_train_step
from ncfair_jax.tracker import track

Compiled = dict[tuple[int, ...], Any]


def training_config(model: str, gap: str, batch_size: int, total_steps: int, nc3: str) -> RunConfig:
    """The config of a timed run: MLM on GAP at the released optimizer settings.

    Args:
        model: Hugging Face folder.
        gap: GAP file.
        total_steps: length of the schedule.
        nc3: "paper" or "aligned" settings of NC3, or "" without it.
    """
    config = base_config(nc3 or "paper")
    config.name = "benchmark"
    config.model.path = model
    config.data.path = gap
    config.nc3.weight = NC3_WEIGHT if nc3 else 0.0
    config.train.batch_size = batch_size
    config.train.steps = total_steps
    return freeze(config)


def config_from_dict(tree: dict[str, Any]) -> RunConfig:
    """The config that `dataclasses.asdict` took apart."""
    return freeze(ConfigDict(tree))


class Training:
    """A run whose train step is compiled ahead for all shapes of the steps to be timed."""

    def __init__(self, config: RunConfig, steps: Iterable[int]):
        self.run = prepare_training(config, make_mesh(config.mesh))
        self.state, shardings = start_state(self.run)
        step_fn = jitted_train_step(self.run.objective, self.run.tx, self.run.mesh, shardings)
        began = time.perf_counter()
        self.compiled: Compiled = {}
        for step in steps:
            batch = self._put(step)
            if (shape := shapes(batch)) not in self.compiled:
                self.compiled[shape] = step_fn.lower(self.state, batch).compile()
                self._call(copy(self.state), batch)  # first calls touch pages and start threads
        self.compile_seconds = time.perf_counter() - began

    def _put(self, step: int) -> Batch:
        return put_batch(self.run.pipeline.batch(step), self.run.mesh)

    def _call(self, state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
        return jax.block_until_ready(self.compiled[shapes(batch)](state, batch))

    def step(self, step: int) -> float:
        """Makes the batch of a step on the host and does the step; returns its loss. Steps must come in order."""
        self.state, metrics = self._call(self.state, self._put(step))
        assert int(self.state.step) == step + 1, f"step {step} was refused: not finite, or out of order"
        return float(metrics["loss"][0])

    def work(self, step: int) -> dict[str, float]:
        """What a step computes: sentences, real tokens, token places, and counted operations (ours and XLA's count)."""
        batch = self.run.pipeline.batch(step)
        analysis = self.compiled[shapes(batch)].cost_analysis() or {}
        nc3 = self.run.config.nc3
        return {
            "sentences": int(batch["num_examples"]),
            "tokens": int((batch["segment_ids"] > 0).sum()),
            "places": int(batch["segment_ids"].size),
            "flops": packed_flops(
                self.run.model.config, batch, transformed=nc3.weight > 0 and nc3.features == "transform"
            ),
            "xla_flops": float(analysis.get("flops", float("nan"))) * self.run.mesh.size,  # counted per device
        }


def track_once(training: Training) -> float:
    """One reading of neural collapse as the loop makes it every `collapse_every` steps; returns UNC3."""
    assert training.run.tracker is not None  # GAP has gender words
    return track(training.run.tracker, training.state.params)["lexicon_unc3"]


def shapes(batch: Mapping[str, Any]) -> tuple[int, ...]:
    """What distinguishes compiled versions of the step."""
    return (*batch["tokens"].shape, batch["masked_positions"].shape[-1])


def copy(tree: Any) -> Any:
    """New buffers with the same contents, to be donated."""
    return jax.tree.map(jnp.copy, tree)


def make_scorer(folder: str) -> Callable[[list[Request]], list[np.ndarray]]:
    """The package's engine on the model of a folder, for log-probabilities."""
    forward = forward_of(load_pretrained(folder, offline=True))

    def run(requests: list[Request]) -> list[np.ndarray]:
        return [scored_log_probs(answer) for answer in forward(requests)]

    return run


def packed_flops_of(model: ModelConfig, requests: Sequence[Request]) -> int:
    """Operations of answering the requests, packed as the engine packs them, with the empty rows of a last batch."""
    flops = 0
    for ask in dict.fromkeys(request.ask for request in requests):
        sequences = merge([[request] for request in requests if request.ask == ask])[0]
        scored = ask in engine.HEAD_OF
        sequences = [sequence for sequence in sequences if sequence.columns or not scored]
        for row_tokens, members in buckets(sizes(sequences)[0].ravel(), model.hidden_size):
            bucket = [sequences[i] for i in members]
            packed = pack(bucket, row_tokens)
            rows = computed(len(packed.rows["tokens"]), default_batch_tokens() // row_tokens)
            if scored:
                columns = columns_of(packed, bucket)
                number = len(columns.targets)
                read = None if engine.reads_everything(packed, columns, ask == ATTENTION) else columns.read.shape[1]
                number = round_up(number, engine.head_columns(number, model.vocab_size))
                flops += score_flops(model, rows=rows, tokens=row_tokens, scored=number, read=read)
            else:
                segments = power_of_two(int(packed.segment.max()) + 1)
                flops += encoder_flops(model, rows, row_tokens) + pool_flops(model, rows, row_tokens, segments)
    return flops


def computed(rows: int, most: int) -> int:
    """Rows of all batches of one device, of which the last one is filled up with empty rows."""
    return round_up(rows, batch_size(rows, most))
