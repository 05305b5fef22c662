"""Finished and unfinished work is recognised by the content of model and data, not by their names.

A workdir's inputs.json holds the fingerprints of everything that its training reads, so a run goes on, and its result is
shown, only while model and text are the same. Figures are cheap: if the files that judge a model, or the definition of a
figure, changed, the figures are made again from the export.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncfair_jax.checkpoint import checkpoint_folder
from ncfair_jax.config import RunConfig, differences, get, identity, to_dict
from ncfair_jax.evaluation import evaluation_content
from ncfair_jax.files.digests import DIGESTS_FILE
from ncfair_jax.files.fingerprint import differing, present_fingerprint
from ncfair_jax.files.reading import DataError
from ncfair_jax.files.records import CONFIG, RESULT, read_record
from ncfair_jax.lexicons.classes import split_control
from ncfair_jax.lexicons.lexicon import lexicon_file
from ncfair_jax.methods.training import TrainedRun
from ncfair_jax.models.folders import find_folder, model_files
from ncfair_jax.registry import method_of
from ncfair_jax.run_log import say
from ncfair_jax.workdir import CONFIG_FILE, EXPORT, INPUTS_FILE, RESULT_FILE, damage

OLD_SECTIONS = frozenset(("mabel", "adept", "ase", "coref", "classification"))  # once all in one config


class WorkdirError(ValueError):
    """A workdir that holds another run."""


def training_content(config: RunConfig) -> dict[str, str]:
    """By field of the config, the fingerprint of the files that the training reads; data sets of the Hub have none.

    Raises:
        ModelFolderError: if the model is not there.
        ConfigError, DataError: if the method's data cannot be found.
    """
    files = {"model.path": model_files(find_folder(config.model.path))} | method_of(config).reads(config)
    if config.model.init_from:  # the digests stand for the files: they are checked when the checkpoint is read
        files["model.init_from"] = [checkpoint_folder(config.model.init_from) / DIGESTS_FILE]
    if isinstance(config, TrainedRun) and (config.nc3.weight or config.train.collapse_every):
        files["nc3.lexicon"] = [lexicon_file(split_control(config.nc3.lexicon)[0])]
    return {field: present_fingerprint(paths) for field, paths in files.items()}


def judged_content(config: RunConfig) -> dict[str, str]:
    """What the figures of the start and of the trained model depend on besides the models."""
    return evaluation_content(config.evals, method_of(config).judged_on(config))


def refuse_other_run(workdir: Path, config: RunConfig) -> None:
    """A workdir belongs to one config.

    Raises:
        WorkdirError: if this one is another config's, naming the fields that differ.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    theirs = read_record(path, CONFIG, "put it back from a copy, or use another --workdir")
    if len(OLD_SECTIONS & theirs.keys()) > 1:
        raise WorkdirError(
            f"{workdir} holds a run that commit 0fc234d or an earlier one wrote, whose config had the fields of every method: "
            "finish it with that code, or use another --workdir"
        )
    if lines := differences(identity(to_dict(config)), identity(theirs)):
        raise WorkdirError(
            f"{workdir} holds a run with another config: {'; '.join(lines)}. Use another --workdir, or those values"
        )


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
    remedy = "put it back from a copy, or delete the workdir to run again"
    begun_with = read_record(path, dict.fromkeys(content, str), remedy)
    if lines := differing(content, begun_with):
        names = ", ".join(f"config.{field}={get(config, field)!r}" for field in (line.split(": ")[0] for line in lines))
        raise WorkdirError(
            f"{workdir} holds a run of other content: what {names} names has changed since (fingerprints: {'; '.join(lines)}). "
            "Use another --workdir, or put the earlier files back"
        )


def stored_result(workdir: Path, before_folder: Path | None = None) -> dict[str, Any] | None:
    """What a finished run wrote; None if the run is not finished, or something of it is missing or damaged: that is said.

    Args:
        before_folder: where the figures of the starting model are; None = in the workdir.
    """
    path = workdir / RESULT_FILE
    if not path.exists():
        if (workdir / EXPORT).exists():
            say(f"{path} is missing; it is made again")
        return None
    remedy = "what is missing or damaged is made again"
    if problems := damage(workdir, before_folder):
        say(f"{'; '.join(problems)}; {remedy}")
        return None
    try:
        stored: dict[str, Any] = read_record(path, RESULT, remedy)
    except DataError as error:
        say(str(error))
        return None
    return stored
