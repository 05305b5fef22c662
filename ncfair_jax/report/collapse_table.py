"""Markdown tables of neural-collapse figures: models side by side on each set of words, and the permutation test."""

import math
from collections.abc import Sequence

from ncfair_jax.benchmarks.table import number, p_value, span
from ncfair_jax.collapse.jackknife import ENOUGH_GROUPS, Interval, Measured, gap, ratio
from ncfair_jax.collapse.model_measures import ModelMeasures
from ncfair_jax.collapse.permutation import Tested, permutation_test
from ncfair_jax.collapse.word_sets import LEXICON

# Figure, its name in a table, and whether a ratio of two of it means anything (it is positive, with 0 as its ideal).
SHOWN = (
    ("nc1", "NC1", True),
    ("nc1_min2", "NC1, words seen twice or more", True),
    ("nc1_w", "NC1(w)", True),
    ("nc2_norm_cv", "NC2, variation of norms", True),
    ("nc2_interference_rmse", "NC2, interference RMSE", True),
    ("gnc2", "GNC2", False),
    ("gnc2_w", "GNC2(w)", False),
    ("nc3", "NC3", False),
    ("unc3", "UNC3", True),
    ("dual_distance", "dual distance", True),
    ("nc4", "NC4", False),
    ("nc4_bias", "NC4 with bias", False),
    ("nc4_chance", "NC4 by chance", False),
)

NOTE = (
    "Intervals are 95% jackknife intervals over groups of sentences. That of a plain figure is of what other texts of the same "
    "kind and size would give on average. Few rows of a word bias all figures, so sets of words with other counts can only be "
    "compared by the corrected figures, or by the random lists, whose words occur as often. Corrected figures are without that "
    f"bias, of the words that occur in {ENOUGH_GROUPS} groups of sentences or more, and their intervals are of the value that "
    "ever more text would lead to.\n"
)


def comparison_table(models: Sequence[ModelMeasures]) -> str:
    """Every set of words × every figure: the first model with its interval, and each other with its gap and ratio to it.

    Beside each model's figures stand the corrected ones with their number of words; `NOTE` says what they and the intervals
    are of. A ratio is shown where the figure is positive.
    """
    first, *others = models
    header = ["words", "n", "figure", first.name, "corrected"]
    for other in others:
        header += [other.name, "corrected", "gap", "ratio"]
    body = []
    for words, measured in first.sets.items():
        for figure, name, positive in SHOWN:
            if figure not in measured.figures:
                continue
            counts = dict.fromkeys(str(model.words[words]) for model in models)  # tokenizers may differ
            cells = [words, " / ".join(counts), name, _value(measured.figures[figure], measured.interval(figure))]
            cells.append(_corrected(measured, figure))
            for other in others:
                theirs = other.sets[words]
                cells += [number(theirs.figures[figure]), _corrected(theirs, figure)]
                cells.append(_value(*gap(measured, theirs, figure), signed=True))
                cells.append(_value(*ratio(measured, theirs, figure)) if positive else "–")
            body.append(cells)
    return table(header, body)


def permutation_table(models: Sequence[ModelMeasures]) -> str:
    """The lexicon's words among random lists of them and of neutral words, of the same number and frequency.

    For each model the figure itself, and for all but the first also its difference to the first.
    """
    first, *others = models
    header = ["figure", "model", "these words", "random lists, mean ± sd", "p", "lists"]
    alone = {model.name: permutation_test(model.sets[LEXICON].figures, model.lists) for model in models}
    against = {
        other.name: permutation_test(other.sets[LEXICON].figures, other.lists, first.sets[LEXICON].figures, first.lists)
        for other in others
        if len(other.lists) == len(first.lists)
    }
    body = []
    for figure, name, _ in SHOWN:
        for model in models:
            if figure in alone[model.name]:
                body.append([name, model.name, *_tested(alone[model.name][figure])])
            if figure in against.get(model.name, {}):
                body.append([name, f"{model.name} − {first.name}", *_tested(against[model.name][figure], signed=True)])
    return table(header, body)


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Cells as Markdown."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines) + "\n"


def _value(value: float, interval: Interval, *, signed: bool = False) -> str:
    return f"{number(value, signed=signed)} {span(interval, signed=signed)}"


def _corrected(measured: Measured, figure: str) -> str:
    value, interval = measured.corrected(figure)
    return "–" if math.isnan(value) else f"{_value(value, interval)}, {measured.corrected_words} words"


def _tested(tested: Tested, *, signed: bool = False) -> list[str]:
    return [
        number(tested.value, signed=signed),
        f"{number(tested.mean, signed=signed)} ± {number(tested.std)}",
        p_value(tested.p),
        str(tested.lists),
    ]
