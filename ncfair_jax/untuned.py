"""How the forward passes that judge and measure are compiled."""

from functools import partial

import jax

# XLA times many ways to multiply and to fuse when it compiles for a GPU. That pays over thousands of training steps; here a
# program runs a few dozen times, mostly float32 products at the highest precision, for which cuBLAS's own first choice is
# good: on an H100, compiling CrowS-Pairs' program of BERT-base took 37 s with tuning and 4.6 s without. What tuning picks may
# also differ from process to process, and figures with it in their last digits.
# Other backends take these options and ignore them.
untuned_jit = partial(jax.jit, compiler_options={"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False})
