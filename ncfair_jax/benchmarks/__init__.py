"""Bias and usefulness of a masked language model, with intervals: `evaluate` runs benchmarks, `compare` two models' results."""

from ncfair_jax.benchmarks.compare import compare, compare_many
from ncfair_jax.benchmarks.registry import EvaluationError, content_warnings, evaluate, headline

__all__ = ["EvaluationError", "compare", "compare_many", "content_warnings", "evaluate", "headline"]
