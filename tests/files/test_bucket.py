"""Paths, atomic writes and copies on a bucket, against an emulator of one."""

import json
import pickle
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.stored import StoredGroups, is_whole
from ncfair_jax.files import bucket as bucket_module
from ncfair_jax.files import digests
from ncfair_jax.files.atomic import is_there, remove, write_json, write_text, written
from ncfair_jax.files.bucket import BucketError, BucketPath, copy_file, path_of, scratch
from ncfair_jax.files.copies import local_file, local_folder
from ncfair_jax.files.fingerprint import file_fingerprints, kept_while_unchanged, stamp
from ncfair_jax.files.lines import Lines
from ncfair_jax.files.reading import DataError, read_json, read_lines
from ncfair_jax.files.rows import read_rows
from ncfair_jax.models.folders import ModelFolderError, find_folder


@pytest.fixture
def folder(bucket, request) -> BucketPath:
    return path_of(f"{bucket}/{request.node.name}")


def test_names_need_no_bucket():
    path = BucketPath("gs://bucket/run") / "evals" / "a.json"
    assert str(path) == "gs://bucket/run/evals/a.json" == f"{path}" and path.is_absolute()
    assert path.parent.parent == BucketPath("gs://bucket/run") == BucketPath("gs://bucket/run/").resolve().absolute()
    assert str(path.relative_to(BucketPath("gs://bucket/run"))) == "evals/a.json"
    assert path.with_name("b.csv") == BucketPath("gs://bucket/run/evals/b.csv") and path.suffix == ".json"
    assert pickle.loads(pickle.dumps(path)) == path and hash(path) == hash(BucketPath(str(path)))
    assert path.expanduser() is path


def test_what_begins_with_gs_is_on_a_bucket_and_nothing_else(tmp_path, bucket):
    assert type(path_of("gs:/x")) is type(path_of(tmp_path)) is type(tmp_path)
    assert path_of(str(tmp_path)) == tmp_path and path_of(path_of(f"{bucket}/x")) == BucketPath(f"{bucket}/x")


@pytest.mark.parametrize("name", ["runs/*", "run[1]", "what?", "run#7"])
def test_a_name_that_could_be_a_pattern_is_refused(name, bucket):
    with pytest.raises(BucketError, match="for a pattern; use another name"):
        path_of(f"{bucket}/{name}")


def test_what_is_missing_is_told_with_the_remedy(bucket, monkeypatch):
    bucket_module._file_system.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gcsfs", None)
        with pytest.raises(BucketError, match=r"buckets need the extra `gcs`: pip install 'ncfair_jax\[gcs\]'"):
            path_of(f"{bucket}/x")
    assert path_of(f"{bucket}/x") == BucketPath(f"{bucket}/x")
    with pytest.raises(ModelFolderError, match=f"^{bucket}/none: the bucket has nothing there"):
        find_folder(f"{bucket}/none")


def test_folders_are_there_with_what_is_in_them(folder):
    folder.mkdir(parents=True, exist_ok=True)
    assert not folder.exists() and not folder.is_dir()
    (folder / "a" / "b.txt").write_text("é")
    (folder / "a" / "c.csv").write_bytes(b"1")
    assert folder.is_dir() and (folder / "a").is_dir() and (folder / "a" / "b.txt").is_file()
    assert not (folder / "a").is_file() and not (folder / "a" / "b").exists()
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert list(folder.glob("*/*.txt")) == list(folder.rglob("*.txt")) == [folder / "a" / "b.txt"]
    assert (folder / "a" / "b.txt").read_text() == "é" and type(next(folder.iterdir())) is BucketPath
    remove(folder)
    assert not folder.exists()


def test_a_file_is_whole_or_not_there(folder):
    path = folder / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), written(path) as half:  # noqa: PT012
        half.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    write_text(path, "[]")
    assert read_json(path) == [] and [file.name for file in folder.iterdir()] == ["x.json"]


def test_a_folder_is_there_when_its_digests_are(folder, monkeypatch):
    def write(names: str, content: str) -> None:
        with written(folder) as new:
            new.mkdir()
            for name in names:
                (new / name).write_text(content)
            (new / "below").mkdir()
            (new / "below" / "z").write_text(content)
            digests.record(new, digests.files_of(new))

    write("ab", "1")
    assert is_there(folder) and digests.files_of(folder) == ["a", "b", "below/z"] and not digests.damaged(folder)
    order = []
    copy = copy_file

    def copied(source, target):
        if len(order) == 2:
            raise ConnectionError
        copy(source, target)
        order.append(target.name)

    monkeypatch.setattr("ncfair_jax.files.bucket.copy_file", copied)
    with pytest.raises(ConnectionError):
        write("bc", "2")  # killed while it is replaced
    assert not is_there(folder) and digests.recorded(folder) is None
    order[:] = [None] * 3
    write("bc", "2")
    assert order[-1] == "digests.json" and is_there(folder) and not digests.damaged(folder)
    assert digests.files_of(folder) == ["b", "below/z", "c"] and (folder / "b").read_text() == "2"
    (folder / "c").write_text("3")
    assert "is damaged" in digests.damaged(folder)[0]


def test_names_are_no_patterns(folder):
    for name in ("[a]/x", "a/x", "*/x"):
        (folder / name).write_text(name)
    assert list((folder / "[a]").glob("*")) == [folder / "[a]" / "x"] == list((folder / "[a]").rglob("x"))
    assert list((folder / "none").glob("*")) == list((folder / "a" / "x").glob("*")) == []
    (folder / "[a]" / "x").unlink()
    with pytest.raises(FileNotFoundError):
        (folder / "[a]" / "x").unlink()
    (folder / "[a]" / "x").unlink(missing_ok=True)
    remove(folder / "*")
    assert (folder / "a" / "x").read_text() == "a/x" and not (folder / "*").exists()
    moved = (folder / "a").rename(folder / "[b]")
    assert (moved / "x").read_text() == "a/x"
    assert list(folder.glob("*/x")) == [folder / "[b]" / "x"]


def test_a_folder_is_moved(folder):
    for name in ("a", "b/c"):
        (folder / "old" / name).write_text(name)
    moved = (folder / "old").rename(folder / "aside" / "old-1")
    assert moved == folder / "aside" / "old-1" and not (folder / "old").exists()
    assert [(moved / name).read_text() for name in ("a", "b/c")] == ["a", "b/c"]
    (folder / "one").write_text("new")
    (folder / "one").replace(moved / "a")
    assert (moved / "a").read_text() == "new" and not (folder / "one").exists()


def test_every_write_has_another_stamp_and_the_fingerprint_follows(folder):
    path = folder / "data.txt"
    path.write_text("one")
    first, seen = stamp(path), file_fingerprints([path])
    assert file_fingerprints([path]) == seen
    path.write_text("two")
    assert stamp(path)[0] == first[0] and stamp(path) != first and file_fingerprints([path]) != seen
    path.write_text("one")
    assert file_fingerprints([path]) == seen


def test_a_reader_sees_what_changed(folder):
    @kept_while_unchanged()
    def read(source: str) -> list[str]:
        reads.append(source)
        return read_lines(source)

    reads: list[str] = []
    (folder / "a.txt").write_text("1\n2")
    for _ in range(2):
        assert read(str(folder / "a.txt")) == ["1", "2"]
    (folder / "a.txt").write_text("3\n")
    assert read(str(folder / "a.txt")) == ["3"] and len(reads) == 2


def test_readers_take_a_bucket_and_name_it_in_errors(folder):
    (folder / "a.jsonl").write_text('{"x": 1}\n')
    assert [row for _, row in read_rows(str(folder / "a.jsonl"))] == [{"x": 1}]
    with pytest.raises(DataError, match=f"^{folder}/none.txt: no such file"):
        read_lines(folder / "none.txt")
    with written(folder / "t.parquet") as half:
        pyarrow.parquet.write_table(pyarrow.table({"x": [1, 2]}), half)
    assert [row["x"] for _, row in read_rows(str(folder / "t.parquet"))] == [1, 2]


def test_copies_follow_the_object(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path))
    (folder / "a").write_text("1")
    (folder / "b" / "c").write_text("2")
    copies = local_folder(folder, folder.rglob("*"))
    assert (copies / "a").read_text() == "1" and (copies / "b" / "c").read_text() == "2"
    assert local_folder(folder, folder.rglob("*")) == copies
    (folder / "a").write_text("3")
    assert local_folder(folder, folder.rglob("*")) != copies and local_file(folder / "a").read_text() == "3"
    assert local_file(tmp_path / "a") == tmp_path / "a"


def test_work_on_disk_for_a_folder_on_a_bucket(folder, tmp_path):
    with scratch(tmp_path) as here, scratch(folder) as there:
        assert here == tmp_path and there.is_dir() and not isinstance(there, BucketPath)
    assert not there.exists()


def test_lines_are_there_when_asked_for(folder, monkeypatch):
    path = folder / "metrics.jsonl"
    lines = Lines(path)
    lines.add("1")
    assert not path.exists()
    lines.sync()
    lines.add("2")
    assert path.read_text() == "1\n"
    lines.close()
    monkeypatch.setattr("ncfair_jax.files.lines.SECONDS", 0.0)
    again = Lines(path)
    again.add("3")
    assert path.read_text() == "1\n2\n3\n"


def test_arrays_are_read_from_a_bucket(folder):
    stats = ClassStats(np.array([1, 2]), np.ones((2, 3), np.float32), np.zeros(2, np.float32))
    StoredGroups.write(folder, 0, {"hidden": stats})
    groups = StoredGroups(folder, 1, "hidden")
    np.testing.assert_array_equal(groups[0].mean, stats.mean)
    path = next(folder.iterdir())
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert not is_whole(path)


def test_reports_of_json_are_strict(folder):
    with pytest.raises(ValueError):
        write_json(folder / "x.json", float("nan"))
    assert not (folder / "x.json").exists()
    write_json(folder / "x.json", 1)
    assert json.loads((folder / "x.json").read_text()) == 1
