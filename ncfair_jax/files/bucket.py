"""Paths on a bucket, `gs://bucket/…`: pathlib's way of naming things, etils.epath's way of reaching them.

A bucket holds objects by name, and no folders: one is there as long as an object below it is. An object appears whole or not at
all, and every write gives it another generation. Nothing is renamed: moving is copying and deleting, so a folder that must be
whole or not there has a file that is written last (`atomic.LAST_FILE`).
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PosixPath
from typing import Any

SCHEME = "gs:"
INSTALL = "buckets need the extra `gcs`: pip install 'ncfair_jax[gcs]'"
_PATTERN = re.compile(r"[*?\[\]#]")


class BucketError(ValueError):
    """A bucket that cannot be reached as this machine is set up; one line with the remedy."""


def path_of(location: str | Path) -> Path:
    """The path of a location that a user gave or a config holds: on a bucket if it begins with gs://, else on disk.

    Raises:
        BucketError: for a bucket, if what reaches buckets is not installed, or a name would be taken for a pattern.
    """
    if isinstance(location, BucketPath) or not str(location).startswith("gs://"):
        return Path(location) if isinstance(location, str) else location
    if wrong := _PATTERN.search(str(location)):
        raise BucketError(f"{location}: what deletes on buckets takes {wrong[0]!r} for a pattern; use another name")
    _file_system()  # a missing extra is told before any work
    return BucketPath(location)


class BucketPath(PosixPath):
    """A place on a bucket. Parts, parents and names are pathlib's; what touches objects is overridden here.

    What `relative_to` gives is of this type too, and is only a name.
    """

    __slots__ = ()

    def __str__(self) -> str:
        text = super().__str__()
        return f"gs://{text[4:]}" if text.startswith("gs:/") else text

    @property
    def _there(self) -> Any:
        from etils import epath

        return epath.Path(str(self))

    def is_absolute(self) -> bool:
        return self.parts[:1] == (SCHEME,)

    def absolute(self) -> "BucketPath":
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def exists(self, **_: Any) -> bool:
        return bool(self._there.exists())

    def is_dir(self, **_: Any) -> bool:
        return bool(self._there.is_dir())

    def is_file(self, **_: Any) -> bool:
        return bool(self._there.is_file())

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator["BucketPath"]:  # type: ignore[override]
        return (self / path.name for path in self._there.iterdir())

    def glob(self, pattern: str, **_: Any) -> Iterator["BucketPath"]:  # type: ignore[override]
        """As pathlib's, without `**`: of the folder's own name nothing is a pattern, as it would be for fsspec."""
        first, rest = pattern.split("/", 1) if "/" in pattern else (pattern, "")
        for path in sorted(self.iterdir()) if self.is_dir() else ():
            if fnmatchcase(path.name, first):
                yield from path.glob(rest) if rest else (path,)

    def rglob(self, pattern: str, **_: Any) -> Iterator["BucketPath"]:  # type: ignore[override]
        """Objects of that name at any depth; folders are none."""
        found = (BucketPath(f"gs://{name}") for name in sorted(_file_system().find(str(self))))
        return (path for path in found if path.match(pattern))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there when something is in it."""

    def open(self, mode: str = "r", *_: Any, **options: Any) -> Any:
        encoding = {"encoding": options["encoding"]} if "encoding" in options else {}
        return self._there.open(mode, **encoding)

    def read_bytes(self) -> bytes:
        return bytes(self._there.read_bytes())

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        self._there.write_bytes(data)
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, *_: Any, **__: Any) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            _file_system().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self) -> None:
        """Deletes every object below this."""
        for name in _file_system().find(str(self)):
            _file_system().rm_file(name)

    def rename(self, target: Any) -> "BucketPath":  # type: ignore[override]
        """Copies the object, or those below this, and deletes them here. Stopped in between, some are there, some here."""
        files, own = _file_system(), str(self).removeprefix("gs://")
        names = files.find(own)
        for name in names:
            files.cp_file(name, f"{target}{name.removeprefix(own)}")
        for name in names:
            files.rm_file(name)
        return BucketPath(target)

    def replace(self, target: Any) -> "BucketPath":  # type: ignore[override]
        """`rename`: an object that is there already is replaced."""
        return self.rename(target)

    def version(self) -> list[Any]:
        """Size and generation of the object: another for every write.

        Raises:
            FileNotFoundError: if there is none.
        """
        found = _file_system().info(str(self))
        return [found["size"], str(found.get("generation", found.get("etag", "")))]


@cache
def _file_system() -> Any:
    """What lists objects and knows their generations."""
    try:
        import fsspec
        import gcsfs  # noqa: F401  (fsspec would tell its absence in three lines)
    except ImportError as error:
        raise BucketError(f"{INSTALL} ({error})") from None
    # Tensorstore and other processes write, too, so no listing is ever remembered; epath's file system is told so as well.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs")


def upload(local: Path, target: Path, last: str) -> None:
    """Copies a file, or the files of a folder, to a bucket, in place of what is there.

    Args:
        last: name of the file that says that a folder is whole: it is deleted first and written last.
    """
    if local.is_file():
        copy_file(local, target)
        return
    (target / last).unlink(missing_ok=True)
    names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
    for old in target.rglob("*"):
        if old.relative_to(target).as_posix() not in names:
            old.unlink()
    for name in sorted(names, key=lambda name: name == last):
        copy_file(local / name, target / name)


def copy_file(source: Path, target: Path) -> None:
    """Copies one file, to a bucket or from it."""
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 2**20)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """The location itself on disk; for one on a bucket, an empty folder on this machine's disk, removed at the end."""
    if not isinstance(folder, BucketPath):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ncfair_jax-") as name:
        yield Path(name)
