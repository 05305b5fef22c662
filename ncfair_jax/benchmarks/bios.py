"""Bias-in-Bios (De-Arteaga et al. 2019): is a profession found equally well in men's and in women's biographies?

The figures are of a classifier fine-tuned by `configs/bios.py`; the figures' names are those of MABEL (He et al. 2022).
"""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from ncfair_jax.benchmarks.base import Benchmark, Headline
from ncfair_jax.benchmarks.classifier import log_probs, outputs
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Figures, Sample, ratio
from ncfair_jax.statistics.scales import NONE, PERCENT, POINTS, Scale
from ncfair_jax.tasks.classification.bios import GENDERS, PROFESSIONS, read_bios
from ncfair_jax.tasks.classification.config import ClassificationRun

COLUMNS: dict[str, type] = {"index": int, "correct": float, "log_prob": float}
EXAMPLE_COLUMNS: dict[str, type] = {"index": int, "profession": str, "gender": str}
FEWEST_OF_GENDER = 30  # biographies of each gender for the interval of a profession's gap
# A root mean square of differences that are themselves estimated is too large, and its interval would be too.
SCALES = {
    **dict.fromkeys(("acc", "acc_m", "acc_f"), PERCENT),
    "tpr_gap": POINTS,
    "tpr_rms": NONE,
    "per_profession_gap": Scale("difference"),
}
WARNING = "Biographies are of real people and were crawled from the web; genders are as the crawler guessed them from pronouns."


def evaluate(config: ClassificationRun, model: Pretrained, head: dict[str, Any], mesh: Mesh) -> Result:
    """Evaluates a classifier on the test part; see `samples` for the figures."""
    examples = read_bios(config, "test")
    data = config.data
    logits = outputs(model, head, examples, data.max_tokens, data.row_tokens, mesh, progress=True)
    labels = np.array([int(example.label) for example in examples])
    table: Table = {
        "index": list(range(len(examples))),
        "correct": (logits.argmax(1) == labels).astype(float).tolist(),
        "log_prob": log_probs(logits)[np.arange(len(labels)), labels].tolist(),
    }
    about: Table = {
        "index": table["index"],
        "profession": [PROFESSIONS[label] for label in labels],
        "gender": [example.group for example in examples],
    }
    metrics, intervals = summarise_sample(samples(table | about)[""])
    settings = {"max_tokens": data.max_tokens, "pool": config.classification.pool}
    return Result(metrics, intervals, len(examples), {}, settings, table, about)


def samples(table: Table) -> dict[str, Any]:
    """One Sample under ""; biographies are resampled one by one.

    Figures: acc, acc_m, acc_f (percent, of all, men's and women's biographies); tpr_gap = acc_m − acc_f (points); tpr_rms, the
    root mean square over professions of the difference of their true positive rates (fractions, 0 to 1), and that difference,
    male − female, by profession. Professions without one of the genders are left out and counted.
    Source: He et al. 2022 (arXiv:2210.14975) and its code, where a profession without a correct prediction is left
    out too, and one without one of the genders divides by zero.
    """
    cell = {(p, g): i for i, (p, g) in enumerate((p, g) for p in PROFESSIONS for g in GENDERS)}
    places = np.array([cell[key] for key in zip(table["profession"], table["gender"], strict=True)])
    inside = np.eye(len(cell))[places]  # [E,2·28]
    columns = np.concatenate([inside * np.array(table["correct"])[:, None], inside], axis=-1)

    def split(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correct ones and all, [...,28,2] each."""
        shape = (*sums.shape[:-1], len(PROFESSIONS), len(GENDERS))
        correct, count = np.split(sums, 2, axis=-1)
        return correct.reshape(shape), count.reshape(shape)

    def figures(sums: np.ndarray) -> Figures:
        correct, count = split(sums)
        rates = ratio(correct, count)
        difference = rates[..., 0] - rates[..., 1]  # [...,28]
        known = ~np.isnan(difference)
        squares = np.where(known, difference, 0.0) ** 2
        by_gender = 100 * ratio(correct.sum(-2), count.sum(-2))
        return {
            "acc": 100 * ratio(correct.sum((-1, -2)), count.sum((-1, -2))),
            "acc_m": by_gender[..., 0],
            "acc_f": by_gender[..., 1],
            "tpr_gap": by_gender[..., 0] - by_gender[..., 1],
            "tpr_rms": np.sqrt(ratio(squares.sum(-1), known.sum(-1))),
            "per_profession_gap": {name: difference[..., i] for i, name in enumerate(PROFESSIONS)},
        }

    def counts(sums: np.ndarray) -> dict[str, int]:
        _, count = split(sums)
        one_sided = int((count.sum(-1) > 0).sum() - (count > 0).all(-1).sum())
        n = {"n": int(count.sum()), "n_m": int(count[:, 0].sum()), "n_f": int(count[:, 1].sum())}
        return n | {"professions_left_out": one_sided}

    enough = np.all(split(columns.sum(0))[1] >= FEWEST_OF_GENDER, axis=-1)  # [28]

    def sizes(sums: np.ndarray) -> dict[str, Any]:
        by_gender = split(sums)[1]
        men, women = np.moveaxis(by_gender.sum(-2), -1, 0)
        by_gender = np.where(np.reshape(enough, (-1, 1)), by_gender, 0)
        gaps = {name: (by_gender[..., i, 0], by_gender[..., i, 1]) for i, name in enumerate(PROFESSIONS)}
        everyone = men + women
        return {
            "acc": everyone,
            "acc_m": men,
            "acc_f": women,
            "tpr_gap": (men, women),
            "tpr_rms": everyone,
            "per_profession_gap": gaps,
        }

    return {"": Sample(tuple(map(str, table["index"])), columns, figures, counts, SCALES, sizes)}


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    (
        Headline("Bias-in-Bios accuracy %", (("acc",),), kind="utility", better="higher"),
        Headline("Bias-in-Bios accuracy %, men", (("acc_m",),), n=("n_m",), kind="utility", better="higher"),
        Headline("Bias-in-Bios accuracy %, women", (("acc_f",),), n=("n_f",), kind="utility", better="higher"),
        Headline("Bias-in-Bios TPR gap, points", (("tpr_gap",),), 0.0),
        Headline("Bias-in-Bios TPR RMS", (("tpr_rms",),), 0.0),
    ),
    "crawled web pages, no licence (De-Arteaga et al. 2019, microsoft/biosbias)",
    WARNING,
    trained_by="configs/bios.py",
    version=2,
)
