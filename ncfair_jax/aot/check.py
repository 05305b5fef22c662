"""Compiles the train step of a config for a slice that is not here, and reads from the program what it needs and costs."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled

from ncfair_jax.aot.collectives import Collective, collectives
from ncfair_jax.aot.costs import memory_bytes, operations
from ncfair_jax.aot.hlo import parse, unknown_loops
from ncfair_jax.aot.lowering import Step, lower, make_step
from ncfair_jax.aot.memory import Memory, memory_of
from ncfair_jax.aot.roofline import MOST, Exchange, Seconds, links_of, seconds, weak_scaling
from ncfair_jax.aot.topology import Slice, slice_of
from ncfair_jax.config import RunConfig
from ncfair_jax.sharding import make_mesh


class Report(NamedTuple):
    """What the command tells; everything is per device.

    Attributes:
        rows, row_tokens: of an update.
        unknown_loops: loops whose length the program does not tell; their bodies count once.
        scaling: by number of chips; None for one chip.
        compile_seconds, compile_cpu: seconds of lowering and compiling on this machine, and those of all its cores together.
    """

    topology: str
    slice: Slice
    step: Step
    rows: int
    row_tokens: int
    memory: Memory
    operations: int
    bytes: int
    collectives: Sequence[Collective]
    seconds: Seconds
    scaling: Mapping[int, float] | None
    unknown_loops: int
    compile_seconds: float
    compile_cpu: float


class TooLargeError(ValueError):
    """A step that does not fit the chip's memory, by the compiler's own count."""


def check(config: RunConfig, topology: str, folder: str, preset: str, rows_per_device: int | None) -> Report:
    """Lowers, compiles and reads; arguments as of `make_step`.

    Raises:
        TopologyError, ConfigError, ModelFolderError: one line each.
        TooLargeError: if the compiler finds no place for the step.
    """
    there = slice_of(topology)
    mesh = make_mesh(config.mesh, there=there.devices)
    step = make_step(config, folder, preset, rows_per_device, mesh)
    began = time.perf_counter(), time.process_time()
    compiled = compile_step(step, topology)
    memory = memory_of(compiled)
    assert memory is not None  # the TPU compiler always has one
    took = time.perf_counter() - began[0], time.process_time() - began[1]
    program = parse(compiled.as_text() or "")
    found = collectives(program)
    exchanges = exchanges_of(found, mesh, there)
    costs = operations(program), memory_bytes(program)
    micro, rows, row_tokens = step.batch["tokens"].shape
    return Report(
        topology,
        there,
        step,
        micro * rows,
        row_tokens,
        memory,
        *costs,
        found,
        seconds(*costs, exchanges, there.chip),
        weak_scaling(*costs, exchanges, there.chip, mesh.size),
        unknown_loops(program),
        *took,
    )


def compile_step(step: Step, topology: str) -> Compiled:
    """The compiled step.

    Raises:
        TooLargeError: if it does not fit.
    """
    try:
        return lower(step).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = re.search(r"memory required.*? exceeds available HBM \([^)]*\)", str(error))
        raise TooLargeError(
            f"the step does not fit a chip of {topology} ({told[0] if told else 'out of memory'}); lower the rows, raise "
            "config.train.accumulation or config.mesh.fsdp, or set config.model.remat=True"
        ) from None


def exchanges_of(found: Sequence[Collective], mesh: Mesh, there: Slice) -> list[Exchange]:
    """Where the groups of the collectives lie on the slice, and which of them grow with it.

    The axis that grows is `data`; or `fsdp`, where `data` has length 1.
    """
    devices = list(mesh.devices.flat)
    growing = "data" if mesh.shape["data"] > 1 else "fsdp"
    places = {device: dict(zip(mesh.shape, index, strict=True)) for index, device in np.ndenumerate(mesh.devices)}
    exchanges = []
    for collective in found:
        group = [devices[index] for index in collective.group] or devices
        coordinates = [device.coords[: len(there.shape)] for device in group]
        sides = [len(set(along)) for along in zip(*coordinates, strict=True)]
        grows = len({places[device][growing] for device in group}) > 1
        exchanges.append(Exchange(collective, len(group), links_of(sides, there.shape, there.chip), grows))
    return exchanges


def counts(found: Sequence[Collective]) -> dict[str, int]:
    """How many collectives of each kind a step runs."""
    total = Counter[str]()
    for each in found:
        total[each.kind] += each.times
    return dict(sorted(total.items()))


def as_json(report: Report) -> dict[str, Any]:
    """The figures that `--json` writes: bytes, operations, seconds and fractions; the last is null for one chip."""
    scaling = report.scaling
    compiling = {"compile": report.compile_seconds, "compile_cpu": report.compile_cpu}
    return {
        "peak_bytes": report.memory.peak,
        "chip_bytes": int(report.slice.chip.memory_bytes),
        "flops": report.operations,
        "bytes": report.bytes,
        "collectives": counts(report.collectives),
        "seconds": report.seconds._asdict() | compiling,
        "weak_scaling_256": None if scaling is None else scaling[MOST],
    }
