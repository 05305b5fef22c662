"""The command on a tiny model and four chips that are not here, and the script that stores what it counts.

    python -m tests.aot.tiny_slice

writes golden_collectives.json: after a change of the step that is meant to change its collectives, or with another libtpu.
"""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.started import ROOT, environment

GOLDEN = Path(__file__).parent / "golden_collectives.json"
MESHES = {
    "data": "",
    "fsdp": "--config.mesh.data=1 --config.mesh.fsdp=-1",
    "tensor": "--config.mesh.data=1 --config.mesh.tensor=-1",
}
COMMAND = (
    "launch/compile_check.py --config=configs/bert_nc.py --topology=v5e:2x2 --preset=tiny --rows_per_device=8 "
    "--config.model.activation_dtype=bfloat16"
)


def libtpu() -> str:
    """The version of the installed libtpu; "" if there is none."""
    return importlib.metadata.version("libtpu") if importlib.util.find_spec("libtpu") else ""


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds libtpu, when it has ended well."""
    spec = importlib.util.find_spec("libtpu")
    assert spec is not None and spec.origin is not None
    apart = {"XLA_FLAGS": "", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}
    env = environment(path=str(Path(spec.origin).parents[1])) | apart
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def command(mesh: str, file: Path) -> tuple[str, dict[str, Any]]:
    """Runs the command; what it prints and what it writes."""
    done = started(*COMMAND.split(), *MESHES[mesh].split(), f"--json={file}")
    return done.stdout, json.loads(file.read_text(encoding="utf-8"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {mesh: command(mesh, Path(folder) / "figures.json")[1]["collectives"] for mesh in MESHES}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in ({"libtpu": libtpu()} | found).items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
