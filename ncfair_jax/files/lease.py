"""One process at a time in a folder on a bucket, which has no locks: a lease, an object that says who works there until when.

The lease is made with the precondition that there is none, renewed by a thread with the precondition that it is the one written
last, and removed at the end. A process that finds one waits. If the lease is renewed, its holder lives, and the folder is
refused. If it runs out, the process takes it over, with the precondition that it is still the same one. So if several come at
once, one of them gets it. Nobody waits for a holder of the same machine whose process is gone.

Two can hold a folder at once only while a process that was stopped, or cut off from the bucket, for longer than its lease does
not know it yet. It ends itself (`exits.TRY_AGAIN`) as soon as its thread runs and finds the lease lost, or cannot renew it in
time. It counts from before it asked for the last renewal, by a clock that nobody sets, and others add SKEW to the time that the
lease names, so clocks may differ by that much. What is written in such a moment are whole objects. The same run writes the same
content under the same name; a checkpoint mixed of two does not fit its digests, so it is set aside and the one before it used;
exports, results and tables are refused by their digests in the same way. Lines of metrics.jsonl may be lost.
"""

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax import exits
from ncfair_jax.files.bucket import INSTALL, BucketError, BucketPath

LEASE_FILE = ".lease"
LEASE = 60.0  # seconds; a process that was killed keeps others away for so long
RENEW = 15.0  # seconds
SKEW = 20.0  # seconds that the clocks of two machines may differ
LOOK = 1.0  # seconds between two looks at another's lease
PATIENCE = 10.0  # seconds for one request, with what is tried again; far less than a lease
_held: dict[str, "Lease"] = {}  # of this process, by folder


class HeldError(Exception):
    """Another process holds the lease; its text says who."""


class Found(NamedTuple):
    """A lease as it is on the bucket."""

    generation: int
    content: dict[str, Any]

    @property
    def holder(self) -> str:
        """Who it is, in words."""
        return f"process {self.content.get('pid', '?')} on {self.content.get('host', 'another machine')}"

    @property
    def over(self) -> bool:
        """Whether its time is up by any clock, or its holder was a process of this machine that is gone."""
        if time.time() > float(self.content.get("until", 0)) + SKEW:
            return True
        machine = _machine()
        return bool(machine) and self.content.get("machine") == machine and not _lives(int(self.content.get("pid", 0)))


class Lease:
    """The lease of one folder, held by this process."""

    def __init__(self, folder: BucketPath):
        """Asks the bucket nothing yet."""
        self.folder = folder
        self._blob = _blob(folder / LEASE_FILE)
        self._token = secrets.token_hex(8)
        self._generation = 0  # of the object that this process wrote; 0 = none
        self._until = 0.0  # by the monotonic clock
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {folder}", daemon=True)

    def acquire(self, wait: bool) -> None:
        """Returns when this process has the lease; from then on a thread renews it.

        Raises:
            HeldError: if another holds it, and renews it; not with `wait`.
        """
        seen: Found | None = None
        told = False
        while not self._write(0 if seen is None or not seen.over else seen.generation):
            found = self._find()
            if found is not None and found.content.get("token") == self._token:  # it was written, and the answer lost
                self._generation = found.generation
                break
            if found is None or found.over:
                seen = found
                continue
            if seen is not None and found.generation != seen.generation and not wait:
                raise HeldError(found.holder)
            if not told:
                print(
                    f"{self.folder} is held by {found.holder}; waiting to see whether it lives",
                    file=sys.stderr,
                    flush=True,
                )
            seen, told = found, True
            time.sleep(LOOK)
        self._thread.start()

    def release(self) -> None:
        """Gives it back, unless it was lost."""
        self._done.set()
        self._thread.join()
        from google.api_core import exceptions

        with suppress(exceptions.GoogleAPICallError, OSError):  # then it runs out
            self._blob.delete(if_generation_match=self._generation, **_patience())

    def _find(self) -> Found | None:
        from google.api_core import exceptions

        while True:
            try:
                self._blob.reload(**_patience())
                generation = self._blob.generation
                text = self._blob.download_as_bytes(if_generation_match=generation, **_patience())
            except exceptions.NotFound:
                return None
            except exceptions.PreconditionFailed:  # renewed in between
                continue
            try:
                content = json.loads(text)
            except ValueError:
                content = {}
            return Found(generation, content if isinstance(content, dict) else {})

    def _write(self, generation: int) -> bool:
        """Writes the lease over that of a generation (0: none); False if there is another."""
        from google.api_core import exceptions

        began = time.monotonic()
        content = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "until": time.time() + LEASE,
            "token": self._token,
        }
        try:
            self._blob.upload_from_string(
                json.dumps(content), content_type="application/json", if_generation_match=generation, **_patience()
            )
        except exceptions.PreconditionFailed:
            return False
        self._generation, self._until = self._blob.generation, began + LEASE
        return True

    def _keep(self) -> None:
        """What the thread does: renews, and ends the process when the lease is lost."""
        while not self._done.wait(RENEW):
            try:
                lost = not self._write(self._generation) and not self._is_own()
            except Exception:  # whatever the network raises: until the time is up it may come back
                lost = time.monotonic() > self._until - RENEW
            if lost and not self._done.is_set():
                text = (
                    f"error: the lease of {self.folder} was lost: this process was stopped, or cut off from the bucket, for "
                    "too long; start it again with the same command, and it goes on"
                )
                print(text, file=sys.stderr, flush=True)
                os._exit(exits.TRY_AGAIN)

    def _is_own(self) -> bool:
        """Whether the lease is this process's own: the answer to a renewal may have been lost."""
        found = self._find()
        if found is None or found.content.get("token") != self._token:
            return False
        self._generation = found.generation
        return True


@contextmanager
def leased(folder: BucketPath, wait: bool) -> Iterator[None]:
    """Has the folder for this process alone while inside; may be nested.

    Raises:
        HeldError: as `Lease.acquire`.
        BucketError: if the bucket cannot be reached.
    """
    if (name := str(folder)) in _held:
        yield
        return
    try:
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise BucketError(f"{INSTALL} ({error})") from None
    try:
        lease = Lease(folder)
        lease.acquire(wait)
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise BucketError(
            f"{folder} cannot be written ({str(error).splitlines()[0]}); check its name and your rights"
        ) from error
    _held[name] = lease
    try:
        yield
    finally:
        del _held[name]
        lease.release()


def _blob(path: BucketPath) -> Any:
    from google.cloud import storage

    _, bucket, *names = path.parts
    return storage.Client().bucket(bucket).blob("/".join(names))


def _patience() -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return {"timeout": PATIENCE / 2, "retry": DEFAULT_RETRY.with_timeout(PATIENCE)}


def _machine() -> str:
    """What this start of this machine is called, with the name space that its process ids count in; "" if nothing tells."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
