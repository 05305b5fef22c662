"""WinoBias's own files (Zhao et al. 2018): a number and a sentence a line, pro- and anti-stereotyped side by side."""

import re
from pathlib import Path

from ncfair_jax.files.reading import DataError, Place, Records, RowError, read_lines

_NUMBERED = re.compile(r"\d+\s+(.*\S)\s*")


def numbered_lines(path: Path) -> Records[str]:
    """The sentences of a file whose lines are a number and a sentence.

    Raises:
        DataError: the file is missing, empty or not UTF-8.
    """
    for number, line in enumerate(read_lines(path), start=1):
        place, match = Place(str(path), number), _NUMBERED.fullmatch(line)
        fault = RowError(place, f"{line!r} is not a number and a sentence; get WinoBias's own file")
        yield place, fault if match is None else match[1]


def parallel_lines(pro: Path, anti: Path) -> Records[tuple[str, str]]:
    """The sentences of two files of numbered lines, line i of one with line i of the other; malformed if one of them is.

    Raises:
        DataError: as `numbered_lines`, or files of different lengths.
    """
    pro_lines, anti_lines = list(numbered_lines(pro)), list(numbered_lines(anti))
    if len(pro_lines) != len(anti_lines):
        raise DataError(
            f"{pro} has {len(pro_lines)} lines and {anti} has {len(anti_lines)}; line i of one belongs to line i of the "
            "other: get WinoBias's own files"
        )
    for (place, first), (_, second) in zip(pro_lines, anti_lines, strict=True):
        if isinstance(first, RowError):
            yield place, first
        elif isinstance(second, RowError):
            yield place, second
        else:
            yield place, (first, second)
