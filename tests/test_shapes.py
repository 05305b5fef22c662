"""The checks of shapes are on, in every file that states shapes."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, TypeCheckError

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.measures import similarities
from tests import shapes


def test_only_annotations_with_shapes_are_checked():
    def same(x: Float[Array, "R T"], times: str) -> Float[Array, "R T"]:
        del times
        return x

    assert shapes.checked(same)(jnp.ones((2, 3)), 1).shape == (2, 3)
    with pytest.raises(Exception, match="violates type hint"):
        shapes.checked(same)(jnp.ones(3), "a")
    assert shapes.has_shape(dict[str, tuple[Float[Array, "K"], int]])
    assert not shapes.has_shape(dict[str, int])


def test_the_package_is_checked():
    stats = ClassStats(jnp.ones(2), jnp.ones((2, 3)), jnp.ones(2))
    with pytest.raises(TypeCheckError, match="similarities"):
        similarities(stats, np.ones(3, np.float32))
