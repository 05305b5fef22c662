"""Files and folders that appear under their name only when they are whole.

On disk, what is being written has a temporary name beside the final one, `.NAME.PID-XXXXXXXX.tmp`, which no two processes
share. After an error it is removed at once; what a killed process left is removed when the same file or folder is written
again. On a bucket an object appears whole by itself, and a folder counts when its digests are there, which are written last;
what is being written lies on this machine's disk until then.
"""

import errno
import glob
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ncfair_jax.files.bucket import BucketPath, scratch, upload

LAST_FILE = "digests.json"  # of a folder: what `digests` writes when all else is there
_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")


class DiskFullError(OSError):
    """No space is left; the message says what was being written."""


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Gives a temporary path at which to write a file or a folder, and then moves it to `path`, or copies it to a bucket.

    A file already there is replaced in one step. A folder already there is first moved away: between the two steps
    there is none under its name.

    Raises:
        DiskFullError: if the space runs out.
    """
    path = path.absolute()
    if isinstance(path, BucketPath):
        with scratch(path) as folder, disk_full_told(str(path)):
            yield folder / path.name
            upload(folder / path.name, path, LAST_FILE)
        return
    _remove_leftovers(path)
    temporary, earlier = _temporary(path), _temporary(path)
    try:
        with disk_full_told(str(path)):
            yield temporary
            if path.is_dir():
                os.replace(path, earlier)
                os.replace(temporary, path)
                shutil.rmtree(earlier)
            else:
                os.replace(temporary, path)
    finally:
        remove(temporary)


@contextmanager
def disk_full_told(what: str, remedy: str = "free space and run the same command again") -> Iterator[None]:
    """Turns "no space left", from whatever library, into a DiskFullError that says what was being written, and what to do."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error) or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(f"disk full while writing {what}; {remedy}") from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is for want of space. Some libraries tell it in their text only."""
    if error is None:
        return False
    told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return told or os.strerror(errno.ENOSPC) in str(error) or is_disk_full(error.__cause__)


def is_there(folder: Path) -> bool:
    """Whether a folder that was `written` is there: one on a bucket without its digests was begun and not finished."""
    return (folder / LAST_FILE).is_file() if isinstance(folder, BucketPath) else folder.exists()


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON (no NaN), whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _remove_leftovers(path: Path) -> None:
    """Removes what processes that are gone left half-written of a file or folder."""
    for half in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        name = _TEMPORARY.fullmatch(half.name)
        if name and not _is_other_process(int(name[1])):
            remove(half)


def _is_other_process(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and another user's
    return True


def remove(path: Path) -> None:
    """Removes a file or a folder; nothing if there is none."""
    if isinstance(path, BucketPath):
        path.rmtree()
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
