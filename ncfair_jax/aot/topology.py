"""Devices of a TPU slice that is not here, as libtpu describes them."""

from typing import NamedTuple

import jax
from jax.experimental import topologies

from ncfair_jax.aot.chips import CHIPS, Chip

INSTALL = "pip install 'ncfair_jax[aot]'"


class TopologyError(ValueError):
    """A topology that cannot be compiled for; the message says what to do."""


class Slice(NamedTuple):
    """Devices and shape of a slice, one device a chip."""

    chip: Chip
    shape: tuple[int, ...]
    devices: tuple[jax.Device, ...]


def slice_of(topology: str) -> Slice:
    """The slice of a name such as "v5e:4x4".

    Raises:
        TopologyError: for a chip without figures, a shape that libtpu does not know, or a missing libtpu.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS:
        raise TopologyError(f"--topology={topology}: no figures of the chip {name!r}; choose from {', '.join(CHIPS)}")
    sides = shape.split("x")
    if not all(side.isdecimal() and int(side) for side in sides):
        raise TopologyError(f"--topology={topology}: {shape!r} is no shape; write e.g. {name}:4x4")
    try:
        devices = tuple(topologies.get_topology_desc(topology, platform="tpu").devices)
    except Exception as error:  # jax's own errors of this call have several types
        if "TPU support not installed" in str(error):
            raise TopologyError(f"compiling for TPUs needs libtpu; install it: {INSTALL}") from None
        told = str(error).splitlines()[0]
        raise TopologyError(f"--topology={topology}: libtpu says {told!r}; try a shape such as {name}:2x2") from None
    return Slice(CHIPS[name], tuple(map(int, sides)), devices)
