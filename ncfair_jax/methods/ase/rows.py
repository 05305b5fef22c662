"""ASE's rows: contexts in which every gendered pronoun is masked, and their gender-flipped twins (Park et al. 2023).

A row is `[CLS] context [SEP]` as literal text, [MASK] in the place of every pronoun, with the pronouns beside it. Original
and flipped rows come in pairs: read from two CSV files, or built of plain sentences. Text and markers know no vocabulary:
`encode_rows` puts a tokenizer's own special tokens in the markers' places.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import MASK, tokenized
from ncfair_jax.data.gap import read_gap
from ncfair_jax.data.layout import Batch, Drawn, Sequences, Setting, packed
from ncfair_jax.data.packing import FlatIndex, scatter_rows
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.data.winobias import parallel_lines
from ncfair_jax.files import notes
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import DataError, Place, RowError, accepted, read_lines
from ncfair_jax.files.sources import GAP, DataFolder
from ncfair_jax.files.tables import comma_separated, table_rows
from ncfair_jax.lexicons.cda import swap_words
from ncfair_jax.lexicons.lexicon import LexiconError, load_lexicon, shipped_file
from ncfair_jax.lexicons.matching import compose, whole_words
from ncfair_jax.methods.ase.config import AseRun
from ncfair_jax.methods.corpus import DEV_STREAM
from ncfair_jax.strings import several_strings
from ncfair_jax.vocabulary import vocabulary_of

COLUMNS = ["text", "pronouns"]
ORIGINAL_FILE, FLIPPED_FILE = "original_data.csv", "flipped_data.csv"
WINOBIAS_FILE = "{side}_stereotyped_type{number}.txt.dev"  # the test files judge; nothing here opens them
PRONOUN = whole_words(("he", "she", "his", "hers", "her", "him"))
# A blank before a marker goes with it, so that a vocabulary whose words begin with their blank makes no piece of it.
MARKER = re.compile(r"\s*\[(CLS|SEP|MASK)\]")


class Context(NamedTuple):
    """One context.

    Attributes:
        text: begins with [CLS] and ends with [SEP].
        pronouns: lower case; one for each [MASK] of the text in order, or one that stands for all of them.
    """

    text: str
    pronouns: tuple[str, ...]


Pair = tuple[Context, Context]  # original, flipped


class EncodedRows(NamedTuple):
    """Encoded rows, one array a row: ids with the pronouns in place i32[L]; bool[L] where they are masked, and where a
    stereotype word is.
    """

    sequences: list[np.ndarray]
    masked: list[np.ndarray]
    marked: list[np.ndarray]


def load_rows(
    config: AseRun, tokenizer: PreTrainedTokenizerBase, stereotypes: Iterable[str]
) -> tuple[EncodedRows, EncodedRows | None]:
    """Training and development rows of a config; the latter None where `data.dev_examples` is 0.

    `data.counterfactual` chooses sides of the pairs: originals (none), flipped (one_sided), or both, originals first. A pair
    lies wholly in training or in development; repeated pairs, and repeated rows of a side, count once.

    Raises:
        ConfigError, DataError: one line, naming the file or the field.
    """
    data = config.data
    pairs = list(dict.fromkeys(load_pairs(config)))[: data.max_examples or None]
    if data.dev_examples >= len(pairs):
        raise ConfigError(
            f"config.data.dev_examples={data.dev_examples} leaves nothing of {len(pairs)} rows to train on"
        )
    order = np.random.Generator(np.random.Philox(key=[config.seed, DEV_STREAM])).permutation(len(pairs))
    aside = set(order[: data.dev_examples].tolist())

    def encoded(chosen: list[Pair]) -> EncodedRows:
        rows = rows_of_pairs(chosen, data.counterfactual, config.ase.label_mode)
        return encode_rows(rows, tokenizer, data.max_tokens, stereotypes)

    train = encoded([pair for i, pair in enumerate(pairs) if i not in aside])
    return train, encoded([pairs[i] for i in sorted(aside)]) if aside else None


def load_pairs(config: AseRun) -> list[Pair]:
    """Original and flipped rows of the source that the config names, in file order.

    Raises:
        ConfigError: no path for a source that needs one.
        DataError: a file that is missing or malformed, or no gendered pronoun in any sentence.
    """
    path, source = config.data.path, config.ase.source
    if not path and source != "gap":
        raise ConfigError(f"config.data.path is empty; name the folder of config.ase.source={source!r}")
    if source == "csv":
        return read_pairs(path)
    if source == "winobias":
        pairs = sentence_pairs(*read_winobias(path))
    else:
        sentences = read_gap(path or DataFolder(None).path(GAP))
        lexicon = load_lexicon(config.data.lexicon)
        flipped = [swap_words(sentence, lexicon, config.data.possessives) for sentence in sentences]
        pairs = sentence_pairs(sentences, flipped)
    if not pairs:
        raise DataError(f"{path}: no sentence has a gendered pronoun; give another corpus")
    return pairs


def pair_files(config: AseRun) -> dict[str, list[Path]]:
    """By field of the config, the files that `load_pairs` reads."""
    path, source = config.data.path, config.ase.source
    if source == "csv":
        return {"data.path": [path_of(path) / name for name in (ORIGINAL_FILE, FLIPPED_FILE)]}
    if source == "winobias":
        names = [WINOBIAS_FILE.format(side=side, number=number) for number in (1, 2) for side in ("pro", "anti")]
        return {"data.path": [path_of(path) / name for name in names]}
    return {"data.path": [path_of(path or DataFolder(None).path(GAP))]}


def mask_pronouns(sentence: str) -> Context:
    """The row of one sentence: lower case, single blanks, every he, she, his, her, him and hers masked."""
    text = " ".join(sentence.lower().split())
    return Context(f"[CLS] {PRONOUN.sub(MASK, text)} [SEP]", tuple(PRONOUN.findall(text)))


def sentence_pairs(originals: Sequence[str], flipped: Sequence[str]) -> list[Pair]:
    """Rows of sentences and their counterfactuals; sentences without a gendered pronoun are left out.

    Raises:
        TypeError: `originals` or `flipped` is a single string.
    """
    sides = zip(several_strings("originals", originals), several_strings("flipped", flipped), strict=True)
    pairs = [(mask_pronouns(a), mask_pronouns(b)) for a, b in sides]
    return [(a, b) for a, b in pairs if a.pronouns and b.pronouns]


def read_winobias(folder: str | Path) -> tuple[list[str], list[str]]:
    """Pro- and anti-stereotyped sentences of WinoBias's development files (types 1 and 2), line by line each other's flip.

    Raises:
        DataError: a missing file, more than 1 % of lines that are not `<number> sentence`, or files of different lengths.
    """
    pairs: list[list[str]] = []
    for number in (1, 2):
        pro, anti = (path_of(folder) / WINOBIAS_FILE.format(side=side, number=number) for side in ("pro", "anti"))
        pairs += accepted(parallel_lines(pro, anti), lambda _, pair: [re.sub(r"[\[\]]", "", text) for text in pair])
    return [first for first, _ in pairs], [second for _, second in pairs]


def read_pairs(folder: str | Path) -> list[Pair]:
    """Pairs of original_data.csv and flipped_data.csv, row by row.

    The published form has one row for each pronoun of a text, all of them masked. Where such neighbours are complete (as many
    rows as masks) they become one row with a pronoun for each mask; otherwise a row's one pronoun stands for all its masks.

    Raises:
        DataError: a file that is missing, undecodable, without rows or with other columns; files of different lengths; or
            more than 1 % malformed pairs: a text without its markers, or a number of pronouns that is neither one nor that
            of the masks.
    """
    originals, flipped = (
        list(table_rows(comma_separated(path), path, COLUMNS))
        for path in (path_of(folder) / ORIGINAL_FILE, path_of(folder) / FLIPPED_FILE)
    )
    if len(originals) != len(flipped):
        raise DataError(
            f"{folder}: {ORIGINAL_FILE} has {len(originals)} rows, {FLIPPED_FILE} {len(flipped)}; row i must pair with row i"
        )

    def pair(place: Place, number: int) -> Pair:
        first, second = (_checked(*rows[number]) for rows in (originals, flipped))
        return first, second

    return list(_merged(accepted(((place, i) for i, (place, _) in enumerate(originals)), pair)))


def _checked(place: Place, record: Mapping[str, str] | RowError) -> Context:
    """The row of a record; several pronouns are separated by blanks."""
    if isinstance(record, RowError):
        raise record
    row = Context(record["text"].strip(), tuple(record["pronouns"].lower().split()))
    if not (row.text.startswith("[CLS]") and row.text.endswith("[SEP]") and MASK in row.text):
        raise RowError(place, f"text {row.text[:60]!r} must begin with [CLS], end with [SEP] and hold a [MASK]")
    if len(row.pronouns) not in (1, row.text.count(MASK)):
        raise RowError(
            place,
            f"{len(row.pronouns)} pronouns for {row.text.count(MASK)} masks; give one, or one for each mask",
        )
    return row


def _merged(pairs: Iterable[Pair]) -> Iterator[Pair]:
    for texts, neighbours in groupby(pairs, key=lambda pair: (pair[0].text, pair[1].text)):
        found = list(neighbours)
        whole = tuple(
            Context(text, tuple(pronoun for row in rows for pronoun in row.pronouns))
            for text, rows in zip(texts, zip(*found, strict=True), strict=True)
        )
        if all(len(row.pronouns) == row.text.count(MASK) for row in whole):
            yield whole[0], whole[1]
        else:
            yield from found


def rows_of_pairs(pairs: Sequence[Pair], counterfactual: str, label_mode: str) -> list[Context]:
    """The rows to train on; a row that occurs twice on its side, or that the flip leaves as it was, counts once.

    Args:
        counterfactual: "none", "one_sided" or "two_sided", as of the corpus.
        label_mode: "per_mask", or "same": each pronoun of a row makes a row of its own, where it labels every mask.
    """
    originals = [] if counterfactual == "one_sided" else [a for a, _ in pairs]
    flipped = [] if counterfactual == "none" else [b for a, b in pairs if counterfactual == "one_sided" or a != b]
    rows = []
    for side in (originals, flipped):
        if label_mode == "same":
            side = [Context(row.text, (pronoun,)) for row in side for pronoun in row.pronouns]
        rows += list(dict.fromkeys(side))
    return rows


def stereotypes_file(path: str) -> Path:
    """The file that `load_stereotypes` reads, with its argument."""
    return path_of(path) if path else shipped_file("stereotypes.json")


def load_stereotypes(path: str) -> tuple[str, ...]:
    """Words whose gender is to be neutralised.

    Args:
        path: a JSON lexicon, all groups of which count; or a text file with a word in every cell, cells separated by tabs;
            "" = the list of the package.
    Raises:
        LexiconError: a file that is missing or not a lexicon, or one without words.
    """
    if not path:
        return tuple(word for words in load_lexicon(stereotypes_file(path)).words for word in words)
    if path.endswith(".json"):
        return tuple(word for words in load_lexicon(path).words for word in words)
    try:
        cells = [cell.strip() for line in read_lines(path) for cell in line.split("\t")]
    except DataError as error:
        raise LexiconError(f"config.ase.stereotypes: {error}") from None
    return tuple(dict.fromkeys(cell for cell in cells if cell))


def encode_rows(
    rows: Sequence[Context], tokenizer: PreTrainedTokenizerBase, max_tokens: int, stereotypes: Iterable[str]
) -> EncodedRows:
    """Encodes rows, the markers being the tokenizer's own special tokens.

    A row longer than `max_tokens` is cut at the end but keeps its last marker; one that so loses all its masks is left out.
    What is cut off is noted (see `notes`).
    Every piece of every stereotype word is marked, wherever the word stands between word boundaries, whatever its case.

    Raises:
        DataError: a pronoun that is not one token of the vocabulary, or nothing left.
        TypeError: `stereotypes` is a single string.
    """
    vocabulary = vocabulary_of(tokenizer)
    marker_ids: dict[str, Any] = {
        "CLS": vocabulary.cls,
        "SEP": vocabulary.sep,
    }  # in the text, where its source put them
    label_ids = _label_ids({pronoun for row in rows for pronoun in row.pronouns}, tokenizer)
    listed = whole_words((word.lower() for word in several_strings("stereotypes", stereotypes)), re.IGNORECASE)
    split = [MARKER.split(row.text) for row in rows]  # text between markers at even places, the markers at odd ones
    between = [text for parts in split for text in parts[::2]]
    encoded = tokenized(tokenizer, between, add_special_tokens=False, return_offsets_mapping=True)
    texts = iter(zip(between, encoded["input_ids"], encoded["offset_mapping"], strict=True))
    found = EncodedRows([], [], [])
    lengths: list[int] = []
    for row, parts in zip(rows, split, strict=True):
        labels = iter(row.pronouns if len(row.pronouns) > 1 else row.pronouns * len(parts))
        ids: list[int] = []
        masked: list[bool] = []
        marked: list[bool] = []
        for marker in [*parts[1::2], ""]:
            text, pieces, offsets = next(texts)
            composed, starts = compose(text)
            spans = [(starts[match.start()], starts[match.end()]) for match in listed.finditer(composed)]
            ids += pieces
            masked += [False] * len(pieces)
            marked += [any(begin < end and stop > start for start, end in spans) for begin, stop in offsets]
            if marker:
                ids.append(label_ids[next(labels)] if marker == "MASK" else marker_ids[marker])
                masked.append(marker == "MASK")
                marked.append(False)
        lengths.append(len(ids))
        if len(ids) > max_tokens:
            ids[max_tokens - 1 :] = [marker_ids["SEP"]]
            masked[max_tokens - 1 :] = marked[max_tokens - 1 :] = [False]
        if any(masked):
            found.sequences.append(np.array(ids, np.int32))
            found.masked.append(np.array(masked))
            found.marked.append(np.array(marked))
    if lost := [length - max_tokens for length in lengths if length > max_tokens]:
        notes.add(notes.Cut(max_tokens, len(rows), len(lost), sum(lengths), sum(lost)))
    if not found.sequences:
        raise DataError(f"no row has a masked pronoun within data.max_tokens={max_tokens}; raise it")
    return found


def _label_ids(pronouns: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    label_ids = {}
    for pronoun in sorted(pronouns):
        # With a blank before it: the form inside a sentence.
        (ids,) = tokenized(tokenizer, [" " + pronoun], add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise DataError(
                f"pronoun {pronoun!r} is not one token of this vocabulary; remove its rows or take another model"
            )
        label_ids[pronoun] = ids[0]
    return label_ids


def made_of(rows: EncodedRows) -> Examples:
    """Examples of encoded rows: the masks are the rows' own, the same at every step."""
    return Examples(rows.sequences, of_tokens={"masked": rows.masked, "marked": rows.marked}, layout=LAYOUT)


def pronouns_masked(drawn: Drawn, setting: Setting) -> Sequences:
    """Every pronoun masked; a masked pronoun still counts as its class."""
    selected = drawn.of_tokens["masked"]
    tokens = np.where(selected, np.int32(setting.mask_token_id), drawn.tokens)
    return Sequences(drawn.lengths, drawn.tokens, tokens, selected, drawn.counted)


def stereotype_places(drawn: Drawn, index: FlatIndex, rows: int, row_tokens: int) -> Batch:
    """ "marked" i32[R,T]: 1 at the pieces of stereotype words."""
    return {"marked": scatter_rows(drawn.of_tokens["marked"], index, rows, row_tokens)}


LAYOUT = partial(packed, sequences=pronouns_masked, arrays=stereotype_places)
