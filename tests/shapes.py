"""beartype, of the annotations with shapes: `Float[Array, "R T"]`, alone or inside a tuple or a mapping.

The others are left to mypy: a float may be a numpy scalar, which beartype refuses, and checking them on every call takes long.
`Array` is an array of jax or numpy here, as a jitted function takes both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, install_import_hook

PACKAGE = Path(__file__).parents[1] / "ncfair_jax"
CONFIG = BeartypeConf(is_pep484_tower=True)


def check() -> None:
    """Checks shapes in all of the package that is imported from now on."""
    jaxtyping.Array = jax.Array | np.ndarray  # type: ignore[misc]
    install_import_hook(modules(), f"{__name__}.checked")


def modules() -> list[str]:
    """The files of the package that have such annotations."""
    files = [path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in sorted(files)]


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shapes checked; what jaxtyping's import hook calls.

    Fields of a dataclass are not: one that is a pytree also holds shapes or shardings in the place of its arrays.
    """
    if function.__name__ == "__init__":
        return function
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    return beartype(conf=CONFIG)(function) if function.__annotations__ else function


def has_shape(hint: Any) -> bool:
    """Whether an annotation is an array with a shape, or holds one."""
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(has_shape, get_args(hint)))
