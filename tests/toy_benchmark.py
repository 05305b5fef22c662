"""A benchmark in one file: which of two words does a model expect at the mask?"""

import json
from functools import partial
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.base import MASKED, Benchmark, Headline, Questions
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.benchmarks.sentences import gap_token, with_gaps
from ncfair_jax.engine.requests import Answer, Request, scored_log_probs
from ncfair_jax.files.sources import DataFolder, Source
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import PERCENT

FILE = Source("toy/pairs.json")
COLUMNS: dict[str, type] = {"sentence": str, "first": float, "second": float}


def read(data: DataFolder, selector: str) -> list[list[str]]:
    """Examples: [sentence with a [MASK], word, other word]."""
    examples: list[list[str]] = json.loads(data.path(FILE).read_text())
    return examples


def ask(examples: list[list[str]], model: Pretrained) -> Questions:
    """Log-probabilities of both words of each example."""
    gaps = with_gaps(model, [sentence for sentence, *_ in examples])
    requests = []
    for (sentence, *words), (tokens, place) in zip(examples, gaps, strict=True):
        targets = [gap_token(model, sentence, word) for word in words]
        requests.append(Request(tokens, np.full(2, place), np.array(targets), name=sentence))
    return Questions(requests, partial(table, examples))


def table(examples: list[list[str]], answers: list[Answer]) -> Result:
    """One line an example; the figure is the percentage of examples whose first word is likelier."""
    scores = np.array([scored_log_probs(answer) for answer in answers], np.float64)
    scored: Table = {
        "sentence": [sentence for sentence, *_ in examples],
        "first": scores[:, 0].tolist(),
        "second": scores[:, 1].tolist(),
    }
    metrics, intervals = summarise_sample(samples(scored)[""])
    return Result(metrics, intervals, len(examples), counts={}, settings={}, scores=scored, examples={})


def samples(scored: Table) -> dict[str, Any]:
    """What figures, intervals and comparisons are computed from; sentences are resampled one by one."""
    preferred = np.greater(scored["first"], scored["second"])
    columns = np.stack([preferred, np.ones(len(preferred))], axis=-1)

    def figures(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"preferred": 100 * ratio(sums[..., 0], sums[..., 1])}

    def counts(sums: np.ndarray) -> dict[str, int]:
        return {"n": int(sums[1])}

    clusters = cluster_sums(scored["sentence"], columns)
    return {"": Sample(*clusters, figures, counts, scales=PERCENT, sizes=lambda sums: sums[..., 1])}


BENCHMARK = Benchmark(
    files=lambda selector: (FILE,),
    read=read,
    ask={MASKED: ask},
    columns=COLUMNS,
    example_columns={},
    samples=samples,
    headlines=(Headline("toy, first word preferred, %", (("preferred",),), unbiased=50.0),),
    licence="ours",
    content_warning="",
)
