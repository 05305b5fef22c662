"""One CPU backend with eight fake devices for every test, and access to the real data named by NCFAIR_DATA."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

# Compiling is most of the suite's time, and the tests ask what a program computes, not how fast it is.  Processes that the
# tests start inherit this.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
# Many tests, and both workers of `-n 2`, compile the same programs.
jax.config.update("jax_compilation_cache_dir", os.path.join(tempfile.gettempdir(), f"ncfair_jax_tests_{os.getuid()}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


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
