"""From texts to a token store: in parallel, in little memory, and from where a killed process was.

After every `CHUNK` texts `progress.json` says how much there is. A process that goes on cuts the files to that and passes over
as many texts; what it makes is the same, byte for byte, however often that happened.
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.data.encoding import encode_batch, refuse_no_room
from ncfair_jax.data.token_store import (
    ABOUT_FILE,
    FORMS,
    FORMS_FILE,
    OFFSET,
    OFFSETS_FILE,
    TOKENS_FILE,
    TokenStore,
    file_sizes,
)
from ncfair_jax.files import notes
from ncfair_jax.files.atomic import disk_full_told, write_json
from ncfair_jax.files.bucket import scratch
from ncfair_jax.files.digests import digest
from ncfair_jax.files.fingerprint import fingerprint_of
from ncfair_jax.files.reading import DataError, read_json
from ncfair_jax.strings import refuse_lone_string

PROGRESS_FILE = "progress.json"
CHUNK = 4096  # texts that are encoded together
PARALLEL_FROM = 16  # chunks from which other processes help: it takes them seconds to begin
AHEAD = 2  # chunks for each of these processes that wait for it or for the disk

Forms = Callable[[str], Sequence[str]]


def as_it_is(text: str) -> tuple[str]:
    """The text alone."""
    return (text,)


class Work(NamedTuple):
    """How texts are encoded: by `tokenizer`, `max_tokens` at most, each in the `forms` that it takes."""

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    forms: Forms


class Piece(NamedTuple):
    """Some texts, encoded: tokens i32[N], lengths i64[S], how many forms each text has u8[texts], and what was cut."""

    tokens: np.ndarray
    lengths: np.ndarray
    forms: np.ndarray
    cut: notes.Cut


@dataclass(frozen=True)
class Progress:
    """What the files of an unfinished store hold."""

    texts: int = 0
    sequences: int = 0
    tokens: int = 0
    highest_token: int = 0
    cut: tuple[int, ...] = (0, 0, 0, 0)  # of a note, without its limit

    def plus(self, piece: Piece) -> "Progress":
        """With some more texts."""
        return Progress(
            self.texts + len(piece.forms),
            self.sequences + len(piece.lengths),
            self.tokens + len(piece.tokens),
            max(self.highest_token, int(piece.tokens.max(initial=0))),
            tuple(a + b for a, b in zip(self.cut, piece.cut[1:], strict=True)),
        )

    def file_sizes(self, folder: Path, token_type: np.dtype) -> dict[Path, int]:
        """Bytes of each file that holds this much."""
        return file_sizes(folder, self.texts, self.sequences, self.tokens, token_type)


def build(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    folder: Path,
    forms: Forms = as_it_is,
    processes: int = 1,
) -> TokenStore:
    """Encodes texts as `encode_sentences` does, in one pass, into a folder; or opens the store that is there, if it is whole.

    What the reading and the encoding noted is noted again whenever the store is opened so.

    Args:
        texts: the same ones as before, if a part of a store is there.
        folder: on disk; made if need be.
        forms: the texts that are trained on in place of a text, 255 at most; it must be possible to pickle it.
        processes: that encode at the same time, if there are many texts.
    Raises:
        TypeError, ValueError: as `encode_sentences`; DiskFullError, naming the folder.
    """
    refuse_lone_string("sentences", texts)
    refuse_no_room(tokenizer, max_tokens)
    if not _is_there(folder):
        folder.mkdir(parents=True, exist_ok=True)
        token_type = np.dtype("<u2" if len(tokenizer) <= 2**16 else "<i4")
        try:
            with disk_full_told(str(folder)), notes.collected() as noted:
                progress = _write(texts, Work(tokenizer, max_tokens, forms), folder, token_type, processes)
        except (TypeError, ValueError):  # of these texts there will be no store
            for name in (TOKENS_FILE, OFFSETS_FILE, FORMS_FILE, PROGRESS_FILE):
                (folder / name).unlink(missing_ok=True)
            raise
        cut = notes.Cut(max_tokens, *progress.cut)
        found = asdict(progress) | {"token_type": token_type.str, "fingerprint": _fingerprint(folder)}
        found["notes"] = notes.as_json([*noted, cut] if cut.lost else noted)
        write_json(folder / ABOUT_FILE, found)
        (folder / PROGRESS_FILE).unlink(missing_ok=True)
    store = TokenStore(folder)
    for note in notes.of_json(store.about["notes"]):
        notes.add(note)
    return store


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


def _is_there(folder: Path) -> bool:
    """Whether the folder holds a whole store; what says of a damaged one that it is finished goes."""
    try:
        there = TokenStore(folder).whole
    except (DataError, TypeError, KeyError):
        there = False
    if not there:
        (folder / ABOUT_FILE).unlink(missing_ok=True)
    return there


def _write(texts: Iterable[str], work: Work, folder: Path, token_type: np.dtype, processes: int) -> Progress:
    """Writes what is missing of the three files."""
    progress = _recorded(folder, token_type)
    sizes = progress.file_sizes(folder, token_type)
    for path, size in sizes.items():
        path.touch()
        os.truncate(path, size)  # the first offset is 0
    with ExitStack() as opened:
        tokens, offsets, forms = (opened.enter_context(path.open("ab")) for path in sizes)
        remaining = islice(texts, progress.texts, None)
        for piece in _pieces(remaining, progress.texts, work, processes):
            tokens.write(piece.tokens.astype(token_type).tobytes())
            offsets.write((progress.tokens + np.cumsum(piece.lengths)).astype(OFFSET).tobytes())
            forms.write(piece.forms.tobytes())
            for file in (tokens, offsets, forms):
                file.flush()
                os.fsync(file.fileno())
            progress = progress.plus(piece)
            write_json(folder / PROGRESS_FILE, asdict(progress))
    return progress


def _recorded(folder: Path, token_type: np.dtype) -> Progress:
    """What an earlier process wrote, if it is all there."""
    try:
        found = read_json(folder / PROGRESS_FILE)
        progress = Progress(**found | {"cut": tuple(found["cut"])})
        enough = all(path.stat().st_size >= size for path, size in progress.file_sizes(folder, token_type).items())
    except (OSError, DataError, TypeError, KeyError):
        return Progress()
    return progress if enough else Progress()


def _pieces(texts: Iterable[str], done: int, work: Work, processes: int) -> Iterator[Piece]:
    """The texts encoded, in order, some at a time; texts are read as they are needed.

    Args:
        done: number of texts before them.
    """
    remaining = iter(texts)
    chunks = iter(lambda: list(islice(remaining, CHUNK)), [])
    numbered = ((done + nth * CHUNK + 1, chunk) for nth, chunk in enumerate(chunks))
    first = list(islice(numbered, PARALLEL_FROM)) if processes > 1 else []
    if len(first) < PARALLEL_FROM:
        yield from (encode_piece(*chunk, work) for chunk in chain(first, numbered))
        return
    # Not forked: the threads of jax would be missing in the copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, (work,)) as pool:
        waiting = deque[Future[Piece]]()
        for chunk in chain(first, numbered):
            waiting.append(pool.submit(_encode, *chunk))
            if len(waiting) > AHEAD * processes:  # so no more text than that is in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def encode_piece(number: int, texts: Sequence[str], work: Work) -> Piece:
    """Some texts, encoded in all their forms.

    Args:
        number: of the first of them in the corpus.
    """
    forms = [work.forms(text) for text in texts]
    counts = np.array([len(each) for each in forms], FORMS)
    numbers = np.repeat(np.arange(number, number + len(texts)), counts).tolist()
    encoded, cut = encode_batch([form for each in forms for form in each], numbers, work.tokenizer, work.max_tokens)
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    tokens = np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum()))
    return Piece(tokens, lengths, counts, cut)


def _fingerprint(folder: Path) -> str:
    return fingerprint_of(digest(folder / name).encode() for name in (TOKENS_FILE, OFFSETS_FILE, FORMS_FILE))


# --- in a process that helps

_work: Work


def _begin(work: Work) -> None:
    """Once in each process that helps. It ends when the one that it helps does, however that ends."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_the_helped, daemon=True).start()


def _end_with_the_helped() -> None:
    helped = multiprocessing.parent_process()
    assert helped is not None
    helped.join()
    os._exit(1)


def _encode(number: int, texts: list[str]) -> Piece:
    return encode_piece(number, texts, _work)
