"""The command end to end, on a tiny model and four chips; and its collectives beside those that are stored."""

import json
import os

import pytest

from tests.aot import tiny_slice

GOLDEN = json.loads(tiny_slice.GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def same_libtpu() -> None:
    """Another compiler may choose other collectives."""
    if (version := tiny_slice.libtpu()) != GOLDEN["libtpu"]:
        told = f"needs libtpu=={GOLDEN['libtpu']}, there is {version or 'none'}: install the extra 'aot'"
        pytest.fail(told) if os.environ.get("CI") else pytest.skip(told)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", tiny_slice.MESHES)
def test_the_step_needs_the_collectives_that_are_stored(same_libtpu, mesh, tmp_path):
    """More of them, or others, are a slower step: find out why before you store them anew (tests/aot/tiny_slice.py)."""
    text, figures = tiny_slice.command(mesh, tmp_path / "figures.json")
    assert figures["collectives"] == GOLDEN[mesh]
    assert set(figures) == {
        "peak_bytes", "chip_bytes", "flops", "bytes", "collectives", "seconds", "weak_scaling_256",
    }  # fmt: skip
    assert figures["chip_bytes"] == 16e9 and 0 < figures["peak_bytes"] < 100e6
    assert 0 < figures["weak_scaling_256"] < 1
    assert figures["seconds"]["arithmetic"] == pytest.approx(figures["flops"] / 197e12)
    assert f"mesh data={4 if mesh == 'data' else 1}, " in text and "| all-reduce | " in text
