"""Task losses by name, and the NC3 regulariser that wraps any of them."""

from collections.abc import Callable

from ncfair_jax.models.encoder import ModelConfig
from ncfair_jax.objectives.base import Objective
from ncfair_jax.objectives.mlm import mlm_objective
from ncfair_jax.objectives.nc3 import with_nc3

OBJECTIVES: dict[str, Callable[[ModelConfig], Objective]] = {"mlm": mlm_objective}

__all__ = ["OBJECTIVES", "Objective", "with_nc3"]
