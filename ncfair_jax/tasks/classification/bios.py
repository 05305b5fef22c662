"""Bias-in-Bios (De-Arteaga et al. 2019): biographies, each with one of 28 professions and a gender.

The biographies were crawled and are not staged anywhere officially: the crawler is microsoft/biosbias. Here they come from a
folder with train, dev and test files, from one file that is split, or from a Hub copy. Columns: `title`, `raw`, `start_pos`
(the text begins there, behind the sentence that names the profession) and `gender`; or, as on the Hub, `hard_text`,
`profession` (number or name) and `gender`.
"""

from pathlib import Path

import numpy as np

from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.fingerprint import kept_while_unchanged
from ncfair_jax.files.reading import DataError, Place, RowError, accepted
from ncfair_jax.files.rows import Row, Rows, cell, read_rows, split_files, split_rows, text_cell
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.tasks.classification.labelled import Labelled, Task

HUB = "LabHC/bias_in_bios"
PROFESSIONS = (
    "accountant", "architect", "attorney", "chiropractor", "comedian", "composer", "dentist", "dietitian", "dj", "filmmaker",
    "interior_designer", "journalist", "model", "nurse", "painter", "paralegal", "pastor", "personal_trainer", "photographer",
    "physician", "poet", "professor", "psychologist", "rapper", "software_engineer", "surgeon", "teacher", "yoga_teacher",
)  # fmt: skip
GENDERS = ("male", "female")
GENDER_NAMES = {"m": "male", "male": "male", "0": "male", "f": "female", "female": "female", "1": "female"}
SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
SPLIT_SEED = 0  # one split for all runs


def read_bios(config: ClassificationRun, part: str) -> list[Labelled]:
    """Biographies of one part; group is the gender.

    Raises:
        DataError: missing, a pickle, or more than 1 % malformed rows: a column missing, an unknown profession or gender, a
            start outside the text.
    """
    settings, source = config.classification, config.data.path or HUB
    if not path_of(source).expanduser().is_file():
        return _part(source, part)
    rows = _whole(source)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    tests, devs = (round(len(rows) * share) for share in (settings.test_fraction, settings.dev_fraction))
    chosen = {"test": order[:tests], "dev": order[tests : tests + devs], "train": order[tests + devs :]}[part]
    if part != "dev" and not len(chosen):
        raise DataError(f"{source}: the fractions of its {len(rows)} biographies leave none for {part}; change them")
    return [rows[i] for i in np.sort(chosen)]


@kept_while_unchanged()
def _part(source: str, part: str) -> list[Labelled]:
    return _biographies(split_rows(source, SPLITS[part], "LabHC/bias_in_bios on the Hub"), source)


@kept_while_unchanged()
def _whole(source: str) -> list[Labelled]:
    return _biographies(read_rows(source), source)


def _biographies(rows: Rows, source: str) -> list[Labelled]:
    found = list(accepted(rows, _biography))
    if not found:
        raise DataError(f"{source} holds no biographies; get them with the crawler of microsoft/biosbias")
    return found


def _biography(place: Place, row: Row) -> Labelled:
    name = str(cell(row, ("title", "profession"), place)).strip().lower().replace(" ", "_")
    name = PROFESSIONS[int(name)] if name.isdigit() and int(name) < len(PROFESSIONS) else name
    if name not in PROFESSIONS:
        raise RowError(place, f"profession {name!r}; expected one of {', '.join(PROFESSIONS)}")
    gender = str(cell(row, ("gender",), place)).strip().lower()
    if gender not in GENDER_NAMES:
        raise RowError(place, f"gender {gender!r}; expected one of {', '.join(GENDER_NAMES)}")
    text = text_cell(row, ("raw", "hard_text"), place)
    start = str(cell(row, ("start_pos",), place)) if "start_pos" in row else "0"
    if not start.isdigit() or not text[int(start) :].strip():
        raise RowError(place, f"start_pos {start!r} leaves nothing of a text of {len(text)} characters")
    return Labelled(text[int(start) :].strip(), None, PROFESSIONS.index(name), GENDER_NAMES[gender])


def _files(config: ClassificationRun, part: str) -> list[Path]:
    path = path_of(config.data.path or HUB).expanduser()
    return [path] if path.is_file() else split_files(str(path), SPLITS[part])


def _describe(path: str) -> str:
    return f"biographies of Bias-in-Bios ({path or HUB})"


TASK = Task(len(PROFESSIONS), read_bios, _files, _describe)
