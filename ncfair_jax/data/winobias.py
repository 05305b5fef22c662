"""WinoBias as documents: one sentence each, with one gold cluster, an occupation and its pronoun(s).

Its authors publish it twice: as lines `12 The developer argued with [the designer] because [he] …`, and in CoNLL format.
Both are read; document i of a file is line i + 1 of the other. Two neighbouring lines are about the same two occupations and
made from one template.

Source: Zhao et al. 2018 (arXiv:1804.06876), uclanlp/corefBias (MIT licence).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ncfair_jax.data.conll import Document, Mention, read_conll
from ncfair_jax.data.files import CorpusError, read_lines

SPLITS = ("dev", "test")
KINDS = (1, 2)  # without and with syntactic cues
SIDES = {"pro": "stereotype", "anti": "not_stereotype"}  # name in the documents' names
_LINES = "{side}_stereotyped_type{kind}.txt.{split}"
_CONLL = "{split}_type{kind}_{side}_stereotype.v4_auto_conll"
_NAME = re.compile(r"(pro|anti)_stereotyped_type([12])\.txt\.(dev|test)")
_NUMBERED = re.compile(r"\d+\s+(.*\S)\s*")
# As the Penn Treebank has it: brackets, n't and what precedes it, other contractions, words, marks.
_WORD = re.compile(r"[\[\]]|\w+(?=n't\b)|n't\b|'\w+|\w+(?:[-’]\w+)*|\S")
SPEAKER = "Speaker#1"


def is_lines_file(path: Path) -> bool:
    """Whether a file is named as WinoBias's bracketed lines are."""
    return _NAME.fullmatch(path.name) is not None


def read_lines_file(path: Path) -> list[Document]:
    """Documents of a file of bracketed lines, named as in the CoNLL files: nw/dev_type1/stereotype//0, ….

    Raises:
        CorpusError: naming the line: no number, brackets that do not pair or hold no word, or fewer than two mentions.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CorpusError(f"{path}: expected a name such as {_LINES.format(side='pro', kind=1, split='dev')}")
    side, kind, split = match.groups()
    group = f"nw/{split}_type{kind}/{SIDES[side]}"
    return [
        _document(f"{group}//{number}", line, f"{path}:{number + 1}") for number, line in enumerate(read_lines(path))
    ]


def _document(name: str, line: str, where: str) -> Document:
    match = _NUMBERED.fullmatch(line)
    if match is None:
        raise CorpusError(f"{where}: {line!r} is not a number and a sentence; get WinoBias's own file")
    words: list[str] = []
    mentions: list[Mention] = []
    begun: int | None = None
    for word in _WORD.findall(match[1]):
        if word == "[" and begun is None:
            begun = len(words)
        elif word == "]" and begun is not None and begun < len(words):
            mentions.append((begun, len(words) - 1))
            begun = None
        elif word in "[]":
            raise CorpusError(f"{where}: bracket {word!r} does not pair, or holds no word: {line!r}")
        else:
            words.append(word)
    if begun is not None or len(mentions) < 2:
        raise CorpusError(
            f"{where}: {line!r} has {len(mentions)} closed mentions; expected an occupation and a pronoun"
        )
    return Document(name, 0, (tuple(words),), (SPEAKER,), (tuple(mentions),))


def read_winobias(folder: Path, split: str) -> dict[tuple[int, str], list[Document]]:
    """Documents of a split by (type, side), from the CoNLL files where they are there, else from the lines.

    Raises:
        CorpusError: a missing or malformed file, or pro and anti files of different lengths.
    """
    found: dict[tuple[int, str], list[Document]] = {}
    for kind, side in _groups():
        conll = folder / _CONLL.format(side=side, kind=kind, split=split)
        lines = folder / _LINES.format(side=side, kind=kind, split=split)
        found[kind, side] = read_conll(conll) if conll.is_file() else read_lines_file(lines)
    for kind in KINDS:
        if len({len(found[kind, side]) for side in SIDES}) > 1:
            raise CorpusError(f"{folder}: pro and anti files of type {kind} differ in length; get WinoBias's own files")
    return found


def _groups() -> Iterator[tuple[int, str]]:
    return ((kind, side) for kind in KINDS for side in SIDES)
