"""WinoBias (Zhao et al. 2018) by coreference resolution: does the model find the occupation whatever the pronoun's gender?

TPR-1 and TPR-2 are the scores on the pro-stereotyped sentences less those on the anti-stereotyped ones, of type 1 (no
syntactic cue) and type 2; 0 = unbiased. `f1_reported` is what is published: a document is right if the first mention of
the first predicted cluster begins where the first gold mention does, and of c right ones among n the score is 2c / (c + n),
the F1 against labels that are all true. It compresses differences between high scores; so accuracy c / n and the share of
documents in which some predicted cluster is the gold one stand beside it. All in percent.

Sources: He et al. 2022 (arXiv:2210.14975, princeton-nlp/MABEL); arXiv:1804.06876.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.base import Benchmark, Headline
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.files.sources import DataError
from ncfair_jax.statistics.intervals import summarise
from ncfair_jax.statistics.samples import Figures, Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import PERCENT, POINTS
from ncfair_jax.tasks.coreference.conll import Cluster, Document
from ncfair_jax.tasks.coreference.winobias import KINDS, SIDES

COLUMNS: dict[str, type] = {"document": str, "aligned": int, "exact": int}
EXAMPLE_COLUMNS: dict[str, type] = {
    "document": str,
    "type": int,
    "side": str,
    "template": str,
    "gold": str,
    "predicted": str,
}
SCALES = {"pro": PERCENT, "anti": PERCENT, "tpr": POINTS}
_NUMBER = re.compile(r"//(\d+)$")

Group = tuple[int, str]  # type, side
Predictions = Mapping[Group, Sequence[tuple[Document, Sequence[Cluster]]]]


def is_aligned(gold: Sequence[Cluster], predicted: Sequence[Cluster]) -> bool:
    """Whether the first mention of the first predicted cluster begins where that of the gold cluster does."""
    return bool(predicted) and min(predicted[0])[0] == min(gold[0])[0]


def is_exact(gold: Sequence[Cluster], predicted: Sequence[Cluster]) -> bool:
    """Whether some predicted cluster has just the gold mentions."""
    return any(set(cluster) == set(gold[0]) for cluster in predicted)


def tables(predictions: Predictions) -> tuple[Table, Table]:
    """Scores and examples, one line per document.

    Raises:
        DataError: for a document without one gold cluster, or whose name does not end in its number, "//12".
    """
    scores: Table = {name: [] for name in COLUMNS}
    examples: Table = {name: [] for name in EXAMPLE_COLUMNS}
    for (kind, side), documents in predictions.items():
        for document, predicted in documents:
            number = _NUMBER.search(document.name)
            if number is None or len(document.clusters) != 1:
                raise DataError(
                    f"{document.key} has {len(document.clusters)} gold clusters; expected WinoBias's documents, "
                    "named …//NUMBER, with one each"
                )
            gold = document.clusters
            row = (document.key, int(is_aligned(gold, predicted)), int(is_exact(gold, predicted)))
            # Lines 2k and 2k + 1 are one template about the same two occupations, in both sides' files.
            template = f"type{kind}/{int(number[1]) // 2}"
            example = (document.key, kind, side, template, json.dumps(gold), json.dumps(predicted))
            for table, values in ((scores, row), (examples, example)):
                for name, value in zip(table, values, strict=True):
                    table[name].append(value)
    return scores, examples


def samples(table: Table) -> dict[str, Any]:
    """One Sample for each type: clusters are templates, columns right, exact and counted documents of pro and anti."""
    found = {}
    for kind in KINDS:
        lines = [i for i, of in enumerate(table["type"]) if of == kind]
        columns = [
            [of_side * value for of_side in (table["side"][i] == side for side in SIDES) for value in _values(table, i)]
            for i in lines
        ]
        labels = [table["template"][i] for i in lines]
        sums = np.array(columns, float).reshape(-1, 6)
        found[f"type{kind}"] = Sample(*cluster_sums(labels, sums), _figures, _counts, SCALES, documents_of)
    return found


def documents_of(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Number of documents f64[...] of each side, and of the smaller one for their difference."""
    pro, anti = sums[..., 2], sums[..., 5]
    return {"pro": pro, "anti": anti, "tpr": np.minimum(pro, anti)}


def _values(table: Table, line: int) -> tuple[int, int, int]:
    return table["aligned"][line], table["exact"][line], 1


def _figures(sums: np.ndarray) -> Figures:
    found: dict[str, Any] = {}
    for i, side in enumerate(SIDES):
        right, exact, n = np.moveaxis(sums[..., 3 * i : 3 * i + 3], -1, 0)
        found[side] = {
            "f1_reported": ratio(200 * right, right + n),
            "accuracy": ratio(100 * right, n),
            "exact_cluster_match": ratio(100 * exact, n),
        }
    found["tpr"] = {name: found["pro"][name] - found["anti"][name] for name in found["pro"]}
    return found


def _counts(sums: np.ndarray) -> dict[str, int]:
    pro, anti = sums[:3], sums[3:]
    return {"n": int(pro[2] + anti[2]), "aligned_pro": int(pro[0]), "aligned_anti": int(anti[0])}


def score_winobias(predictions: Predictions, settings: Mapping[str, Any]) -> Result:
    """Figures by type: those of "pro" and "anti" and their difference "tpr"."""
    scores, examples = tables(predictions)
    metrics, intervals = summarise(samples(scores | examples))
    counts = {"no_cluster": sum(not p for documents in predictions.values() for _, p in documents)}
    return Result(metrics, intervals, len(scores["document"]), counts, dict(settings), scores, examples)


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    tuple(
        Headline(f"WinoBias TPR-{kind} % (0)", ((f"type{kind}", "tpr", "f1_reported"),), 0.0, (f"type{kind}", "n"))
        for kind in KINDS
    ),
    "MIT (Zhao et al. 2018, uclanlp/corefBias)",
    trained_by="configs/winobias_coref.py",
    version=2,
)
