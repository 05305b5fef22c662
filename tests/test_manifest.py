"""sweep.json: whole before the first run, right after each, and what an earlier command left in it."""

import json
import threading

import pytest

from ncfair_jax.files.reading import DataError
from ncfair_jax.manifest import Entry, Manifest, read_manifest
from ncfair_jax.stopping import Interrupted


def entry(arm: str, seed: int = 0, status: str = "waiting") -> Entry:
    return Entry(arm, seed, f"{arm}-seed{seed}", "model", "start/0123", status)


def statuses(folder) -> dict[str, str]:
    return {run.folder: run.status for run in read_manifest(folder)}


def test_a_run_waits_begins_and_ends(tmp_path):
    assert read_manifest(tmp_path) is None
    manifest = Manifest(tmp_path, [entry("a"), entry("b"), entry("c"), entry("d")])
    assert read_manifest(tmp_path) == [entry("a"), entry("b"), entry("c"), entry("d")]
    with manifest.running("a", 0):
        assert statuses(tmp_path)["a-seed0"] == "begun"
    for arm, error in (("b", ValueError("x")), ("c", Interrupted(15, "stopped"))):
        with pytest.raises(type(error)), manifest.running(arm, 0):
            raise error
    assert list(statuses(tmp_path).values()) == ["finished", "failed", "stopped", "waiting"]


def test_another_command_keeps_the_runs_that_it_does_not_name(tmp_path):
    first = Manifest(tmp_path, [entry("a"), entry("b"), entry("c")])
    first.mark("a", 0, "finished")
    first.mark("b", 0, "failed")
    Manifest(tmp_path, [entry("d"), entry("b"), entry("a")])
    assert statuses(tmp_path) == {
        "d-seed0": "waiting",
        "b-seed0": "waiting",
        "a-seed0": "finished",
        "c-seed0": "waiting",
    }


def test_threads_lose_no_mark_and_only_one_process_writes(tmp_path):
    runs = [entry("a", seed) for seed in range(8)]
    manifest = Manifest(tmp_path, runs)
    threads = [threading.Thread(target=manifest.mark, args=("a", seed, "finished")) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses(tmp_path).values()) == {"finished"}
    Manifest(tmp_path / "other", runs, writes=False).mark("a", 0, "begun")
    assert read_manifest(tmp_path / "other") is None


@pytest.mark.parametrize("text", ["", "[]", '{"runs": [{"arm": "a"}]}', '{"runs": [1]}'])
def test_a_damaged_manifest_is_told_in_one_line(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(DataError, match=r"sweep\.json.*; delete it, and the sweep's command writes it again"):
        read_manifest(tmp_path)


def test_the_file_holds_names_and_no_absolute_path(tmp_path):
    Manifest(tmp_path, [entry("a", 3)])
    (run,) = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert run == {
        "arm": "a",
        "seed": 3,
        "folder": "a-seed3",
        "model": "model",
        "start": "start/0123",
        "status": "waiting",
    }
