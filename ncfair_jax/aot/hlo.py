"""The text of a compiled program, taken apart: computations, instructions, shapes, and how often each computation runs.

The text is what `jax.stages.Compiled.as_text()` gives. A shape may end in a memory space, `S(1)`: on a TPU that is the chip's
own fast memory, or flags; without one the buffer lies in the large memory outside it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

SHAPE = re.compile(r"\b(pred|token|[a-z]+\d\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
BITS = re.compile(r"\d+")


class Buffer(NamedTuple):
    """An array of the program; `space` is 0 in the large memory."""

    dtype: str
    shape: tuple[int, ...]
    space: int

    @property
    def bytes(self) -> int:
        """Without the padding of tiles; types of less than a byte are packed."""
        if self.dtype == "token":
            return 0
        bits = 8 if self.dtype == "pred" else int(BITS.findall(self.dtype)[0])
        return -(-math.prod(self.shape) * bits // 8)


class Instruction(NamedTuple):
    """One line: `name = buffers opcode(operands), attributes`."""

    name: str
    buffers: tuple[Buffer, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    arguments: str
    root: bool

    def called(self, attribute: str) -> str:
        """What an attribute names, such as a computation or a channel; "" if there is none."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]


class Program(NamedTuple):
    """Computations by name, and the one that runs first."""

    computations: Mapping[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """The program of a text.

    Raises:
        ValueError: if it has no entry.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", Computation()
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif found := LINE.match(line):
            current[found[2]] = instruction(found[2], found[3], bool(found[1]))
    if not entry:
        raise ValueError("this text has no ENTRY computation; give what compiled.as_text() returns")
    return Program(computations, entry)


def instruction(name: str, text: str, root: bool) -> Instruction:
    """One instruction, from what stands behind its equals sign."""
    end = closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opening = text.index("(", end)
    close = closing(text, opening)
    arguments = text[opening + 1 : close]
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(
        name, buffers(text[:end]), text[end:opening].strip(), operands, text[close + 1 :], arguments, root
    )


def closing(text: str, opening: int) -> int:
    """Place of the bracket that closes the one at `opening`."""
    depth = 0
    for bracket in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if bracket[0] == "(" else -1
        if not depth:
            return bracket.start()
    raise ValueError(f"brackets do not close: {text[:100]!r}")


def buffers(text: str) -> tuple[Buffer, ...]:
    """The arrays of a type, those of a tuple one after the other."""
    found = []
    for dtype, sizes, layout in SHAPE.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        found.append(Buffer(dtype, tuple(map(int, filter(None, sizes.split(",")))), int(space[1]) if space else 0))
    return tuple(found)


def root_of(computation: Computation) -> Instruction:
    """The instruction whose result is the computation's."""
    return next(each for each in computation.values() if each.root)


def trip_count(program: Program, loop: Instruction) -> int | None:
    """How often a loop goes round: what the compiler notes, else the bound of a counter that starts at 0; None: unknown."""
    if noted := re.search(r'"known_trip_count":(\{[^}]*\})', loop.attributes):
        return int(json.loads(noted[1])["n"])
    condition = program.computations[loop.called("condition")]
    root = root_of(condition)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    bounds = [condition[name].arguments for name in root.operands if condition[name].opcode == "constant"]
    return int(bounds[0]) if len(bounds) == 1 and bounds[0].isdecimal() else None


def runs(program: Program, name: str = "", times: int = 1) -> Iterator[tuple[str, int]]:
    """Computations whose instructions run one after the other, each with how often; those inside fusions are not among them.

    A loop of unknown length counts once, and of a conditional every branch counts.
    """
    name = name or program.entry
    yield name, times
    for each in program.computations[name].values():
        if each.opcode == "while":
            yield from runs(program, each.called("body"), times * (trip_count(program, each) or 1))
        elif each.opcode == "call":
            yield from runs(program, each.called("to_apply"), times)
        elif each.opcode == "conditional":
            for branch in branches(each):
                yield from runs(program, branch, times)


def branches(conditional: Instruction) -> list[str]:
    """The computations that a conditional chooses from."""
    if listed := re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes):
        return re.findall(r"%?([\w.\-]+)", listed[1])
    return [conditional.called("true_computation"), conditional.called("false_computation")]


def unknown_loops(program: Program) -> int:
    """Number of loops whose length the text does not tell."""
    return sum(
        each.opcode == "while" and trip_count(program, each) is None
        for name, _ in runs(program)
        for each in program.computations[name].values()
    )
