"""ncfair_jax's side of the suite: the real benchmarks of the registry, run in one process on one loaded model."""

import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ncfair_jax.benchmarks.base import Benchmark
from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.engine import Answer, Request, forward_of
from ncfair_jax.engine.requests import ATTENTION, FIRST_VECTOR, LOG_PROBS, MEAN_VECTOR, NEXT_SENTENCE, scored_log_probs
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.models.base import ModelConfig
from ncfair_jax.models.hf import load_pretrained
from ncfair_jax.speed.contestants import Result
from ncfair_jax.speed.flops import encoder_flops, score_flops
from ncfair_jax.speed.ours import packed_flops_of
from ncfair_jax.speed.padded import Scored, save_ragged

COMPILED = "/jax/core/compile/backend_compile_duration"  # jax's event: a program was compiled or fetched from a cache
SCORES, VECTORS = "scores", "vectors"  # what a benchmark asks for; PyTorch's side has an engine for each
KIND_OF = {
    LOG_PROBS: SCORES,
    ATTENTION: SCORES,
    NEXT_SENTENCE: SCORES,
    MEAN_VECTOR: VECTORS,
    FIRST_VECTOR: VECTORS,
}


class Exchange(NamedTuple):
    """All that a benchmark asked in a run, in order and with repetitions, and what it was answered."""

    requests: list[Request]
    answers: list[Answer]

    @property
    def engine(self) -> str:
        """SCORES or VECTORS.

        Raises:
            ValueError: unless it is one of them only.
        """
        kinds = {KIND_OF.get(request.ask, request.ask) for request in self.requests}
        if len(kinds) != 1 or not kinds <= {SCORES, VECTORS}:
            raise ValueError(f"it asks for {sorted(kinds) or 'nothing'}; the suite compares scores or vectors")
        return kinds.pop()

    def values(self, number: int) -> np.ndarray:
        """Log-probabilities f32[P] that a request was answered, or the vector f32[D]."""
        answer = self.answers[number]
        return scored_log_probs(answer) if answer.vector is None else answer.vector


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
        self.forward = forward_of(self.pretrained)
        self.data = DataFolder(Path(data), offline=True)
        self.benchmarks: dict[str, Benchmark] = {}
        samples = []
        for name, benchmark in BENCHMARKS.items():
            if not benchmark.ask:  # of a model trained for it
                continue
            try:
                cold, asked = self._run(benchmark)
                told = describe(self.pretrained.config, asked, sample)
                samples.append(sample_of(asked, sample))
            except (ValueError, OSError) as error:  # what a user can mend; anything else is a fault of ours
                self.facts["refused"][name] = str(error)
                continue
            self.benchmarks[name] = benchmark
            self.facts["benchmarks"][name] = {
                **{f"cold_{key}": value for key, value in cold.items()},
                **told,
                "flops": packed_flops_of(self.pretrained.config, asked.requests),
            }
        if samples:
            save_ragged(requests, samples)

    def _count(self, event: str, duration_secs: float, **_: str | int) -> None:
        self._programs += event == COMPILED

    def _run(self, benchmark: Benchmark) -> tuple[Result, Exchange]:
        self._programs = 0
        began = time.perf_counter()
        assert benchmark.read is not None  # the others were left out
        questions = benchmark.questions(benchmark.read(self.data, ""), self.pretrained)
        asked_at = time.perf_counter()
        answers = self.forward(questions.requests)
        engine_seconds = time.perf_counter() - asked_at
        questions.table(answers)
        taken = {
            "seconds": time.perf_counter() - began,
            "engine_seconds": engine_seconds,
            "programs": self._programs,
        }
        return taken, Exchange(questions.requests, answers)

    def run(self, number: int) -> Result:
        """Runs a benchmark again: seconds of the whole run, seconds of its engine, programs compiled for it."""
        return self._run(list(self.benchmarks.values())[number])[0]


def evenly(total: int, sample: int) -> np.ndarray:
    """Numbers of `sample` of `total` things, evenly spaced; of all, if there are fewer."""
    return np.linspace(0, total - 1, min(sample, total)).round().astype(int)


def sample_of(asked: Exchange, sample: int) -> list[Scored]:
    """The sampled requests, as PyTorch's process gets them; sequences to embed have no positions.

    Raises:
        ValueError: for requests with an attention mask or token types, which released scorers of one row do not take.
    """
    return [_stored(asked.requests[i]) for i in evenly(len(asked.requests), sample)]


def _stored(request: Request) -> Scored:
    if request.attention_mask is not None or request.token_types is not None:
        raise ValueError("its requests have an attention mask or token types, which the suite does not hand to PyTorch")
    return Scored(request.tokens, request.positions, request.targets)


def describe(model: ModelConfig, asked: Exchange, sample: int) -> Result:
    """Counts of a benchmark's requests, and what ours answered to the sampled ones.

    `row_flops` are the operations of every request in a row of its own, with logits at every position for the scorer.
    """
    rows = [request.tokens for request in asked.requests]
    lengths = [len(tokens) for tokens in rows]
    chosen = evenly(len(rows), sample)
    if asked.engine == SCORES:
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
        "answers": [asked.values(i).tolist() for i in chosen],
    }
