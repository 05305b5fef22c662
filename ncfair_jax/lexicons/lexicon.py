"""Lexicons: attribute -> groups -> words, as JSON.

File format::

    {
      "readme": "free text, ignored",
      "attribute": "gender",
      "groups": {"female": ["woman", ...], "male": ["man", ...]},
      "pairs": [["woman", "man"], ...]
    }

`groups` holds two groups or more. `pairs` is optional: words that replace each other when a text is swapped, from two
different groups; where a word has several partners the first pair decides. Words are compared without regard to case or to
how accents are encoded; a word may consist of several (`step mother`, an underscore counts as a blank). `gender`, `race` and
`religion` ship with the package; words that name a person's gender, race or religion in one sense and something else in
another (`black`, `hindu temple`) are listed for the first.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import DataError, read_json
from ncfair_jax.strings import several_strings

SHIPPED = ("gender", "race", "religion")


@dataclass(frozen=True)
class Lexicon:
    """Words of each group of one attribute.

    Attributes:
        attribute: what the groups are groups of, e.g. "gender".
        groups: names of the groups.
        words: for each group its words, in the order of the file, without repetition.
        pairs: words that replace each other in a counterfactual text, lower case.
    """

    attribute: str
    groups: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[str, str], ...] = ()


class LexiconError(ValueError):
    """A lexicon that cannot be used; the message names the file and the fault in one line."""


def load_lexicon(name_or_path: str | Path) -> Lexicon:
    """Load a shipped lexicon by name or the user's own JSON file by path.

    Raises:
        LexiconError: unknown name, unreadable file, not JSON, missing field, a field or group that is there twice, fewer than
            two groups, empty group, or a word claimed by two groups.
    """
    if str(name_or_path) in SHIPPED:
        with resources.as_file(resources.files("ncfair_jax.lexicons") / f"{name_or_path}.json") as shipped:
            return _parse(read_json(shipped), shipped.name)
    if not path_of(name_or_path).is_file():
        raise LexiconError(
            f"lexicon {str(name_or_path)!r} is neither a file nor shipped; choose from {sorted(SHIPPED)}"
        )
    try:
        content = read_json(name_or_path)
    except DataError as error:
        raise LexiconError(str(error)) from None
    return _parse(content, str(name_or_path))


def lexicon_file(name_or_path: str | Path) -> Path:
    """The file behind a lexicon's name, whether or not it is there."""
    if str(name_or_path) in SHIPPED:
        return shipped_file(f"{name_or_path}.json")
    return path_of(name_or_path)


def shipped_file(name: str) -> Path:
    """A word list of the package."""
    return Path(str(resources.files("ncfair_jax.lexicons").joinpath(name)))


def make_lexicon(
    attribute: str,
    groups: Mapping[str, Iterable[str]],
    pairs: Iterable[Sequence[str]] = (),
    source: str = "lexicon",
) -> Lexicon:
    """Check word lists and make them a Lexicon. `source` begins the error messages.

    Raises:
        LexiconError: as `load_lexicon`.
        TypeError: a group's words are a single string.
    """
    words = {
        group: tuple(dict.fromkeys(map(_normalise, several_strings(f"groups[{group!r}]", listed))))
        for group, listed in groups.items()
    }
    if len(words) < 2:
        raise LexiconError(f"{source}: groups holds {sorted(words)}; two groups or more are needed")
    owner: dict[str, str] = {}
    for group, listed in words.items():
        if not listed:
            raise LexiconError(f"{source}: group {group!r} is empty; give it words or remove it")
        for word in listed:
            if not word:
                raise LexiconError(f"{source}: group {group!r} holds an empty word; remove it")
            if owner.setdefault(word.lower(), group) != group:
                raise LexiconError(
                    f"{source}: word {word!r} is in the groups {owner[word.lower()]!r} and {group!r}; keep it in one"
                )
    return Lexicon(attribute, tuple(words), tuple(words.values()), _check_pairs(pairs, owner, source))


def _parse(content: Any, source: str) -> Lexicon:
    if not isinstance(content, dict):
        raise LexiconError(f"{source}: holds a {type(content).__name__}; expected an object with attribute and groups")
    for field, of in (("attribute", str), ("groups", dict)):
        if field not in content:
            raise LexiconError(f"{source}: field {field!r} is missing; expected attribute, groups and optionally pairs")
        if not isinstance(content[field], of):
            raise LexiconError(f"{source}: field {field!r} must be {'text' if of is str else 'group -> words'}")
    for group, listed in content["groups"].items():
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise LexiconError(f"{source}: group {group!r} must be a list of words")
    pairs = content.get("pairs", [])
    if not isinstance(pairs, list):
        raise LexiconError(f"{source}: field 'pairs' must be a list of pairs of words")
    return make_lexicon(content["attribute"], content["groups"], pairs, source)


def _check_pairs(pairs: Iterable[Sequence[str]], owner: Mapping[str, str], source: str) -> tuple[tuple[str, str], ...]:
    checked = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(word, str) for word in pair):
            raise LexiconError(f"{source}: pair {pair!r} must be a list of two words")
        left, right = (_normalise(word).lower() for word in pair)
        for word in (left, right):
            if word not in owner:
                raise LexiconError(f"{source}: word {word!r} of pair {list(pair)!r} is in no group; add it to one")
        if owner[left] == owner[right]:
            raise LexiconError(f"{source}: pair {list(pair)!r} lies within group {owner[left]!r}; pair two groups")
        checked.append((left, right))
    return tuple(checked)


def _normalise(word: str) -> str:
    return " ".join(unicodedata.normalize("NFC", word).replace("_", " ").split())
