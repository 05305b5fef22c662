"""Fields of a config that say which values they take."""

import functools
from collections.abc import Callable
from dataclasses import field
from typing import Any, NamedTuple


class Allowed(NamedTuple):
    """Which values a field takes, and what to tell someone who gives another one."""

    holds: Callable[[Any], bool]
    remedy: str


def allowed(default: Any, holds: Callable[[Any], bool], remedy: str) -> Any:
    """A field of a config that takes the values for which `holds` is true."""
    return field(default=default, metadata={"allowed": Allowed(holds, remedy)})


def choice(*values: str, default: str | None = None) -> Any:
    """A field that takes one of some names, by default the first."""
    remedy = f"choose from {', '.join(map(repr, values))}"
    return allowed(values[0] if default is None else default, values.__contains__, remedy)


def positive(default: float) -> Any:
    """A field above 0."""
    return allowed(default, lambda value: value > 0, "must be above 0")


def not_negative(default: float) -> Any:
    """A field of 0 or more."""
    return allowed(default, lambda value: value >= 0, "must not be negative")


def fraction(default: float) -> Any:
    """A field from 0 to 1."""
    return allowed(default, lambda value: 0 <= value <= 1, "is a fraction: 0 to 1")


def own_rate() -> Any:
    """A field for a dropout rate, or -1."""
    remedy = "give a rate from 0 to below 1, or -1 for the model's own"
    return allowed(-1.0, lambda rate: rate == -1 or 0 <= rate < 1, remedy)


def section(kind: type, **changes: Any) -> Any:
    """A field that holds a frozen dataclass of fields, some of them with another default."""
    return field(default_factory=functools.partial(kind, **changes))
