"""Figures of the steps between two log points: means of their metrics, and how fast they went."""

import time

import jax
import numpy as np

from ncfair_jax.methods.base import Metrics


class Interval:
    """What happened since the last log point; `values` is where the host waits for the device."""

    def __init__(self) -> None:
        self.metrics: list[Metrics] = []
        self.tokens = self.pads = self.examples = 0
        self.began = time.perf_counter()

    def count(self, batch: dict[str, np.ndarray]) -> None:
        """Adds one batch of this process to the throughput figures."""
        pads = int((batch["segment_ids"] == 0).sum())
        self.pads += pads
        self.tokens += batch["segment_ids"].size - pads
        self.examples += int(batch["num_examples"])

    def values(self) -> dict[str, float]:
        """Means of all metrics, tokens and examples a second (of this process and the whole run), and pad waste."""
        steps: list[Metrics] = jax.device_get(self.metrics)
        seconds = time.perf_counter() - self.began
        means = {}
        for name in steps[0]:
            total = sum(float(step[name][0]) for step in steps)
            means[name] = total / max(sum(float(step[name][1]) for step in steps), 1e-9)
        return means | {
            "tokens_per_second": self.tokens * jax.process_count() / seconds,
            "examples_per_second": self.examples / seconds,
            "pad_fraction": self.pads / (self.pads + self.tokens),
        }
