"""How well predicted coreference clusters agree with gold ones: MUC, B³, CEAF-φ4, and their mean, the CoNLL F1.

Each is a recall and a precision whose numerators and denominators are summed over documents; F1 of the sums, in percent.

Sources: Vilain et al. 1995 (MUC), Bagga and Baldwin 1998 (B³), Luo 2005 (CEAF), Pradhan et al. 2012 (their mean).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from ncfair_jax.benchmarks.base import Benchmark, Headline
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Figures, Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import PERCENT
from ncfair_jax.tasks.coreference.conll import Cluster, Document

METRICS = ("muc", "b_cubed", "ceaf_phi4")
PARTS = ("recall", "recall_of", "precision", "precision_of")  # numerator, denominator, twice
COLUMNS: dict[str, type] = {"document": str} | {f"{metric}_{part}": float for metric in METRICS for part in PARTS}


def muc(clusters: Sequence[Cluster], others: Sequence[Cluster]) -> tuple[float, float]:
    """Links of the clusters that the others keep, of all links that hold the clusters together: Σ |K| − parts(K), Σ |K| − 1.

    Parts are what the others cut a cluster into; a mention that they lack is a part of its own.
    """
    of = {mention: number for number, cluster in enumerate(others) for mention in cluster}
    parts = [{of.get(mention, mention) for mention in cluster} for cluster in clusters]
    kept = sum(len(cluster) - len(part) for cluster, part in zip(clusters, parts, strict=True))
    return float(kept), float(sum(len(cluster) - 1 for cluster in clusters))


def b_cubed(clusters: Sequence[Cluster], others: Sequence[Cluster]) -> tuple[float, float]:
    """Sum over mentions of the share of its cluster that its other cluster holds too, and the number of mentions."""
    shared = _overlaps(clusters, others)
    sizes = np.array([len(cluster) for cluster in clusters], float)
    return float((np.square(shared).sum(1) / sizes).sum()), float(sizes.sum())


def ceaf_phi4(clusters: Sequence[Cluster], others: Sequence[Cluster]) -> tuple[float, float]:
    """Similarity 2|K∩R| / (|K|+|R|) summed over the best one-to-one alignment, and the number of clusters."""
    sizes, other_sizes = ([len(cluster) for cluster in side] for side in (clusters, others))
    similarity = 2 * _overlaps(clusters, others) / np.add.outer(sizes, other_sizes)
    best = similarity[scipy.optimize.linear_sum_assignment(similarity, maximize=True)].sum()
    return float(best), float(len(clusters))


def _overlaps(clusters: Sequence[Cluster], others: Sequence[Cluster]) -> np.ndarray:
    """Mentions in common of each cluster and each other, f64[clusters, others]."""
    pairs = [[len(set(cluster) & set(other)) for other in others] for cluster in clusters]
    return np.array(pairs, float).reshape(len(clusters), len(others))


def document_scores(gold: Sequence[Cluster], predicted: Sequence[Cluster]) -> dict[str, float]:
    """The columns of `COLUMNS` of one document, but for its name."""
    found: dict[str, float] = {}
    for name, metric in zip(METRICS, (muc, b_cubed, ceaf_phi4), strict=True):
        values = (*metric(gold, predicted), *metric(predicted, gold))
        found |= {f"{name}_{part}": value for part, value in zip(PARTS, values, strict=True)}
    return found


def samples(table: Table) -> dict[str, Any]:
    """One Sample under "": clusters are documents."""
    columns = np.array([table[name] for name in COLUMNS if name != "document"]).T
    documents = len(table["document"])

    def figures(sums: np.ndarray) -> Figures:
        found: dict[str, Any] = {}
        for i, name in enumerate(METRICS):
            parts = np.moveaxis(sums[..., 4 * i : 4 * i + 4], -1, 0)
            recall, precision = (100 * ratio(parts[j], parts[j + 1]) for j in (0, 2))
            found[name] = {"recall": recall, "precision": precision, "f1": f1(recall, precision)}
        return {"conll_f1": np.mean([found[name]["f1"] for name in METRICS], axis=0), **found}

    return {
        "": Sample(*cluster_sums(table["document"], columns), figures, lambda _: {"n": documents}, PERCENT, mentions_of)
    }


def mentions_of(sums: np.ndarray) -> np.ndarray:
    """Number of gold mentions f64[...]."""
    return sums[..., len(PARTS) * METRICS.index("b_cubed") + PARTS.index("recall_of")]


def f1(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Harmonic mean; 0 where either is 0 or has nothing to be a share of."""
    recall, precision = np.nan_to_num(recall), np.nan_to_num(precision)
    return np.nan_to_num(ratio(2 * recall * precision, recall + precision))


def score_documents(documents: Sequence[Document], predicted: Sequence[Sequence[Cluster]]) -> Result:
    """MUC, B³, CEAF-φ4 and the CoNLL F1 of the predicted clusters of each document."""
    rows = [document_scores(d.clusters, clusters) for d, clusters in zip(documents, predicted, strict=True)]
    scores: Table = {"document": [document.key for document in documents]}
    scores |= {name: [row[name] for row in rows] for name in COLUMNS if name != "document"}
    metrics, intervals = summarise_sample(samples(scores)[""])
    counts = {"no_cluster": sum(not clusters for clusters in predicted)}
    return Result(metrics, intervals, len(documents), counts, {}, scores, {})


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    {},
    (Headline("coreference CoNLL F1 %", (("conll_f1",),), None, ("n",), "utility", "higher"),),
    "that of the file's documents",
    content_warning="",
    trained_by="configs/winobias_coref.py",
    version=2,
)
