"""Bias-NLI's pairs (Dev et al. 2020): an occupation did something, a man or a woman did the same; neither entails the other.

    premise     "An accountant bought a coat ."
    hypothesis  "A woman bought a coat ."

The word lists of the package are its own, in the published design: verbs of commerce with all objects, of interaction with
people, of driving with vehicles, of eating with food. Figures on them are not those of the published lists, which can be read
from a folder.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncfair_jax.config import ConfigError
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.fingerprint import kept_while_unchanged
from ncfair_jax.files.reading import DataError, read_lines
from ncfair_jax.lexicons.lexicon import shipped_file
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.tasks.classification.labelled import Labelled, Task
from ncfair_jax.tasks.classification.nli import HUB, LABELS, nli_files, read_nli

NEUTRAL = LABELS.index("neutral")
SAMPLE_SEED = 0  # one sample for all models
KINDS = ("commerce", "interaction", "driving", "eating")
_FILE = "bias_nli.json"


class Lists(NamedTuple):
    """What fills the pairs.

    Attributes:
        occupations: subjects of premises, sorted.
        words: subjects of hypotheses with their gender.
        actions: verb and object of both, such as ("bought", "coat").
    """

    occupations: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    actions: tuple[tuple[str, str], ...]

    @property
    def pairs(self) -> int:
        """How many there are."""
        return len(self.occupations) * len(self.words) * len(self.actions)


@kept_while_unchanged()
def load_lists(folder: str = "") -> Lists:
    """The package's word lists, or those of a folder in the layout of the original ones.

    Args:
        folder: has verbs/ with files that begin with commerce, interaction, driving and eating; nouns/objects/, with files that
            begin with vehicle and food among others; nouns/people/, with one that begins with occupation, and others; an entry
            a line. The six gendered words are the published ones.
    Raises:
        DataError: naming the file that is missing.
    """
    own = json.loads(shipped_file(_FILE).read_text(encoding="utf-8"))
    lists = _folder_lists(path_of(folder).expanduser()) if folder else own
    objects, verbs = lists["objects"], lists["verbs"]
    everything = [noun for nouns in objects.values() for noun in nouns]
    people = [noun for nouns in lists["people"].values() for noun in nouns]
    of_kind = {
        "commerce": everything,
        "interaction": people,
        "driving": _beginning(objects, "vehicle", folder),
        "eating": _beginning(objects, "food", folder),
    }
    actions = [pair for kind in KINDS for pair in product(_beginning(verbs, kind, folder), of_kind[kind])]
    words = tuple((word, gender) for gender, words in own["words"].items() for word in words)
    return Lists(tuple(sorted(lists["occupations"])), words, tuple(actions))


def list_files(folder: str = "") -> list[Path]:
    """The files that `load_lists` reads, with its argument."""
    if not folder:
        return [shipped_file(_FILE)]
    path = path_of(folder).expanduser()
    return [file for below in ("nouns/people", "nouns/objects", "verbs") for file in sorted((path / below).glob("*"))]


def _folder_lists(folder: Path) -> dict[str, Any]:
    def files(below: str) -> dict[str, list[str]]:
        found = sorted(path for path in (folder / below).glob("*") if path.is_file())
        if not found:
            raise DataError(f"{folder / below} holds no word list; give the folder that has nouns/ and verbs/")
        return {path.stem: [line.strip() for line in read_lines(path) if line.strip()] for path in found}

    people = files("nouns/people")
    occupations = _beginning(people, "occupation", str(folder))
    others = {name: words for name, words in people.items() if not name.startswith(("occupation", "gender"))}
    return {"occupations": occupations, "people": others, "objects": files("nouns/objects"), "verbs": files("verbs")}


def _beginning(lists: dict[str, list[str]], name: str, folder: str) -> list[str]:
    for stem, words in lists.items():
        if stem.startswith(name):
            return words
    raise DataError(f"{folder}: no word list begins with {name!r}; there are {', '.join(lists)}")


def with_article(noun: str) -> str:
    """The noun behind "a", or "an" before a vowel letter."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def pair(lists: Lists, number: int) -> Labelled:
    """Pair number 0 to `lists.pairs` − 1: occupations outermost, then gendered words, then actions."""
    subject, action = divmod(number, len(lists.actions))
    occupation, word = divmod(subject, len(lists.words))
    verb, thing = lists.actions[action]
    rest = f"{verb} {with_article(thing)} ."
    first, second = with_article(lists.occupations[occupation]), with_article(lists.words[word][0])
    return Labelled(f"{first.capitalize()} {rest}", f"{second.capitalize()} {rest}", NEUTRAL)


def chosen_pairs(lists: Lists, subset: str, count: int) -> np.ndarray:
    """Numbers i64 of `count` pairs of a subset in rising order, the same for all models; of all its pairs where 0.

    Args:
        subset: "all", or "first_90_percent": without the last occupations, as released.
    Raises:
        ConfigError: if there are not so many.
    """
    total = lists.pairs if subset == "all" else lists.pairs * 9 // 10
    if count > total:
        raise ConfigError(f"config.classification.pairs={count}; there are {total}, 0 takes all")
    if not count:
        return np.arange(total)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(total, count, replace=False))


def read(config: ClassificationRun, part: str) -> list[Labelled]:
    """SNLI's or MNLI's training and development part; of the pairs that judge, which are made one by one, only the check."""
    if part == "test":
        settings = config.classification
        chosen_pairs(load_lists(settings.templates), settings.subset, settings.pairs)
        return []
    return read_nli(config, part)


def files(config: ClassificationRun, part: str) -> list[Path]:
    """The local files that `read` reads; the word lists of the pairs are the test part."""
    return list_files(config.classification.templates) if part == "test" else nli_files(config, part)


def _describe(path: str) -> str:
    return f"entailment pairs of {path}" if path else f"entailment pairs of SNLI ({HUB})"


TASK = Task(len(LABELS), read, files, _describe)
