"""What a compiled program does on one device: operations of its matrix products, and bytes to and from the large memory.

XLA's own count takes a loop's body once. Here a body counts as often as it runs, and what lies in the chip's own fast memory
does not count as bytes.
"""

import math
import re

import numpy as np

from ncfair_jax.aot.hlo import Buffer, Computation, Instruction, Program, branches, root_of, runs, trip_count

FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all")
IN_PLACE = {"dynamic-update-slice": 1, "scatter": -1}  # their first operand is written where it lies, with this one
PICKING = ("dynamic-slice", "gather", "slice")  # they read of their first operand what they return
SAME = ("bitcast", "reshape", "copy", "get-tuple-element")


def operations(program: Program, name: str = "") -> int:
    """Operations of a step's matrix products, two for each multiply-add; of a conditional those of its costliest branch."""
    total, computation = 0, program.computations[name or program.entry]
    for each in computation.values():
        if each.opcode == "dot":
            total += dot_operations(each, computation)
        elif each.opcode == "convolution":
            total += convolution_operations(each, computation)
        elif each.opcode == "while":
            total += (trip_count(program, each) or 1) * operations(program, each.called("body"))
        elif each.opcode == "conditional":
            total += max(operations(program, branch) for branch in branches(each))
        elif called := each.called("calls") or (each.called("to_apply") if each.opcode == "call" else ""):
            total += operations(program, called)
    return total


def dot_operations(dot: Instruction, computation: Computation) -> int:
    """Twice the elements of the result times the length of what is summed."""
    left = computation[dot.operands[0]].buffers[0].shape
    summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    dims = [int(axis) for axis in summed[1].split(",") if axis] if summed else []
    return 2 * math.prod(dot.buffers[0].shape) * math.prod(left[axis] for axis in dims)


def convolution_operations(convolution: Instruction, computation: Computation) -> int:
    """As of `dot_operations`; products with padding or between the elements of a dilated array do not count.

    On TPUs every matrix product becomes a convolution, and the batch axes of a product are spatial ones with dilation.
    """
    shapes = [computation[name].buffers[0].shape for name in convolution.operands] + [convolution.buffers[0].shape]
    labels = re.split(r"_|->", re.search(r"dim_labels=([\w>\-]+)", convolution.attributes)[1])  # type: ignore[index]
    image, kernel, result = (dict(zip(label, shape, strict=True)) for label, shape in zip(labels, shapes, strict=True))
    window = re.search(r"window=\{([^}]*)\}", convolution.attributes)
    settings = dict(part.split("=") for part in window[1].split()) if window else {}
    products = 1
    for axis in sorted(set(result) - set("bf")):
        products *= meetings(image[axis], kernel[axis], result[axis], axis_settings(settings, int(axis)))
    groups = re.search(r"batch_group_count=(\d+)", convolution.attributes)
    return 2 * kernel["i"] * result["f"] * (image["b"] // (int(groups[1]) if groups else 1)) * products


def axis_settings(settings: dict[str, str], axis: int) -> tuple[int, int, int, int]:
    """Stride, padding in front, and dilations of image and kernel along one spatial axis."""

    def of(name: str, default: str) -> str:
        return settings[name].split("x")[axis] if name in settings else default

    padding = of("pad", "0_0").split("_")[0]
    return int(of("stride", "1")), int(padding), int(of("lhs_dilate", "1")), int(of("rhs_dilate", "1"))


def meetings(image: int, kernel: int, result: int, settings: tuple[int, int, int, int]) -> int:
    """Pairs of a result's place and a kernel's place, along one axis, that meet an element of the image."""
    stride, padding, image_dilation, kernel_dilation = settings
    at = np.arange(result)[:, None] * stride + np.arange(kernel)[None, :] * kernel_dilation - padding
    return int(((at % image_dilation == 0) & (at >= 0) & (at // image_dilation < image)).sum())


def memory_bytes(program: Program) -> int:
    """Bytes that a step reads from and writes to the large memory: of a fusion, what goes in and what comes out."""
    return sum(
        times * traffic(program, each, program.computations[name])
        for name, times in runs(program)
        for each in program.computations[name].values()
    )


def traffic(program: Program, each: Instruction, computation: Computation) -> int:
    """Bytes of one instruction that runs by itself; that of a pair (start, done) is its start's."""
    if each.opcode in FREE or each.opcode.endswith("-done") or 'custom_call_target="AllocateBuffer"' in each.attributes:
        return 0
    given = [computation[name].buffers for name in each.operands]
    if each.opcode in ("copy-start", "slice-start"):
        return outside(given[0]) + outside(each.buffers[:1])
    if each.opcode == "fusion":
        inner = program.computations[each.called("calls")]
        read = sum(read_bytes(program, inner, place, held) for place, held in enumerate(given))
        return read + written_bytes(program, inner, each.buffers)
    if each.opcode in PICKING:
        return 2 * outside(each.buffers)
    if each.opcode in IN_PLACE:
        return 2 * outside(given[IN_PLACE[each.opcode]])
    return sum(map(outside, given)) + outside(each.buffers)


def outside(held: tuple[Buffer, ...]) -> int:
    """Bytes of those arrays that lie in the large memory."""
    return sum(buffer.bytes for buffer in held if buffer.space == 0)


def read_bytes(program: Program, inner: Computation, place: int, held: tuple[Buffer, ...]) -> int:
    """What a fusion reads of one operand: only the slices, if it takes nothing else of it."""
    whole = outside(held)
    if not whole:
        return 0
    return min(whole, _used(program, inner, _parameter(inner, place), whole))


def _parameter(inner: Computation, place: int) -> str:
    """Name of the parameter that a computation has at this place."""
    return next(each.name for each in inner.values() if each.opcode == "parameter" and each.arguments == str(place))


def _used(program: Program, inner: Computation, name: str, whole: int) -> int:
    total = 0
    for user in inner.values():
        if name not in user.operands:
            continue
        first = user.operands[0] == name and user.operands.count(name) == 1
        if user.opcode in PICKING and first:
            total += sum(buffer.bytes for buffer in user.buffers)
        elif user.opcode in IN_PLACE and first:
            continue
        elif user.opcode in SAME:
            total += _used(program, inner, user.name, whole)
        elif user.opcode == "fusion":
            nested = program.computations[user.called("calls")]
            for place in (i for i, operand in enumerate(user.operands) if operand == name):
                total += _used(program, nested, _parameter(nested, place), whole)
        else:
            return whole
    return total


def written_bytes(program: Program, inner: Computation, results: tuple[Buffer, ...]) -> int:
    """What a fusion writes: of an array that it changes in place, only the change."""
    root = root_of(inner)
    ends = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(ends) != len(results):
        return outside(results)
    return sum(
        min(result.bytes, _change(program, inner, end))
        for end, result in zip(ends, results, strict=True)
        if result.space == 0
    )


def _change(program: Program, inner: Computation, end: Instruction) -> int:
    while end.opcode in SAME and end.operands:
        end = inner[end.operands[0]]
    if end.opcode in IN_PLACE:
        return sum(buffer.bytes for buffer in inner[end.operands[IN_PLACE[end.opcode]]].buffers)
    if end.opcode == "fusion" and len(end.buffers) == 1:
        nested = program.computations[end.called("calls")]
        return _change(program, nested, root_of(nested))
    return sum(buffer.bytes for buffer in end.buffers)
