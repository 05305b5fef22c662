"""Encoded sentences on disk: for texts whose tokens would not fit in memory.

A folder with two files: the tokens of all examples end to end (int32), and where each example begins and the last one ends
(int64), both little-endian. They are read, not mapped: pages of a mapped file would count as memory of the process.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import overload

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.data.encoding import encode_batches
from ncfair_jax.files.bucket import scratch

TOKENS_FILE, OFFSETS_FILE = "tokens.i32", "offsets.i64"
TOKEN, OFFSET = np.dtype("<i4"), np.dtype("<i8")


class TokenStore(Sequence[np.ndarray]):
    """Examples that `build` wrote, i32[L] each, read when they are asked for. A slice is read at once."""

    def __init__(self, folder: Path):
        """Opens a finished store."""
        self._folder = folder
        self._length = (folder / OFFSETS_FILE).stat().st_size // OFFSET.itemsize - 1

    def __len__(self) -> int:
        return self._length

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, i64[E]: the only thing here that grows with the text."""
        return np.diff(self._offsets(0, self._length))

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        wanted = range(self._length)[index]
        if isinstance(wanted, int):
            return self[wanted : wanted + 1][0]
        if wanted.step != 1:
            return [self[i] for i in wanted]
        offsets = self._offsets(wanted.start, wanted.stop)
        first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
        tokens = np.fromfile(self._folder / TOKENS_FILE, TOKEN, count, offset=first * TOKEN.itemsize)
        ends = (offsets - first).tolist()
        return [tokens[start:stop] for start, stop in pairwise(ends)]

    def _offsets(self, start: int, stop: int) -> np.ndarray:
        count = max(0, stop - start) + 1
        return np.fromfile(self._folder / OFFSETS_FILE, OFFSET, count, offset=start * OFFSET.itemsize)


def build(sentences: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int, folder: Path) -> TokenStore:
    """Encodes sentences as `encode_sentences` does, in one pass and in memory for one batch, into a folder.

    Args:
        folder: made if it is not there; a store in it is replaced.
    Raises:
        TypeError, ValueError: as `encode_sentences`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = 0
    with (folder / TOKENS_FILE).open("wb") as tokens, (folder / OFFSETS_FILE).open("wb") as offsets:
        offsets.write(np.zeros(1, OFFSET).tobytes())
        for batch in encode_batches(sentences, tokenizer, max_tokens):
            tokens.write(np.concatenate(batch).astype(TOKEN).tobytes())
            ends = end + np.cumsum([len(example) for example in batch])
            offsets.write(ends.astype(OFFSET).tobytes())
            end = int(ends[-1])
    return TokenStore(folder)


@contextmanager
def temporary_store(
    sentences: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int, folder: Path
) -> Iterator[TokenStore]:
    """`build` in a folder below `folder` (on disk, if that is on a bucket), one for each process, removed at the end of the
    context.

    What a killed process left there goes, too.
    """
    with scratch(folder) as on_disk:
        own = on_disk / f"tokens-{jax.process_index()}"
        shutil.rmtree(own, ignore_errors=True)
        try:
            yield build(sentences, tokenizer, max_tokens, own)
        finally:
            shutil.rmtree(own, ignore_errors=True)
