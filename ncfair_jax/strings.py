"""The check of every public function that takes several strings: a lone string would count as its letters."""

from collections.abc import Iterable


def several_strings(name: str, values: Iterable[str]) -> list[str]:
    """The strings as a list.

    Args:
        name: of the argument, for the error.
    Raises:
        TypeError: if `values` is a single string or not iterable, or holds something other than strings.
    """
    refuse_lone_string(name, values)
    listed = list(values)
    for place, value in enumerate(listed):
        if not isinstance(value, str):
            raise TypeError(f"{name}[{place}] is {_short(value)}, a {type(value).__name__}; expected a string")
    return listed


def refuse_lone_string(name: str, values: Iterable[str]) -> None:
    """The part of the check that reads none of the strings.

    Raises:
        TypeError: if `values` is a single string or not iterable.
    """
    if isinstance(values, str | bytes):
        raise TypeError(f"{name}={_short(values)} is a single string; put it in a list: {name}=[{_short(values)}]")
    if not isinstance(values, Iterable):
        raise TypeError(f"{name}={_short(values)} is a {type(values).__name__}; expected a list of strings")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"
