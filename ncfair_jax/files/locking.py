"""One process at a time in a folder: a workdir, a folder of results, a start folder that the runs of a sweep share.

The lock is the operating system's (`flock`), so it ends with its process, however that ends. `.holder` beside it only tells
others whom they wait for. A folder on a bucket has a lease instead (`files.lease`).
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock
import jax
import numpy as np

from ncfair_jax.files.atomic import write_json
from ncfair_jax.files.bucket import BucketError, BucketPath
from ncfair_jax.files.lease import HeldError, leased

LOCK_FILE, HOLDER_FILE = ".lock", ".holder"
_IN_USE = "wait until it ends, stop it, or use another folder"


class LockedError(ValueError):
    """A folder that another process works in; one line."""


@contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Has the folder (made if need be) for this process alone while inside; may be nested.

    Args:
        wait: wait until another process is done, saying so, instead of raising.
    Raises:
        LockedError: naming the process and the host that hold it.
    """
    if isinstance(folder, BucketPath):
        with _leased(folder, wait):
            yield
        return
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.resolve() / LOCK_FILE, is_singleton=True)
    nested = lock.is_locked
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        if not wait:
            raise LockedError(f"{folder} is in use by {holder(folder)}; {_IN_USE}") from None
        print(f"waiting for {holder(folder)}, which works in {folder}", file=sys.stderr, flush=True)
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        raise LockedError(
            f"{folder} cannot be locked ({error}); use a folder on a file system that has locks"
        ) from error
    try:
        if not nested:
            write_json(folder / HOLDER_FILE, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        if not nested:
            (folder / HOLDER_FILE).unlink(missing_ok=True)
        if made and os.listdir(folder) == [LOCK_FILE]:  # nothing came of it
            (folder / LOCK_FILE).unlink()
            folder.rmdir()
        lock.release()


@contextmanager
def _leased(folder: BucketPath, wait: bool) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(leased(folder, wait))
        except HeldError as error:
            raise LockedError(f"{folder} is in use by {error}; {_IN_USE}") from None
        yield


@contextmanager
def held_by_all(folder: Path, wait: bool = False) -> Iterator[None]:
    """`held`, by the processes of one run together: process 0 has the lock, the others learn whether it got it.

    Raises:
        LockedError: in all of them.
    """
    error: Exception | None = None
    with ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                stack.enter_context(held(folder, wait))
            except (LockedError, BucketError, OSError) as found:  # not raised yet: the others wait to be told
                error = found
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
            error = error or (LockedError(f"process 0 could not have {folder} for this run") if failed else None)
        if error is not None:
            raise error
        yield


def holder(folder: Path) -> str:
    """Who works in a folder, in words."""
    try:
        found = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return "another process"
