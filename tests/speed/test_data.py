"""The speed of making batches: the figures are there, and the shapes and pads are those of the batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncfair_jax.speed import data
from ncfair_jax.speed.contestants import SpeedError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(data, "SECONDS", 0.01)
    monkeypatch.setattr(data, "STEPS", 6)


def test_figures_of_both_ways(tmp_path):
    result = data.run([64, 256], 3000)
    assert [(item["by"], item["size"]) for item in result["data"]] == [
        ("examples", 64),
        ("examples", 256),
        ("rows", 16),
        ("rows", 64),
    ]
    for item in result["data"]:
        assert item["sentences_per_second"] > 100
        assert 0 < item["share_of_one_in_16"] < 1.5
        assert item["shapes"] == 1 if item["by"] == "rows" else item["shapes"] <= 3
    pipeline = data.pipeline_of(data.examples_of(data.lengths_of(3000)), "examples", 256)
    wasted = [np.sum(batch["segment_ids"] == 0) for batch in map(pipeline.batch, range(6))]
    rows = [batch["tokens"].shape[1] for batch in map(pipeline.batch, range(6))]
    assert result["data"][1]["padding"] == pytest.approx(sum(wasted) / (128 * sum(rows)))
    assert data.data_table(result).count("\n") == 5


def test_lengths(tmp_path):
    drawn = data.lengths_of(20_000)
    assert abs(drawn.mean() - 30) < 1 and abs(drawn.std() - 12.5) < 1 and drawn.max() <= 128
    (tmp_path / "text.txt").write_text("one two three\n\nfour five\n")
    assert data.lengths_of(5, str(tmp_path / "text.txt")).tolist() == [5, 4, 5, 4, 5]
    with pytest.raises(SpeedError, match="sentences=100: a batch of 256 needs more"):
        data.run([256], 100)


def test_the_flag_without_a_value_and_with_a_folder(tmp_path):
    written = tmp_path / "figures.json"
    flags = ["--data", f"--json={written}", "--batches=64", "--sentences=2000"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "speed.py"), *flags], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(written.read_text())["data"]
    names = {"by", "size", "sentences_per_second", "shapes", "padding", "share_of_one_in_16"}
    assert [item["by"] for item in found] == ["examples", "rows"] and all(set(item) == names for item in found)
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "speed.py"), "--data=nowhere", "--model=nowhere"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and "nowhere" in done.stderr
