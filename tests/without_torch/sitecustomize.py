"""Read by every Python whose PYTHONPATH has this folder: PyTorch is then not found, as on a user's machine.

Only tests need it, and transformers loads it wherever it is installed, which takes longer than all else that a command
loads.
"""

import importlib.machinery
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_find_spec = PathFinder.find_spec


def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
    """As `PathFinder.find_spec`."""
    return None if name == "torch" else _find_spec(name, path, target)


importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)  # type: ignore[method-assign, assignment]
