"""Tables of neural-collapse figures: models side by side on each set of words, and the permutation test."""

import math
from collections.abc import Sequence

from ncfair_jax.collapse.jackknife import ENOUGH_GROUPS, Interval, Measured, gap, ratio
from ncfair_jax.collapse.model_measures import ModelMeasures
from ncfair_jax.collapse.permutation import Tested, permutation_test
from ncfair_jax.collapse.word_sets import LEXICON
from ncfair_jax.report.cells import Cell, Table, make_table, number, p_value, span
from ncfair_jax.report.render import table_text

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

LISTS = "The lexicon among random lists of its own and neutral words, as many and as frequent"
NOTE = (
    "Intervals are 95% jackknife intervals over groups of sentences. That of a plain figure is of what other texts of the same "
    "kind and size would give on average. Few rows of a word bias all figures, so sets of words with other counts can only be "
    "compared by the corrected figures, or by the random lists, whose words occur as often. Corrected figures are without that "
    f"bias, of the words that occur in {ENOUGH_GROUPS} groups of sentences or more, and their intervals are of the value that "
    "ever more text would lead to.\n"
)


def measured_tables(models: Sequence[ModelMeasures]) -> list[Table]:
    """All tables of a measurement; that of the random lists only if they were drawn."""
    return [comparison_table(models), *([permutation_table(models)] if models[0].lists else [])]


def measured_text(models: Sequence[ModelMeasures]) -> str:
    """The tables as `launch/measure.py` prints them, with what they and their intervals are of."""
    figures, *lists = map(table_text, measured_tables(models))
    return figures + "\n" + NOTE + "".join(f"\n{LISTS} (two-sided p):\n\n{table}" for table in lists)


def comparison_table(models: Sequence[ModelMeasures]) -> Table:
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
            cells = [Cell(words), _counts([model.words[words] for model in models]), Cell(name)]
            cells += [_value(measured.figures[figure], measured.interval(figure)), _corrected(measured, figure)]
            for other in others:
                theirs = other.sets[words]
                cells += [_value(theirs.figures[figure]), _corrected(theirs, figure)]
                cells.append(_value(*gap(measured, theirs, figure), signed=True))
                cells.append(_value(*ratio(measured, theirs, figure)) if positive else Cell("–"))
            body.append(cells)
    title = "Words and figures (sets of words with other counts can only be compared by the corrected figures)"
    return make_table(title, "", header, body, len(header))


def permutation_table(models: Sequence[ModelMeasures]) -> Table:
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
                body.append([Cell(name), Cell(model.name), *_tested(alone[model.name][figure])])
            if figure in against.get(model.name, {}):
                tested = _tested(against[model.name][figure], signed=True)
                body.append([Cell(name), Cell(f"{model.name} − {first.name}"), *tested])
    return make_table(f"{LISTS} (two-sided p)", "", header, body, len(header))


def _value(value: float, interval: Interval | None = None, *, signed: bool = False) -> Cell:
    return _cell(number(value, signed=signed), "" if interval is None else span(interval, signed=signed), value)


def _corrected(measured: Measured, figure: str) -> Cell:
    value, interval = measured.corrected(figure)
    if math.isnan(value):
        return Cell("–")
    return Cell(number(value), f"{span(interval)}, {measured.corrected_words} words", value)


def _counts(counts: Sequence[int]) -> Cell:
    """How many words occur; tokenizers of models may differ."""
    first, *others = dict.fromkeys(counts)
    return Cell(str(first), " ".join(f"/ {count}" for count in others), float(first))


def _tested(tested: Tested, *, signed: bool = False) -> list[Cell]:
    return [
        _value(tested.value, signed=signed),
        _cell(number(tested.mean, signed=signed), f"± {number(tested.std)}", tested.mean),
        _cell(p_value(tested.p), "", tested.p),
        Cell(str(tested.lists), "", float(tested.lists)),
    ]


def _cell(text: str, note: str, value: float) -> Cell:
    return Cell(text, note, None if math.isnan(value) else value)
