"""WinoBias as documents: one sentence each, with one gold cluster, an occupation and its pronoun(s).

Its authors publish it twice: as lines `12 The developer argued with [the designer] because [he] …`, and in CoNLL format.
Both are read; document i of a file is line i + 1 of the other. Two neighbouring lines are about the same two occupations and
made from one template.

Source: Zhao et al. 2018 (arXiv:1804.06876), uclanlp/corefBias (MIT licence).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ncfair_jax.data.winobias import numbered_lines
from ncfair_jax.files import notes
from ncfair_jax.files.reading import DataError, Place, RowError, accepted
from ncfair_jax.tasks.coreference.conll import Document, Mention, read_conll

SPLITS = ("dev", "test")
KINDS = (1, 2)  # without and with syntactic cues
SIDES = {"pro": "stereotype", "anti": "not_stereotype"}  # name in the documents' names
_LINES = "{side}_stereotyped_type{number}.txt.{split}"
_CONLL = "{split}_type{number}_{side}_stereotype.v4_auto_conll"
_NAME = re.compile(r"(pro|anti)_stereotyped_type([12])\.txt\.(dev|test)")
# As the Penn Treebank has it: brackets, n't and what precedes it, other contractions, words, marks.
_WORD = re.compile(r"[\[\]]|\w+(?=n't\b)|n't\b|'\w+|\w+(?:[-’]\w+)*|\S")
SPEAKER = "Speaker#1"


def is_lines_file(path: Path) -> bool:
    """Whether a file is named as WinoBias's bracketed lines are."""
    return _NAME.fullmatch(path.name) is not None


def read_lines_file(path: Path) -> list[Document]:
    """Documents of a file of bracketed lines, named as in the CoNLL files: nw/dev_type1/stereotype//0, ….

    Raises:
        DataError: naming the line, if more than 1 % are malformed: no number, brackets that do not pair or hold no word, or
            fewer than two mentions.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: expected a name such as {_LINES.format(side='pro', number=1, split='dev')}")
    side, number, split = match.groups()
    group = f"nw/{split}_type{number}/{SIDES[side]}"
    return list(accepted(numbered_lines(path), lambda place, text: _document(f"{group}//{place.row - 1}", text, place)))


def _document(name: str, text: str, where: Place) -> Document:
    words: list[str] = []
    mentions: list[Mention] = []
    begun: int | None = None
    for word in _WORD.findall(text):
        if word == "[" and begun is None:
            begun = len(words)
        elif word == "]" and begun is not None and begun < len(words):
            mentions.append((begun, len(words) - 1))
            begun = None
        elif word in "[]":
            raise RowError(where, f"bracket {word!r} does not pair, or holds no word: {text!r}")
        else:
            words.append(word)
    if begun is not None or len(mentions) < 2:
        raise RowError(where, f"{text!r} has {len(mentions)} closed mentions; expected an occupation and a pronoun")
    return Document(name, 0, (tuple(words),), (SPEAKER,), (tuple(mentions),))


def read_winobias(folder: Path, split: str) -> dict[tuple[int, str], list[Document]]:
    """Documents of a split by (type, side), from the CoNLL files where they are there, else from the lines.

    A document whose counterpart on the other side was left out as malformed is left out, too.

    Raises:
        DataError: a missing or malformed file, or pro and anti files of different lengths.
    """
    found: dict[tuple[int, str], list[Document]] = {}
    lengths: dict[tuple[int, str], int] = {}
    for number, side in _groups():
        conll = folder / _CONLL.format(side=side, number=number, split=split)
        lines = folder / _LINES.format(side=side, number=number, split=split)
        with notes.collected() as skipped:
            documents = read_conll(conll) if conll.is_file() else read_lines_file(lines)
        for note in skipped:
            notes.add(note)
        found[number, side] = documents
        lengths[number, side] = len(documents) + notes.total_counts(skipped).get("skipped_rows", 0)
    for number in KINDS:
        if len({lengths[number, side] for side in SIDES}) > 1:
            raise DataError(f"{folder}: pro and anti files of type {number} differ in length; get WinoBias's own files")
        both = set.intersection(*({_number(document) for document in found[number, side]} for side in SIDES))
        for side in SIDES:
            found[number, side] = [document for document in found[number, side] if _number(document) in both]
    return found


def _number(document: Document) -> str:
    return document.name.rpartition("//")[2]


def winobias_files(folder: Path, split: str) -> list[Path]:
    """The files that `read_winobias` reads, with its arguments."""
    found = []
    for number, side in _groups():
        conll = folder / _CONLL.format(side=side, number=number, split=split)
        found.append(conll if conll.is_file() else folder / _LINES.format(side=side, number=number, split=split))
    return found


def _groups() -> Iterator[tuple[int, str]]:
    return ((number, side) for number in KINDS for side in SIDES)
