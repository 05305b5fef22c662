"""How long a step takes at least: arithmetic, memory and network at the chip's published rates, and how that grows with chips.

Arithmetic and memory overlap, so without a network a step takes the longer of the two. A collective that the program starts and
finishes at once adds its whole time. One that it starts earlier is hidden, as far as there is something to hide behind.

Rings: an all-gather or reduce-scatter of B bytes among n chips sends B (n-1)/n over a chip's links, an all-reduce twice that.
An all-to-all is taken as one ring, on which the mean way is n/4 links; a permutation goes over one link. A group uses two
links on each side of the slice that it spans and that closes to a ring, and one on a side that is open.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ncfair_jax.aot.chips import Chip
from ncfair_jax.aot.collectives import Collective

PASSES = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0, "all-to-all": 1.0}
MOST = 256  # chips of the weak scaling


class Seconds(NamedTuple):
    """Of one step, at the chip's rates; `network` is all collectives, `exposed` those that nothing can hide."""

    arithmetic: float
    memory: float
    network: float
    exposed: float

    @property
    def alone(self) -> float:
        """Without a network."""
        return max(self.arithmetic, self.memory)

    @property
    def step(self) -> float:
        """With it."""
        return self.alone + self.exposed + max(0.0, self.network - self.exposed - self.alone)


class Exchange(NamedTuple):
    """A collective on a slice: how many chips take part, over how many of a chip's links, and whether more chips join it."""

    collective: Collective
    chips: int
    links: int
    grows: bool


def links_of(sides: Sequence[int], shape: Sequence[int], chip: Chip) -> int:
    """Links that a group uses which spans so many places on each side of a slice."""
    return sum(
        2 if span == side and side % chip.wrap == 0 else 1 for span, side in zip(sides, shape, strict=True) if span > 1
    )


def exchange_seconds(exchange: Exchange, chip: Chip) -> float:
    """Seconds of all runs of a collective in a step."""
    collective, chips, links, _ = exchange
    if chips < 2:
        return 0.0
    if collective.kind == "collective-permute":
        return collective.times * collective.bytes / chip.link_rate
    way = max(1.0, chips / 4) if collective.kind == "all-to-all" else 1.0
    sent = PASSES[collective.kind] * collective.bytes * (chips - 1) / chips * way
    return collective.times * sent / (max(1, links) * chip.link_rate)


def seconds(operations: float, bytes_: float, exchanges: Sequence[Exchange], chip: Chip) -> Seconds:
    """The times of one step."""
    each = [(exchange_seconds(exchange, chip), exchange.collective.hidden) for exchange in exchanges]
    network = math.fsum(time for time, _ in each)
    exposed = math.fsum(time for time, hidden in each if not hidden)
    return Seconds(operations / chip.matmul_rate, bytes_ / chip.memory_rate, network, exposed)


def weak_scaling(
    operations: float, bytes_: float, exchanges: Sequence[Exchange], chip: Chip, devices: int
) -> Mapping[int, float] | None:
    """Time without a network over time with it, for slices of 1 to 256 chips that have the same rows a chip.

    Groups along the mesh's axis that grows have their share of the larger slice and use all its links; the others, and the
    sizes of all arrays, stay as they are in the program. None for one chip: its program has no collectives to go by.
    """
    if devices == 1:
        return None
    found = {}
    for shape in chip.slices:
        chips = math.prod(shape)
        links = links_of(shape, shape, chip)
        grown = [
            exchange._replace(chips=exchange.chips * chips // devices, links=links) if exchange.grows else exchange
            for exchange in exchanges
        ]
        times = seconds(operations, bytes_, grown if chips > 1 else [], chip)
        found[chips] = times.alone / times.step
    return found
