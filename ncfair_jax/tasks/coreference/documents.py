"""Documents to batches for coreference: word pieces in segments, and arrays of fixed shape, one document an entry.

Letters: B documents of a batch (pads included), G segments of a document, T tokens of a segment, L = G · T, W longest span,
N tokens of all segments of a document.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import tokenized
from ncfair_jax.data.layout import Batch, Drawn, Setting
from ncfair_jax.data.packing import flat_positions, round_up
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import DataError
from ncfair_jax.methods.corpus import set_aside
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.coreference.config import CorefRun
from ncfair_jax.tasks.coreference.conll import Document, read_conll
from ncfair_jax.tasks.coreference.model import GENRES
from ncfair_jax.tasks.coreference.winobias import is_lines_file, read_lines_file
from ncfair_jax.vocabulary import template_of

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
        path = path_of(name.strip())
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
    template = template_of(tokenizer)
    room = segment_tokens - template.specials()
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
        rows += [(token, segment, NO_SENTENCE, -1, speakers[0]) for token in template.start]
        for word in range(begin, end):
            sentence_number += word == begin or of_sentence[word] != of_sentence[word - 1]
            first[word] = len(rows)
            rows += [(token, segment, sentence_number, word, speakers[word - begin]) for token in pieces[word]]
            last[word] = len(rows) - 1
        rows += [(token, segment, NO_SENTENCE, -1, speakers[-1]) for token in template.end]
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
    return made_of(encoded, config.coref.max_segments, config.coref.max_width)


def made_of(documents: Sequence[Encoded], max_segments: int, max_width: int) -> Examples:
    """Examples that are documents; their sequences are the segments.

    Args:
        max_segments: most segments of a document in a batch.
        max_width: W.
    """
    segments = [document.some(i, 1) for document in documents for i in range(document.num_segments)]
    names = ("sentences", "words", "speakers")
    mentions = np.zeros((len(documents), max(len(document.mentions) for document in documents), 3), np.int32)
    for row, document in zip(mentions, documents, strict=True):
        row[: len(document.mentions)] = document.mentions  # others have cluster 0
    return Examples(
        [segment.tokens for segment in segments],
        views=np.array([document.num_segments for document in documents]),
        of_tokens={name: [getattr(segment, name) for segment in segments] for name in names},
        of_examples={"genre": np.array([document.genre for document in documents], np.int32), "mentions": mentions},
        layout=partial(whole_documents, max_segments=max_segments, max_width=max_width),
    )


def whole_documents(drawn: Drawn, setting: Setting, *, max_segments: int, max_width: int) -> Batch:
    """The documents as `lay_out` has them; of long ones consecutive segments, drawn by (seed, step, document).

    Returns:
        What `lay_out` returns, and slots i32[B,G,T], the class of each token (K = none).
    """
    config = setting.config
    of_tokens = np.where(drawn.counted, setting.slot_of_token[drawn.tokens], setting.no_class)
    documents, slots = list[Encoded](), list[np.ndarray]()
    for number, document, own in zip(drawn.ids, *apart(drawn, of_tokens), strict=True):
        first = first_segment(document.num_segments - max_segments, config.seed, drawn.step, int(number))
        slots.append(own[(document.segments >= first) & (document.segments < first + max_segments)])
        documents.append(document.some(first, max_segments))
    rows = round_up(config.batch_size, math.lcm(config.row_multiple, config.accumulation))
    laid = lay_out(documents, rows, config.row_tokens, max_width)
    table = np.full(laid["tokens"].shape, setting.no_class, np.int32)
    for row, (document, own) in enumerate(zip(documents, slots, strict=True)):
        table[row, document.segments, columns_of(document)] = own
    if config.alignment == "next":
        table = np.concatenate([table[..., 1:], np.full_like(table[..., :1], setting.no_class)], axis=-1)
    return laid | {"slots": table}


def apart(drawn: Drawn, of_tokens: np.ndarray) -> tuple[list[Encoded], list[np.ndarray]]:
    """The documents of a batch, and of each its part of an array [N]."""
    documents, parts = [], []
    ends = np.cumsum(drawn.lengths)[np.cumsum(drawn.views) - 1]
    starts = np.concatenate([[0], ends[:-1]])
    segments = np.repeat(flat_positions(drawn.views), drawn.lengths).astype(np.int32)
    names = ("sentences", "words", "speakers")
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        here = slice(start, end)
        sentences, words, speakers = (drawn.of_tokens[name][here] for name in names)
        mentions = drawn.of_examples["mentions"][i]
        mentions = mentions[mentions[:, 2] > 0]
        genre = int(drawn.of_examples["genre"][i])
        documents.append(Encoded(drawn.tokens[here], segments[here], sentences, words, speakers, genre, mentions))
        parts.append(of_tokens[here])
    return documents, parts


def first_segment(spare: int, seed: int, step: int, number: int) -> int:
    """From which segment on a document is taken that has `spare` segments too many."""
    if spare <= 0:
        return 0
    philox = np.random.Philox(key=[seed, SEGMENT_STREAM], counter=[0, 0, step, number])
    return int(np.random.Generator(philox).integers(spare + 1))
