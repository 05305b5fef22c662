"""What a compiled program takes of a device's memory, by the compiler's own account."""

from typing import Any, NamedTuple


class Memory(NamedTuple):
    """Bytes on each device. What is donated counts once; the program itself lies in the same memory."""

    arguments: int
    temporaries: int
    results: int
    program: int

    @property
    def peak(self) -> int:
        """All of it at once, which is what the compiler reserves."""
        return sum(self)


def memory_of(compiled: Any) -> Memory | None:
    """The account of a program that was compiled ahead of time; None where the compiler gives none."""
    if (stats := compiled.memory_analysis()) is None:
        return None
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(stats.argument_size_in_bytes, stats.temp_size_in_bytes, results, stats.generated_code_size_in_bytes)
