"""A folder of `launch/measure.py`: its models, its tables and its pictures."""

import base64
import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ncfair_jax.collapse.measures import VERSION
from ncfair_jax.collapse.model_measures import ModelMeasures, from_json
from ncfair_jax.files.atomic import write_json
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.records import MEASURE_AGAIN, MEASURED, MEASURES, read_record, taken_apart
from ncfair_jax.report.cells import Table
from ncfair_jax.report.collapse_table import measured_tables
from ncfair_jax.strings import several_strings

MEASURES_FILE, MODELS_FILE = "measures.json", "models.json"


@dataclass(frozen=True)
class MeasuredFolder:
    """A folder of `launch/measure.py`: its tables, its pictures (name, data URI), and what is to be said of it."""

    name: str
    tables: tuple[Table, ...]
    pictures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def write_models(out: Path, names: Sequence[str]) -> None:
    """models.json of a finished measurement: the models in the order of its tables."""
    write_json(out / MODELS_FILE, {"models": list(names)})


def is_measured(folder: Path) -> bool:
    """Whether the folder holds a finished measurement, of one model or several."""
    return (folder / "table.md").is_file() and bool(_folders(folder))


def read_measured(folder: Path) -> MeasuredFolder:
    """Its tables, its pictures as data URIs.

    Raises:
        DataError: for a file that cannot be read.
    """
    models, versions = [], set()
    for name, path in _folders(folder).items():
        document = read_record(path / MEASURES_FILE, MEASURES, MEASURE_AGAIN)
        versions.add(document.get("content", {}).get("figures", ""))
        with taken_apart(path / MEASURES_FILE, MEASURE_AGAIN):
            models.append(_named(from_json(document), name))
    pictures = tuple(
        (path.stem, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())
        for path in sorted((folder / "figures").glob("*.png"))
    )
    notes = []
    if versions != {f"version {VERSION}"}:
        notes.append(
            f"{folder.name} was measured with another version of the figures' definition than this package has; measure again"
        )
    if len(models) > 1 and not (folder / MODELS_FILE).is_file():
        notes.append(
            f"{folder.name} does not say in which order its models were named, so they stand in that of the alphabet; the same "
            "command again records it"
        )
    return MeasuredFolder(folder.name, tuple(measured_tables(models)), pictures, tuple(notes))


def folder_names(models: Sequence[str]) -> list[str]:
    """The last part of each path (of a run's export, the run's name), numbered where it is not the first of its name.

    Raises:
        TypeError: `models` is a single string.
    """
    models = several_strings("models", models)
    parts = [
        path_of(path).resolve().parent.name if path_of(path).name == "export" else path_of(path).name for path in models
    ]
    seen: Counter[str] = Counter()
    names = []
    for name in parts:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _folders(folder: Path) -> dict[str, Path]:
    """By model, the folder of its measures.json; one model's is the folder itself, and its name is in there ("" here)."""
    if (folder / MEASURES_FILE).is_file():
        return {"": folder}
    if (folder / MODELS_FILE).is_file():
        names = read_record(folder / MODELS_FILE, MEASURED, MEASURE_AGAIN)["models"]
    else:  # an earlier version wrote it
        names = sorted(path.parent.name for path in folder.glob(f"*/{MEASURES_FILE}"))
    return {name: folder / name for name in names}


def _named(measures: ModelMeasures, name: str) -> ModelMeasures:
    return dataclasses.replace(measures, name=name or folder_names([measures.name])[0])
