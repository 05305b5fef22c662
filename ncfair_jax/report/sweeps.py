"""The folder of a sweep: which runs are in it, by arm, and where the figures of their starting models are.

sweep.json says so. Folders of earlier versions have none; of those that finished, figures.json names the arms.
"""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ncfair_jax.files.records import CONFIG, FIGURES, JUDGE_AGAIN, SWEEP, read_record
from ncfair_jax.manifest import FAILED, MANIFEST_FILE, Entry, read_manifest

FIGURES_AGAIN = "delete it, and the sweep's command writes it again"


class Sweep(NamedTuple):
    """By arm, in the order of the sweep's table, the workdirs of its runs by seed; and a note on each run without one."""

    arms: dict[str, list[Path]]
    notes: list[str]


class SweepFolderError(ValueError):
    """A sweep's folder that does not say what is in it; one line with the remedy."""


def read_sweep(folder: Path) -> Sweep | None:
    """The runs of a sweep; None if the folder is none.

    Raises:
        SweepFolderError: if it holds runs and no file that says what they are.
        DataError: for a file that cannot be read.
    """
    runs = read_manifest(folder)
    if runs is not None:
        return _of_manifest(folder, runs)
    if not any(folder.glob("*-seed*/config.json")):
        return None
    if not (folder / "figures.json").is_file():
        raise SweepFolderError(
            f"{folder} has no {MANIFEST_FILE} that says which runs are in it; run the sweep's command again, which writes it "
            "and runs nothing twice, or name the folders of the runs"
        )
    arms = read_record(folder / "figures.json", SWEEP, FIGURES_AGAIN)["arms"]
    return Sweep({arm: _named_after(folder, arm) for arm in arms}, [])


def start_figures(run: Path, result: Mapping[str, Any]) -> Path | None:
    """Folder of the figures of the starting model of a run inside a sweep; None if it is not known or not there.

    Args:
        result: what the run's result.json holds; {} if there is none. Without sweep.json the folder is the one with the same
            figures.
    """
    runs = read_manifest(run.parent)
    if runs is not None:
        found = [run.parent / entry.start for entry in runs if entry.folder == run.name]
        return next((folder for folder in found if folder.is_dir()), None)
    for shared in sorted((run.parent / "start").glob("*/figures.json")) if result else ():
        if read_record(shared, FIGURES, JUDGE_AGAIN) == result["before"]:
            return shared.parent
    return None


def _of_manifest(folder: Path, runs: list[Entry]) -> Sweep:
    arms: dict[str, list[tuple[int, Path]]] = {}
    notes = []
    for run in runs:
        if (folder / run.folder / "config.json").is_file():
            arms.setdefault(run.arm, []).append((run.seed, folder / run.folder))
        else:
            notes.append(f"{run.folder} {'failed before it began' if run.status == FAILED else 'has not begun'}")
    return Sweep({arm: [path for _, path in sorted(found)] for arm, found in arms.items()}, notes)


def _named_after(folder: Path, arm: str) -> list[Path]:
    """Workdirs ARM-seedN by seed, as earlier versions named them."""
    found = []
    for config in folder.glob(f"{glob.escape(arm)}-seed*/config.json"):
        seed = read_record(config, CONFIG, "put it back from a copy")["seed"]
        if config.parent.name == f"{arm}-seed{seed}":
            found.append((seed, config.parent))
    return [path for _, path in sorted(found)]
