"""GLUE (Wang et al. 2019): what a model is worth as the start of other tasks, on the validation parts, times 100.

Matthews correlation for CoLA, F1 of the positive class for MRPC and QQP, Pearson and Spearman correlation for STS-B, accuracy
for the others. The figures are of classifiers fine-tuned by `configs/glue.py`, one task each.
"""

from typing import Any

import numpy as np
import scipy
from jax.sharding import Mesh

from ncfair_jax.benchmarks.base import Benchmark, Headline
from ncfair_jax.benchmarks.classifier import outputs
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise
from ncfair_jax.statistics.samples import Figures, Sample, ratio
from ncfair_jax.statistics.scales import PERCENT, Scale
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.tasks.classification.glue import MATCHED, MISMATCHED, glue_task

# Figures of each task; the first is the one that tables of GLUE average.
FIGURES = {
    "cola": ("matthews", "accuracy"),
    "mrpc": ("f1", "accuracy"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
}
TITLES = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP", "mnli": "MNLI", "qnli": "QNLI",
          "rte": "RTE", "wnli": "WNLI"}  # fmt: skip
SCALES = dict.fromkeys(("accuracy", "f1"), PERCENT) | dict.fromkeys(
    ("matthews", "pearson", "spearman"), Scale("correlation", 100.0)
)
COLUMNS: dict[str, type] = {"index": int, "predicted": float, "correct": float}
EXAMPLE_COLUMNS: dict[str, type] = {"index": int, "label": float, "part": str}


def benchmark_name(task: str) -> str:
    """Name of a task's result files."""
    return f"glue_{task}"


def evaluate(task: str, config: ClassificationRun, model: Pretrained, head: dict[str, Any], mesh: Mesh) -> Result:
    """Evaluates a classifier on the task's validation part."""
    examples = glue_task(task).read(config, "test")
    data = config.data
    found = outputs(model, head, examples, data.max_tokens, data.row_tokens, mesh, progress=True)
    labels = np.array([example.label for example in examples])
    predicted = found[:, 0].astype(np.float64) if found.shape[1] == 1 else found.argmax(1).astype(np.float64)
    table: Table = {
        "index": list(range(len(examples))),
        "predicted": predicted.tolist(),
        "correct": (predicted == labels).astype(float).tolist(),
    }
    about: Table = {"index": table["index"], "label": labels.tolist(), "part": [example.group for example in examples]}
    metrics, intervals = summarise(samples_of(task)(table | about))
    settings = {"max_tokens": data.max_tokens, "pool": config.classification.pool}
    return Result(metrics, intervals, len(examples), {}, settings, table, about)


def samples_of(task: str) -> Any:
    """The task's `Benchmark.samples`: one Sample a part, whose examples are resampled one by one."""

    def samples(table: Table) -> dict[str, Any]:
        parts = np.array(table["part"])
        columns = {name: np.array(table[name]) for name in ("predicted", "correct", "label")}
        names = (MATCHED, MISMATCHED) if task == "mnli" else ("",)
        found = {}
        for name in names:
            chosen = {column: values[parts == name] for column, values in columns.items()}
            clusters = tuple(str(index) for index, part in zip(table["index"], parts, strict=True) if part == name)
            make = correlations if task == "stsb" else agreement
            found[name or "validation"] = Sample(clusters, *make(chosen, FIGURES.get(task, ("accuracy",))), SCALES)
        return found

    return samples


def agreement(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Sums f64[E,5] (true and false positives and negatives, correct) and the figures of them, in percent.

    Predictions averaged over seeds count by their share. Matthews correlation is 0, as usual, where one class is never
    predicted.
    """
    predicted, label = columns["predicted"], columns["label"]
    cells = [predicted * label, predicted * (1 - label), (1 - predicted) * label, (1 - predicted) * (1 - label)]
    sums = np.stack([*cells, columns["correct"], np.ones(len(label))], axis=-1)

    def figures(total: np.ndarray) -> Figures:
        tp, fp, fn, tn, correct, n = np.moveaxis(total, -1, 0)
        spread = np.sqrt(np.maximum((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn), 0))
        found = {
            "accuracy": 100 * ratio(correct, n),
            "f1": 100 * ratio(2 * tp, 2 * tp + fp + fn),
            "matthews": np.where(n > 0, 100 * (tp * tn - fp * fn) / np.where(spread == 0, 1.0, spread), np.nan),
        }
        return {name: found[name] for name in names}

    return sums, figures, lambda total: {"n": int(total[-1])}


def correlations(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Sums f64[E,11] of values, squares and products, of the values and of their ranks, and correlations × 100 of them.

    Ranks are those among all examples; resamples keep them.
    """
    pairs = []
    for x, y in (
        (columns["predicted"], columns["label"]),
        (scipy.stats.rankdata(columns["predicted"]), scipy.stats.rankdata(columns["label"])),
    ):
        x, y = x - x.mean(), y - y.mean()  # large means would cost digits
        pairs += [x, y, x * x, y * y, x * y]
    sums = np.stack([*pairs, np.ones(len(columns["label"]))], axis=-1)

    def figures(total: np.ndarray) -> Figures:
        n = total[..., 10]
        found = {}
        for name, first in zip(names, (0, 5), strict=True):
            x, y, xx, yy, xy = np.moveaxis(total[..., first : first + 5], -1, 0)
            product = np.maximum((xx * n - x * x) * (yy * n - y * y), 0)
            found[name] = 100 * ratio(xy * n - x * y, np.sqrt(product))
        return found

    return sums, figures, lambda total: {"n": int(total[-1])}


def benchmark(task: str) -> Benchmark:
    """A task by its name in `tasks.classification.glue.SOURCES`."""
    parts = (MATCHED, MISMATCHED) if task == "mnli" else ("validation",)
    return Benchmark(
        samples_of(task),
        COLUMNS,
        EXAMPLE_COLUMNS,
        tuple(
            Headline(
                f"{TITLES[task]} {figure} ×100" + (f", {part}" if task == "mnli" else ""),
                ((part, figure),),
                kind="utility",
                better="higher",
            )
            for part in parts
            for figure in FIGURES.get(task, ("accuracy",))
        ),
        "each task's own, see gluebenchmark.com",
        "",
        trained_by=f"configs/glue.py:{task}",
        version=2,
    )
