"""Entailment pairs with gender-swapped copies, as MABEL (He et al. 2022) trains on: file, builder and batches.

A pair is four sentences, or six: premise o0, hypothesis o1, their swapped copies a0 and a1, and, in six columns, a hard
negative and its swapped copy. The file is comma separated with a header, its columns read by position.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ncfair_jax.config import ConfigError
from ncfair_jax.data.encoding import encode_sentences
from ncfair_jax.data.layout import Batch, Drawn, Sequences, Setting, masked, packed
from ncfair_jax.data.packing import FlatIndex
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.files.atomic import written
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import DataError, Place, RowError, accepted, check_visible
from ncfair_jax.files.rows import Row, cell, hub_rows, read_rows, text_cell
from ncfair_jax.files.tables import comma_separated, wrong_number_of_cells
from ncfair_jax.lexicons.cda import swap_words
from ncfair_jax.lexicons.lexicon import Lexicon, load_lexicon
from ncfair_jax.methods.corpus import set_aside
from ncfair_jax.methods.mabel.config import TEMPLATES, MabelRun
from ncfair_jax.methods.mabel.templates import PAIRS, template_pairs
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.strings import several_strings

HEADER = ("orig_sent0", "orig_sent1", "aug_sent0", "aug_sent1", "both")
LAYOUTS = (4, 5, 6)
BOTH_VALUES = frozenset(("0", "1", "0.0", "1.0", "true", "false"))
FILTERS = ("any", "both", "none")
# Names of the columns in the Hub's copies and in the files of SNLI and MNLI themselves; the first found counts.
PREMISE, HYPOTHESIS, LABEL = ("premise", "sentence1"), ("hypothesis", "sentence2"), ("gold_label", "label")
# Numbers as on the Hub; "-" and -1: the annotators did not agree.
ENTAILMENT = ("entailment", "0")
OTHER_LABELS = ("neutral", "contradiction", "-", "1", "2", "-1")


class SwappedPair(NamedTuple):
    """A pair and its swapped copy; `both`: whether premise and hypothesis both changed."""

    premise: str
    hypothesis: str
    swapped_premise: str
    swapped_hypothesis: str
    both: bool


# --- the file


def read_pairs(path: str | Path, hard_negatives: bool = False) -> list[tuple[str, ...]]:
    """Sentences (o0, o1, a0, a1) of each pair, in file order; with `hard_negatives` also columns 5 and 6.

    Of five columns the last is `both` (0 or 1), which MABEL reads and does not use.

    Raises:
        DataError: naming the file and, where it can, the line: missing file, other than 4, 5 or 6 columns, no pairs, no hard
            negatives, or more than 1 % malformed rows: a sentence without a visible character, a `both` that is neither 0
            nor 1.
    """
    records = comma_separated(path)
    _, header = next(records, (None, []))
    if isinstance(header, RowError):
        raise header
    columns = _checked_layout(len(header), path, hard_negatives)

    def pair(place: Place, cells: list[str]) -> tuple[str, ...]:
        if len(cells) != columns:
            raise wrong_number_of_cells(place, len(cells), columns)
        if columns == 5 and cells[4].strip().lower() not in BOTH_VALUES:
            raise RowError(place, f"column 5 holds {cells[4]!r}; of five columns it is `both`, 0 or 1")
        sentences = tuple(cell.strip() for cell in cells[: 6 if hard_negatives else 4])
        for sentence in sentences:
            check_visible(sentence, place)
        return sentences

    pairs = list(accepted(records, pair))
    if not pairs:
        raise DataError(f"{path}: the file holds no pairs")
    return pairs


def write_pairs(path: str | Path, pairs: Iterable[SwappedPair]) -> int:
    """Writes pairs in the five-column layout and returns their number; the file appears when it is complete."""
    path = path_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with written(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for pair in pairs:
            writer.writerow([*pair[:4], int(pair.both)])
            count += 1
    return count


def _checked_layout(columns: int, path: str | Path, hard_negatives: bool) -> int:
    if columns not in LAYOUTS:
        raise DataError(
            f"{path}:1: {columns} columns; expected 4 ({', '.join(HEADER[:4])}), 5 (also {HEADER[4]}) or "
            "6 (also two hard negatives), comma separated"
        )
    if hard_negatives and columns != 6:
        raise DataError(f"{path}:1: {columns} columns; hard negatives need 6: the last two hold them and their swap")
    return columns


# --- the builder


def build_pairs(
    sources: Sequence[str], out: str | Path, lexicon: Lexicon, keep: str = "any", possessives: str = "context"
) -> int:
    """Writes the pairs of SNLI, MNLI or the like with their swapped copies, and returns their number.

    Args:
        sources: Hub names or folders that `datasets` reads, or files .jsonl and .csv; in this order.
        keep, possessives: see `swapped_pairs`.
    Raises:
        DataError: a source that cannot be read, or nothing is left.
        TypeError: `sources` is a single string.
    """
    sources = several_strings("sources", sources)
    entailed = (pair for source in sources for pair in entailed_pairs(source))
    pairs = swapped_pairs(entailed, lexicon, keep, possessives)
    first = next(pairs, None)
    if first is None:
        raise DataError(f"{', '.join(sources)}: no entailed pair is left; use another filter or lexicon")
    return write_pairs(out, chain([first], pairs))


def swapped_pairs(
    pairs: Iterable[tuple[str, str]], lexicon: Lexicon, keep: str = "any", possessives: str = "context"
) -> Iterator[SwappedPair]:
    """Each distinct pair once, in order, with its swapped copy.

    Args:
        keep: pairs of which at least one sentence changed (`any`), both did (`both`), or all pairs (`none`: no filter).
        possessives: how "her" and "his" are read, see `cda.swap_words`.
    Raises:
        ValueError: unknown filter or `possessives`, or a lexicon without pairs.
    """
    if keep not in FILTERS:
        raise ValueError(f"filter={keep!r}; choose from {sorted(FILTERS)}")
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        if pair in seen:
            continue
        seen.add(pair)
        premise, hypothesis = (swap_words(sentence, lexicon, possessives) for sentence in pair)
        changed = (premise != pair[0]) + (hypothesis != pair[1])
        if changed >= {"none": 0, "any": 1, "both": 2}[keep]:
            yield SwappedPair(*pair, premise, hypothesis, changed == 2)


def entailed_pairs(source: str) -> Iterator[tuple[str, str]]:
    """(premise, hypothesis) of the rows labelled as entailment, in order; blank sentences are left out.

    Args:
        source: a file .jsonl, .csv or .tsv with the columns of SNLI and MNLI, or what `datasets` loads (split `train`).
    Raises:
        DataError: unreadable, or more than 1 % malformed rows: a column missing, a sentence that is no text, or an unknown
            label; with the line.
    """
    rows = read_rows(source) if path_of(source).suffix.lower() in (".jsonl", ".csv", ".tsv") else hub_rows(source)
    for premise, hypothesis, entailed in accepted(rows, _labelled_pair):
        if entailed and premise and hypothesis:
            yield premise, hypothesis


def _labelled_pair(place: Place, row: Row) -> tuple[str, str, bool]:
    label = str(cell(row, LABEL, place)).strip().lower()
    if label not in ENTAILMENT + OTHER_LABELS:
        raise RowError(place, f"label {label!r}; expected one of {', '.join(ENTAILMENT + OTHER_LABELS)}")
    premise, hypothesis = (" ".join(text_cell(row, names, place).split()) for names in (PREMISE, HYPOTHESIS))
    return premise, hypothesis, label in ENTAILMENT


# --- the batches


def load_pair_examples(config: MabelRun, model: Pretrained) -> tuple[Examples, Examples | None]:
    """Training and development pairs, encoded one sentence a sequence; development pairs are set aside whole.

    Raises:
        ConfigError, DataError: no pairs are named, they cannot be read, or they clash with the config.
    """
    data = config.data
    if data.counterfactual != "none":
        raise ConfigError(
            f"config.data.counterfactual={data.counterfactual!r}: mabel's pairs bring their swapped copies; set it to 'none'"
        )
    pairs = _read_or_generate(config)[: data.max_examples or None]
    train, dev = set_aside(pairs, data.dev_examples, config.seed)
    return _encoded(train, config, model), _encoded(dev, config, model) if dev else None


def _read_or_generate(config: MabelRun) -> list[tuple[str, ...]]:
    source, hard = config.mabel.pairs, config.mabel.hard_negatives
    if not source:
        raise ConfigError(
            "config.mabel.pairs is empty; name a CSV file of pairs (launch/build_mabel.py makes one) or 'templates'"
        )
    if source != TEMPLATES:
        return read_pairs(source, hard)
    if hard:
        raise ConfigError("config.mabel.hard_negatives=True: the templates have none; name a CSV of 6 columns")
    generated = template_pairs(min(config.data.max_examples or PAIRS, PAIRS))
    swapped = swapped_pairs(generated, load_lexicon(config.data.lexicon), possessives=config.data.possessives)
    pairs: list[tuple[str, ...]] = [pair[:4] for pair in swapped]
    if not pairs:
        raise ConfigError(
            f"config.data.lexicon={config.data.lexicon!r}: the templates hold none of its words; name a CSV of pairs"
        )
    return pairs


def _encoded(pairs: Sequence[tuple[str, ...]], config: MabelRun, model: Pretrained) -> Examples:
    sentences = [sentence for pair in pairs for sentence in pair]
    sequences = encode_sentences(sentences, model.tokenizer, config.data.max_tokens)
    return Examples(sequences, views=len(pairs[0]), layout=LAYOUT)


def clean_and_masked(drawn: Drawn, setting: Setting) -> Sequences:
    """The clean sequences of all pairs, then the masked ones, both in the order of the pairs and their views.

    Only the clean ones hold classes, so statistics of classes never see [MASK] or a random token.
    """
    once = masked(drawn, setting)
    tokens = len(once.original)
    return Sequences(
        lengths=np.tile(once.lengths, 2),
        original=np.tile(once.original, 2),
        tokens=np.concatenate([once.original, once.tokens]),
        selected=np.concatenate([np.zeros(tokens, bool), once.selected]),
        classed=np.concatenate([once.classed, np.zeros(tokens, bool)]),
    )


def first_tokens(drawn: Drawn, index: FlatIndex, rows: int, row_tokens: int) -> Batch:
    """`example_cls` i32[E, V, 2]: at which row and column of the batch each clean sentence's [CLS] lies."""
    del rows, row_tokens
    first = np.flatnonzero(index.position == 0)[: len(drawn.lengths)]
    where = np.stack([index.row[first], index.column[first]], axis=-1)
    return {"example_cls": where.reshape(len(drawn.ids), -1, 2).astype(np.int32)}


LAYOUT = partial(packed, sequences=clean_and_masked, arrays=first_tokens)  # all sentences of a pair (V views) twice
