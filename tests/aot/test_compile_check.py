"""The command end to end, on a tiny model and four chips; and its collectives beside those that are stored."""

import json
import os
import re

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


# A program whose one array is larger than the memory of a chip, in the place of the step.
TOO_LARGE = """
import jax
from ncfair_jax.aot import check
from ncfair_jax.aot.topology import slice_of
device = slice_of("v5e:1x1").devices[0]
array = jax.ShapeDtypeStruct((80_000, 100_000), "float32", sharding=jax.sharding.SingleDeviceSharding(device))
check.lower = lambda step: jax.jit(lambda x: x + 1).lower(array)
try:
    check.compile_step(None, "v5e:1x1")
except check.TooLargeError as error:
    print(error)
"""


@pytest.mark.slow
def test_what_does_not_fit_is_told_in_one_line_with_the_compilers_figures(same_libtpu):
    done = tiny_slice.started("-c", TOO_LARGE)
    (line,) = done.stdout.splitlines()
    assert re.match(
        r"the step does not fit a chip of v5e:1x1 \(memory required .*\(\d+\.\d+G\) exceeds available HBM \(15", line
    )
    assert "); lower the rows, raise config.train.accumulation or" in line
