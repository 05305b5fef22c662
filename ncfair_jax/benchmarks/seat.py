"""SEAT and WEAT (May et al. 2019, Caliskan et al. 2017): do sentence vectors associate groups with attributes?

For targets X, Y (John is here; Amy is here) and attributes A, B (career; family), with w any target:

    s(w) = mean over a in A of cos(w, a) − mean over b in B of cos(w, b)
    effect size d = (mean of s over X − mean of s over Y) / standard deviation of s over X and Y   (0 is unbiased)

    model = load_pretrained("my-model")
    result = ask([read_test("my_test.json")], model).answered_by(forward_of(model))
    result.metrics["tests"]["my_test"]["effect_size"]
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ncfair_jax.benchmarks.base import MASKED, Benchmark, Headline, Questions
from ncfair_jax.benchmarks.quality import holds_control_token, holds_unknown, irregular, repeats, stored_flags
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.benchmarks.seat_tests import ADDRESS, GROUPS, SHA256
from ncfair_jax.benchmarks.splits import MOST_SPLITS, split_tests
from ncfair_jax.data.encoding import encode_texts
from ncfair_jax.engine.requests import FIRST_VECTOR, MEAN_VECTOR, Answer, Request
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.reading import read_json
from ncfair_jax.files.sources import DataError, DataFolder, Source
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise
from ncfair_jax.statistics.samples import Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import NONE, Scale
from ncfair_jax.strings import several_strings

COLUMNS: dict[str, type] = {"test": str, "side": str, "item": int, "association": float}
EXAMPLE_COLUMNS: dict[str, type] = {"text": str, "term": str}
FLAG_COLUMNS: dict[str, type] = {"unknown": int, "malformed": int}
SIDES = ("X", "Y")
POOLS = {"mean": MEAN_VECTOR, "cls": FIRST_VECTOR}
KEYS = ("targ1", "targ2", "attr1", "attr2")
# Of the sentence templates of May et al.; what is left of "The technologies are here." is the term.
_TEMPLATE_WORDS = frozenset(
    {"a", "an", "the", "this", "that", "these", "those", "they", "it", "here", "there", "is", "are"}
    | {"person", "people", "person's", "name", "thing", "things"}
)
_PLURALS = (("ies", "y"), ("es", ""), ("s", ""), ("men", "man"))


class SeatTest(NamedTuple):
    """Targets X, Y and attributes A, B, each without repetitions; `repeated` counts those left out."""

    name: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]
    repeated: int = 0


def read_test(path: str | Path) -> SeatTest:
    """Reads a test file: one JSON object whose targ1, targ2, attr1 and attr2 hold a list of texts, "examples", each.

    The test is named after the file.

    Raises:
        DataError: for a file that is cut off, lacks a list, or has an empty one.
    """
    path = path_of(path)
    content = read_json(path)
    try:
        given = [content[key]["examples"] for key in KEYS]
        malformed = not all(texts and all(isinstance(text, str) and text.strip() for text in texts) for texts in given)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: no {error}; expected {', '.join(KEYS)}, each with a list of examples") from error
    if malformed:
        raise DataError(f"{path}: a list of examples is empty or holds something other than texts; correct the file")
    x, y, a, b = (tuple(dict.fromkeys(texts)) for texts in given)
    return SeatTest(path.stem, x, y, a, b, sum(map(len, given)) - sum(map(len, (x, y, a, b))))


def select(selector: str) -> tuple[str, ...]:
    """Names of the published tests of a group, of one test, or all for "".

    Raises:
        DataError: if it is neither.
    """
    if selector in ("", *SHA256):
        return (selector,) if selector else tuple(SHA256)
    if selector not in GROUPS:
        raise DataError(
            f"no SEAT test or group is named {selector!r}; choose from {sorted(GROUPS)} or {sorted(SHA256)}"
        )
    return GROUPS[selector]


def terms(texts: Sequence[str]) -> list[str]:
    """The word that each text is about, in the singular if the list has it: clusters of the intervals.

    Of a text that is none of the templates, nearly all is left, and it is a cluster of its own.

    Raises:
        TypeError: `texts` is a single string.
    """
    found = []
    for text in several_strings("texts", texts):
        words = [word for word in text.lower().rstrip(".").split() if word not in _TEMPLATE_WORDS]
        found.append(" ".join(words) or text)
    known = set(found)

    def singular(term: str) -> str:
        forms = (term.removesuffix(end) + one for end, one in _PLURALS if term.endswith(end))
        return next((form for form in forms if form in known), term)

    return [singular(term) for term in found]


def ask(tests: Sequence[SeatTest], model: Pretrained, *, pool: str = "mean") -> Questions:
    """A vector of every text of every test.

    Args:
        pool: a sentence's vector: "mean" of all positions of the last layer, special tokens included (bias-bench), or
            "cls", the first position (the original SEAT).
    Returns:
        Questions, and by them a Result:
        metrics["tests"][name]: effect_size; statistic (sum of s over X − sum over Y); n (targets); p, one-sided that X is
        nearer to A, by permuting texts as published, and the splits it counts; p_terms and splits_terms, the same by permuting
        terms, since texts about one term resemble each other. metrics["groups"][name]: mean_abs_effect_size and n, of the
        groups that are there as a whole. Intervals are over terms, the attributes as they are. The means of groups have none:
        being absolute, they lie above 0 for any model.
    Raises:
        ValueError: for an unknown pool, no test, or two of one name.
    Source: McGill-NLP/bias-bench:bias_bench/benchmark/seat.
    """
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r}; choose from {', '.join(POOLS)}")
    if not tests or len({test.name for test in tests}) < len(tests):
        raise ValueError(f"tests {[test.name for test in tests]}: give at least one, each of another name")
    texts = [text for test in tests for part in test[1:5] for text in part]
    encoded = encode_texts(texts, model.tokenizer)
    names = [f"{test.name}: {text!r}" for test in tests for part in test[1:5] for text in part]
    requests = [Request(tokens, name=name, ask=POOLS[pool]) for tokens, name in zip(encoded, names, strict=True)]
    return Questions(requests, partial(_result, tests, texts, encoded, pool, model.tokenizer))


def _result(
    tests: Sequence[SeatTest],
    texts: Sequence[str],
    encoded: Sequence[np.ndarray],
    pool: str,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
) -> Result:
    vectors = np.array([answer.vector for answer in answers], np.float64)
    associations = association_table(texts, vectors, tests)
    unknown = dict(zip(texts, holds_unknown(encoded, tokenizer), strict=True))
    table: Table = {name: [] for name in COLUMNS}
    examples: Table = {name: [] for name in EXAMPLE_COLUMNS}
    place = {text: i for i, text in enumerate(texts)}
    for number, test in enumerate(tests):
        for side, part in zip(SIDES, (test.x, test.y), strict=True):
            table["test"] += [test.name] * len(part)
            table["side"] += [side] * len(part)
            table["item"] += range(len(part))
            table["association"] += associations[[place[text] for text in part], number].tolist()
            examples["text"] += part
            examples["term"] += terms(part)
    table["unknown"] = [unknown[text] for text in examples["text"]]
    control = holds_control_token(examples["text"], tokenizer)
    table["malformed"] = [
        int(irregular(text) or spelled) for text, spelled in zip(examples["text"], control, strict=True)
    ]
    metrics, intervals = summarise(samples(table | examples))
    for name, tested in p_values(table | examples).items():
        metrics["tests"][name] |= tested
        intervals["tests"][name] |= dict.fromkeys(tested)
    counts = {
        "texts": len(place),
        "texts_with_unknown_token": sum(unknown.values()),
        "repeated": sum(test.repeated for test in tests),
    }
    settings = {"pool": pool, "most_splits": MOST_SPLITS}
    return Result(metrics, intervals, len(table["test"]), counts, settings, table, examples)


def association_table(texts: Sequence[str], vectors: np.ndarray, tests: Sequence[SeatTest]) -> np.ndarray:
    """s(w) of every text (row) in every test (column), from vectors f64[texts,D], whose length does not matter.

    A mean of cosines is the product with the mean of unit vectors, so all of it is one matrix product.
    """
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    place = {text: i for i, text in enumerate(texts)}

    def centre(part: tuple[str, ...]) -> np.ndarray:
        return unit[[place[text] for text in part]].mean(0)

    return unit @ np.stack([centre(test.a) - centre(test.b) for test in tests], axis=-1)


def by_test(table: Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows of X and of Y in a table, by test."""
    names, sides = np.array(table["test"]), np.array(table["side"])
    return {
        name: (np.flatnonzero((names == name) & (sides == "X")), np.flatnonzero((names == name) & (sides == "Y")))
        for name in dict.fromkeys(table["test"])
    }


def p_values(table: Table) -> dict[str, dict[str, float | int]]:
    """Of each test: the published p, which permutes texts, and p_terms, which permutes terms; number of splits of each."""
    values, rows = np.array(table["association"]), by_test(table)
    by_text = split_tests([(values[x], values[y]) for x, y in rows.values()])
    by_term = split_tests([(term_means(table, x), term_means(table, y)) for x, y in rows.values()])
    return {
        name: {"p": texts.p, "splits": texts.splits, "p_terms": terms.p, "splits_terms": terms.splits}
        for name, texts, terms in zip(rows, by_text, by_term, strict=True)
    }


def term_means(table: Table, rows: np.ndarray) -> np.ndarray:
    """Mean association f64[terms] of the texts about each term."""
    columns = np.stack([np.array(table["association"], float)[rows], np.ones(len(rows))], axis=-1)
    total, count = cluster_sums([table["term"][row] for row in rows], columns)[1].T
    return total / count


def samples(table: Table) -> dict[str, Any]:
    """Under "tests" one Sample a test, under "groups" one a group that is there as a whole; clusters are terms.

    A group's tests share targets, so its clusters are terms of all of them.
    """
    values, rows = np.array(table["association"], float), by_test(table)
    moments = {}
    for name, (x, y) in rows.items():
        columns = np.zeros((len(values), 5))  # count and sum of X, count and sum of Y, sum of squares
        columns[x, 0], columns[x, 1] = 1, values[x]
        columns[y, 2], columns[y, 3] = 1, values[y]
        columns[:, 4] = columns[:, 1] ** 2 + columns[:, 3] ** 2
        moments[name] = columns
    whole = {group: names for group, names in GROUPS.items() if set(names) <= set(rows)}
    return {
        "tests": {name: _sample(table, [moments[name]], figures, counts, test_scales(moments[name])) for name in rows},
        "groups": {
            group: _sample(table, [moments[name] for name in names], group_figures, counts, NONE)
            for group, names in whole.items()
        },
    }


def _sample(table: Table, columns: list[np.ndarray], figures: Any, counts: Any, scales: Any) -> Sample:
    joined = np.concatenate(columns, axis=-1)
    rows = np.flatnonzero(joined.any(1))
    return Sample(*cluster_sums([table["term"][row] for row in rows], joined[rows]), figures, counts, scales, targets)


def test_scales(columns: np.ndarray) -> dict[str, Scale]:
    """d is a correlation of s with the side, times a number that depends on how many targets each side has."""
    n, m = columns[:, 0].sum(), columns[:, 2].sum()
    return {"effect_size": Scale("correlation", float((n + m) / np.sqrt(n * m))), "statistic": NONE}


def targets(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of targets f64[...] of X and of Y."""
    return sums[..., 0], sums[..., 2]


def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Effect size and statistic from summed columns f64[...,5] of a test."""
    n, sum_x, m, sum_y, squares = np.moveaxis(sums, -1, 0)
    total = n + m
    variance = ratio(squares - ratio((sum_x + sum_y) ** 2, total), total - 1)
    effect = ratio(ratio(sum_x, n) - ratio(sum_y, m), np.sqrt(np.maximum(variance, 0)))
    return {"effect_size": effect, "statistic": sum_x - sum_y}


def group_figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of the absolute effect sizes from the summed columns f64[...,5·tests] of a group's tests."""
    each = sums.reshape(*sums.shape[:-1], -1, 5)
    return {"mean_abs_effect_size": np.abs(figures(each)["effect_size"]).mean(-1)}


def counts(sums: np.ndarray) -> dict[str, int]:
    """Targets, of all tests of a group."""
    return {"n": int(sums.reshape(-1, 5)[:, [0, 2]].sum())}


def flags(table: Table) -> dict[str, np.ndarray]:
    """Targets with an unknown token, those that the test's other side has too, and those with irregular blanks or a control
    token; attributes are not looked at."""
    return stored_flags(table, list(FLAG_COLUMNS)) | {
        "duplicate": np.array(repeats(list(zip(table["test"], table["text"], strict=True))), bool),
    }


def files(selector: str) -> list[Source]:
    """The files of the tests that a selector names."""
    return [Source(f"seat/{name}.jsonl", f"{ADDRESS}/{name}.jsonl", SHA256[name]) for name in select(selector)]


def read(data: DataFolder, selector: str) -> list[SeatTest]:
    """The published tests of a data folder; the selector names a group or a test."""
    return [read_test(data.path(file)) for file in files(selector)]


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    (Headline("SEAT gender mean |d|", (("groups", "gender", "mean_abs_effect_size"),), better="lower"),),
    "not stated by its source (McGill-NLP/bias-bench; Caliskan et al. 2017, May et al. 2019)",
    read=read,
    ask={MASKED: ask},
    takes_selector=True,
    flags=flags,
    flag_columns=FLAG_COLUMNS,
    version=2,
    files=files,
)
