"""SHA-256 digests of the files in a folder, so that damage is noticed before anything is built on it.

A folder's digests.json says what its files were when they were written. Unlike the fingerprints of models and data, which
say whether an input is the same as before, these are computed anew at every check: a flipped bit changes no time stamp.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ncfair_jax.files.atomic import LAST_FILE, write_json
from ncfair_jax.files.reading import DataError, read_json

DIGESTS_FILE = LAST_FILE


def record(folder: Path, names: Iterable[str]) -> None:
    """Writes the digests of some files of a folder, beside those that are recorded already."""
    found = {name: digest(folder / name) for name in names}
    write_json(folder / DIGESTS_FILE, (recorded(folder) or {}) | found)


def files_of(folder: Path) -> list[str]:
    """The files of a folder and of the folders in it, but digests.json and hidden ones, such as a lock."""
    files = (path for path in folder.rglob("[!.]*") if path.is_file() and path.name != DIGESTS_FILE)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def recorded(folder: Path) -> dict[str, str] | None:
    """By file name, the digests in a folder; None if there are none that can be read, or a name leads out of the folder."""
    try:
        found = read_json(folder / DIGESTS_FILE)
    except DataError:
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        return None
    paths = [PurePosixPath(name) for name in found]
    return None if any(path.is_absolute() or ".." in path.parts for path in paths) else found


def damaged(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """A phrase for each file of a folder that is not what it was when it was recorded.

    Args:
        names: only these; those of them without a recorded digest must just be there. None = all that are recorded.
    """
    known = recorded(folder)
    if known is None and (folder / DIGESTS_FILE).exists():
        return [f"{folder / DIGESTS_FILE} is damaged"]
    known = known or {}
    return [text for name in (known if names is None else names) if (text := _damage(folder / name, known, name))]


def _damage(path: Path, known: dict[str, str], name: str) -> str:
    if not path.is_file():
        return f"{path} is missing"
    if name in known and digest(path) != known[name]:
        return f"{path} is damaged (its SHA-256 is not that of what was written)"
    return ""


def drop_damaged(folder: Path) -> list[str]:
    """Deletes the damaged files of a folder of figures, which are about to be made again.

    Returns:
        What `damaged` said before.
    """
    problems = damaged(folder)
    if not problems:
        return []
    known = recorded(folder) or {}
    whole = {name: value for name, value in known.items() if not _damage(folder / name, known, name)}
    for name in known if known else files_of(folder):
        if name not in whole:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / DIGESTS_FILE, whole)
    return problems


def refuse_damaged(path: Path, remedy: str) -> None:
    """A file that is there must be what was written, if its folder says what that was.

    Raises:
        DataError: naming the file and the remedy.
    """
    if path.is_file() and (problems := damaged(path.parent, [path.name])):
        raise DataError(f"{problems[0]}; {remedy}")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
