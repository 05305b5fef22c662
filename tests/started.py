"""The environment of processes that tests start."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(devices: int | None = None, path: str = "") -> dict[str, str]:
    """This process's own, with a CPU of so many devices, and without PyTorch, as on a user's machine.

    Args:
        devices: None: as many as this process's flags say.
        path: a folder whose modules come first.
    """
    folders = [path, str(Path(__file__).parent / "without_torch"), str(ROOT)]
    changes = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    if devices is not None:
        changes["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | changes
