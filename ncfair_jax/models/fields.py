"""Fields of a config.json: what is wrong with them, a line for each problem."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ncfair_jax.models.folders import CONFIG

_MOST = 10_000_000  # of any size: beyond every published model, and refused before anything is allocated
_SHOWN = 80  # characters of a wrong value


class Field(NamedTuple):
    """A number in config.json: the config's name for it, which values are valid, and the default (None: required)."""

    attribute: str
    valid: Callable[[Any], bool]
    expected: str
    default: int | float | None = None


def size(attribute: str, default: int | None = None) -> Field:
    """A whole number of at least 1."""
    expected = f"a whole number of at least 1 and at most {_MOST:,}"
    return Field(attribute, lambda v: is_integer(v) and 1 <= v <= _MOST, expected, default)


def small(attribute: str, default: float) -> Field:
    """A number from 0 to 1."""
    return Field(attribute, lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1", default)


def rate(attribute: str, default: float) -> Field:
    """A probability of dropping something."""
    return Field(attribute, lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1", default)


def numbers(raw: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """The config's numbers, by the config's names for them."""
    return {field.attribute: raw.get(name, field.default) for name, field in fields.items()}


def wrong_numbers(raw: Mapping[str, Any], fields: Mapping[str, Field]) -> list[str]:
    """Numbers that are missing or not valid."""
    problems = []
    for name, field in fields.items():
        if name not in raw:
            if field.default is None:
                problems.append(f"{CONFIG} has no {name}; add it")
        elif not field.valid(raw[name]):
            remedy = "correct it" if field.default is None else f"correct it, or remove it for {field.default:g}"
            problems.append(f"{CONFIG} has {name}={shown(raw[name])}, expected {field.expected}; {remedy}")
    return problems


def unsupported(raw: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Fields that have another value than those supported, of which the first is the default."""
    return [
        f"{CONFIG} has {name}={shown(raw[name])}, supported: {', '.join(map(shown, values))}; choose another model"
        for name, values in supported.items()
        if not any(_same(raw.get(name, values[0]), value) for value in values)
    ]


def wrong_multiple(raw: Mapping[str, Any], multiple: str, of: str) -> list[str]:
    """A size that is not a multiple of another; both are valid."""
    if raw[multiple] % raw[of] == 0:
        return []
    return [f"{CONFIG} has {multiple}={raw[multiple]}, which is not a multiple of {of}={raw[of]}; correct one of them"]


def wrong_token_id(raw: Mapping[str, Any], name: str) -> list[str]:
    """The id of a token that is there and not one of the vocabulary's."""
    if name not in raw:
        return []
    value, rows = raw[name], raw.get("vocab_size", 0)
    rows_are_wrong = not is_integer(rows) or not 1 <= rows <= _MOST  # told elsewhere
    if is_integer(value) and value >= 0 and (rows_are_wrong or value < rows):
        return []
    return [f"{CONFIG} has {name}={shown(value)}, expected the id of a token (0 to vocab_size - 1); correct it"]


def wrong_flag(raw: Mapping[str, Any], name: str) -> list[str]:
    """A flag that is neither true nor false."""
    if isinstance(raw.get(name, True), bool):
        return []
    return [f"{CONFIG} has {name}={shown(raw[name])}, expected true or false; correct it"]


def is_integer(value: Any) -> bool:
    """Whether it is a whole number, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value as config.json spells it, strings in single quotes and numbers in strings called so; long ones cut."""
    if isinstance(value, str):
        text = f"{value!r} (a string)" if value.replace(".", "").isdecimal() else repr(value)
    else:
        try:
            text = json.dumps(value)
        except RecursionError:  # it was read just below the limit
            text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_number(value: Any) -> bool:
    return is_integer(value) or isinstance(value, float)


def _same(a: Any, b: Any) -> bool:
    """Equal and of one type: in Python 0 == False."""
    return type(a) is type(b) and a == b
