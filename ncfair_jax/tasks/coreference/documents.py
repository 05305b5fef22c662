"""Documents to batches for coreference: word pieces in segments, and arrays of fixed shape, one document an entry.

Letters: B documents of a batch (pads included), G segments of a document, T tokens of a segment, L = G · T, W longest span,
N tokens of all segments of a document.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import tokenized
from ncfair_jax.data.packing import round_up
from ncfair_jax.data.pipeline import Batch, Examples, Pipeline, PipelineConfig, split_rows
from ncfair_jax.files.reading import DataError
from ncfair_jax.methods.corpus import set_aside
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.coreference.config import CorefRun
from ncfair_jax.tasks.coreference.conll import Document, read_conll
from ncfair_jax.tasks.coreference.model import GENRES
from ncfair_jax.tasks.coreference.winobias import is_lines_file, read_lines_file
from ncfair_jax.vocabulary import WordBoundaries, whole_words

SEGMENT_STREAM = 3  # key of the draws that choose a long document's segments
NO_SENTENCE = -1
SMALLEST_ROW = 16


class Encoded(NamedTuple):
    """A document as word pieces.

    Attributes:
        tokens: i32[N], each segment with its [CLS] and [SEP].
        segments: i32[N], from 0.
        sentences, words: i32[N]; -1 at special tokens. A sentence cut by a segment's end counts as two.
        speakers: i32[N].
        genre: index in GENRES; their number for any other.
        mentions: i32[M,3]: first and last token in N, and cluster from 1; without those that a segment's end cuts.
    """

    tokens: np.ndarray
    segments: np.ndarray
    sentences: np.ndarray
    words: np.ndarray
    speakers: np.ndarray
    genre: int
    mentions: np.ndarray

    @property
    def num_segments(self) -> int:
        """G."""
        return int(self.segments[-1]) + 1

    def some(self, first: int, count: int) -> "Encoded":
        """The document's segments first, …, first + count - 1 alone, with the mentions inside them."""
        chosen = np.flatnonzero((self.segments >= first) & (self.segments < first + count))
        low, high = chosen[0], chosen[-1] + 1
        inside = (self.mentions[:, 0] >= low) & (self.mentions[:, 1] < high)
        mentions = self.mentions[inside] - np.array([low, low, 0], np.int32)
        here = slice(low, high)
        return Encoded(
            self.tokens[here],
            self.segments[here] - np.int32(first),
            self.sentences[here],
            self.words[here],
            self.speakers[here],
            self.genre,
            mentions,
        )


def read_documents(paths: str) -> list[Document]:
    """Documents of files with commas between: CoNLL format, or WinoBias's bracketed lines; of a folder all its *_conll files.

    Raises:
        DataError: a file that is missing or malformed, with the line; or a folder without such files.
    """
    documents = []
    for file in document_files(paths):
        documents += read_lines_file(file) if is_lines_file(file) else read_conll(file)
    return documents


def document_files(paths: str) -> list[Path]:
    """The files that `read_documents` reads, with its argument.

    Raises:
        DataError: a folder without such files.
    """
    found: list[Path] = []
    for name in paths.split(","):
        path = Path(name.strip())
        files = sorted(path.rglob("*_conll")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: the folder holds no file whose name ends with _conll")
        found += files
    return found


def encode_document(document: Document, tokenizer: PreTrainedTokenizerBase, segment_tokens: int) -> Encoded:
    """Word pieces, cut into segments of at most `segment_tokens`: after a sentence if possible, else after a word.

    Words are encoded one by one, each as if a blank preceded it.

    Raises:
        DataError: for a word that is longer than a segment.
    """
    room = segment_tokens - 2
    words = [word for sentence in document.sentences for word in sentence]
    pieces = tokenized(tokenizer, [" " + word for word in words], add_special_tokens=False)["input_ids"]
    pieces = [ids or [tokenizer.unk_token_id] for ids in pieces]  # a word of control characters leaves nothing
    if (longest := max(map(len, pieces))) > room:
        raise DataError(f"{document.key}: a word has {longest} pieces; a segment has room for {room}")
    of_sentence = np.repeat(np.arange(len(document.sentences)), [len(s) for s in document.sentences])
    ids = {name: number for number, name in enumerate(dict.fromkeys(document.speakers))}
    rows: list[tuple[int, int, int, int, int]] = []  # token, segment, sentence, word, speaker
    first, last = np.zeros(len(words), np.int32), np.zeros(len(words), np.int32)
    sentence_number = -1
    for segment, (begin, end) in enumerate(_segments(of_sentence, [len(p) for p in pieces], room)):
        speakers = [ids[document.speakers[of_sentence[word]]] for word in range(begin, end)]
        rows.append((tokenizer.cls_token_id, segment, NO_SENTENCE, -1, speakers[0]))
        for word in range(begin, end):
            sentence_number += word == begin or of_sentence[word] != of_sentence[word - 1]
            first[word] = len(rows)
            rows += [(token, segment, sentence_number, word, speakers[word - begin]) for token in pieces[word]]
            last[word] = len(rows) - 1
        rows.append((tokenizer.sep_token_id, segment, NO_SENTENCE, -1, speakers[-1]))
    tokens, segments, sentences, of_word, of_speaker = np.array(rows, np.int32).T
    mentions = [(first[a], last[b], number) for number, c in enumerate(document.clusters, 1) for a, b in c]
    mentions = [m for m in mentions if segments[m[0]] == segments[m[1]]]
    genre = GENRES.index(document.name[:2]) if document.name[:2] in GENRES else len(GENRES)
    table = np.array(mentions, np.int32).reshape(-1, 3)
    return Encoded(tokens, segments, sentences, of_word, of_speaker, genre, table)


def _segments(of_sentence: np.ndarray, lengths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """First and one past the last word of each segment."""
    ends = np.cumsum(lengths)
    begin = 0
    while begin < len(lengths):
        used = ends[begin - 1] if begin else 0
        end = int(np.searchsorted(ends, used + room, side="right"))
        if end < len(lengths) and of_sentence[end] != of_sentence[begin]:
            while of_sentence[end] == of_sentence[end - 1]:
                end -= 1
        yield begin, end
        begin = end


def shape_of(documents: Sequence[Encoded], segment_tokens: int) -> tuple[int, int]:
    """(G, T) that hold the documents; they take few values, so that a run compiles a handful of shapes.

    T is `segment_tokens`, or a lower power of 2 if all documents are one short segment; G above 4 is a power of 2.
    """
    segments = max(document.num_segments for document in documents)
    if segments == 1:
        longest = max(len(document.tokens) for document in documents)
        return 1, min(segment_tokens, max(SMALLEST_ROW, 2 ** (longest - 1).bit_length()))
    return (segments if segments <= 4 else 2 ** (segments - 1).bit_length()), segment_tokens


def lay_out(documents: Sequence[Encoded], rows: int, segment_tokens: int, max_width: int) -> Batch:
    """Arrays of some documents, padded with empty ones to `rows` (B).

    Returns:
        tokens, segment_ids (0 = pad), positions, sentences (-1: none), speakers i32[B,G,T]; genre i32[B]; weights f32[B], 0
        for empty ones; gold i32[B,L,W], the cluster of the span [first token, width - 1], 0 for none. G, T as `shape_of`.
    """
    segments, row_tokens = shape_of(documents, segment_tokens)
    shape = (rows, segments, row_tokens)
    of_tokens = ("tokens", "segment_ids", "positions", "sentences", "speakers")
    batch: Batch = {name: np.full(shape, NO_SENTENCE * (name == "sentences"), np.int32) for name in of_tokens}
    batch["genre"] = np.zeros(rows, np.int32)
    batch["weights"] = (np.arange(rows) < len(documents)).astype(np.float32)
    batch["gold"] = np.zeros((rows, segments * row_tokens, max_width), np.int32)
    for row, document in enumerate(documents):
        columns = columns_of(document)
        for name in ("tokens", "sentences", "speakers"):
            batch[name][row, document.segments, columns] = getattr(document, name)
        batch["segment_ids"][row, document.segments, columns] = 1
        batch["positions"][row, document.segments, columns] = columns
        batch["genre"][row] = document.genre
        first, last, cluster = document.mentions.T
        near = last - first < max_width
        place = document.segments * row_tokens + columns
        batch["gold"][row, place[first[near]], (last - first)[near]] = cluster[near]
    return batch


def columns_of(document: Encoded) -> np.ndarray:
    """Place of each token in its segment, i64[N]."""
    starts = np.flatnonzero(np.diff(document.segments, prepend=-1))
    return np.arange(len(document.segments)) - starts[document.segments]


def load_coref_examples(config: CorefRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    """Training and development documents.

    Raises:
        ConfigError, DataError: no file is named, or it cannot be read.
    """
    data = config.data
    if not config.coref.train:
        raise ConfigError(
            "config.coref.train is empty; name files in CoNLL-2012 format, with commas between: those of OntoNotes 5 "
            "(LDC2013T19, under its licence) or your own"
        )
    if data.counterfactual != "none":
        raise ConfigError(f"config.data.counterfactual={data.counterfactual!r}: coref has no swap; set it to 'none'")
    if data.row_tokens > model.config.max_tokens:
        raise ConfigError(
            f"config.data.row_tokens={data.row_tokens}: the model has positions for {model.config.max_tokens}"
        )
    documents = read_documents(config.coref.train)[: data.max_examples or None]
    train, dev = set_aside(documents, data.dev_examples, config.seed)
    return _examples(train, config, model), _examples(dev, config, model) if dev else None


def _examples(documents: Sequence[Document], config: CorefRun, model: Pretrained) -> Examples:
    encoded = [encode_document(document, model.tokenizer, config.data.row_tokens) for document in documents]
    segments = [document.some(i, 1).tokens for document in encoded for i in range(document.num_segments)]
    arguments: dict[str, Any] = {
        "documents": encoded,
        "max_segments": config.coref.max_segments,
        "max_width": config.coref.max_width,
    }
    return Examples(segments, kind=CorefPipeline, arguments=arguments)


class CorefPipeline(Pipeline):
    """Batches of whole documents; of long ones as many consecutive segments as training takes, drawn by (seed, step, document).

    Args:
        examples: all segments of all documents.
        documents: what an example is.
        max_segments: most segments of a document in a batch.
        max_width: W.
    """

    def __init__(
        self,
        examples: Sequence[np.ndarray],
        config: PipelineConfig,
        *,
        documents: Sequence[Encoded],
        max_segments: int,
        max_width: int,
        boundaries: WordBoundaries | None = None,
        **arguments: Any,
    ):
        super().__init__(examples, config, boundaries=boundaries, **arguments)
        self._documents, self._boundaries = documents, boundaries
        self._max_segments, self._max_width = max_segments, max_width
        self.num_examples = len(documents)
        self.steps_per_epoch = -(-self.num_examples // config.batch_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the documents: everything that `Encoded` holds."""
        digest = hashlib.sha256()
        for document in self._documents:
            for value in document:
                array = np.asarray(value)
                digest.update(np.array(array.shape, "<i8").tobytes() + array.astype("<i4").tobytes())
        return digest.hexdigest()[:16]

    def batch(self, step: int) -> Batch:
        """The documents of a step as `lay_out` has them, split into micro-batches [A, B/A, …].

        Also slots i32[A,B/A,G,T] (class of each token, K = none) and step, num_examples i32[].
        """
        config = self.config
        ids = self.example_ids(step)
        documents = [self._taken(int(i), step) for i in ids]
        rows = round_up(config.batch_size, math.lcm(config.row_multiple, config.accumulation))
        packed = lay_out(documents, rows, config.row_tokens, self._max_width)
        classed = packed["segment_ids"] > 0
        if self._boundaries is not None:
            whole = whole_words(packed["tokens"].ravel(), packed["positions"].ravel(), self._boundaries)
            classed = classed & whole.reshape(classed.shape)
        slots = np.where(classed, self._slot_of_token[packed["tokens"]], self._no_class)
        if config.alignment == "next":
            slots = np.concatenate([slots[..., 1:], np.full_like(slots[..., :1], self._no_class)], axis=-1)
        batch = {name: split_rows(value, config.accumulation) for name, value in (packed | {"slots": slots}).items()}
        batch["step"] = np.array(step, np.int32)
        batch["num_examples"] = np.array(len(ids), np.int32)
        return batch

    def _taken(self, number: int, step: int) -> Encoded:
        document = self._documents[number]
        spare = document.num_segments - self._max_segments
        if spare <= 0:
            return document
        philox = np.random.Philox(key=[self.config.seed, SEGMENT_STREAM], counter=[0, 0, step, number])
        first = int(np.random.Generator(philox).integers(spare + 1))
        return document.some(first, self._max_segments)
