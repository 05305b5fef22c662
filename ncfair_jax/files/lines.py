"""A text file that grows by lines, on disk or on a bucket."""

import time
from pathlib import Path

from ncfair_jax.files.atomic import disk_full_told
from ncfair_jax.files.bucket import BucketPath

SECONDS = 30.0  # between two writes of the whole to a bucket, where nothing can be appended


class Lines:
    """Appends lines to a file. On disk each is written at once; on a bucket when `sync` asks, and now and then besides."""

    def __init__(self, path: Path):
        """Opens the file, or begins it; what it holds stays."""
        self.path = path
        on_bucket = isinstance(path, BucketPath)
        self._file = None if on_bucket else path.open("a", encoding="utf-8")
        self._text = [path.read_text(encoding="utf-8")] if on_bucket and path.exists() else []
        self._synced = time.monotonic()
        self._new = False  # lines that the bucket has not

    def add(self, line: str) -> None:
        """Appends a line, given without its end.

        Raises:
            DiskFullError: if there is no space for it.
        """
        if self._file is None:
            self._text.append(line + "\n")
            self._new = True
            if time.monotonic() - self._synced > SECONDS:
                self.sync()
            return
        with disk_full_told(str(self.path)):
            self._file.write(line + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Returns when every line is there for others, and after a kill."""
        if self._new:
            self.path.write_text("".join(self._text), encoding="utf-8")
            self._synced, self._new = time.monotonic(), False

    def close(self) -> None:
        """Lets go of the file."""
        self.sync()
        if self._file is not None:
            self._file.close()
