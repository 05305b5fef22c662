"""The checks of annotations are on in all of the package, of shapes and of everything else."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, TypeCheckError

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.measures import similarities
from ncfair_jax.strings import refuse_lone_string
from tests import shapes


def test_a_numpy_scalar_is_a_number_and_a_wrong_type_or_shape_is_refused():
    def scaled(x: Float[Array, "R T"], by: float, times: int) -> Float[Array, "R T"]:
        return x * by * times

    checked = shapes.checked(scaled)
    assert checked(jnp.ones((2, 3)), np.float32(2), np.int64(1)).shape == (2, 3)
    for wrong in ((jnp.ones(3), 2.0, 1), (jnp.ones((2, 3)), "2", 1), (jnp.ones((2, 3)), 2.0, 1.5)):
        with pytest.raises(Exception, match="violates type hint"):
            checked(*wrong)


def test_the_package_is_checked():
    stats = ClassStats(jnp.ones(2), jnp.ones((2, 3)), jnp.ones(2))
    with pytest.raises(TypeCheckError, match="similarities"):
        similarities(stats, np.ones(3, np.float32))
    with pytest.raises(TypeCheckError, match="refuse_lone_string"):
        refuse_lone_string(3, ["a"])
