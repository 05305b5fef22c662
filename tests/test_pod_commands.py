"""Commands by several processes: judging and measuring write what one process with as many devices writes, byte for byte."""

import subprocess
import sys
from pathlib import Path

import pytest

from ncfair_jax import exits
from ncfair_jax.world import write_world
from tests.test_processes import ends, place_flags, port  # noqa: F401 (a fixture)
from tests.test_train import ROOT, environment

COMMANDS = {
    "evaluate": ["--benchmarks=crows_pairs,masked_lm"],
    "measure": ["--corpus=wikitext2", "--permutations=9", "--groups=3", "--max_sentences=100"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "world"
    write_world(folder, sentences=50, bias=0.9, seed=0)
    return folder


def command(name: str, world: Path, out: Path, *flags: str) -> list[str]:
    script, cache = str(ROOT / "launch" / f"{name}.py"), f"--compilation_cache={world / 'xla'}"
    where = [f"--model={world / 'model'}", f"--data={world / 'data'}", f"--out={out}"]
    return [sys.executable, script, *where, cache, *COMMANDS[name], *flags]


def content(folder: Path) -> dict[str, bytes]:
    """What a user reads: by name, every file but hidden ones."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_write_one_process_s_files(name, world, tmp_path, port, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # matplotlib writes the time into a PDF
    one = subprocess.run(
        command(name, world, tmp_path / "one"), env=environment(2), capture_output=True, text=True, timeout=1200
    )
    assert one.returncode == 0, one.stderr
    both = [command(name, world, tmp_path / "two", *place_flags(port, 2, i)) for i in range(2)]
    assert [status for status, _ in ends(both)] == [exits.DONE] * 2
    ours, theirs = content(tmp_path / "two"), content(tmp_path / "one")
    assert ours.keys() == theirs.keys() and len(ours) > 4
    assert [file for file in ours if ours[file] != theirs[file]] == []
    again = [command(name, world, tmp_path / "two", *place_flags(port, 2, i)) for i in range(2)]
    (status, told), (other, _) = ends(again)  # what is finished is read back by both
    assert (status, other) == (exits.DONE, exits.DONE), told
    assert content(tmp_path / "two") == ours
