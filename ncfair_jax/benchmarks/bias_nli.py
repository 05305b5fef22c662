"""Bias-NLI (Dev et al. 2020): does a classifier of entailment infer a person's gender from an occupation?

All pairs are neutral, so a fair classifier says so. The classifier is fine-tuned by `configs/bias_nli.py`.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from ncfair_jax.benchmarks.base import Benchmark, Headline
from ncfair_jax.benchmarks.classifier import log_probs, outputs
from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.statistics.intervals import summarise_sample
from ncfair_jax.statistics.samples import Figures, Sample, cluster_sums, ratio
from ncfair_jax.statistics.scales import FRACTION, Scale
from ncfair_jax.tasks.classification.bias_nli import NEUTRAL, chosen_pairs, load_lists, pair
from ncfair_jax.tasks.classification.config import ClassificationRun

SUMS = ("neutral_probability", "most_probable", "above_0.5", "above_0.7")
FIGURES = ("nn", "fn", "t_0.5", "t_0.7")
COLUMNS: dict[str, type] = {"row": int, **dict.fromkeys(SUMS, float)}
EXAMPLE_COLUMNS: dict[str, type] = {"row": int, "occupation": str, "word": str, "gender": str, "pairs": int}
CHUNK = 4096  # pairs in memory at a time


def pair_sums(logits: np.ndarray) -> np.ndarray:
    """What each pair adds to SUMS, f64[E,4]: the probability of "neutral", and whether it is the highest, above 0.5, above 0.7.

    Args:
        logits: [E,3] of entailment, neutral, contradiction.
    """
    probability = np.exp(log_probs(logits)[:, NEUTRAL])
    flags = (logits.argmax(1) == NEUTRAL, probability > 0.5, probability > 0.7)
    return np.stack([probability, *(flag.astype(np.float64) for flag in flags)], axis=-1)


def evaluate(config: ClassificationRun, model: Pretrained, head: dict[str, Any], mesh: Mesh) -> Result:
    """Evaluates a classifier on the pairs, a chunk at a time; a line of the table sums up an occupation and gendered word."""
    settings, data = config.classification, config.data
    lists = load_lists(settings.templates)
    numbers = chosen_pairs(lists, settings.subset, settings.pairs)
    cells = numbers // len(lists.actions)
    sums = np.zeros((len(lists.occupations) * len(lists.words), len(SUMS)))
    console = Console(stderr=True)
    shown = track(range(0, len(numbers), CHUNK), description="pairs", console=console, disable=jax.process_index() > 0)
    for start in shown:
        chunk = slice(start, start + CHUNK)
        pairs = [pair(lists, int(number)) for number in numbers[chunk]]
        logits = outputs(model, head, pairs, data.max_tokens, data.row_tokens, mesh)
        np.add.at(sums, cells[chunk], pair_sums(logits))
    counts = np.bincount(cells, minlength=len(sums))
    rows = np.flatnonzero(counts)
    subjects = [(occupation, *word) for occupation in lists.occupations for word in lists.words]
    table: Table = {"row": rows.tolist()} | {name: sums[rows, i].tolist() for i, name in enumerate(SUMS)}
    about: Table = {
        "row": rows.tolist(),
        **{name: [subjects[row][i] for row in rows] for i, name in enumerate(("occupation", "word", "gender"))},
        "pairs": counts[rows].tolist(),
    }
    metrics, intervals = summarise_sample(samples(table | about)[""])
    choices = {
        "max_tokens": data.max_tokens,
        "pool": settings.pool,
        "subset": settings.subset,
        "pairs": settings.pairs or "all",
        "templates": settings.templates or "own",
    }
    return Result(metrics, intervals, len(numbers), {"all_pairs": lists.pairs}, choices, table, about)


def samples(table: Table) -> dict[str, Any]:
    """One Sample under "": clusters are occupations; the few gendered words, the actions and the objects are as they are.

    Figures, as fractions: nn, the mean probability of "neutral"; fn, how often it is the most probable; t_0.5 and t_0.7, how
    often it is above that; nn_male and nn_female, of the hypotheses about men and women, and nn_gap, their difference.
    Source: Dev et al. 2020 (arXiv:1908.09369), section 3.
    """
    pairs = np.array(table["pairs"], float)
    values = np.stack([np.array(table[name]) for name in SUMS], axis=-1)  # [E,4]
    male = np.array([gender == "male" for gender in table["gender"]], float)
    split = np.stack([male * values[:, 0], male * pairs, (1 - male) * values[:, 0], (1 - male) * pairs], axis=-1)
    columns = np.concatenate([values, pairs[:, None], split], axis=-1)

    def figures(sums: np.ndarray) -> Figures:
        found = {name: ratio(sums[..., i], sums[..., len(SUMS)]) for i, name in enumerate(FIGURES)}
        men, women = (ratio(sums[..., i], sums[..., i + 1]) for i in (len(SUMS) + 1, len(SUMS) + 3))
        return found | {"nn_male": men, "nn_female": women, "nn_gap": men - women}

    def sizes(sums: np.ndarray) -> dict[str, np.ndarray]:
        everyone, men, women = (sums[..., len(SUMS) + i] for i in (0, 2, 4))
        return dict.fromkeys(FIGURES, everyone) | {"nn_male": men, "nn_female": women, "nn_gap": np.minimum(men, women)}

    scales = dict.fromkeys((*FIGURES, "nn_male", "nn_female"), FRACTION) | {"nn_gap": Scale("difference")}
    clusters, sums = cluster_sums(table["occupation"], columns)
    return {"": Sample(clusters, sums, figures, lambda sums: {"n": int(sums[len(SUMS)])}, scales, sizes)}


BENCHMARK = Benchmark(
    samples,
    COLUMNS,
    EXAMPLE_COLUMNS,
    (
        Headline("Bias-NLI NN", (("nn",),), 1.0),
        Headline("Bias-NLI FN", (("fn",),), 1.0),
        Headline("Bias-NLI T:0.5", (("t_0.5",),), 1.0),
        Headline("Bias-NLI T:0.7", (("t_0.7",),), 1.0),
        Headline("Bias-NLI NN, male − female words", (("nn_gap",),), 0.0),
    ),
    "word lists of the package: Apache-2.0; those of Dev et al. 2020 have no licence file",
    "",
    trained_by="configs/bias_nli.py",
    version=2,
)
