"""Methods by name, and the NC3 regulariser that wraps any of their losses."""

from ncfair_jax.methods.adept import ADEPT
from ncfair_jax.methods.ase import ASE
from ncfair_jax.methods.base import Method, Objective
from ncfair_jax.methods.classification import CLASSIFICATION
from ncfair_jax.methods.coref import COREF
from ncfair_jax.methods.mabel import MABEL
from ncfair_jax.methods.mlm import MLM
from ncfair_jax.methods.nc3 import with_nc3

METHODS: dict[str, Method] = {
    "adept": ADEPT,
    "ase": ASE,
    "classification": CLASSIFICATION,
    "coref": COREF,
    "mabel": MABEL,
    "mlm": MLM,
}

__all__ = ["METHODS", "Method", "Objective", "with_nc3"]
