"""What a process of PyTorch measures on the device at hand, beside `device_ours`: the same sentences with the same masks."""

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ncfair_jax.speed import torch_side
from ncfair_jax.speed.contestants import Result, SpeedError, spread
from ncfair_jax.speed.padded import Sentence, load_ragged
from ncfair_jax.speed.timing import QUEUED, ROUNDS, matmul_rate

BACKENDS = {"cuda": "inductor", "cpu": "aot_eager"}  # of torch.compile; a CPU's would ask for a C++ compiler


def device() -> str:
    """The GPU, or the CPU where there is none."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def facts() -> Result:
    """The device, and what it does at most under PyTorch."""
    where = device()
    size, times = (8192, QUEUED) if where == "cuda" else (512, 1)
    rate = matmul_rate(lambda size: torch_side.make_matmul(size, torch.bfloat16, where, times), size, repeats=5) * times
    return {
        "device": torch.cuda.get_device_name() if where == "cuda" else "cpu",
        "platform": where,
        "bare_flops": rate * 1e9,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def training(
    sentences: str, style: str, number: int, steps: int, *, bfloat16: bool, compiled: bool, settings: Result
) -> Result:
    """Speed of PyTorch's train step on a batch that lies on the device.

    Args:
        sentences: file of `padded.save_ragged`, whose first group is trained on.
        style: as of `torch_side.make_step`.
        number: of the first sentences; half as many, and again, if the device's memory is too small.
        steps: queued in each of three rounds.
        settings: of `torch_side.TorchSettings`.
    """
    (group,) = load_ragged(Path(sentences), Sentence)
    where = device()
    how: Result = {"device": where, "bfloat16": bfloat16, "compiled": BACKENDS[where] if compiled else ""}
    while True:
        try:
            return timed(style, torch_side.TorchSettings(**settings, **how), group[:number], steps)
        except torch.OutOfMemoryError:
            if number < 2:
                raise
        number //= 2
        torch.compiler.reset()
        gc.collect()
        if where == "cuda":
            torch.cuda.empty_cache()


def timed(style: str, settings: torch_side.TorchSettings, group: Sequence[Sentence], steps: int) -> Result:
    """Figures of so many sentences a step."""
    cuda = settings.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    batch = torch_side.batch_of(style, group, settings)
    update = torch_side.make_update(style, settings)

    def queued(count: int) -> tuple[float, Any]:
        began = time.perf_counter()
        for _ in range(count):
            loss = update(batch)
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count, loss

    compile_seconds, _ = queued(1)
    queued(2)
    rounds = [queued(steps) for _ in range(ROUNDS)]
    if not np.isfinite(loss := float(rounds[-1][1])):
        raise SpeedError(f"the loss is {loss}")
    return {
        "rows": len(group),
        "row_tokens": batch.tokens.shape[1],
        "tokens": sum(len(sentence.tokens) for sentence in group),
        "seconds": spread([seconds for seconds, _ in rounds]),
        "compile_seconds": compile_seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "loss": loss,
    }


MEASUREMENTS = {"training": training}
