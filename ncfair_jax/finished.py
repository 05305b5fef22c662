"""Finished and unfinished work is recognised by the content of model and data, not by their names.

A workdir's inputs.json holds the fingerprints of everything that its training reads, so a run goes on, and its result is
shown, only while model and text are the same. Figures are cheap: if the files that judge a model, or the definition of a
figure, changed, the figures are made again from the export.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncfair_jax.config import RunConfig, get
from ncfair_jax.data.files import read_json
from ncfair_jax.fingerprint import differing, files_fingerprint, present_fingerprint
from ncfair_jax.judge import evaluation_content
from ncfair_jax.lexicons.classes import split_control
from ncfair_jax.lexicons.lexicon import lexicon_file
from ncfair_jax.models.folders import find_folder, model_files
from ncfair_jax.objectives import METHODS

INPUTS_FILE = "inputs.json"
RESULT_FILE = "result.json"


class WorkdirError(ValueError):
    """A workdir that holds another run."""


def training_content(config: RunConfig) -> dict[str, str]:
    """By field of the config, the fingerprint of the files that the training reads; data sets of the Hub have none.

    Raises:
        ModelFolderError: if the model is not there.
        ConfigError, DataError: if the method's data cannot be found.
    """
    files = {"model.path": model_files(find_folder(config.model.path))} | METHODS[config.objective.name].reads(config)
    if config.nc3.weight or config.train.collapse_every:
        files["nc3.lexicon"] = [lexicon_file(split_control(config.nc3.lexicon)[0])]
    return {field: present_fingerprint(paths) for field, paths in files.items()}


def judged_content(config: RunConfig) -> dict[str, str]:
    """What the figures of the start and of the trained model depend on besides the models."""
    return evaluation_content(config.evals, METHODS[config.objective.name].judged_on(config))


def export_fingerprint(workdir: Path) -> str:
    """Fingerprint of the exported model's files; that of no files if there is none."""
    return files_fingerprint({path.name: path for path in model_files(workdir / "export")})


def refuse_other_content(workdir: Path, config: RunConfig, content: Mapping[str, str]) -> None:
    """A workdir belongs to one content of model and data.

    Raises:
        WorkdirError: if this one was begun with another, naming what differs; or if it does not say, though it holds work.
    """
    path = workdir / INPUTS_FILE
    if not path.exists():
        if (workdir / RESULT_FILE).exists() or (workdir / "checkpoints").exists():
            raise WorkdirError(
                f"{workdir} holds a run of an earlier version, which did not record the content of its model and data; "
                "use another --workdir, or delete it to run again"
            )
        return
    if lines := differing(content, read_json(path)):
        names = ", ".join(f"config.{field}={get(config, field)!r}" for field in (line.split(": ")[0] for line in lines))
        raise WorkdirError(
            f"{workdir} holds a run of other content: what {names} names has changed since (fingerprints: {'; '.join(lines)}). "
            "Use another --workdir, or put the earlier files back"
        )


def stored_result(workdir: Path) -> dict[str, Any] | None:
    """What a finished run wrote; None if the run is not finished.

    Raises:
        WorkdirError: if the export is not the model that was judged.
    """
    path = workdir / RESULT_FILE
    if not path.exists():
        return None
    stored: dict[str, Any] = read_json(path)
    found, judged = export_fingerprint(workdir), stored.get("export")  # earlier versions did not record it
    if (workdir / "export").exists() and judged is not None and found != judged:
        raise WorkdirError(
            f"{workdir / 'export'} is not the model that {path} is about: its fingerprint is {found}, that of the judged model "
            f"{judged}. Delete {path} to export the run's last checkpoint again"
        )
    return stored
