"""Files and folders that appear whole or not at all, and a disk that is full."""

import errno
import os
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from ncfair_jax.files.atomic import DiskFullError, disk_full_told, write_text, written


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "earlier")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        write_text(path, "half" * 10_000 + "\ud800")
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for name in ("one", "two"):
        with written(tmp_path / "folder") as new:
            new.mkdir()
            (new / name).touch()
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(tmp_path / "folder") == ["two"]


def test_two_writers_do_not_share_a_temporary_name(tmp_path):
    with written(tmp_path / "x") as first, written(tmp_path / "y") as other:
        first.touch(), other.touch()
        names = {first, other}
    with written(tmp_path / "x") as again:
        again.touch()
        assert again not in names


def test_what_a_killed_process_left_is_removed_with_the_next_write(tmp_path):
    killed = "import os, sys; from ncfair_jax.files.atomic import written\nfrom pathlib import Path\n"
    killed += (
        "with written(Path(sys.argv[1])) as half:\n half.mkdir(); (half / 'model').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "export")], check=False)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".export.") and left.endswith(".tmp")
    alive = tmp_path / f".export.{os.getppid()}-01234567.tmp"  # another process is writing it now
    alive.touch()
    with written(tmp_path / "export") as new:
        new.mkdir()
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, "export"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_that_names_the_file():
    with (
        pytest.raises(
            DiskFullError, match=r"^disk full while writing metrics\.jsonl; free space and run the same"
        ) as found,
        disk_full_told("metrics.jsonl"),
        open("/dev/full", "w", encoding="utf-8") as file,
    ):
        file.write("x" * 100_000)
    assert found.value.__cause__.errno == errno.ENOSPC


def test_a_full_disk_is_known_by_what_a_library_says_too():
    with pytest.raises(DiskFullError, match="weights"), disk_full_told("weights"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), disk_full_told("x"):
        (tmp_path / "nowhere").read_text()
