"""Tolerances that follow from the arithmetic of float32, for one thing computed in two ways.

Another processor, another number of rows or another program adds up the same numbers in another order. The rounding errors
of a sum of n terms walk at random, so each result is off by at most c·√n·ε/2 times the size of the terms, and beyond that
with a probability of about 2·exp(−c²/2) (Higham and Mary 2019, doi:10.1137/18M1226312). Here c = 4: once in 1,500. Errors
that are made one after the other, as in the layers of a network, add up in the same way.
"""

import math

import numpy as np

from ncfair_jax.models.bert import BertConfig

EPSILON = float(np.finfo(np.float32).eps)


def rounding(operations: float, size: float = 1.0) -> float:
    """By how much two results may differ, each of which went through so many additions of terms of this size."""
    return 4 * EPSILON * math.sqrt(operations) * size


def encoder_operations(config: BertConfig) -> int:
    """Additions behind a hidden state: in each layer the values, the attention's output and the two of the feed-forward.

    LayerNorm brings every layer's output to the size 1. A gradient goes through twice as many.
    """
    return config.num_layers * (3 * config.hidden_size + config.intermediate_size)
