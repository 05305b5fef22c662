"""Files are known by their content, and a file is hashed again only when it may have changed."""

import hashlib
import json
import os

import pytest

from ncfair_jax.files import fingerprint
from ncfair_jax.files.fingerprint import CACHE_FILE, file_fingerprints, files_fingerprint
from ncfair_jax.files.sources import DataFolder, Source


@pytest.fixture
def hashed(tmp_path, monkeypatch) -> list[str]:
    """Names of the files hashed so far; the cache is a fresh one, and files settle at once."""
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -1)
    names: list[str] = []
    digest = hashlib.file_digest

    def counting(file, kind):
        names.append(os.path.basename(file.name))
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return names


def test_a_fingerprint_is_the_beginning_of_the_sha256(tmp_path, hashed):
    (tmp_path / "a.txt").write_bytes(b"abc")
    assert file_fingerprints([tmp_path / "a.txt"]) == {tmp_path / "a.txt": "ba7816bf8f01cfea"}  # FIPS 180-2, "abc"


def test_a_file_is_hashed_once_until_it_changes(tmp_path, hashed):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = files_fingerprint([path])
    assert files_fingerprint([path]) == first
    assert hashed == ["a.txt"]

    os.utime(path, ns=(1, 1))  # touched, with the same content
    assert files_fingerprint([path]) == first
    assert files_fingerprint([path]) == first
    assert hashed == ["a.txt"] * 2

    stat = path.stat()  # replaced by another file of the same size and time
    (tmp_path / "b.txt").write_text("two")
    os.utime(tmp_path / "b.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (tmp_path / "b.txt").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    second = files_fingerprint([path])
    assert second != first

    path.write_text("six")  # overwritten in place, its time set back
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert files_fingerprint([path]) not in (first, second)
    assert hashed == ["a.txt"] * 4


def test_a_link_is_what_it_points_to(tmp_path, hashed):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one")
    assert files_fingerprint([link]) == files_fingerprint([tmp_path / "one"])
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert files_fingerprint([link]) == files_fingerprint([tmp_path / "two"])
    assert hashed == ["one", "two"]


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(fingerprint, "SETTLED_NS", 3_600_000_000_000)
    (tmp_path / "a.txt").write_text("one")
    for _ in range(2):
        files_fingerprint([tmp_path / "a.txt"])
    assert hashed == ["a.txt"] * 2


@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', '{"PATH": 3}', '{"PATH": [[1], 5]}', "\udcff"])
def test_a_damaged_cache_is_made_anew(tmp_path, hashed, content):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = files_fingerprint([path])
    cache = tmp_path / "cache" / CACHE_FILE
    cache.write_bytes(content.replace("PATH", str(path)).encode(errors="surrogateescape"))
    assert files_fingerprint([path]) == first
    assert json.loads(cache.read_text())[str(path)][1] == file_fingerprints([path])[path]
    assert os.listdir(tmp_path / "cache") == [CACHE_FILE]


def test_without_a_cache_files_are_hashed_again(tmp_path, hashed, monkeypatch):
    (tmp_path / "a.txt").write_text("one")
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path / "a.txt" / "cache"))  # below a file: no folder can be made there
    assert files_fingerprint([tmp_path / "a.txt"]) == files_fingerprint([tmp_path / "a.txt"])
    assert hashed == ["a.txt"] * 2


def test_the_cache_forgets_the_oldest_files(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_ENTRIES", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
        files_fingerprint([tmp_path / name])
    assert set(json.loads((tmp_path / "cache" / CACHE_FILE).read_text())) == {str(tmp_path / "b"), str(tmp_path / "c")}


def test_names_count_where_they_are_given(tmp_path, hashed):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    a, b = tmp_path / "a", tmp_path / "b"
    assert files_fingerprint({"x": a, "y": b}) != files_fingerprint({"x": b, "y": a})
    assert files_fingerprint([a, b]) != files_fingerprint([b, a])
    with pytest.raises(FileNotFoundError):
        files_fingerprint([tmp_path / "c"])


def test_files_of_a_data_folder(tmp_path, hashed):
    data, files = DataFolder(tmp_path), [Source("a.tsv"), Source("b.tsv")]
    (tmp_path / "a.tsv").write_text("one")
    without = data.fingerprint(files)
    (tmp_path / "b.tsv").write_text("one")
    both = data.fingerprint(files)
    (tmp_path / "c.tsv").write_text("not of this benchmark")
    assert data.fingerprint(files) == both != without


def test_a_reader_reads_what_changed_anew(tmp_path):
    calls = []

    @fingerprint.kept_while_unchanged(source=1)
    def read(kind: str, path: str) -> list[str]:
        calls.append(kind)
        return [file.read_text() for file in sorted((tmp_path / path).rglob("*.txt"))]

    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.txt").write_text("1")
    folder = str(tmp_path / "a")
    assert read("x", folder) == read("x", folder) == ["1"]
    assert read("y", folder) == ["1"] and calls == ["x", "y"]
    (tmp_path / "two.txt").write_text("2")
    (tmp_path / "two.txt").replace(tmp_path / "a" / "b" / "one.txt")
    assert read("x", folder) == ["2"]
    (tmp_path / "a" / "two.txt").write_text("3")
    assert read("x", folder) == ["2", "3"]
    assert read("x", "nowhere/hub") == [] and read("x", "") == ["2", "3"]
