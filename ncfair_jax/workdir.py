"""The files of a run's workdir, and whether those of a finished run are still what was written."""

from pathlib import Path

from ncfair_jax.files.digests import damaged, recorded

CONFIG_FILE, INPUTS_FILE, RESULT_FILE = "config.json", "inputs.json", "result.json"
EXPORT = "export"  # folder of the trained model


def damage(workdir: Path, before_folder: Path | None = None) -> list[str]:
    """A phrase for each file of a finished run that is missing, or is not what was written.

    Args:
        before_folder: where the figures of the starting model are; None = in the workdir.
    """
    folders = _recorded_folders(workdir, before_folder)
    missing = [f"{folder} is missing" for folder in folders if not folder.is_dir()]
    return missing + [text for folder in folders for text in damaged(folder)]


def altered(workdir: Path, before_folder: Path | None = None) -> list[str]:
    """`damage`, but for what is missing: parts of a run may have been moved elsewhere before a report is made."""
    folders = _recorded_folders(workdir, before_folder)
    there = {folder: [name for name in recorded(folder) or {} if (folder / name).is_file()] for folder in folders}
    return [text for folder, names in there.items() for text in damaged(folder, names)]


def _recorded_folders(workdir: Path, before_folder: Path | None) -> list[Path]:
    return [workdir, workdir / "evals" / "after", workdir / EXPORT, before_folder or workdir / "evals" / "before"]
