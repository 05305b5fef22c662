"""What every contestant measures of itself, whatever it computes with: seconds of calls, a bare product, peak memory; and
errors that end one measurement and not its process."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncfair_jax.speed.contestants import LeftOutError

Answer = dict[str, Any]
ROUNDS = 3  # of steps on a device, of which the median counts
QUEUED = 20  # bare products that an accelerator is given at once, so that starting each of them costs no time
MIB_OF_KIB = 1 / 1024
LONGEST_LINE = 300


def timed_each(step: Callable[[Any], float], items: Any) -> Answer:
    """Calls `step` on each item; seconds of each call and what it returned."""
    seconds, losses = [], []
    for item in items:
        began = time.perf_counter()
        losses.append(step(item))
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "losses": losses}


def matmul_rate(make_matmul: Callable[[int], Callable[[], None]], size: int, repeats: int = 3) -> float:
    """GFLOP/s of a bare product [size, size] · [size, size], the best of a few."""
    product = make_matmul(size)
    product()
    best = min(timed_each(lambda _: product() or 0.0, range(repeats))["seconds"])
    return 2 * size**3 / best / 1e9


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB.

    From /proc where there is one: getrusage counts what the parent held when it started this process as well.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * MIB_OF_KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MIB_OF_KIB


def outcome(work: Callable[[], Answer]) -> Answer:
    """What it returns; else {"skipped": reason} if it is not for this machine, or {"error": one line}."""
    try:
        return work()
    except LeftOutError as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # whatever a compiler or a device raises
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0]}"[:LONGEST_LINE]}
