"""Words in context for ADEPT and DPCE: sentences of attribute words, by group, and of neutral words.

An example is a sentence with one listed word in it. A batch holds B examples of every key: key 0 are the neutral words,
keys 1 to K the groups of the lexicon. Letters: E = (K + 1) B examples, W pieces of a word, N tokens of a batch.

Source: Yang et al. 2023 (ADEPT), with words found by their characters and not by their pieces, sentences cut to a length, no
example whose word the cut touches, and no sentence twice where a word has several partners.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import note_cut, tokenized
from ncfair_jax.data.layout import Batch, Drawn, Sequences, Setting, packed, selecting
from ncfair_jax.data.packing import FlatIndex, scatter_rows
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.files.reading import read_lines
from ncfair_jax.lexicons.lexicon import Lexicon, load_lexicon
from ncfair_jax.lexicons.matching import compose, whole_words
from ncfair_jax.methods.adept.config import AdeptConfig, AdeptRun
from ncfair_jax.methods.corpus import load_sentences
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.strings import several_strings

Hit = tuple[int, str, tuple[int, int]]  # key, word, where it begins and ends in the sentence

NEUTRAL = 0  # key of the neutral words
NEUTRAL_FILE = "neutral.json"
MODES = {"final": (30, True), "raw": (1, False), "reliability": (30, False), "quality": (1, True)}  # minimum, balanced


class WordExample(NamedTuple):
    """A sentence with a listed word in it.

    Attributes:
        key: NEUTRAL, or 1 + index of the word's group.
        word: lower case.
        tokens: i32[L], the sentence with its special tokens.
        pieces: i32[W], positions of the word's tokens in the sentence.
    """

    key: int
    word: str
    tokens: np.ndarray
    pieces: np.ndarray


def neutral_words(path: str | Path) -> list[str]:
    """The neutral words of a text file, a word a line, or, for "", of the shipped list.

    Raises:
        DataError: missing, empty or undecodable file.
    """
    if path:
        return list(dict.fromkeys(word for line in read_lines(path) if (word := line.strip().lower())))
    text = resources.files("ncfair_jax.lexicons").joinpath(NEUTRAL_FILE).read_text(encoding="utf-8")
    words: list[str] = json.loads(text)["words"]
    return words


def chosen_groups(lexicon: Lexicon, names: str) -> list[int]:
    """Indices of the lexicon's groups named, with commas between; all for "".

    Raises:
        ConfigError: a name that the lexicon does not have, or fewer than two.
    """
    wanted = [name.strip() for name in names.split(",")] if names else list(lexicon.groups)
    for name in wanted:
        if name not in lexicon.groups:
            raise ConfigError(
                f"config.adept.groups={names!r}: lexicon {lexicon.attribute!r} has no group {name!r}; "
                f"choose from {', '.join(lexicon.groups)}"
            )
    if len(set(wanted)) < 2:
        raise ConfigError(f"config.adept.groups={names!r}: name two groups or more, or none for all")
    return [lexicon.groups.index(name) for name in dict.fromkeys(wanted)]


def collect(
    sentences: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    lexicon: Lexicon,
    groups: Sequence[int],
    neutral: Iterable[str],
    max_tokens: int,
) -> list[WordExample]:
    """Every listed word of every sentence, in the order of the sentences, each word at its first place.

    Words match whole, whatever their case, the longest listed one first. A sentence gives neutral examples only where it
    holds no word of any group of the lexicon. Sentences of one word, or of more words than `max_tokens`, are left out, and so
    are words that the cut to `max_tokens` pieces touches or that the tokenizer does not know.

    Args:
        groups: indices of the lexicon's groups to collect; key 1 is the first of them.
    Raises:
        TypeError: `sentences` or `neutral` is a single string.
    """
    sentences = several_strings("sentences", sentences)
    key_of = dict.fromkeys((word.lower() for word in several_strings("neutral", neutral)), NEUTRAL)
    keys = {group: 1 + place for place, group in enumerate(groups)}
    attribute_words = {word.lower(): group for group, words in enumerate(lexicon.words) for word in words}
    pattern = whole_words(key_of | attribute_words)
    found: list[tuple[str, list[Hit]]] = []
    for sentence in sentences:
        if not 1 < len(sentence.split()) <= max_tokens:
            continue
        composed, starts = compose(sentence)
        lower = composed.lower()
        if len(lower) != len(composed):  # a few letters change their length, which would shift the places
            continue
        spans: dict[str, tuple[int, int]] = {}
        for match in pattern.finditer(lower):
            spans.setdefault(match.group(), (starts[match.start()], starts[match.end()]))
        attributes = [word for word in spans if word in attribute_words]
        if attributes:
            hits = [(keys[group], word, spans[word]) for word in attributes if (group := attribute_words[word]) in keys]
        else:
            hits = [(NEUTRAL, word, span) for word, span in spans.items()]
        if hits:
            found.append((sentence, hits))
    return list(_encoded(found, tokenizer, max_tokens))


def _encoded(
    found: Sequence[tuple[str, list[Hit]]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Iterable[WordExample]:
    if not found:
        return
    sentences = [sentence for sentence, _ in found]
    encoded = tokenized(tokenizer, sentences, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    note_cut(
        [len(ids) for ids in encoded["input_ids"]],
        max_tokens,
        lambda chosen: tokenized(tokenizer, [sentences[i] for i in chosen], verbose=False)["input_ids"],
    )
    for (_, hits), ids, offsets in zip(found, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        tokens, places = np.array(ids, np.int32), np.array(offsets)
        for key, word, (start, end) in hits:
            pieces = np.flatnonzero((places[:, 0] < end) & (places[:, 1] > start)).astype(np.int32)
            whole = len(pieces) > 0 and places[pieces[-1], 1] >= end
            if whole and tokenizer.unk_token_id not in tokens[pieces]:
                yield WordExample(key, word, tokens, pieces)


def quotas(counts: Counter[str], pairs: Sequence[tuple[str, str]], mode: str) -> Counter[str]:
    """How many examples of each attribute word are used, from how many there are.

    Where the lexicon has pairs, a pair's words are used together or not at all, and under "final" and "quality" equally
    often; a word with several partners shares its examples out among its pairs, in their order. Without pairs the words
    stand alone; batches hold equally many examples of every group in any case.
    """
    minimum, balanced = MODES[mode]
    used: Counter[str] = Counter()
    if not pairs:
        return Counter({word: count for word, count in counts.items() if count >= minimum})
    left = counts.copy()
    for pair in pairs:
        number = min(left[word] for word in pair)
        if number < minimum:
            continue
        for word in pair:
            if balanced:
                used[word] += number
                left[word] -= number
            else:
                used[word] = counts[word]
    return used


def select(examples: Sequence[WordExample], quota: Counter[str]) -> list[WordExample]:
    """The neutral examples, and the first so many of each attribute word."""
    taken: Counter[str] = Counter()
    chosen = []
    for example in examples:
        if example.key != NEUTRAL:
            taken[example.word] += 1
        if example.key == NEUTRAL or taken[example.word] <= quota[example.word]:
            chosen.append(example)
    return chosen


def epoch_steps(keys: np.ndarray, batch_size: int) -> int:
    """Batches of an epoch: as many as the smallest key fills, so that all keys come equally often."""
    return int(np.bincount(keys).min()) // batch_size


def adept_examples(config: AdeptRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    """Training and development examples of the corpus that the config names.

    Words are chosen on the training sentences; the development sentences give all their examples of the chosen words.

    Raises:
        ConfigError: if a group or the neutral words have fewer examples than a batch needs.
    """
    adept = config.adept
    lexicon = load_lexicon(adept.lexicon)
    groups = chosen_groups(lexicon, adept.groups)
    names = ["neutral words", *(f"group {lexicon.groups[group]!r}" for group in groups)]
    neutral = neutral_words(adept.neutral)
    train, dev = (
        collect(sentences, model.tokenizer, lexicon, groups, neutral, config.data.max_tokens)
        for sentences in load_sentences(config.data, config.seed)
    )
    quota = quotas(Counter(example.word for example in train if example.key), _pairs(lexicon, groups), adept.mode)
    train = select(train, quota)
    _require(
        train, names, config.train.batch_size, adept, "give more text, lower config.train.batch_size or change the mode"
    )
    if not config.data.dev_examples:
        return _examples(train), None
    dev = [example for example in dev if example.key == NEUTRAL or quota[example.word]]
    _require(dev, names, 2, adept, "raise config.data.dev_examples")
    return _examples(train), _examples(dev)


def _pairs(lexicon: Lexicon, groups: Sequence[int]) -> list[tuple[str, str]]:
    kept = {word.lower() for group in groups for word in lexicon.words[group]}
    return [pair for pair in lexicon.pairs if kept.issuperset(pair)]


def _require(
    examples: Sequence[WordExample], names: Sequence[str], least: int, adept: AdeptConfig, remedy: str
) -> None:
    counts = np.bincount([example.key for example in examples], minlength=len(names))
    for name, count in zip(names, counts.tolist(), strict=True):
        if count < least:
            raise ConfigError(
                f"config.adept.mode={adept.mode!r}, lexicon {adept.lexicon!r}: {count} sentences of the {name}, at least "
                f"{least} are needed; {remedy}"
            )


def _examples(found: Sequence[WordExample]) -> Examples:
    keys = np.array([example.key for example in found], np.int32)
    return made_of([example.tokens for example in found], keys, [example.pieces for example in found])


def made_of(sequences: Sequence[np.ndarray], keys: np.ndarray, pieces: Sequence[np.ndarray]) -> Examples:
    """Examples whose strata are the keys, i32[E]; a batch holds equally many of every key, and nothing is masked.

    Args:
        pieces: positions of each example's word.
    """
    counts = np.array([len(places) for places in pieces], np.int32)
    table = np.zeros((len(pieces), counts.max()), np.int32)  # [E, W]
    for row, places in zip(table, pieces, strict=True):
        row[: len(places)] = places
    of_examples = {"key": keys, "pieces": table, "num_pieces": counts}
    return Examples(sequences, of_examples=of_examples, strata=keys, layout=LAYOUT)


def as_they_are(drawn: Drawn, setting: Setting) -> Sequences:
    """The sentences as they are."""
    del setting
    return selecting(drawn, np.zeros(len(drawn.tokens), bool))


def word_places(drawn: Drawn, index: FlatIndex, rows: int, row_tokens: int) -> Batch:
    """Where the words and the attribute sentences are.

    Returns:
        "retained" i32[R,T], 1 at the tokens of attribute sentences; of the words' tokens, "example_rows" and
        "example_columns" i32[E,W] and "example_weights" f32[E,W], 1 / pieces of the word (0 where unused).
    """
    lengths, pieces = drawn.lengths, drawn.of_examples["pieces"]
    flat = (np.cumsum(lengths) - lengths)[:, None] + pieces  # [E, W]
    number = drawn.of_examples["num_pieces"].astype(np.int64)[:, None]
    used = np.arange(pieces.shape[1])[None] < number
    retained = np.repeat(drawn.of_examples["key"] != NEUTRAL, lengths)
    return {
        "retained": scatter_rows(retained, index, rows, row_tokens),
        "example_rows": index.row[flat].astype(np.int32),
        "example_columns": index.column[flat].astype(np.int32),
        "example_weights": (used / number).astype(np.float32),
    }


LAYOUT = partial(packed, sequences=as_they_are, arrays=word_places)
