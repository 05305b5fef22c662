"""ncfair_jax's side of the suite: the real benchmarks of the registry, run in one process on one loaded model."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ncfair_jax.benchmarks.benchmark import Benchmark
from ncfair_jax.benchmarks.observation import Observation, observed
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.benchmarks.requests import Request
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.models.encoder import ModelConfig
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.speed.contestants import Result
from ncfair_jax.speed.flops import encoder_flops, score_flops
from ncfair_jax.speed.ours import packed_embed_flops, packed_score_flops
from ncfair_jax.speed.padded import Scored, save_ragged

COMPILED = "/jax/core/compile/backend_compile_duration"  # jax's event: a program was compiled or fetched from a cache
SCORER, EMBEDDER = "score_with_top1", "embed"  # names of the engines' functions
NOTHING = np.zeros(0, np.int64)


class Asked(NamedTuple):
    """All that a benchmark asked of its engine in a run, in order and with repetitions, and what it got.

    Attributes:
        engine: SCORER or EMBEDDER.
        items: Requests, or sequences i32[L].
        answers: log-probabilities f32[P] of each, or a vector f32[D].
    """

    engine: str
    items: list[Any]
    answers: list[np.ndarray]


class Suite:
    """Every benchmark that can be run on the model, each run once (cold), with a sample of its requests stored.

    Attributes:
        facts: load_seconds; benchmarks, what `describe` tells of each that was run; refused, the others' reasons.
    """

    def __init__(self, model: str, data: str, sample: int, requests: Path):
        """Args: `sample`: requests of each benchmark that go to the file `requests`, one group a benchmark."""
        self._programs = 0
        jax.monitoring.register_event_duration_secs_listener(self._count)
        began = time.perf_counter()
        self.pretrained = load_pretrained(model, offline=True)
        self.facts: Result = {"load_seconds": time.perf_counter() - began, "benchmarks": {}, "refused": {}}
        self.data = DataFolder(Path(data), offline=True)
        self.benchmarks: dict[str, Benchmark] = {}
        samples = []
        for name, benchmark in BENCHMARKS.items():
            if benchmark.run is None:  # of a model trained for it
                continue
            try:
                cold, observations = self._run(benchmark)
                asked = join(observations)
                samples.append(sample_of(asked, sample))
            except (ValueError, OSError) as error:  # what a user can mend; anything else is a fault of ours
                self.facts["refused"][name] = str(error)
                continue
            self.benchmarks[name] = benchmark
            config = self.pretrained.config
            self.facts["benchmarks"][name] = {
                **{f"cold_{key}": value for key, value in cold.items()},
                **describe(config, asked, sample),
                "flops": sum(packed_flops(config, observation) for observation in observations),
            }
        if samples:
            save_ragged(requests, samples)

    def _count(self, event: str, duration_secs: float, **_: str | int) -> None:
        self._programs += event == COMPILED

    def _run(self, benchmark: Benchmark) -> tuple[Result, list[Observation]]:
        observations: list[Observation] = []
        self._programs = 0
        began = time.perf_counter()
        assert benchmark.run is not None  # the others were left out
        with observed(observations.append):
            benchmark.run(self.pretrained, self.data, "", None, False)
        taken = {
            "seconds": time.perf_counter() - began,
            "engine_seconds": sum(observation.seconds for observation in observations),
            "programs": self._programs,
        }
        return taken, observations

    def run(self, number: int) -> Result:
        """Runs a benchmark again: seconds of the whole run, seconds of its engine, programs compiled for it."""
        return self._run(list(self.benchmarks.values())[number])[0]


def join(observations: Sequence[Observation]) -> Asked:
    """What a benchmark's calls of its engine asked and got.

    Raises:
        ValueError: unless it calls the scorer or the embedder, and one of them only.
    """
    engines = {observation.engine for observation in observations}
    if len(engines) != 1 or not engines <= {SCORER, EMBEDDER}:
        raise ValueError(f"it asks {sorted(engines) or 'no engine'}; the suite compares benchmarks of one known engine")
    (engine,) = engines
    items = [item for observation in observations for item in observation.asked]
    answers = [
        answer
        for observation in observations
        for answer in (observation.answer.log_probs if engine == SCORER else observation.answer)
    ]
    return Asked(engine, items, answers)


def evenly(total: int, sample: int) -> np.ndarray:
    """Numbers of `sample` of `total` things, evenly spaced; of all, if there are fewer."""
    return np.linspace(0, total - 1, min(sample, total)).round().astype(int)


def sample_of(asked: Asked, sample: int) -> list[Scored]:
    """The sampled requests, as PyTorch's process gets them; sequences to embed have no positions.

    Raises:
        ValueError: for requests with an attention mask or token types, which released scorers of one row do not take.
    """
    return [_stored(asked.items[i]) for i in evenly(len(asked.items), sample)]


def _stored(item: Any) -> Scored:
    if not isinstance(item, Request):
        return Scored(item, NOTHING, NOTHING)
    if item.attention_mask is not None or item.token_types is not None:
        raise ValueError("its requests have an attention mask or token types, which the suite does not hand to PyTorch")
    return Scored(item.tokens, item.positions, item.targets)


def packed_flops(model: ModelConfig, observation: Observation) -> int:
    """Operations of one call of an engine, as packed."""
    if observation.engine == EMBEDDER:
        return packed_embed_flops(model, observation.asked)
    return packed_score_flops(model, observation.asked, attention=bool(observation.answer.attention))


def describe(model: ModelConfig, asked: Asked, sample: int) -> Result:
    """Counts of a benchmark's requests, and what ours answered to the sampled ones.

    `row_flops` are the operations of every request in a row of its own, with logits at every position for the scorer.
    """
    rows = [item.tokens if isinstance(item, Request) else item for item in asked.items]
    lengths = [len(tokens) for tokens in rows]
    chosen = evenly(len(rows), sample)
    if asked.engine == SCORER:
        row_flops = sum(score_flops(model, rows=1, tokens=length, scored=length) for length in lengths)
    else:
        row_flops = sum(encoder_flops(model, 1, length) for length in lengths)
    return {
        "engine": asked.engine,
        "requests": len(rows),
        "distinct": len({tokens.tobytes() for tokens in rows}),
        "tokens_per_request": float(np.mean(lengths)),
        "sample": len(chosen),
        "sample_tokens_per_request": float(np.mean([lengths[i] for i in chosen])),
        "row_flops": row_flops,
        "answers": [np.asarray(asked.answers[i]).tolist() for i in chosen],
    }
