"""The collectives of a compiled program: kind, bytes, group, how often, and whether the program computes meanwhile."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ncfair_jax.aot.hlo import Computation, Instruction, Program, root_of, runs

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
STEPWISE = "async_collective_fusion_config"  # of a collective that the TPU compiler spreads over several fusions


class Collective(NamedTuple):
    """One collective of the program.

    Attributes:
        kind: of KINDS.
        bytes: of the whole array that a device takes part in, once: what an all-gather returns and a reduce-scatter takes.
        group: the places on the mesh, in its order, that exchange with the first of them; () = all.
        times: how often it runs in a step.
        hidden: whether it is started before and finished after other instructions, so that it can overlap with them.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]
    times: int
    hidden: bool


def collectives(program: Program) -> list[Collective]:
    """Every collective of a step, once: of start and done only the start, of one spread over fusions only its first part."""
    return [found for name, times in runs(program) for found in _of(program, program.computations[name], times)]


def _of(program: Program, computation: Computation, times: int) -> Iterator[Collective]:
    channels = set[tuple[str, str]]()
    for each in computation.values():
        kind = each.opcode.removesuffix("-start")
        if kind in KINDS:
            yield Collective(kind, payload(each, computation), group_of(each.attributes), times, kind != each.opcode)
        elif inside := _fused(program, each):
            parts, collective = inside
            stepwise = STEPWISE in collective.attributes
            channel = (collective.opcode, collective.called("channel_id"))
            if stepwise and channel in channels:
                continue
            if stepwise:
                channels.add(channel)
            kind = "reduce-scatter" if _scatters(parts, collective) else collective.opcode
            group = group_of(collective.attributes)
            yield Collective(kind, payload(collective, parts), group, times, stepwise or each.opcode == "async-start")


def _fused(program: Program, each: Instruction) -> tuple[Computation, Instruction] | None:
    """The collective within a fusion or an asynchronous computation, and the computation around it."""
    if each.opcode not in ("fusion", "async-start"):
        return None
    parts = program.computations[each.called("calls")]
    found = next((part for part in parts.values() if part.opcode in KINDS), None)
    return None if found is None else (parts, found)


def _scatters(parts: Computation, collective: Instruction) -> bool:
    """Whether a fusion keeps only its device's slice of an all-reduce."""
    return (
        collective.opcode == "all-reduce"
        and root_of(parts) is not collective
        and any(part.opcode == "dynamic-slice" for part in parts.values())
    )


def payload(collective: Instruction, computation: Computation) -> int:
    """Bytes of the whole array: the larger of what goes in and what comes out, which for all kinds is the undivided one."""
    given = sum(buffer.bytes for name in collective.operands for buffer in computation[name].buffers)
    result = collective.buffers
    if collective.opcode.endswith("-start") and len(result) > 1:  # operands, results, and what the hardware needs
        return given * (_group_size(collective) if collective.opcode.startswith("all-gather") else 1)
    return max(given, sum(buffer.bytes for buffer in result))


def _group_size(collective: Instruction) -> int:
    return max(1, len(group_of(collective.attributes)))


def group_of(attributes: str) -> tuple[int, ...]:
    """The first group of `replica_groups` in each of its notations; () = all devices.

    `{{0,1},{2,3}}` lists them; `[2,2]<=[4]` and `[2,2]<=[2,2]T(1,0)` deal out a count; `mesh['a'=2,'b'=2] {'b'}` names axes,
    of which `'a':(2)4` is a part: the four places that two blocks before them leave.
    """
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return tuple(map(int, listed[1].split(",")))
    if dealt := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        sizes, shape, order = (tuple(map(int, (text or "").split(","))) if text else () for text in dealt.groups())
        count = np.arange(math.prod(shape)).reshape(shape)
        return tuple(map(int, count.transpose(order or None).reshape(sizes)[0]))
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\](?:,? ?device_ids=\([^)]*\))? ?\{([^}]*)\}", attributes):
        return _along(dict(re.findall(r"'([^']+)'=(\d+)", named[1])), named[2])
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return tuple(map(int, pairs.groups()))
    return ()


def _along(mesh: dict[str, str], axes: str) -> tuple[int, ...]:
    """The places that can be reached from the first one along some axes of a mesh."""
    places = np.arange(math.prod(map(int, mesh.values()))).reshape(tuple(map(int, mesh.values())))
    chosen = {name: (before, size) for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)}
    for axis, (name, length) in enumerate(mesh.items()):
        before, size = chosen.get(name, ("", "1"))
        whole = int(length)
        part = int(size) if size else whole
        after = whole // (int(before or 1) * part)
        places = np.take(places, np.arange(part) * after, axis=axis)
    return tuple(map(int, places.ravel()))
