"""beartype, of all annotations of the package, shapes included: `Float[Array, "R T"]`, `Mapping[str, Sequence[Path]]`.

`Array` is an array of jax or numpy here, as a jitted function takes both; a float or an int may be a numpy scalar,
and so may an array without axes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

NUMBERS = FrozenDict(
    {float: float | int | np.floating | np.integer, int: int | np.integer, np.ndarray: np.ndarray | np.generic}
)
CONFIG = BeartypeConf(hint_overrides=NUMBERS)


def check() -> None:
    """Checks arguments and results in all of the package that is imported from now on."""
    jaxtyping.Array = jax.Array | np.ndarray  # type: ignore[misc]
    install_import_hook("ncfair_jax", f"{__name__}.checked")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations checked; what jaxtyping's import hook calls.

    Fields of a dataclass are not: one that is a pytree also holds shapes or shardings in the place of its arrays.
    """
    return function if function.__name__ == "__init__" else beartype(conf=CONFIG)(function)
