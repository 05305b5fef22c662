"""Documents with coreference clusters, and the CoNLL-2012 format that they come in.

A line is a word with at least 12 columns: document, part, word number, word, …, column 10 the speaker, the last the mentions
that begin "(7", end "7)" or are "(7)" there, with bars between; clusters are numbered within a part. A blank line ends a
sentence, `#begin document (NAME); part 000` and `#end document` bound a part.

Source: Pradhan et al. 2012 (CoNLL-2012 shared task). OntoNotes itself is licensed by the LDC and is not fetched.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ncfair_jax.data.files import CorpusError, stream_lines
from ncfair_jax.run_log import write_text

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
    """The parts of a file, in its order.

    Raises:
        CorpusError: naming file and line: not UTF-8, too few or a changing number of columns, words outside a document,
            brackets that do not close or open, or a document without words.
    """
    documents = list(_parts(path))
    if not documents:
        raise CorpusError(f"{path}: holds no document; expected lines such as `#begin document (nw/a); part 000`")
    return documents


def _parts(path: str | Path) -> Iterator[Document]:
    part: _Part | None = None
    number = 0
    for number, line in enumerate(stream_lines(path), start=1):
        where = f"{path}:{number}"
        if line.startswith("#begin"):
            match = _BEGIN.fullmatch(line)
            if match is None or part is not None:
                expected = "`#begin document (NAME); part 000`" if part is None else "`#end document` before it"
                raise CorpusError(f"{where}: {line.strip()!r}; expected {expected}")
            part = _Part(match[1], int(match[2]))
        elif line.startswith("#end"):
            if part is None:
                raise CorpusError(f"{where}: {line.strip()!r} ends no document; is the beginning missing?")
            yield part.finish(where)
            part = None
        elif not line.strip():
            if part is not None:
                part.end_sentence()
        elif part is None:
            raise CorpusError(
                f"{where}: {line.strip()[:40]!r} is outside a document; expected `#begin document (NAME); …`"
            )
        else:
            part.add(line.split(), where)
    if part is not None:
        raise CorpusError(f"{path}:{number}: document {part.name} has no `#end document`; is the file complete?")


class _Part:
    """A part that is being read."""

    def __init__(self, name: str, number: int):
        self.name, self.number = name, number
        self.sentences: list[tuple[str, ...]] = []
        self.speakers: list[str] = []
        self.words: list[str] = []
        self.columns = self.read = 0
        self.clusters: dict[int, list[Mention]] = {}
        self.open: dict[int, list[tuple[int, str]]] = {}  # by cluster, innermost last: first word, and where it was

    def add(self, cells: list[str], where: str) -> None:
        if not self.words:
            self.columns = len(cells)
            self.speakers.append(cells[SPEAKER] if len(cells) > SPEAKER else "")
        if len(cells) < COLUMNS or len(cells) != self.columns:
            expected = (
                f"at least {COLUMNS}" if len(cells) < COLUMNS else f"{self.columns} as in the sentence's first word"
            )
            raise CorpusError(f"{where}: {len(cells)} columns; expected {expected}")
        word = cells[WORD]
        self.words.append(word[1:] if word in _ESCAPED else word)
        if cells[-1] != "-":
            for text in cells[-1].split("|"):
                self.mention(text, where)
        self.read += 1

    def mention(self, text: str, where: str) -> None:
        match = _MENTION.fullmatch(text)
        if match is None or not (match[1] or match[3]):
            raise CorpusError(
                f"{where}: mention {text!r} in the last column; expected such as '(7', '7)', '(7)' or '-'"
            )
        cluster = int(match[2])
        if match[1]:
            self.open.setdefault(cluster, []).append((self.read, where))
        if match[3]:
            if not self.open.get(cluster):
                raise CorpusError(f"{where}: mention {text!r} closes a bracket of cluster {cluster} that none opened")
            first, _ = self.open[cluster].pop()
            self.clusters.setdefault(cluster, []).append((first, self.read))

    def end_sentence(self) -> None:
        if self.words:
            self.sentences.append(tuple(self.words))
            self.words = []

    def finish(self, where: str) -> Document:
        self.end_sentence()
        for cluster, places in self.open.items():
            if places:
                raise CorpusError(f"{places[-1][1]}: the bracket of cluster {cluster} is never closed")
        if not self.sentences:
            raise CorpusError(f"{where}: document {self.name} part {self.number} has no words")
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
