"""Encoded texts on disk, for texts whose tokens would not fit in memory.

A folder of three files, all little-endian: the tokens of all sequences end to end (uint16 where the vocabulary allows it, else
int32), where each sequence begins and the last one ends (int64), and how many sequences each text became (uint8: a text and its
counterfactual are two). `store.json` is written last, so a folder without it is no store yet; `data.token_building` makes one.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from ncfair_jax.data.encoded import Encoded
from ncfair_jax.files.fingerprint import fingerprint_of
from ncfair_jax.files.reading import read_json

TOKENS_FILE, OFFSETS_FILE, FORMS_FILE, ABOUT_FILE = "tokens", "offsets.i64", "forms.u8", "store.json"
OFFSET, FORMS = np.dtype("<i8"), np.dtype("u1")


class TokenStore(Sequence[np.ndarray]):
    """The sequences of a store, i32[L] each, read when they are asked for. A slice is read at once."""

    def __init__(self, folder: Path):
        """Opens a finished store."""
        self.folder = folder
        self.about: dict[str, Any] = read_json(folder / ABOUT_FILE)
        self._type = np.dtype(self.about["token_type"])

    @property
    def whole(self) -> bool:
        """Whether the files have the sizes that they had when the store was finished."""
        sizes = file_sizes(self.folder, self.num_texts, len(self), self.about["tokens"], self._type)
        return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())

    def __len__(self) -> int:
        return int(self.about["sequences"])

    @property
    def num_texts(self) -> int:
        """Texts that the sequences are of."""
        return int(self.about["texts"])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, i64[S]: here, only what grows with the number of sequences is ever in memory."""
        return np.diff(self._offsets(0, len(self)))

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        wanted = range(len(self))[index]
        if isinstance(wanted, int):
            return self[wanted : wanted + 1][0]
        if wanted.step != 1:
            return [self[i] for i in wanted]
        # Read, not mapped: pages of a mapped file would count as memory of the process.
        offsets = self._offsets(wanted.start, wanted.stop)
        first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
        tokens = np.fromfile(self.folder / TOKENS_FILE, self._type, count, offset=first * self._type.itemsize)
        tokens, ends = tokens.astype(np.int32), (offsets - first).tolist()
        return [tokens[start:stop] for start, stop in pairwise(ends)]

    def of_texts(self, chosen: np.ndarray) -> Encoded:
        """The sequences of some texts, mapped: first those of the texts as they are or first became, then the second ones.

        Args:
            chosen: bool[num_texts].
        """
        forms = np.fromfile(self.folder / FORMS_FILE, FORMS)
        first = np.cumsum(forms, dtype=np.int64) - forms
        which = [first[chosen & (forms > nth)] + nth for nth in range(int(forms.max(initial=1)))]
        sequences = np.concatenate(which)
        offsets = self._offsets(0, len(self))
        # Of the smallest types that do: there may be many millions of them.
        starts = offsets[sequences].astype(np.min_scalar_type(offsets[-1]))
        lengths = np.diff(offsets).astype(np.int32)[sequences]
        tokens = np.memmap(self.folder / TOKENS_FILE, self._type, "r") if len(self) else np.zeros(0, self._type)
        content = fingerprint_of([self.about["fingerprint"].encode(), np.packbits(chosen)])
        return Encoded(tokens, starts, lengths, content, (0, self.about["highest_token"]))

    def _offsets(self, start: int, stop: int) -> np.ndarray:
        count = max(0, stop - start) + 1
        return np.fromfile(self.folder / OFFSETS_FILE, OFFSET, count, offset=start * OFFSET.itemsize)


def file_sizes(folder: Path, texts: int, sequences: int, tokens: int, token_type: np.dtype) -> dict[Path, int]:
    """Bytes of the three files of a store that holds so much: of the tokens, the offsets and the forms, in this order."""
    return {
        folder / TOKENS_FILE: tokens * token_type.itemsize,
        folder / OFFSETS_FILE: (sequences + 1) * OFFSET.itemsize,
        folder / FORMS_FILE: texts * FORMS.itemsize,
    }
