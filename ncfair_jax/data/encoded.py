"""Encoded texts that lie end to end, in memory or in a mapped file: a batch takes its tokens by index."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

PART_TOKENS = 1 << 20  # that are looked at together


@dataclass(frozen=True, eq=False)
class Encoded(Sequence[np.ndarray]):
    """Sequences of tokens, i32[L] each, which are parts of one long array.

    Attributes:
        tokens: [N], of any type of integers.
        starts, lengths: [S], of any type of integers, where each sequence lies in it.
        content: fingerprint of the sequences if it is known without reading them; "" otherwise.
        known_range: the lowest and the highest token if they are known without reading them.
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    content: str = ""
    known_range: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = int(self.starts[index])
        return self.tokens[start : start + int(self.lengths[index])].astype(np.int32)

    def parts(self) -> Iterator[np.ndarray]:
        """The long array a part at a time, of which copies may be made."""
        return (self.tokens[start : start + PART_TOKENS] for start in range(0, len(self.tokens), PART_TOKENS))

    @cached_property
    def token_range(self) -> tuple[int, int]:
        """The lowest and the highest token of the long array, (0, 0) if it is empty."""
        if self.known_range:
            return self.known_range
        ranges = [(int(part.min()), int(part.max())) for part in self.parts()] or [(0, 0)]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def hashed(self, digest: "hashlib._Hash") -> None:
        """Adds the content to a digest: all of it, or what stands for it."""
        if self.content:
            digest.update(self.content.encode())
            return
        digest.update(self.lengths.astype("<i8").tobytes())
        for part in self.parts():
            digest.update(part.astype("<i4").tobytes())


def end_to_end(sequences: Sequence[np.ndarray]) -> Encoded:
    """The sequences as parts of one array; they are not copied if they are that already."""
    if isinstance(sequences, Encoded):
        return sequences
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    tokens = np.concatenate(sequences).astype(np.int32, copy=False) if len(lengths) else np.zeros(0, np.int32)
    return Encoded(tokens, np.cumsum(lengths) - lengths, lengths)
