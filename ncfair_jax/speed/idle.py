"""How much of the time a device has nothing to do, from a profile that jax makes."""

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np
from jax.profiler import ProfileData

from ncfair_jax.speed.contestants import SpeedError

DEVICE = "/device:"  # how the planes of accelerators begin; a CPU has none
# The lines of a plane that show operations: a GPU has one for each of its queues, named after what was in it; a TPU has one,
# beside those of whole programs and steps.
LINES = (r"Stream .*Compute", r"Stream ", r"XLA Ops$")


def idle_share(work: Callable[[], object]) -> float:
    """Share of the time between the first and the last operation on the device in which none runs.

    Raises:
        SpeedError: if the profile shows no device, as on a CPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        quiet = jax.profiler.ProfileOptions()
        quiet.python_tracer_level = quiet.host_tracer_level = 0  # they would slow the host down that is to be watched
        with jax.profiler.trace(folder, profiler_options=quiet):
            work()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return idle_of(ProfileData.from_file(str(path)))


def idle_of(profile: ProfileData) -> float:
    """`idle_share` of a profile, of its first device."""
    for plane in profile.planes:
        if plane.name.startswith(DEVICE):
            lines = list(plane.lines)
            for kind in LINES:
                intervals = [
                    (event.start_ns, event.start_ns + event.duration_ns)
                    for line in lines
                    if re.match(kind, line.name)
                    for event in line.events
                ]
                if intervals:
                    return 1 - covered(intervals)
    raise SpeedError("the profile shows no operations of a device")


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that lies in at least one interval."""
    starts, ends = np.array(sorted(intervals), np.float64).T
    latest = np.maximum.accumulate(ends)
    gaps = np.maximum(starts[1:] - latest[:-1], 0.0).sum()
    span = latest[-1] - starts[0]
    return float(1 - gaps / span) if span > 0 else 1.0
