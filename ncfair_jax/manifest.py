"""sweep.json, what a sweep's folder says of itself: its runs, where they are, what they start from, and how far they are.

The sweep writes it before its first run starts and again whenever a run begins or ends, each time whole. The report reads it.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.files.atomic import write_json
from ncfair_jax.files.records import MANIFEST, read_record

MANIFEST_FILE = "sweep.json"
WAITING, BEGUN, FINISHED, STOPPED, FAILED = "waiting", "begun", "finished", "stopped", "failed"
AGAIN = "delete it, and the sweep's command writes it again"


class Entry(NamedTuple):
    """One run of a sweep.

    Attributes:
        folder: its workdir, inside the sweep's folder.
        model: what it starts from, a Hugging Face folder or a Hub name.
        start: folder of the figures of that model, inside the sweep's folder.
        status: waiting, begun (or killed since), finished, stopped (by a signal, or by another run's) or failed.
    """

    arm: str
    seed: int
    folder: str
    model: str
    start: str
    status: str = WAITING


class Manifest:
    """Keeps a folder's sweep.json up to date; several threads may use it."""

    def __init__(self, folder: Path, runs: Sequence[Entry], writes: bool = True):
        """Writes the file.

        Args:
            runs: those of this command. Runs that an earlier command had beside them stay, after them, and what was finished
                counts as finished.
            writes: whether this process is the one that writes.
        Raises:
            DataError: if the folder has a damaged sweep.json.
        """
        self._path, self._writes, self._lock = folder / MANIFEST_FILE, writes, threading.Lock()
        earlier = {(run.arm, run.seed): run for run in read_manifest(folder) or ()}
        self._runs = {(run.arm, run.seed): run for run in runs}
        for key, run in earlier.items():
            if key not in self._runs:
                self._runs[key] = run
            elif run.status == FINISHED:
                self._runs[key] = self._runs[key]._replace(status=FINISHED)
        self._write()

    def mark(self, arm: str, seed: int, status: str) -> None:
        """Says how far a run is."""
        with self._lock:
            self._runs[arm, seed] = self._runs[arm, seed]._replace(status=status)
            self._write()

    @contextmanager
    def running(self, arm: str, seed: int) -> Iterator[None]:
        """Around a run in this process."""
        self.mark(arm, seed, BEGUN)
        try:
            yield
        except BaseException as error:
            self.mark(arm, seed, FAILED if isinstance(error, Exception) else STOPPED)
            raise
        self.mark(arm, seed, FINISHED)

    def _write(self) -> None:
        if self._writes:
            write_json(self._path, {"runs": [run._asdict() for run in self._runs.values()]})


def read_manifest(folder: Path) -> list[Entry] | None:
    """The runs of a sweep, in the order of its table; None if the folder has no sweep.json.

    Raises:
        DataError: if it is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    runs: list[dict[str, Any]] = read_record(path, MANIFEST, AGAIN)["runs"]
    return [Entry(**{name: run[name] for name in Entry._fields}) for run in runs]
