"""How the forward passes that judge and measure are computed and compiled."""

import dataclasses
from functools import partial

import jax

from ncfair_jax.models.encoder import ModelConfig

# XLA times many ways to multiply and to fuse when it compiles for a GPU. That pays over thousands of training steps; here a
# program runs a few dozen times, mostly float32 products at the highest precision, for which cuBLAS's own first choice is
# good: on an H100, compiling CrowS-Pairs' program of BERT-base took 37 s with tuning and 4.6 s without. What tuning picks may
# also differ from process to process, and figures with it in their last digits.
# Other backends take these options and ignore them.
untuned_jit = partial(jax.jit, compiler_options={"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False})


def judging_config(config: ModelConfig) -> ModelConfig:
    """The model in float32, whatever precision it trains in, and quick to compile.

    The layers are a loop, except on a CPU, where copying their weights together for every batch costs more than it saves.
    """
    return dataclasses.replace(
        config, activation_dtype="float32", attention="xla", remat=False, scan_layers=jax.default_backend() != "cpu"
    )
