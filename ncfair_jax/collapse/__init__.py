"""Neural-collapse statistics of listed words: streaming class moments, the NC3 regulariser, and measurements."""

from ncfair_jax.collapse.agreement import Agreement, update_agreement
from ncfair_jax.collapse.class_stats import ClassStats, all_reduce, decay, merge, update
from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.regularizer import nc3_loss

__all__ = [
    "Agreement",
    "ClassStats",
    "all_reduce",
    "decay",
    "measure",
    "merge",
    "nc3_loss",
    "update",
    "update_agreement",
]
