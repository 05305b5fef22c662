"""The table of docs/scale.md: which steps are compiled for which slices, and what `launch/compile_check.py` wrote of each."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

TOKENS = {"bert-base": 8192, "bert-large": 4096}  # of an update on each device: what fits 16 GB
MOST_SPLIT = 16  # devices that parameters are split over; a larger slice repeats that along `data`
LENGTHS, MESHES = (128, 512), ("data", "fsdp")
SMALLEST, LARGEST, NEWER, BETWEEN = "v5e:1x1", "v5e:16x16", "v6e:16x16", ("v5e:2x2", "v5e:4x4", "v5e:8x8")
HEADS = (
    "model", "rows a chip", "slice", "mesh", "peak memory", "arithmetic", "memory", "network", "not hidden of it",
    "weak scaling to 256", "compiling",
)  # fmt: skip
LEFT = 4  # columns of text


class Case(NamedTuple):
    """A step and a slice.

    Attributes:
        preset: of the model.
        row_tokens: length of a row.
        mesh: "data": every device has all parameters; "fsdp": they are split.
    """

    preset: str
    row_tokens: int
    topology: str
    mesh: str

    @property
    def name(self) -> str:
        """Of its file."""
        return "_".join(map(str, self)).replace(":", "-")

    @property
    def devices(self) -> int:
        """Chips of the slice."""
        return math.prod(map(int, self.topology.partition(":")[2].split("x")))

    @property
    def sizes(self) -> tuple[int, int]:
        """Of the axes data and fsdp."""
        fsdp = 1 if self.mesh == "data" else min(self.devices, MOST_SPLIT)
        return self.devices // fsdp, fsdp

    @property
    def rows(self) -> int:
        """Of an update on each device."""
        return TOKENS[self.preset] // self.row_tokens

    @property
    def flags(self) -> list[str]:
        """What the command takes, besides the config file."""
        return [
            f"--preset={self.preset}",
            f"--topology={self.topology}",
            f"--rows_per_device={self.rows}",
            f"--config.data.row_tokens={self.row_tokens}",
            f"--config.mesh.fsdp={self.sizes[1]}",
            "--config.model.activation_dtype=bfloat16",
        ]


def cases() -> list[Case]:
    """All of the table, first those that tell most."""
    first = [(SMALLEST, "data"), *((LARGEST, mesh) for mesh in MESHES)]
    newer = [(NEWER, mesh) for mesh in MESHES]
    rest = [(topology, mesh) for topology in BETWEEN for mesh in MESHES]
    pairs = [(preset, row_tokens) for preset in TOKENS for row_tokens in LENGTHS]
    return [Case(*pair, *where) for stage in (first, newer, rest) for pair in pairs for where in stage]


def table(found: Mapping[Case, Mapping[str, Any]]) -> str:
    """Markdown of the cases that were compiled: figures of `as_json`, or {"error": why there are none}."""
    order = sorted(found, key=lambda case: (case.preset, case.row_tokens, case.topology[:3], case.devices, case.mesh))
    rules = ["---" if column < LEFT else "---:" for column in range(len(HEADS))]
    return "\n".join(map(line, [HEADS, rules, *(row(case, found[case]) for case in order)]))


def line(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def row(case: Case, figures: Mapping[str, Any]) -> list[str]:
    """Cells of a case."""
    mesh = f"data={case.sizes[0]}, fsdp={case.sizes[1]}"
    named = [case.preset, f"{case.rows} of {case.row_tokens}", case.topology, mesh]
    if "error" in figures:
        return [*named, "does not fit", *[""] * (len(HEADS) - len(named) - 1)]
    peak, chip, seconds, scaling = (
        figures[name] for name in ("peak_bytes", "chip_bytes", "seconds", "weak_scaling_256")
    )
    times = (f"{1e3 * seconds[name]:.3g} ms" for name in ("arithmetic", "memory", "network", "exposed"))
    grown = "" if scaling is None else f"{scaling:.1%}"
    return [*named, f"{peak / 1e9:.2f} GB ({peak / chip:.0%})", *times, grown, f"{seconds['compile_cpu']:.0f} s"]
