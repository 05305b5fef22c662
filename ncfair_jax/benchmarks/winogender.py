"""Winogender as a masked-LM probe (Rudinger et al. 2018): do the pronouns a model expects follow real shares of women?

The pronoun of a sentence is masked; log P(female form) − log P(male form) says which the model expects (nats; > 0 female).
It refers to the occupation ("The nurse told the patient that [MASK] …") or, as a control, to the other participant.

    items = read_items("all_sentences.tsv", "occupations-stats.tsv")
    model = load_pretrained("my-model")
    ask(items, model).answered_by(forward_of(model)).metrics["correlation"]["pearson_bls"]
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.base import MASKED, Benchmark, DrillDown, Headline, Questions
from ncfair_jax.benchmarks.quality import TEXT_FLAGS, holds_control_token, holds_unknown, repeats, stored_flags
from ncfair_jax.benchmarks.results import Result, Score, Table
from ncfair_jax.benchmarks.sentences import filled, gap_token, with_gaps
from ncfair_jax.data.encoding import MASK
from ncfair_jax.engine.requests import Answer, Request, named, scored_log_probs
from ncfair_jax.files.reading import Place, Records, RowError, accepted
from ncfair_jax.files.sources import GITHUB, DataError, DataFolder, Source
from ncfair_jax.files.tables import tab_separated, table_rows
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Figures, Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import CORRELATION, PERCENT

FILES = (
    Source(
        "winogender/all_sentences.tsv",
        f"{GITHUB}/rudinger/winogender-schemas/master/data/all_sentences.tsv",
        "bd69da16bf228cb8df63fd0843aec2d8b5c36a7f21bf8c7b168bcc83932556c8",
    ),
    Source(
        "winogender/occupations-stats.tsv",
        f"{GITHUB}/rudinger/winogender-schemas/master/data/occupations-stats.tsv",
        "3f7f37c16381a70571356982ea7fe613ac700ad04a6d3b19b9f2be18248df567",
    ),
)
FORMS = ("male", "female", "neutral")
SCALES = {"female_preferred": PERCENT, "correlation": CORRELATION}  # log odds are real numbers
REFERENTS = ("occupation", "participant")  # the file's answers 0 and 1
STATISTICS = ("bls", "bergsma")  # percent of women: US Bureau of Labor Statistics; text counts of Bergsma and Lin 2006
COLUMNS: dict[str, type] = {
    "id": str,
    "log_prob_male": float,
    "log_prob_female": float,
    "log_prob_neutral": Score,
}
EXAMPLE_COLUMNS: dict[str, type] = {
    "occupation": str,
    "referent": str,
    "text": str,
    "male": str,
    "female": str,
    "neutral": str,
    "bls": float,
    "bergsma": float,
}
_PRONOUN = re.compile(r"(\W*)(\w+)(.*)")  # as "he" in "he's," and in "(he"


class Item(NamedTuple):
    """A sentence with [MASK] for its pronoun, the three forms that fit, whom it refers to, and percentages of women."""

    id: str
    occupation: str
    referent: str
    text: str
    male: str
    female: str
    neutral: str
    bls: float
    bergsma: float


def read_items(sentences: str | Path, statistics: str | Path) -> list[Item]:
    """Reads the published sentences, three to an item, and the occupations' statistics.

    Verbs may agree with the neutral form in its own sentence; it is scored in the male one's text all the same.

    Raises:
        DataError: for files that cannot be read or lack a column, or with more than 1 % malformed rows and items: cut off, a
            sentence that is there twice, an item without its three sentences or its statistics, or one whose sentences do not
            differ in one pronoun.
    """
    shares = _read_shares(statistics)

    def item(place: Place, named: tuple[str, dict[str, str]]) -> Item:
        name, texts = named
        occupation, _, answer = name.split(".") if name.count(".") == 2 else ("", "", "")
        if answer not in ("0", "1") or set(texts) != set(FORMS):
            raise RowError(
                place,
                f"item {name!r} has the sentences {sorted(texts)}; expected an id such as nurse.patient.0 and one sentence "
                f"each of {', '.join(FORMS)}",
            )
        if occupation not in shares:
            raise RowError(place, f"{statistics} has no row of {occupation!r}; get both files again")
        gap = _gap(texts)
        if gap is None:
            raise RowError(place, f"item {name!r} does not differ in one pronoun: {texts}; correct its sentences")
        return Item(name, occupation, REFERENTS[int(answer)], *gap, *shares[occupation])

    return list(accepted(_by_item(sentences), item))


def _by_item(path: str | Path) -> Records[tuple[str, dict[str, str]]]:
    """Rows that are malformed; then every item's name and sentences by form, with the place of the first."""
    found: dict[str, tuple[Place, dict[str, str]]] = {}
    for place, row in table_rows(tab_separated(path), path, ("sentid", "sentence")):
        if isinstance(row, RowError):
            yield place, row
            continue
        name, _, form = row["sentid"].removesuffix(".txt").rpartition(".")
        _, texts = found.setdefault(name, (place, {}))
        if form in texts:
            yield place, RowError(place, f"sentid {row['sentid']!r} is there twice; keep one of them")
        texts.setdefault(form, row["sentence"])
    for name, (place, texts) in found.items():
        yield place, (name, texts)


def _gap(texts: dict[str, str]) -> tuple[str, str, str, str] | None:
    """The male sentence with its pronoun masked, and the three forms; None if no pronoun tells the sentences apart."""
    words = [texts[form].split(" ") for form in FORMS]
    differing = [place for place, (a, b) in enumerate(zip(words[0], words[1], strict=False)) if a != b]
    if len(words[0]) != len(words[1]) or len(differing) != 1 or len(words[2]) <= differing[0]:
        return None
    place = differing[0]
    matches = [_PRONOUN.fullmatch(sentence[place]) for sentence in words]
    male, female, neutral = (match.groups() if match else ("", "", "") for match in matches)
    if "" in (male[1], female[1], neutral[1]) or (male[0], male[2]) != (female[0], female[2]):
        return None
    masked = male[0] + MASK + male[2]
    return " ".join([*words[0][:place], masked, *words[0][place + 1 :]]), male[1], female[1], neutral[1]


def _read_shares(path: str | Path) -> dict[str, tuple[float, float]]:
    columns = tuple(f"{name}_pct_female" for name in STATISTICS)
    found: dict[str, tuple[float, float]] = {}

    def share(place: Place, row: Mapping[str, str]) -> None:
        if row["occupation"] in found:
            raise RowError(place, f"occupation {row['occupation']!r} is there twice; keep one of them")
        try:
            values = [float(row[column]) for column in columns]
        except ValueError:
            values = [math.nan]
        if not all(0 <= value <= 100 for value in values):
            raise RowError(
                place, f"{[row[column] for column in columns]}; expected percentages in {', '.join(columns)}"
            )
        found[row["occupation"]] = (values[0], values[1])

    for _ in accepted(table_rows(tab_separated(path), path, ("occupation", *columns)), share):
        pass
    return found


def ask(items: Sequence[Item], model: Pretrained) -> Questions:
    """The three forms at every item's mask; a neutral form of several tokens is None in the table.

    Returns:
        Questions, and by them a Result:
        metrics: female_preferred (percent) and log_odds (female − male, nats) by referent, log_odds.difference
        (occupation − participant), correlation of the occupations' mean log odds, where it is the referent, with their
        percentages of women, n_occupation_items, n_participant_items, n_occupations (those of the correlation).
    Raises:
        DataError: if no item has a male and a female form that are one token each.
    """
    kept: list[Item] = []
    requests: list[Request] = []
    for item, (tokens, position) in zip(items, with_gaps(model, [item.text for item in items]), strict=True):
        targets = [gap_token(model, item.text, getattr(item, form)) for form in FORMS]
        if None in targets[:2]:
            continue
        scored = [target for target in targets if target is not None]
        kept.append(item)
        name = named(f"item {item.id}", item.text)
        requests.append(Request(tokens, np.full(len(scored), position), np.array(scored), name=name))
    if not kept:
        pronouns = sorted({form for item in items for form in (item.male, item.female)})
        raise DataError(
            f"no item has male and female pronouns that are one token of this vocabulary; the file has {pronouns}: check it, "
            "or use a model whose vocabulary has them"
        )
    return Questions(requests, partial(_result, kept, len(items) - len(kept), requests, model.tokenizer))


def _result(
    kept: Sequence[Item],
    skipped: int,
    requests: Sequence[Request],
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Result:
    log_probs = [scored_log_probs(answer) for answer in answers]
    table: Table = {"id": [item.id for item in kept]}
    for i, form in enumerate(FORMS):
        table[f"log_prob_{form}"] = [float(values[i]) if i < len(values) else None for values in log_probs]
    table["unknown"] = holds_unknown((request.tokens for request in requests), tokenizer)
    table["duplicate"] = repeats([item.text.lower() for item in kept])
    table["malformed"] = holds_control_token([item.text.replace(MASK, "") for item in kept], tokenizer)
    examples: Table = {name: [getattr(item, name) for item in kept] for name in EXAMPLE_COLUMNS}
    metrics, intervals = summarise_sample(samples(table | examples)[""])
    counts = {
        "skipped_form_of_several_pieces": skipped,
        "neutral_form_of_several_pieces": table["log_prob_neutral"].count(None),
        "tied": int(np.equal(table["log_prob_male"], table["log_prob_female"]).sum()),
    }
    return Result(metrics, intervals, len(kept), counts, {}, table, examples)


def samples(table: Table) -> dict[str, Any]:
    """One Sample under "": clusters are occupations.

    Columns: log odds, female preferred and 1 by referent (6); then one column an occupation that holds its mean log odds,
    and one that holds 1, both 0 for an occupation without item of its own: correlations need them one by one.
    """
    log_odds = np.array(table["log_prob_female"]) - np.array(table["log_prob_male"])
    inside = np.array([[name == referent for referent in REFERENTS] for name in table["referent"]], float)  # [E,2]
    columns = np.concatenate([inside * log_odds[:, None], inside * (log_odds[:, None] > 0), inside], axis=-1)
    clusters, sums = cluster_sums(table["occupation"], columns)
    present = (sums[:, 4] > 0).astype(float)
    means = sums[:, 0] / np.maximum(sums[:, 4], 1)
    first = {occupation: table["occupation"].index(occupation) for occupation in clusters}
    shares = {name: np.array([table[name][row] for row in first.values()]) for name in STATISTICS}
    everything = np.concatenate([sums, np.diag(means), np.diag(present)], axis=-1)
    return {"": Sample(clusters, everything, figures_with(shares), counts, SCALES, sizes)}


def figures_with(shares: dict[str, np.ndarray]) -> Callable[[np.ndarray], Figures]:
    """Figures of summed columns f64[...,6+2C], given each statistic of the C occupations."""

    def figures(sums: np.ndarray) -> Figures:
        odds, female, n = (sums[..., i : i + 2] for i in (0, 2, 4))
        values, weights = np.split(sums[..., 6:], 2, axis=-1)
        values = np.where(weights > 0, values / np.maximum(weights, 1), 0.0)
        mean, preferred = ratio(odds, n), 100 * ratio(female, n)
        correlation, ranks = {}, weighted_ranks(values, weights)
        for name, share in shares.items():
            share = np.broadcast_to(share, values.shape)
            correlation[f"pearson_{name}"] = pearson(values, share, weights)
            correlation[f"spearman_{name}"] = pearson(ranks, weighted_ranks(share, weights), weights)
        return {
            "female_preferred": {name: preferred[..., i] for i, name in enumerate(REFERENTS)},
            "log_odds": {name: mean[..., i] for i, name in enumerate(REFERENTS)}
            | {"difference": mean[..., 0] - mean[..., 1]},
            "correlation": correlation,
        }

    return figures


def counts(sums: np.ndarray) -> dict[str, int]:
    """Items by referent, and occupations of the correlation."""
    occupations = (len(sums) - 6) // 2
    return {
        "n_occupation_items": int(sums[4]),
        "n_participant_items": int(sums[5]),
        "n_occupations": int(sums[6 + occupations :].sum()),
    }


def sizes(sums: np.ndarray) -> dict[str, Any]:
    """Number of items f64[...] by referent, and of the correlation's occupations."""
    occupation, participant = sums[..., 4], sums[..., 5]
    return {
        "female_preferred": {"occupation": occupation, "participant": participant},
        "log_odds": {
            "occupation": occupation,
            "participant": participant,
            "difference": np.minimum(occupation, participant),
        },
        "correlation": sums[..., 6 + (sums.shape[-1] - 6) // 2 :].sum(-1),
    }


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlation along the last axis of f64[...,C], each value counted `weights` times; NaN where one does not vary."""
    total = weights.sum(-1, keepdims=True)
    x, y = (v - ratio((weights * v).sum(-1, keepdims=True), total) for v in (x, y))
    variance = (weights * x**2).sum(-1) * (weights * y**2).sum(-1)
    return ratio((weights * x * y).sum(-1), np.sqrt(variance))


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average ranks along the last axis of f64[...,C], each value counted `weights` (whole numbers) times."""
    order = values.argsort(-1)
    values, weights = (np.take_along_axis(x, order, -1) for x in (values, weights))
    up_to = weights.cumsum(-1)
    edge = np.ones((*values.shape[:-1], 1), bool)
    changes = values[..., 1:] != values[..., :-1]
    first, last = np.concatenate([edge, changes], -1), np.concatenate([changes, edge], -1)
    below = np.maximum.accumulate(np.where(first, up_to - weights, 0), -1)
    of_all = np.where(last, up_to, np.inf)[..., ::-1]  # of the value and those below it
    of_all = np.minimum.accumulate(of_all, -1)[..., ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, below + (of_all - below + 1) / 2, -1)
    return ranks


def flags(table: Table) -> dict[str, np.ndarray]:
    """Items with a token unknown to the vocabulary, those of an earlier item's text, those with a control token
    ("malformed"), and ties of male and female form."""
    tied = np.equal(table["log_prob_male"], table["log_prob_female"])
    return stored_flags(table, list(TEXT_FLAGS)) | {"tied": tied}


def _usual(table: Table) -> np.ndarray:
    """Of each row 1 where most who have the occupation are women (US Bureau of Labor Statistics), −1 where most are men."""
    return np.sign(np.array(table["bls"]) - 50)


def strength(table: Table) -> np.ndarray:
    """How much likelier the pronoun of the occupation's usual gender is, nats f64[E]; NaN where it means the participant, or
    neither gender is usual."""
    log_odds = np.subtract(table["log_prob_female"], table["log_prob_male"])
    usual = np.where(np.array(table["referent"]) == "occupation", _usual(table), 0)
    return np.where(usual == 0, np.nan, usual * log_odds)


def texts(data: DataFolder, table: Table) -> Table:
    """The sentences with the pronoun of the occupation's usual gender, and with the other one."""
    names = [("female", "male") if usual > 0 else ("male", "female") for usual in _usual(table)]
    return filled(table, names)


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    (
        Headline("Winogender r with % women", (("correlation", "pearson_bls"),), 0.0, ("n_occupations",)),
        Headline("Winogender female − male, nats", (("log_odds", "occupation"),), 0.0, ("n_occupation_items",)),
        Headline(
            "Winogender female preferred, %", (("female_preferred", "occupation"),), 50.0, ("n_occupation_items",)
        ),
    ),
    "MIT (Rudinger et al. 2018, rudinger/winogender-schemas)",
    read=lambda data, selector: read_items(*map(data.path, FILES)),
    ask={MASKED: ask},
    drill_down=DrillDown("Winogender", "log-probability of the pronoun, nats", strength, texts),
    flags=flags,
    flag_columns=TEXT_FLAGS,
    version=2,
    files=lambda selector: FILES,
)
