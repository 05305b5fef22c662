"""Numbers that are not finite: counted, and refused by the name of their row."""

import numpy as np
import pytest

from ncfair_jax.finite import NonFiniteError, count_non_finite, require_finite


def test_values_are_counted():
    assert count_non_finite(np.array([[1, np.nan], [np.inf, -np.inf]], np.float16)) == 3
    assert count_non_finite(np.zeros((0, 3))) == 0


@pytest.mark.parametrize("values", [np.zeros(0), np.zeros((0, 3)), np.full(3, 1e38, np.float32), np.zeros((2, 2, 2))])
def test_finite_values_pass(values):
    require_finite(values, lambda row: pytest.fail("asked for a name"))


def test_the_first_row_is_named_and_the_others_counted():
    with pytest.raises(NonFiniteError, match=r"^the score of row 1 is inf; no figure") as error:
        require_finite(np.array([[1, 2], [3, np.inf], [5, 6]]), lambda row: f"the score of row {row}")
    assert "\n" not in str(error.value)
    with pytest.raises(NonFiniteError, match=r"^row 0 is nan \(and 2 more of 4\)"):
        require_finite(np.array([np.nan, 1, np.inf, np.nan]), "row {}".format)
