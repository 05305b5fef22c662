"""The script for a GPU machine: a shell accepts it, it says what is missing, and it runs on a CPU where little is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ncfair_jax.models.attention import KERNELS

SCRIPT = Path(__file__).parent / "run.sh"
# What the package lists and the machines that this is for were seen to lack.
LACKING = ("grain", "ml_collections", "datasets", "tensorboardX", "adjustText")
NOT_FOUND = """
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


def without(name, path=None, target=None):
    return None if name in {names} else find_spec(name, path, target)


PathFinder.find_spec = staticmethod(without)
"""


def lacking(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which Python does not find these libraries."""
    (folder / "sitecustomize.py").write_text(NOT_FOUND.replace("{names}", repr(names)))
    paths = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHON": sys.executable, "OUT": str(folder / "out")}


def test_a_shell_accepts_it():
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_what_is_missing_is_told_at_once(tmp_path):
    done = subprocess.run(
        [SCRIPT], env=lacking(tmp_path, "optax", "transformers"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sys.executable} lacks: optax transformers; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parity
def test_it_runs_on_a_cpu_with_what_such_a_machine_has(tmp_path):
    pytest.importorskip("torch")
    only = r"check|tiny 128$|tiny 128, attention=cudnn|PyTorch, padded$"
    done = subprocess.run(
        [SCRIPT, "--preset=tiny", f"--only={only}", "--seconds=900"],
        env=lacking(tmp_path, *LACKING), capture_output=True, text=True, timeout=1000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "out" / "device.json").read_text())
    assert (tmp_path / "out" / "device.md").read_text() in done.stdout
    assert result["missing"] == ["grain"] and set(result["facts"]) == {"our_device", "torch_device"}
    measured = result["measurements"]
    skipped = {name for name, found in measured.items() if "skipped" in found}
    assert skipped == {"tiny 128, attention=cudnn", *(f"check {name}" for name in KERNELS)}
    assert not [found for found in measured.values() if "error" in found]
    ours, padded = measured["tiny 128"], measured["tiny PyTorch, padded"]
    assert ours["host"]["batch_seconds"] > 0 and padded["rows"] == 8
    assert all(each["tokens"] > 0 and each["seconds"]["median"] > 0 for each in (ours, padded))
