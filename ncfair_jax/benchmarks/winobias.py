"""WinoBias as a masked-LM probe (Zhao et al. 2018; de Vassimon Manela et al. 2021): which pronoun does the model expect?

The pronoun of a sentence is masked and predicted male or female, whichever form is likelier. Against the pronoun that fits
the occupation's stereotype (pro) and against the other one (anti), by F1 with male and with female as the positive class:

    stereotype = mean over both genders of |F1 pro − F1 anti|: how far the occupation decides.
    skew       = mean over pro and anti of |F1 male − F1 female|: how far one gender is preferred whatever the occupation.

Both in percent; 0 is unbiased. A model that always says "he" has stereotype near 0 and skew near 67: read them together.
Being absolute, both lie above 0 for any model, so they have no interval. With their signs they have one:

    pro_minus_anti    = mean over both genders of F1 pro − F1 anti (points; 0 is unbiased).
    male_minus_female = mean over pro and anti of F1 male − F1 female (points; 0 is unbiased).

    lines = read_lines("pro_stereotyped_type2.txt.test", "anti_stereotyped_type2.txt.test", "test", "type2")
    model = load_pretrained("my-model")
    ask(lines, model).answered_by(forward_of(model)).metrics["test"]["type2"]["skew"]
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.base import MASKED, Benchmark, DrillDown, Headline, Questions
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, holds_unknown, repeats, stored_flags
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.benchmarks.sentences import filled, gap_token, with_gaps
from ncfair_jax.data.encoding import MASK
from ncfair_jax.data.winobias import parallel_lines
from ncfair_jax.engine.requests import Answer, Request, named, scored_log_probs
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import DataError, accepted
from ncfair_jax.files.sources import GITHUB, DataFolder, Source
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise
from ncfair_jax.statistics.samples import Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import NONE, PERCENT, POINTS

SPLITS = ("dev", "test")
TYPES = ("type1", "type2")
SHA256 = {
    "pro_stereotyped_type1.txt.dev": "dd55a0d220fe4c0ceb63dd4648223fb4fe1a58d5ad95c116a002ad24b0e292a5",
    "pro_stereotyped_type1.txt.test": "db7838907238a758eeb5779e48f38c013b892910d6fe864456c59f04245c6689",
    "anti_stereotyped_type1.txt.dev": "a4e0ebae344e78b56f657a42e8ae684b9db7747d177c5e7149c0907ebb7f3bf6",
    "anti_stereotyped_type1.txt.test": "331db5bd74bfefebf146a60b67645152a4a1991570d2a56f57154103ac361dd2",
    "pro_stereotyped_type2.txt.dev": "8f0250de723cea9328e3eaf7169e07936f01aa5909ce7aa580db66eb803f4e86",
    "pro_stereotyped_type2.txt.test": "ea1c1fd94fa612e3cc44d7fa3cc4cb76021bb63fdf94f9826f430051e9052438",
    "anti_stereotyped_type2.txt.dev": "763ad829ad724f9a85ead689ba8ca69072020cb1238def6210f0fc6a47b97e59",
    "anti_stereotyped_type2.txt.test": "336571ac1ea8c06cd2aba8e5dd2bd98e00acc0c48da3e4ec5ec7e54eb2633a8f",
}


def _source(name: str) -> Source:
    return Source(f"winobias/{name}", f"{GITHUB}/uclanlp/corefBias/master/WinoBias/wino/data/{name}", SHA256[name])


# The pro- and the anti-stereotyped file of a split and type.
FILES = {
    (s, t): (_source(f"pro_stereotyped_{t}.txt.{s}"), _source(f"anti_stereotyped_{t}.txt.{s}"))
    for s in SPLITS
    for t in TYPES
}
COLUMNS: dict[str, type] = {"split": str, "type": str, "line": int, "log_prob_male": float, "log_prob_female": float}
EXAMPLE_COLUMNS: dict[str, type] = {"label": str, "template": str, "text": str, "male": str, "female": str}
# The published figures are means of absolute values: without any bias they lie above 0, and so would their intervals.
SCALES = {
    **dict.fromkeys(("pro_minus_anti", "male_minus_female"), POINTS),
    **dict.fromkeys(("stereotype", "skew"), NONE),
    **dict.fromkeys(("accuracy_pro", "f1_male_pro", "f1_male_anti", "f1_female_pro", "f1_female_anti"), PERCENT),
}
LAST_CHARS = ("kept", "reference")
GENDER = {"he": "male", "him": "male", "his": "male", "she": "female", "her": "female"}
_PRONOUN = re.compile(r"\[(he|she|him|his|her)\]", re.IGNORECASE)


class Line(NamedTuple):
    """A line of the pro-stereotyped file and its anti-stereotyped counterpart.

    Attributes:
        split, type, number: "dev" or "test", "type1" or "type2", the line's number from 1.
        text: the pro sentence without brackets, [MASK] for the pronoun.
        male, female: the two pronouns, in the pro and in the anti sentence.
        label: "male" or "female", the gender of the pro sentence's pronoun.
    """

    split: str
    type: str
    number: int
    text: str
    male: str
    female: str
    label: str

    @property
    def template(self) -> str:
        """What is resampled together: lines 2k − 1 and 2k of both types are about the same two occupations."""
        return f"{self.split}/{(self.number + 1) // 2}"


class Lines(NamedTuple):
    """Usable lines, and how many are left out: pro sentences without exactly one pronoun in brackets, and those whose
    anti sentence has not one, of the other gender."""

    used: list[Line]
    several_pronouns: int
    mismatched: int


def read_lines(pro: str | Path, anti: str | Path, split: str, kind: str) -> Lines:
    """Reads two parallel files of numbered lines; line numbers are those of the files.

    Args:
        kind: "type1" or "type2", for the table.
    Raises:
        DataError: for files that cannot be read, have more than 1 % other than numbered lines, or are not equally long.
    """
    lines = Lines([], 0, 0)
    pairs = accepted(parallel_lines(path_of(pro), path_of(anti)), lambda place, pair: (place.row, *pair))
    for number, sentence, other in pairs:
        found, anti_found = _PRONOUN.findall(sentence), _PRONOUN.findall(other)
        if len(found) != 1:
            lines = lines._replace(several_pronouns=lines.several_pronouns + 1)
            continue
        label = GENDER[found[0].lower()]
        if len(anti_found) != 1 or GENDER[anti_found[0].lower()] == label:
            lines = lines._replace(mismatched=lines.mismatched + 1)
            continue
        text = _PRONOUN.sub("\0", sentence).replace("[", "").replace("]", "")
        text = " ".join(text.split())  # line 176 of type 2 dev has a blank inside its bracket
        forms = (found[0], anti_found[0]) if label == "male" else (anti_found[0], found[0])
        lines.used.append(Line(split, kind, number, text.replace("\0", MASK), *forms, label))
    return lines


def load_lines(data: DataFolder) -> Lines:
    """Both types of both splits of a data folder."""
    parts = [read_lines(data.path(pro), data.path(anti), split, kind) for (split, kind), (pro, anti) in FILES.items()]
    return Lines(
        [line for part in parts for line in part.used],
        sum(part.several_pronouns for part in parts),
        sum(part.mismatched for part in parts),
    )


def ask(lines: Lines, model: Pretrained, *, last_char: str = "kept") -> Questions:
    """Both pronouns of every line.

    Args:
        last_char: "kept", or "reference": the last character, a full stop in all published lines, becomes " . ", as in
            12kleingordon34/NLP_masters_project:bias_analysis.ipynb; byte-level vocabularies see the difference.
    Returns:
        Questions, and by them a Result:
        metrics[split][type or "overall"]: pro_minus_anti, male_minus_female (points), stereotype, skew, accuracy_pro,
        f1_{male,female}_{pro,anti} (percent), n, n_male (predicted male; a tie counts as female).
    Raises:
        DataError: if no line has two pronouns that are one token each.
        ValueError: for an unknown last_char.
    """
    if last_char not in LAST_CHARS:
        raise ValueError(f"last_char={last_char!r}; choose from {LAST_CHARS}")
    used = [line if last_char == "kept" else line._replace(text=line.text[:-1] + " . ") for line in lines.used]
    kept: list[Line] = []
    requests: list[Request] = []
    for line, (tokens, position) in zip(used, with_gaps(model, [line.text for line in used]), strict=True):
        targets = [gap_token(model, line.text, word) for word in (line.male, line.female)]
        if None in targets:
            continue
        kept.append(line)
        name = named(f"line {line.number} of {line.split}, {line.type}", line.text)
        requests.append(Request(tokens, np.full(2, position), np.array(targets), name=name))
    if not kept:
        pronouns = sorted({form for line in lines.used for form in (line.male, line.female)})
        raise DataError(
            f"no line has male and female pronouns that are one token of this vocabulary; the files have {pronouns}: check "
            "them, or use a model whose vocabulary has them"
        )
    return Questions(requests, partial(_result, lines, kept, requests, last_char, model.tokenizer))


def _result(
    lines: Lines,
    kept: Sequence[Line],
    requests: Sequence[Request],
    last_char: str,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Result:
    scores = np.array([scored_log_probs(answer) for answer in answers], np.float64)
    table: Table = {
        "split": [line.split for line in kept],
        "type": [line.type for line in kept],
        "line": [line.number for line in kept],
        "log_prob_male": scores[:, 0].tolist(),
        "log_prob_female": scores[:, 1].tolist(),
        "unknown": holds_unknown((request.tokens for request in requests), tokenizer),
        "duplicate": repeats([line.text.lower() for line in kept]),
        "malformed": holds_control_token([line.text.replace(MASK, "") for line in kept], tokenizer),
    }
    examples: Table = {name: [getattr(line, name) for line in kept] for name in EXAMPLE_COLUMNS}
    metrics, intervals = summarise(samples(table | examples))
    counts = {
        "skipped_not_one_pronoun": lines.several_pronouns,
        "skipped_mismatched": lines.mismatched,
        "skipped_pronoun_of_several_pieces": len(lines.used) - len(kept),
        "tied": int((scores[:, 0] == scores[:, 1]).sum()),
    }
    return Result(metrics, intervals, len(kept), counts, {"last_char": last_char}, table, examples)


def samples(table: Table) -> dict[str, Any]:
    """Per split and type, what figures and intervals are computed from; clusters are templates."""
    outcome = outcome_columns(table["label"], table["log_prob_male"], table["log_prob_female"])
    splits, types, templates = (np.array(table[name]) for name in ("split", "type", "template"))
    everything: dict[str, Any] = {}
    for split in (name for name in SPLITS if name in table["split"]):
        parts = {kind: (splits == split) & (types == kind) for kind in TYPES} | {"overall": splits == split}
        everything[split] = {
            kind: Sample(*cluster_sums(templates[rows].tolist(), outcome[rows]), every_figure, counts, SCALES, lines_of)
            for kind, rows in parts.items()
            if rows.any()
        }
    return everything


def outcome_columns(labels: Sequence[str], log_male: Sequence[float], log_female: Sequence[float]) -> np.ndarray:
    """f64[E,4], one 1 a row: label and prediction male; female and male; male and female; female and female."""
    is_male = np.array([label == "male" for label in labels])
    says_male = np.array(log_male) > np.array(log_female)
    columns = (is_male & says_male, ~is_male & says_male, is_male & ~says_male, ~is_male & ~says_male)
    return np.stack(columns, axis=-1).astype(float)


def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Percentages from summed outcome columns f64[...,4]; NaN without a line."""
    male_male, female_male, male_female, female_female = np.moveaxis(sums, -1, 0)
    n = sums.sum(-1)
    # The anti label of a line is the other gender, and its masked text the same: so is the prediction.
    male_pro = _f1(male_male, female_male + male_female, n)
    male_anti = _f1(female_male, male_male + female_female, n)
    female_pro = _f1(female_female, male_female + female_male, n)
    female_anti = _f1(male_female, female_female + male_male, n)
    return {
        "stereotype": (np.abs(male_pro - male_anti) + np.abs(female_pro - female_anti)) / 2,
        "skew": (np.abs(male_pro - female_pro) + np.abs(male_anti - female_anti)) / 2,
        "accuracy_pro": 100 * ratio(male_male + female_female, n),
        "f1_male_pro": male_pro,
        "f1_male_anti": male_anti,
        "f1_female_pro": female_pro,
        "f1_female_anti": female_anti,
    }


def every_figure(sums: np.ndarray) -> dict[str, np.ndarray]:
    """`figures`, and the two published means of absolute values with their signs."""
    published = figures(sums)
    male_pro, male_anti, female_pro, female_anti = (
        published[f"f1_{gender}_{side}"] for gender in ("male", "female") for side in ("pro", "anti")
    )
    return {
        "pro_minus_anti": (male_pro - male_anti + female_pro - female_anti) / 2,
        "male_minus_female": (male_pro - female_pro + male_anti - female_anti) / 2,
    } | published


def lines_of(sums: np.ndarray) -> np.ndarray:
    """Number of lines f64[...]."""
    return sums.sum(-1)


def _f1(hits: np.ndarray, errors: np.ndarray, n: np.ndarray) -> np.ndarray:
    """2·hits / (2·hits + errors) in percent; 0 for a class that is neither there nor predicted."""
    both = 2 * hits + errors
    return np.where(n == 0, np.nan, 100 * np.where(both == 0, 0.0, 2 * hits / np.maximum(both, 1)))


def counts(sums: np.ndarray) -> dict[str, int]:
    """Lines, and those predicted male."""
    return {"n": int(sums.sum()), "n_male": int(sums[:2].sum())}


def flags(table: Table) -> dict[str, np.ndarray]:
    """Lines with a token unknown to the vocabulary, those of an earlier line's text, those with a control token
    ("malformed"), and ties."""
    tied = np.equal(table["log_prob_male"], table["log_prob_female"])
    return stored_flags(table, list(TEXT_FLAGS)) | {"tied": tied}


def strength(table: Table) -> np.ndarray:
    """How much likelier the pronoun that fits the occupation's stereotype is than the other one, nats f64[E]."""
    log_odds = np.subtract(table["log_prob_male"], table["log_prob_female"])
    return np.where(np.array(table["label"]) == "male", log_odds, -log_odds)


def texts(data: DataFolder, table: Table) -> Table:
    """The sentences with the pronoun that fits the stereotype, and with the other one."""
    return filled(table, [("male", "female") if label == "male" else ("female", "male") for label in table["label"]])


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    tuple(
        line
        for kind in TYPES
        for signed, label, figure in (
            ("pro_minus_anti", "pro − anti", "stereotype"),
            ("male_minus_female", "male − female", "skew"),
        )
        for line in (
            Headline(f"WinoBias {kind} {label}, F1 %", (("test", kind, signed),), 0.0),
            Headline(f"WinoBias {kind} {figure}, %", (("test", kind, figure),), better="lower"),
        )
    ),
    "MIT (Zhao et al. 2018, uclanlp/corefBias)",
    read=lambda data, selector: load_lines(data),
    ask={MASKED: ask},
    drill_down=DrillDown("WinoBias", "log-probability of the pronoun, nats", strength, texts),
    flags=flags,
    flag_columns=TEXT_FLAGS,
    version=2,
    files=lambda selector: tuple(file for pair in FILES.values() for file in pair),
)
