"""The table of docs/scale.md from figures that were written by hand."""

import json
import subprocess
import sys

import pytest

from ncfair_jax.aot.scale import Case, cases, table
from tests.started import ROOT, environment

SECONDS = {
    "arithmetic": 0.02,
    "memory": 0.0301,
    "network": 0.004,
    "exposed": 0.001,
    "compile": 99.0,
    "compile_cpu": 151.4,
}
FIGURES = {"peak_bytes": 4_000_000_000, "chip_bytes": 16_000_000_000, "seconds": SECONDS, "weak_scaling_256": 0.9321}
ALONE, SPLIT = Case("bert-base", 128, "v5e:1x1", "data"), Case("bert-base", 128, "v5e:16x16", "fsdp")


def test_every_step_is_there_once_and_the_most_telling_come_first():
    every = cases()
    assert len({case.name for case in every}) == len(set(every)) == len(every) == 2 * 2 * (1 + 5 * 2)
    assert every[:3] == [ALONE, SPLIT._replace(mesh="data"), SPLIT]
    assert {case.topology for case in every} == {f"v5e:{n}x{n}" for n in (1, 2, 4, 8, 16)} | {"v6e:16x16"}


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        (ALONE, (1, 1)),
        (SPLIT, (16, 16)),
        (SPLIT._replace(mesh="data"), (256, 1)),
        (SPLIT._replace(topology="v5e:2x2"), (1, 4)),
    ],
)
def test_axes_of_a_mesh_cover_the_slice(case, sizes):
    assert case.sizes == sizes and sizes[0] * sizes[1] == case.devices


def test_rows_of_every_length_hold_equally_many_tokens():
    assert "--rows_per_device=64" in ALONE.flags and "--rows_per_device=16" in ALONE._replace(row_tokens=512).flags
    assert "--rows_per_device=8" in Case("bert-large", 512, "v6e:16x16", "fsdp").flags


def test_a_line_for_each_step_in_the_order_of_sizes():
    found = {
        SPLIT: FIGURES,
        ALONE: FIGURES | {"weak_scaling_256": None},
        ALONE._replace(preset="bert-large"): {"error": "…"},
    }
    heads, rule, alone, split, large = table(found).splitlines()
    assert heads.count("|") == rule.count("|") == alone.count("|") == split.count("|") == large.count("|")
    figures = "4.00 GB (25%) | 20 ms | 30.1 ms | 4 ms | 1 ms"
    assert alone == f"| bert-base | 64 of 128 | v5e:1x1 | data=1, fsdp=1 | {figures} |  | 151 s |"
    assert split == f"| bert-base | 64 of 128 | v5e:16x16 | data=16, fsdp=16 | {figures} | 93.2% | 151 s |"
    assert large.startswith("| bert-large | 32 of 128 | v5e:1x1 | data=1, fsdp=1 | does not fit |")


def test_the_command_prints_what_its_folder_holds(tmp_path):
    (tmp_path / f"{SPLIT.name}.json").write_text(json.dumps(FIGURES))
    command = [sys.executable, "launch/scale_table.py", f"--out={tmp_path}", "--nocompile"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == table({SPLIT: FIGURES})
