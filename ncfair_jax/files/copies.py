"""Copies of what lies on a bucket, for libraries that read disks alone: safetensors, tokenizers, parquet, `datasets`."""

from collections.abc import Iterable
from pathlib import Path

from ncfair_jax.files.atomic import written
from ncfair_jax.files.bucket import BucketPath, copy_file
from ncfair_jax.files.fingerprint import cache_folder, fingerprint_of


def local_file(path: Path) -> Path:
    """A file on disk itself; of an object on a bucket, its copy in the cache folder."""
    return local_folder(path.parent, [path]) / path.name if isinstance(path, BucketPath) else path


def local_folder(folder: Path, paths: Iterable[Path]) -> Path:
    """A folder with copies of these objects of a folder on a bucket; other versions of them have another folder.

    Raises:
        FileNotFoundError: if one of them is not there.
    """
    versions = {path.relative_to(folder): (path, path.version()) for path in paths if isinstance(path, BucketPath)}
    name = fingerprint_of(f"{folder / below}\0{version}\n".encode() for below, (_, version) in versions.items())
    copies = cache_folder() / "buckets" / name
    for below, (path, _) in versions.items():
        copy = copies / below
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with written(copy) as half:
                copy_file(path, half)
    return copies
