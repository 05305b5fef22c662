"""Settings that a run would not read, because another one switches them off.

They are refused where they differ from their default: whoever sets one expects an effect.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ncfair_jax.config import ConfigError, RunConfig, get


class Switch(NamedTuple):
    """Fields that a run reads only under a condition.

    Attributes:
        fields: dotted paths; a section stands for all its fields.
        read: config -> whether they are read.
        condition: the same in words.
    """

    fields: tuple[str, ...]
    read: Callable[[Any], bool]
    condition: str


CORE_SWITCHES = (
    Switch(("evals.lexicon",), lambda config: config.evals.collapse_text != "", "config.evals.collapse_text is named"),
    Switch(
        ("world.bias", "world.seed"), lambda config: config.world.sentences > 0, "config.world.sentences is above 0"
    ),
)


def refuse_unread(config: RunConfig, switches: Iterable[Switch]) -> None:
    """Refuses a setting that differs from its default and would not be read.

    Raises:
        ConfigError: naming the first, and what would let it be read.
    """
    default = type(config)()
    for switch in switches:
        if switch.read(config):
            continue
        for field in switch.fields:
            for path, value, usual in _changed(get(config, field), get(default, field), field):
                raise ConfigError(
                    f"config.{path}={value!r} has no effect: it is read only if {switch.condition}; "
                    f"set that, or leave it at {usual!r}"
                )


def _changed(value: Any, usual: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _changed(getattr(value, field.name), getattr(usual, field.name), f"{path}.{field.name}")
    elif value != usual:
        yield path, value, usual
