"""The train step at a real model's size on whatever device there is: step time, tokens/s, share of its bare matrix product.

Nothing is downloaded: random weights, and rows packed with sentences of random tokens whose lengths are those of GAP.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ncfair_jax.data.pipeline import Pipeline
from ncfair_jax.models.bert import BertConfig
from ncfair_jax.models.presets import preset_model
from ncfair_jax.speed.bare import bare_rate
from ncfair_jax.speed.contestants import Result, SpeedError, spread
from ncfair_jax.speed.data import MEAN_LENGTH, SD_LENGTH, examples_of, pipeline_of
from ncfair_jax.speed.timing import peak_mib
from ncfair_jax.speed.train_step import TrainStep

LONGEST = 128
FILL = 0.92


def synthetic_pipeline(model: BertConfig, row_tokens: int, rows: int) -> Pipeline:
    """Batches of `rows` rows, 92% full, as packing fills them."""
    rng = np.random.default_rng(0)
    lengths = rng.normal(MEAN_LENGTH, SD_LENGTH, rows * row_tokens).clip(5, min(LONGEST, row_tokens)).astype(int)
    batch_size = int(np.searchsorted(np.cumsum(lengths), FILL * rows * row_tokens))
    examples = examples_of(lengths[:batch_size], model.vocab_size)
    return pipeline_of(examples, "examples", batch_size, rows, row_tokens, model.vocab_size)


def time_train_step(
    preset: str,
    *,
    dtype: str,
    attention: str,
    layers: str = "unrolled",
    dropout_bits: str = "threefry",
    row_tokens: Sequence[int],
    rows: int = 0,
    steps: int = 0,
    matmul: int = 0,
) -> Result:
    """Times the train step with MLM + NC3 ("aligned" settings) at each row length.

    Args:
        layers, dropout_bits: as of `config.ModelSource`, without "auto".
        row_tokens: row lengths T, at most 512.
        rows: rows of 128 tokens a step; longer rows are fewer in proportion. 0: 256 on an accelerator, 4 on a CPU.
        steps: timed steps after two untimed ones. 0: 50 on an accelerator, 3 on a CPU.
        matmul: size of the bare product. 0: 8192 on an accelerator, 2048 on a CPU.
    Raises:
        ValueError: for an unknown preset, or a row length that the model does not take.
    """
    on_cpu = jax.default_backend() == "cpu"
    rows, steps = rows or (4 if on_cpu else 256), steps or (3 if on_cpu else 50)
    model = preset_model(preset, dtype, attention, layers)
    for length in row_tokens:
        if not 16 <= length <= model.max_tokens:
            raise SpeedError(f"tokens={length}; rows of the {preset} preset hold 16 to {model.max_tokens}")
    bare = bare_rate(dtype, matmul)
    return {
        "preset": preset,
        "dtype": dtype,
        "attention": attention,
        "layers": layers,
        "dropout_bits": dropout_bits,
        "device": jax.devices()[0].device_kind,
        "matmul_tflops": bare / 1e12,
        "steps": [
            measure_length(model, dropout_bits, length, max(1, rows * 128 // length), steps, bare)
            for length in row_tokens
        ],
    }


def measure_length(model: BertConfig, dropout_bits: str, row_tokens: int, rows: int, steps: int, bare: float) -> Result:
    """One row length; `bare` is FLOP/s of the bare product."""
    pipeline = synthetic_pipeline(model, row_tokens, rows)
    step = TrainStep(model, pipeline, dropout_bits=dropout_bits)
    step.again(2)
    seconds = [step.again(1) for _ in range(steps)]
    achieved = [step.flops / second for second in seconds]
    return {
        "row_tokens": row_tokens,
        "rows": int(step.batch["tokens"].shape[1]),
        "pad_fraction": pipeline.waste(step.batch),
        "compile_seconds": step.compile_seconds,
        "flops_per_step": step.flops,
        # XLA counts the body of a loop once, so with scanned layers this is too little.
        "xla_flops_per_step": float((step.compiled.cost_analysis() or {}).get("flops", float("nan"))),
        "step_milliseconds": spread([1e3 * second for second in seconds]),
        "tokens_per_second": spread([step.tokens / second for second in seconds]),
        "tflops_per_second": spread([rate / 1e12 for rate in achieved]),
        "fraction_of_matmul": float(np.median(achieved)) / bare,
        "peak_mib": device_peak_mib(),
        "loss": step.loss(),
    }


def device_peak_mib() -> float:
    """Largest memory in use on the device so far; on a CPU, of the process."""
    stats: dict[str, Any] = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else peak_mib()
