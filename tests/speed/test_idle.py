"""Idle time of a device: of intervals, of a profile written by hand, and of a real one."""

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from ncfair_jax.speed.contestants import SpeedError
from ncfair_jax.speed.idle import covered, idle_of, idle_share


@pytest.mark.parametrize(
    ("intervals", "share"),
    [
        ([(0, 4)], 1.0),
        ([(0, 1), (3, 4)], 0.5),
        ([(3, 4), (0, 1)], 0.5),
        ([(0, 10), (1, 2), (12, 16)], 14 / 16),  # one within another
        ([(0, 3), (2, 6), (8, 10)], 0.8),  # two that overlap
        ([(5, 5)], 1.0),
    ],
)
def test_what_intervals_cover(intervals, share):
    assert covered(intervals) == pytest.approx(share)


def plane(name: str, **lines: list[tuple[int, int]]) -> str:
    """A plane of a profile as text; intervals in ns."""
    text = f'name: "{name}" event_metadata {{ key: 1 value: {{ id: 1 name: "op" }} }}'
    for line, intervals in lines.items():
        events = " ".join(
            f"events {{ metadata_id: 1 offset_ps: {1000 * start} duration_ps: {1000 * (end - start)} }}"
            for start, end in intervals
        )
        text += f' lines {{ name: "{line}" timestamp_ns: 0 {events} }}'
    return f"planes {{ {text} }}"


def profile(*planes: str) -> ProfileData:
    return ProfileData.from_serialized_xspace(ProfileData.text_proto_to_serialized_xspace(" ".join(planes)))


HOST = plane("/host:CPU", python=[(0, 1000)])


def test_a_gpu_is_idle_where_no_queue_computes():
    lines = {
        "Stream #7(Compute,MemcpyD2D)": [(0, 10), (20, 30)],
        "Stream #8(Compute)": [(28, 40)],
        "Stream #9(MemcpyH2D)": [(0, 100)],  # a copy is no work of the device
    }
    assert idle_of(profile(HOST, plane("/device:GPU:0", **lines))) == pytest.approx(0.25)


def test_a_tpu_is_idle_where_no_operation_runs():
    lines = {"Steps": [(0, 40)], "XLA Modules": [(0, 40)], "XLA Ops": [(0, 10), (30, 40)]}
    assert idle_of(profile(plane("/device:TPU:0", **lines), HOST)) == pytest.approx(0.5)


def test_without_a_device_there_is_no_share():
    with pytest.raises(SpeedError, match="shows no operations of a device"):
        idle_of(profile(HOST))


def test_a_real_profile_is_read():
    """On a CPU, which has no plane of its own."""
    work = jax.jit(lambda x: x @ x)
    with pytest.raises(SpeedError, match="shows no operations of a device"):
        idle_share(lambda: work(jnp.ones((8, 8))).block_until_ready())
