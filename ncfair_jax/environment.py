"""Where and how a run was made: what a report says of it besides the config."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import jax

from ncfair_jax.files.atomic import write_json
from ncfair_jax.files.reading import DataError
from ncfair_jax.files.records import ENVIRONMENT, read_record
from ncfair_jax.run_log import say

NOT_INSTALLED = "not installed"
ENVIRONMENT_FILE = "environment.json"
PACKAGES = ("ncfair_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


@contextmanager
def recording(workdir: Path) -> Iterator[None]:
    """Appends an entry to workdir/environment.json, and to the entry how long what is inside took and how it ended.

    A run that was killed and started again has an entry for each start; one without "ended" was killed. Only process 0
    writes.
    """
    if jax.process_index():
        yield
        return
    path = workdir / ENVIRONMENT_FILE
    earlier = _earlier(path)
    entry, began, ended = describe(), time.perf_counter(), "error"
    write_json(path, [*earlier, entry])
    try:
        yield
        ended = "finished"
    except SystemExit:
        ended = "interrupted"
        raise
    finally:
        done = {"wall_seconds": round(time.perf_counter() - began, 1), "ended": ended}
        write_json(path, [*earlier, entry | done])


def _earlier(path: Path) -> list[dict[str, Any]]:
    """The entries so far. A damaged file is kept under another name: it is only a record, and no run waits for it."""
    if not path.exists():
        return []
    aside = next(
        name for number in count(1) if not (name := path.with_name(f"{path.stem}.damaged-{number}.json")).exists()
    )
    try:
        entries: list[dict[str, Any]] = read_record(
            path, ENVIRONMENT, f"it is kept as {aside.name}, and a new one begun"
        )
    except DataError as error:
        say(f"warning: {error}")
        path.replace(aside)
        return []
    return entries


def describe() -> dict[str, Any]:
    """The command line, the time in UTC, versions, devices, host and the package's git commit."""
    devices = jax.devices()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
        "devices": f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
        "processes": jax.process_count(),
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "commit": commit(Path(__file__).parents[1]),
    }


def version_of(package: str) -> str:
    """The installed version; a checkout may also be used without installing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def commit(repository: Path) -> str | None:
    """Commit that a folder's repository is at, "+ changes" if tracked files differ; None where it is no repository's root."""
    if not (repository / ".git").exists():
        return None
    try:
        head, changed = (_git(repository, *words) for words in (["rev-parse", "HEAD"], ["status", "-suno"]))
    except (OSError, subprocess.SubprocessError):
        return None
    return head + (" + changes" if changed else "")


def _git(repository: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *words], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
