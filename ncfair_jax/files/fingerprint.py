"""Fingerprints of files: what finished work is recognised by.

A fingerprint is the first 16 hex digits of a SHA-256. Files are hashed once: a small file in the cache folder remembers
each file's fingerprint together with its size, times and inode (on a bucket: size and generation), and a file is hashed again
only when one of these changed. The cache only saves time. If it is missing, damaged or cannot be written, files are hashed
again.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ncfair_jax.files.bucket import BucketPath, path_of
from ncfair_jax.files.notes import remembered

P = ParamSpec("P")
T = TypeVar("T")

DIGITS = 16
CACHE_FILE = "fingerprints.json"
MOST_ENTRIES = 4096
# A file that changed a moment ago can change again without a new time stamp, so its fingerprint is not remembered yet.
SETTLED_NS = 2_000_000_000


def cache_folder() -> Path:
    """NCFAIR_CACHE, or ncfair_jax in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("NCFAIR_CACHE") or Path(base) / "ncfair_jax")


def files_fingerprint(files: Mapping[str, Path] | Sequence[Path]) -> str:
    """Fingerprint of the contents of some files, and of their names where a mapping gives them.

    Raises:
        OSError: if a file cannot be read.
    """
    named = files if isinstance(files, Mapping) else {str(number): path for number, path in enumerate(files)}
    digests = file_fingerprints(named.values())
    return fingerprint_of(f"{name}\0{digests[path]}\n".encode() for name, path in named.items())


def present_fingerprint(paths: Iterable[Path]) -> str:
    """Fingerprint of those of the files that are there; what needs a missing one says so itself."""
    return files_fingerprint([path for path in paths if path.is_file()])


def file_fingerprints(paths: Iterable[Path]) -> dict[Path, str]:
    """The fingerprint of each file.

    Raises:
        OSError: if a file cannot be read.
    """
    cache, found, fresh = _read_cache(), dict[Path, str](), dict[str, Any]()
    for path in paths:
        real = path if isinstance(path, BucketPath) else Path(os.path.realpath(path))
        name = str(real)
        before = stamp(real)
        entry = cache.get(name)
        if entry is not None and entry[0] == before:
            found[path] = entry[1]
            continue
        with real.open("rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
        settled = isinstance(real, BucketPath) or time.time_ns() - max(before[1:3]) > SETTLED_NS
        if settled and stamp(real) == before:
            fresh[name] = [before, found[path]]
    if fresh:
        _write_cache(cache, fresh)
    return found


def stamp(path: str | Path) -> list[Any]:
    """Size, times of the last change of content and of state (ns), inode and device of a file; links are followed.

    Of an object on a bucket: size and generation.
    """
    if isinstance(path, BucketPath):
        return path.version()
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def kept_while_unchanged(source: int = 0) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator of a reader: its last four results are kept, and read anew when their files changed.

    Args:
        source: which of the reader's arguments by position names the file or folder ("" or left out = none).
    """

    def decorate(read: Callable[P, T]) -> Callable[P, T]:
        @remembered(maxsize=4)
        def kept(stamps: Any, args: Any, named: Any) -> T:
            del stamps
            return read(*args, **dict(named))

        @wraps(read)
        def reader(*args: P.args, **named: P.kwargs) -> T:
            stamps = _stamps(str(args[source])) if len(args) > source else ()
            return kept(stamps, args, tuple(named.items()))

        return reader

    return decorate


def differing(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    """A line for each name whose fingerprints differ: `model.path: 3f2a… now, 81bc… then`."""
    names = dict.fromkeys([*now, *then])
    absent = "nothing"
    return [
        f"{name}: {now.get(name, absent)} now, {then.get(name, absent)} then"
        for name in names
        if now.get(name) != then.get(name)
    ]


def why_again(now: Mapping[str, str], then: Mapping[str, str]) -> str:
    """Why stored figures are made again: what differs, or that earlier versions did not record it."""
    return "; ".join(differing(now, then)) if then else "its figures are of an earlier version"


def fingerprint_of(parts: Iterable[Any]) -> str:
    """Fingerprint of some bytes, one part after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:DIGITS]


def _stamps(source: str) -> tuple[tuple[Any, ...], ...]:
    """Stamps of a file, or of the files in a folder and in its folders; () if there is none."""
    path = path_of(source).expanduser()
    if source and path.is_file():
        return ((source, *stamp(path)),)
    if not source or not path.is_dir():
        return ()
    found = (file for pattern in ("*", "*/*", "*/*/*") for file in sorted(path.glob(pattern)))
    return tuple((str(file), *stamp(file)) for file in found if file.is_file())


def _read_cache() -> dict[str, Any]:
    """What is known of files by their real path: [stamp, fingerprint]; entries of another form are left out."""
    try:
        content = json.loads((cache_folder() / CACHE_FILE).read_text(encoding="utf-8"))
        return {path: entry for path, entry in content.items() if _is_entry(entry)}
    except (OSError, ValueError, RuntimeError, AttributeError):  # no file, not JSON, no home folder, no object
        return {}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], list)
        and isinstance(entry[1], str)
        and len(entry[1]) == DIGITS
    )


def _write_cache(cache: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    """Adds entries, the oldest make room; whole or not at all. Of two processes that write at once one may lose its own."""
    kept = {path: entry for path, entry in cache.items() if path not in fresh} | dict(fresh)
    entries = dict(list(kept.items())[-MOST_ENTRIES:])
    try:
        path = cache_folder() / CACHE_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{CACHE_FILE}-", dir=path.parent) as scratch:
            new = Path(scratch) / CACHE_FILE
            new.write_text(json.dumps(entries), encoding="utf-8")
            os.replace(new, path)
    except (OSError, RuntimeError):  # not writable, full, or no home folder
        return
