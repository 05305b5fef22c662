"""The rule that no figure is made from a number that is not finite: `nan > x` is False, which reads like a result."""

from collections.abc import Callable

import numpy as np


class NonFiniteError(ArithmeticError):
    """A number that is infinite or NaN where a figure would be made from it; the message says of what."""


def count_non_finite(values: np.ndarray) -> int:
    """How many of the values are infinite or NaN."""
    return int(np.size(values) - np.count_nonzero(np.isfinite(values)))


def require_finite(values: np.ndarray, name: Callable[[int], str]) -> None:
    """Refuses values that are not finite.

    Args:
        values: f[N, ...].
        name: what the values of row i of the N are, such as 'the score of "She sings."'; called only where it is needed.
    Raises:
        NonFiniteError: naming the first row with such a value, and how many there are.
    """
    rows = np.asarray(values)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))))
    if not len(bad):
        return
    value = rows[bad[0]][~np.isfinite(rows[bad[0]])].flat[0]
    others = f" (and {len(bad) - 1:,} more of {len(rows):,})" if len(bad) > 1 else ""
    raise NonFiniteError(
        f"{name(int(bad[0]))} is {value}{others}; no figure can be made from it. The model's weights are not finite, or so "
        "large that its numbers overflow: take earlier ones"
    )
