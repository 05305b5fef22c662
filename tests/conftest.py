"""One CPU backend with eight fake devices, compiling cheaply and in little memory, and the real data named by NCFAIR_DATA."""

import ctypes
import gc
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Compiling is most of the suite's time, and the tests ask what a program computes, not how fast it is: no optimization by
# LLVM, the emitter of loops that compiles fastest, and one LLVM module a program. Processes that tests start inherit this.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)

# Hashes of the tests' files do not belong in the user's cache.
os.environ["NCFAIR_CACHE"] = os.path.join(tempfile.gettempdir(), f"ncfair_jax_tests_cache_{os.getuid()}")

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network, whoever runs it

import jax
import jaxtyping
import pytest

from tests import shapes

# Before any of it is imported: wherever a test calls the package, arguments and results are checked.
shapes.check()

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
# Many tests, and both workers of `-n 2`, compile the same programs.
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), f"ncfair_jax_tests_{os.getuid()}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

MOST_MEMORY = 2e9  # bytes of a process that runs tests; CI fails above it
PEAKS: dict[str, float] = {}  # bytes, by name of the process
kept = 0.2 * MOST_MEMORY  # bytes that stay when programs are forgotten: modules, and what fixtures hold


@pytest.fixture(scope="session", autouse=True)
def _one_device() -> Iterator[pytest.MonkeyPatch]:
    """Runs take all devices they find: one, so that no test pays for eight unless it says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        yield patch


@pytest.fixture
def eight_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run inside this test finds eight devices."""
    monkeypatch.setattr(jax, "device_count", lambda: 8)


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """gs://… of an emulator, which is the only bucket that this process and those it starts can reach."""
    from tests.emulator import BUCKET, emulator

    with emulator():
        yield f"gs://{BUCKET}"


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For tests of what the package itself says of wrong shapes and types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _forget_programs() -> Iterator[None]:
    """Compiled programs of finished tests would otherwise fill the memory. Programs in use by many tests come back soon."""
    yield
    global kept
    if sys.platform == "linux" and resident() > kept + 0.1 * MOST_MEMORY:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        kept = resident()


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file below NCFAIR_DATA. Without NCFAIR_DATA the test skips; a named but missing file is a failure."""
    root = os.environ.get("NCFAIR_DATA")

    def path(relative: str) -> Path:
        if not root:
            if os.environ.get("CI"):
                pytest.fail("NCFAIR_DATA is not set: CI must run on the real data")
            pytest.skip("needs real data: set NCFAIR_DATA to a folder holding data/, golden/ and models/")
        found = Path(root).resolve() / relative
        if not found.exists():
            pytest.fail(f"{relative} is missing below NCFAIR_DATA={root}")
        return found

    return path


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Each process tells the most memory it held: a worker to the process that shows it."""
    unit = 1024 if sys.platform == "linux" else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak
    else:
        PEAKS["main"] = peak
    if os.environ.get("CI") and max(PEAKS.values(), default=0) > MOST_MEMORY and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """xdist's: a worker has ended."""
    if "peak" in getattr(node, "workeroutput", {}):
        PEAKS[node.gateway.id] = node.workeroutput["peak"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The most memory of each process."""
    told = ", ".join(f"{name} {peak / 1e9:.2f} GB" for name, peak in sorted(PEAKS.items()))
    terminalreporter.write_line(f"most memory: {told}; {MOST_MEMORY / 1e9:.0f} GB are allowed")
