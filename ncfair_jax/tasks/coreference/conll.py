"""Documents with coreference clusters, and the CoNLL-2012 format that they come in.

A line is a word with at least 12 columns: document, part, word number, word, …, column 10 the speaker, the last the mentions
that begin "(7", end "7)" or are "(7)" there, with bars between; clusters are numbered within a part. A blank line ends a
sentence, `#begin document (NAME); part 000` and `#end document` bound a part.

Source: Pradhan et al. 2012 (CoNLL-2012 shared task). OntoNotes itself is licensed by the LDC and is not fetched.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ncfair_jax.files.atomic import write_text
from ncfair_jax.files.reading import DataError, Place, Records, RowError, accepted, stream_lines

COLUMNS = 12  # at least; predicates bring more, equally many in a sentence
WORD, SPEAKER = 3, 9
NO_SPEAKER = "-"
_BEGIN = re.compile(r"#begin document \((.*)\);\s*part\s+(\d+)\s*")
_MENTION = re.compile(r"(\()?(\d+)(\))?")
_ESCAPED = ("/.", "/?", "/-")  # how OntoNotes writes these marks in transcripts

Mention = tuple[int, int]  # first and last word, counted over the whole document
Cluster = tuple[Mention, ...]


class Document(NamedTuple):
    """One part of a document.

    Attributes:
        name: such as "nw/wsj/00/wsj_0001"; its first two letters are the genre.
        part: from 0.
        sentences: their words.
        speakers: of every sentence.
        clusters: mentions in the order of their first words, clusters in that of their first mentions.
    """

    name: str
    part: int
    sentences: tuple[tuple[str, ...], ...]
    speakers: tuple[str, ...]
    clusters: tuple[Cluster, ...]

    @property
    def key(self) -> str:
        """Name and part: what tells documents apart."""
        return f"{self.name}_{self.part}"


def in_order(clusters: Iterable[Iterable[Mention]]) -> tuple[Cluster, ...]:
    """Clusters as `Document` has them, each mention once."""
    return tuple(sorted(tuple(sorted(set(cluster))) for cluster in clusters))


def read_conll(path: str | Path) -> list[Document]:
    """The parts of a file, in its order. A part with a malformed line is left out as a whole, and counted.

    Malformed are too few or a changing number of columns, brackets that do not close or open, and parts without words.

    Raises:
        DataError: naming file and line: not UTF-8, words outside a document, a document that does not end, or more than
            1 % malformed parts.
    """
    documents = list(accepted(_blocks(path), _document))
    if not documents:
        raise DataError(f"{path}: holds no document; expected lines such as `#begin document (nw/a); part 000`")
    return documents


class _Block(NamedTuple):
    """The lines of one part, with their places; `end` is that of `#end document`."""

    name: str
    number: int
    lines: list[tuple[Place, str]]
    end: Place


def _blocks(path: str | Path) -> Records[_Block]:
    header: re.Match[str] | None = None
    lines: list[tuple[Place, str]] = []
    place = Place(str(path), 0)
    for number, line in enumerate(stream_lines(path), start=1):
        place, line = Place(str(path), number), line.strip(" \r\n")
        if line.startswith("#begin"):
            match = _BEGIN.fullmatch(line)
            if match is None or header is not None:
                expected = "`#begin document (NAME); part 000`" if header is None else "`#end document` before it"
                raise DataError(f"{place}: {line!r}; expected {expected}")
            header, lines = match, []
        elif line.startswith("#end"):
            if header is None:
                raise DataError(f"{place}: {line!r} ends no document; is the beginning missing?")
            yield place, _Block(header[1], int(header[2]), lines, place)
            header = None
        elif header is not None:
            lines.append((place, line))
        elif line:
            raise DataError(f"{place}: {line[:40]!r} is outside a document; expected `#begin document (NAME); …`")
    if header is not None:
        raise DataError(f"{place}: document {header[1]} has no `#end document`; is the file complete?")


def _document(place: Place, block: _Block) -> Document:
    part = _Part(block.name, block.number)
    for where, line in block.lines:
        if line:
            part.add(_cells(line), where)
        else:
            part.end_sentence()
    return part.finish(place)


def _cells(line: str) -> list[str]:
    # Words may hold other blanks, such as U+00A0 and U+3000.
    return (
        [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else [cell for cell in line.split(" ") if cell]
    )


class _Part:
    """A part that is being read."""

    def __init__(self, name: str, number: int):
        self.name, self.number = name, number
        self.sentences: list[tuple[str, ...]] = []
        self.speakers: list[str] = []
        self.words: list[str] = []
        self.columns = self.read = 0
        self.clusters: dict[int, list[Mention]] = {}
        self.open: dict[int, list[tuple[int, Place]]] = {}  # by cluster, innermost last: first word, and where it was

    def add(self, cells: list[str], where: Place) -> None:
        if not self.words:
            self.columns = len(cells)
            self.speakers.append(cells[SPEAKER] if len(cells) > SPEAKER else "")
        if len(cells) < COLUMNS or len(cells) != self.columns:
            expected = (
                f"at least {COLUMNS}" if len(cells) < COLUMNS else f"{self.columns} as in the sentence's first word"
            )
            raise RowError(where, f"{len(cells)} columns; expected {expected}")
        word = cells[WORD]
        self.words.append(word[1:] if word in _ESCAPED else word)
        if cells[-1] != "-":
            for text in cells[-1].split("|"):
                self.mention(text, where)
        self.read += 1

    def mention(self, text: str, where: Place) -> None:
        match = _MENTION.fullmatch(text)
        if match is None or not (match[1] or match[3]):
            raise RowError(where, f"mention {text!r} in the last column; expected such as '(7', '7)', '(7)' or '-'")
        cluster = int(match[2])
        if match[1]:
            self.open.setdefault(cluster, []).append((self.read, where))
        if match[3]:
            if not self.open.get(cluster):
                raise RowError(where, f"mention {text!r} closes a bracket of cluster {cluster} that none opened")
            first, _ = self.open[cluster].pop()
            self.clusters.setdefault(cluster, []).append((first, self.read))

    def end_sentence(self) -> None:
        if self.words:
            self.sentences.append(tuple(self.words))
            self.words = []

    def finish(self, where: Place) -> Document:
        self.end_sentence()
        for cluster, places in self.open.items():
            if places:
                raise RowError(places[-1][1], f"the bracket of cluster {cluster} is never closed")
        if not self.sentences:
            raise RowError(where, f"document {self.name} part {self.number} has no words")
        clusters = in_order(self.clusters.values())
        return Document(self.name, self.number, tuple(self.sentences), tuple(self.speakers), clusters)


def write_conll(path: Path, documents: Iterable[Document]) -> None:
    """Writes documents in 12 columns, those of no concern here empty; the file appears when it is complete.

    `read_conll` gives them back, unless two mentions of one cluster cross each other, for which the format has no notation.
    """
    blocks = []
    for document in documents:
        lines = [f"#begin document ({document.name}); part {document.part:03d}"]
        column = _last_column(document.clusters, sum(map(len, document.sentences)))
        word = 0
        for sentence, speaker in zip(document.sentences, document.speakers, strict=True):
            for number, text in enumerate(sentence):
                cells = [
                    document.name,
                    document.part,
                    number,
                    text,
                    "-",
                    "*",
                    "-",
                    "-",
                    "-",
                    speaker,
                    "*",
                    column[word],
                ]
                lines.append("\t".join(map(str, cells)))
                word += 1
            lines.append("")
        blocks.append("\n".join([*lines, "#end document", ""]))
    write_text(path, "".join(blocks))


def _last_column(clusters: Sequence[Cluster], words: int) -> list[str]:
    """For each word its mentions: those that end first, then those of one word, then those that begin, longest first."""
    marks: list[list[str]] = [[] for _ in range(words)]
    numbered = [(first, last, number) for number, cluster in enumerate(clusters) for first, last in cluster]
    for first, last, number in sorted(numbered, key=lambda m: (m[1], -m[0])):
        if first < last:
            marks[last].append(f"{number})")
    for first, last, number in sorted(numbered, key=lambda m: (m[0], m[1] > m[0], -m[1])):
        marks[first].append(f"({number})" if first == last else f"({number}")
    return ["|".join(mark) or "-" for mark in marks]
