"""BEC-Pro (Bartl et al. 2020): how much does a profession raise or lower the probability of a gendered person word?

    association = ln( P(person | its mask, profession visible) / P(person | its mask, profession masked too) )

The closer the means for female and male person words, the less bias; compared by professions' group (dominated by women, by
men, balanced). The German file and the Equity Evaluation Corpus, where emotions take the place of professions, have the
same form.

    rows = read_examples("BEC-Pro_EN.tsv")
    model = load_pretrained("my-model")
    ask(rows, model).answered_by(forward_of(model)).metrics["difference"]["overall"]
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.base import MASKED, Benchmark, DrillDown, Headline, Questions
from ncfair_jax.benchmarks.bec_pro_statistics import (
    GENDERS,
    STATISTICS,
    clustered_tests,
    flags,
    person_pairs,
    release_statistics,
    wilcoxon_by_group,
)
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, repeats
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.data.encoding import MASK, encode_gaps, encode_texts
from ncfair_jax.engine.requests import Answer, Request, first_log_probs, mask_id, named
from ncfair_jax.files.reading import Place, RowError, accepted
from ncfair_jax.files.sources import GITHUB, DataError, DataFolder, Source
from ncfair_jax.files.tables import tab_separated, table_rows
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Figures, Sample, cluster_sums, numbered, ratio
from ncfair_jax.statistics.scales import ABSOLUTE, NONE

FILES = {
    "bec_pro": Source(
        "bec_pro/BEC-Pro_EN.tsv",
        f"{GITHUB}/marionbartl/gender-bias-BERT/master/BEC-Pro/BEC-Pro_EN.tsv",
        "228b44c62d7830fec13a1eee52bbe8afff82be455abb9d8a07c17d9d0b48e20f",
    ),
    "bec_pro_de": Source(
        "bec_pro/BEC-Pro_DE.tsv",
        f"{GITHUB}/marionbartl/gender-bias-BERT/master/BEC-Pro/BEC-Pro_DE.tsv",
        "1803abb492ebf28e64acaa8f12d5ccb24caf08847a06ba325d4b374e120af805",
    ),
    "bec_pro_eec": Source(
        "eec/EEC_TM_TAM.tsv",
        f"{GITHUB}/marionbartl/gender-bias-BERT/master/data/EEC_TM_TAM.tsv",
        "d39058ab5eb7d4169f3ffd97e507410d31f90005df3ecd663b6452690e08b305",
    ),
}
COLUMNS: dict[str, type] = {"row": int, "target_prob": float, "prior_prob": float, "association": float}
EXAMPLE_COLUMNS: dict[str, type] = {
    "row": int,
    "person": str,
    "gender": str,
    "profession": str,
    "group": str,
    "pair": str,
}
_BEC_PRO = "CC BY 4.0 (Bartl et al. 2020, marionbartl/gender-bias-BERT)"
SOURCES = {  # name in tables, licence
    "bec_pro": ("BEC-Pro", _BEC_PRO),
    "bec_pro_de": ("BEC-Pro German", _BEC_PRO),
    "bec_pro_eec": ("EEC", "research use, see the corpus's own terms (Kiritchenko and Mohammad 2018)"),
}
# Means of absolute values lie above 0 for any model: only their differences between two models have an interval.
SCALES = {"mean_abs_association": ABSOLUTE, "sd": NONE}
PADDINGS = ("clean", "reference")
_GLUED_MASK = re.compile(r"\w\[MASK\]|\[MASK\]\w")


class Example(NamedTuple):
    """A row of the file.

    group is Prof_Gender (in the Equity Evaluation Corpus the emotion), pair is shared by a female and a male row that
    differ in the person's gender only; damaged where the file's masked sentences are.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index
    sentence: str
    target_masked: str
    both_masked: str
    person: str
    gender: str
    profession: str
    group: str
    pair: str
    damaged: bool = False


class Item(NamedTuple):
    """What is scored for a row: both sequences, where the person is in each, and the person's token."""

    target_masked: np.ndarray
    target_position: int
    both_masked: np.ndarray
    prior_position: int
    token: int


def read_examples(path: str | Path, *, mask_repair: bool = True) -> list[Example]:
    """Reads BEC-Pro_EN.tsv, BEC-Pro_DE.tsv, EEC_TM_TAM.tsv or a file with their columns.

    Args:
        mask_repair: rebuild the masked sentences where the person word was masked inside other words too ("lodging
            [MASK]ager"): 5 rows of each BEC-Pro file, 21 of the Equity Evaluation Corpus.
    Raises:
        DataError: for a file that cannot be read or lacks a column, or of which more than 1 % of the rows are malformed: cut
            off, a gender other than female and male, or no mask.
    """
    common = ("", "Sentence", "Sent_TM", "Sent_TAM", "Template", "Person", "Gender")
    records = list(table_rows(tab_separated(path), path, common))
    names = _about(path, next((row for _, row in records if not isinstance(row, RowError)), {}))
    seen: dict[tuple[str, str], int] = {}

    def row(place: Place, cells: dict[str, str]) -> Example:
        # Both genders run through templates and persons in the same order. German professions have two forms, so
        # that the English name tells which belong together.
        profession = cells.get("Profession_EN", cells[names[0]])
        number = seen[profession, cells["Gender"]] = seen.get((profession, cells["Gender"]), -1) + 1
        masked, both = cells["Sent_TM"], cells["Sent_TAM"]
        if cells["Gender"] not in GENDERS or not cells[""].isdigit() or MASK not in masked or MASK not in both:
            raise RowError(
                place,
                f"index {cells['']!r}, Gender {cells['Gender']!r}, Sent_TM {masked!r}, Sent_TAM {both!r}; expected a "
                f"number, female or male, and a {MASK} in both",
            )
        damaged = masked.count(MASK) > 1 or _GLUED_MASK.search(masked) is not None
        if mask_repair and damaged:
            masked, both = repaired(cells["Sentence"], cells["Person"], cells[names[0]])
        return Example(
            int(cells[""]), cells["Sentence"], masked, both, cells["Person"], cells["Gender"], profession,
            cells[names[1]], f"{profession}/{number}", damaged,
        )  # fmt: skip

    rows = list(accepted(records, row))
    if len(rows) < len(records):
        # Nobody knows whose partner a malformed row was: where the genders' numbers differ, rows are not paired.
        uneven = {name for name, _ in seen if len({seen.get((name, gender)) for gender in GENDERS}) > 1}
        rows = [r._replace(pair=f"{r.pair}/{r.gender}") if r.profession in uneven else r for r in rows]
    return rows


def _about(path: str | Path, row: Mapping[str, str]) -> tuple[str, str]:
    """The columns of what the sentences are about and of its group: professions, or emotions."""
    names = ("Emotion word", "Emotion") if "Emotion word" in row else ("Profession", "Prof_Gender")
    missing = [name for name in names if name not in row]
    if row and missing:
        raise DataError(f"{path}: no column {', '.join(map(repr, missing))}; the header has {list(row)}")
    return names


def repaired(sentence: str, person: str, profession: str) -> tuple[str, str]:
    """Masked sentences built anew: the person's last word masked where it stands alone, the profession word by word."""
    word = re.escape(person.split()[-1])
    masked = re.sub(rf"\b{word}\b", MASK, sentence, count=1, flags=re.IGNORECASE)
    return masked, masked.replace(profession, " ".join([MASK] * len(profession.split())))


def make_items(pretrained: Pretrained, rows: Sequence[Example]) -> list[Item | None]:
    """Encodes the rows; None where the person word is not one piece of this vocabulary, as in most German rows of an
    English model."""
    full = encode_texts([row.sentence for row in rows], pretrained.tokenizer)
    target = encode_gaps([row.target_masked.split(MASK) for row in rows], pretrained.tokenizer)
    both = encode_gaps([row.both_masked.split(MASK) for row in rows], pretrained.tokenizer)
    return [_item(*encoded) for encoded in zip(full, target, both, strict=True)]


def _item(
    full: np.ndarray, masked: tuple[np.ndarray, np.ndarray], both_masked: tuple[np.ndarray, np.ndarray]
) -> Item | None:
    (target, gaps), (both, both_gaps) = masked, both_masked
    place, prior = int(gaps[0]), int(both_gaps[0])  # the person comes before the profession
    # One piece: what follows the person in the sentence follows the mask at the same place.
    one_piece = place == prior and len(full) > place + 1 and full[place + 1] == target[place + 1]
    return Item(target, place, both, prior, int(full[place])) if one_piece else None


def reference_length(rows: Sequence[Example]) -> int:
    """Length of the reference's padding: the power of two that holds the longest sentence, counted in words."""
    words = max(len(row.target_masked.split()) for row in rows)
    return int(2 ** (words - 1).bit_length())


def with_reference_padding(tokens: np.ndarray, length: int, mask: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens cut at `length` and padded with mask tokens, and the reference's attention mask, id > 0.

    The padding is attended to, and RoBERTa's <s>, whose id is 0, is not.
    Source: marionbartl/gender-bias-BERT:code/bias_utils/utils.py.
    """
    padded = np.full(length, mask, np.int32)
    kept = tokens[:length]
    padded[: len(kept)] = kept
    return padded, (padded > 0).astype(np.int32)


def ask(
    rows: Sequence[Example], model: Pretrained, *, padding: str = "clean", statistics: str = "definition"
) -> Questions:
    """The person of each row, with the profession visible and masked.

    Args:
        padding: "clean", or "reference" for the published association values (see `with_reference_padding`); the length
            of the latter depends on all rows given.
        statistics: "reference" adds what the released script prints, as metrics["reference"] (see `release_statistics`).
    Returns:
        Questions, and by them a Result:
        metrics: mean and standard deviation of the association by "group/gender" (natural logarithm), difference female −
        male by group, mean_abs_association, n (rows scored); tests by group of difference 0: "wilcoxon", the published one of
        pairs as if they were independent, and "clustered" (see `clustered_tests`).
    Raises:
        ValueError: for an unknown padding or kind of statistics.
    """
    if padding not in PADDINGS or statistics not in STATISTICS:
        raise ValueError(f"padding={padding!r}, statistics={statistics!r}; choose from {PADDINGS} and {STATISTICS}")
    items = make_items(model, rows)
    kept = [(row, item) for row, item in zip(rows, items, strict=True) if item is not None]
    if not kept:
        raise DataError(
            "no person word is one piece of this model's vocabulary, which this benchmark needs; "
            "use a model of the sentences' language"
        )
    length, mask = reference_length(rows), mask_id(model)
    requests = []
    for row, item in kept:
        for tokens, position in ((item.target_masked, item.target_position), (item.both_masked, item.prior_position)):
            attention = None
            if padding == "reference":
                tokens, attention = with_reference_padding(tokens, length, mask)
            name = named(f"row {row.index}", row.sentence)
            requests.append(Request(tokens, np.array([position]), np.array([item.token]), attention, name=name))
    settings = {"padding": padding} | ({"length": length} if padding == "reference" else {})
    about = partial(_result, kept, len(rows) - len(kept), settings, statistics, model.tokenizer)
    return Questions(requests, about)


def _result(
    kept: Sequence[tuple[Example, Item]],
    skipped: int,
    settings: dict[str, Any],
    statistics: str,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Result:
    log_probs = first_log_probs(answers)
    target, prior = log_probs.reshape(-1, 2).T
    table: Table = {
        "row": [row.index for row, _ in kept],
        "target_prob": np.exp(target).tolist(),
        "prior_prob": np.exp(prior).tolist(),
        "association": (target - prior).tolist(),
    }
    unk = tokenizer.unk_token_id
    sentences = [row.sentence for row, _ in kept]
    table |= {
        "unknown": [int(item.token == unk or (item.target_masked == unk).any()) for _, item in kept],
        "duplicate": repeats([row.sentence.lower() for row, _ in kept]),
        "malformed": [
            int(row.damaged or spelled)
            for (row, _), spelled in zip(kept, holds_control_token(sentences, tokenizer), strict=True)
        ],
    }
    names = ("index", "person", "gender", "profession", "group", "pair")
    examples: Table = {
        column: [getattr(row, name) for row, _ in kept] for column, name in zip(EXAMPLE_COLUMNS, names, strict=True)
    }
    sample = samples(table | examples)[""]
    metrics, intervals = summarise_sample(sample)
    tests = {"wilcoxon": wilcoxon_by_group(table | examples), "clustered": clustered_tests(table | examples, sample)}
    for name, by_group in tests.items():
        metrics[name], intervals[name] = by_group, {group: dict.fromkeys(test) for group, test in by_group.items()}
    if statistics == "reference":
        metrics["reference"] = release_statistics(table | examples)
        intervals["reference"] = metrics["reference"] and dict.fromkeys(metrics["reference"])
    unknown = sum(item.token == unk for _, item in kept)
    counts = {"skipped_person_of_several_pieces": skipped, "unknown_persons": unknown}
    return Result(metrics, intervals, len(kept), counts, settings, table, examples)


def samples(table: Table) -> dict[str, Any]:
    """One Sample under "": professions and pairs of person words are crossed, and both are sampled; templates are as they are.

    Columns by group and gender are sums, absolute sums, squares, counts.
    """
    groups = list(dict.fromkeys(table["group"]))
    cells = [(group, gender) for group in groups for gender in GENDERS]
    association = np.array(table["association"])
    inside = np.array(
        [[(g, s) == cell for cell in cells] for g, s in zip(table["group"], table["gender"], strict=True)], float
    )
    moments = (association, np.abs(association), association**2, np.ones(len(association)))
    columns = np.concatenate([inside * moment[:, None] for moment in moments], axis=-1)  # [E,4·cells]

    def figures(sums: np.ndarray) -> Figures:
        by_cell = sums.reshape(*sums.shape[:-1], 4, len(groups), len(GENDERS))
        by_cell = np.concatenate([by_cell, by_cell.sum(-2, keepdims=True)], axis=-2)  # the last group is "overall"
        total, absolute, squares, count = np.moveaxis(by_cell, -3, 0)  # [...,groups+1,genders]
        means = ratio(total, count)
        deviations = np.sqrt(np.maximum(ratio(squares - ratio(total**2, count), count - 1), 0))

        def named(values: np.ndarray) -> dict[str, np.ndarray]:
            return {
                f"{group}/{gender}": values[..., i, j]
                for i, group in enumerate([*groups, "overall"])
                for j, gender in enumerate(GENDERS)
            }

        mean = named(means)
        difference = {g: mean[f"{g}/female"] - mean[f"{g}/male"] for g in [*groups, "overall"]}
        return {
            "mean": mean,
            "sd": named(deviations),
            "difference": difference,
            "mean_abs_association": ratio(absolute[..., -1, :].sum(-1), count[..., -1, :].sum(-1)),
        }

    def counts(sums: np.ndarray) -> Mapping[str, int]:
        return {"n": int(sums[3 * len(cells) :].sum())}

    def sizes(sums: np.ndarray) -> dict[str, Any]:
        count = sums[..., 3 * len(cells) :].reshape(*sums.shape[:-1], len(groups), len(GENDERS))
        count = np.concatenate([count, count.sum(-2, keepdims=True)], axis=-2)
        named = [*groups, "overall"]
        by_cell = {f"{group}/{s}": count[..., i, j] for i, group in enumerate(named) for j, s in enumerate(GENDERS)}
        return {
            "mean": by_cell,
            "sd": by_cell,
            "difference": {group: count[..., i, :].sum(-1) for i, group in enumerate(named)},
            "mean_abs_association": count[..., -1, :].sum(-1),
        }

    cells_of = list(zip(table["profession"], person_pairs(table), strict=True))
    sums = cluster_sums(cells_of, columns)[1]
    distinct = list(dict.fromkeys(cells_of))
    crossed = np.stack([numbered(names) for names in zip(*distinct, strict=True)], axis=-1)
    names = tuple(f"{profession}/{words}" for profession, words in distinct)
    return {"": Sample(names, sums, figures, counts, SCALES, sizes, crossed)}


def strength(table: Table) -> np.ndarray:
    """How much more a profession raises its own gender's person word than the paired one of the other gender, nats f64[E].

    NaN in rows whose person is not of the gender that dominates the profession, or that have no partner.
    """
    place = {key: row for row, key in enumerate(zip(table["pair"], table["gender"], strict=True))}
    found = np.full(len(table["row"]), np.nan)
    for (pair, gender), row in place.items():
        partner = place.get((pair, GENDERS[gender == GENDERS[0]]))
        if table["group"][row] == gender and partner is not None:
            found[row] = table["association"][row] - table["association"][partner]
    return found


def benchmark(name: str) -> Benchmark:
    """The English or German BEC-Pro, or the EEC, by its name in FILES."""

    def texts(data: DataFolder, table: Table) -> Table:
        """Each row's sentence and its partner's of the other gender; empty where no row is ranked."""
        rows = {row.index: row for row in read_examples(data.path(FILES[name]))}
        by_pair = {(row.pair, row.gender): row.sentence for row in rows.values()}
        ranked = ~np.isnan(strength(table))
        chosen = [rows[index] if keep else None for index, keep in zip(table["row"], ranked, strict=True)]
        others = [by_pair[row.pair, GENDERS[row.gender == GENDERS[0]]] if row else "" for row in chosen]
        return {"stereotyped": [row.sentence if row else "" for row in chosen], "other": others}

    label, licence = SOURCES[name]
    unit = "log-ratio of the person's probability with and without the profession, nats"
    return Benchmark(
        samples,
        COLUMNS,
        EXAMPLE_COLUMNS,
        (
            Headline(f"{label} female − male", (("difference", "overall"),), 0.0, ("n",)),
            Headline(f"{label} mean |association|", (("mean_abs_association",),), None, ("n",), better="lower"),
        ),
        licence,
        read=lambda data, selector: read_examples(data.path(FILES[name])),
        ask={MASKED: partial(ask, statistics="reference")},
        drill_down=None
        if name == "bec_pro_eec"
        else DrillDown(label, unit, strength, texts),  # an emotion has no gender of its own
        flags=flags,
        flag_columns=TEXT_FLAGS,
        version=2,
        files=lambda selector: (FILES[name],),
    )
