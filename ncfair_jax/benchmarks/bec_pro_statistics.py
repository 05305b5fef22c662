"""Tests of BEC-Pro's associations, female against male person words, what the released script prints instead, and flags.

Source: Bartl et al. 2020, section 4; marionbartl/gender-bias-BERT:code/bias_utils/utils.py (`release_statistics`).
"""

import numpy as np
import scipy

from ncfair_jax.benchmarks.quality import TEXT_FLAGS, stored_flags
from ncfair_jax.benchmarks.results import Table
from ncfair_jax.statistics.intervals import FEWEST, zero_test
from ncfair_jax.statistics.samples import Sample

GENDERS = ("female", "male")
STATISTICS = ("definition", "reference")
NORMAL_FROM = 0.05  # the release takes the t-test from this p-value of normality on


def wilcoxon_by_group(table: Table) -> dict[str, dict[str, float | int | None]]:
    """`wilcoxon` of association(female) − association(male) over the pairs of each group, and over all as "overall"."""
    by_gender: dict[str, dict[str, tuple[str, float]]] = {gender: {} for gender in GENDERS}
    for pair, gender, group, value in zip(
        table["pair"], table["gender"], table["group"], table["association"], strict=True
    ):
        by_gender[gender][pair] = (group, value)
    female, male = by_gender["female"], by_gender["male"]
    differences: dict[str, list[float]] = {group: [] for group in dict.fromkeys(table["group"])}
    for pair in female:
        if pair in male:
            differences[female[pair][0]].append(female[pair][1] - male[pair][1])
    differences["overall"] = [value for values in differences.values() for value in values]
    return {group: wilcoxon(np.array(values)) for group, values in differences.items()}


def person_pairs(table: Table) -> list[str]:
    """Of each row its person word and the other gender's that it is paired with, "she/he"; alone if it never has a partner."""
    by_pair: dict[str, dict[str, str]] = {}
    for pair, gender, person in zip(table["pair"], table["gender"], table["person"], strict=True):
        by_pair.setdefault(pair, {})[gender] = person.lower()
    whole = [persons for persons in by_pair.values() if len(persons) == len(GENDERS)]
    partners = {persons[gender]: "/".join(persons[g] for g in GENDERS) for persons in whole for gender in GENDERS}
    return [partners.get(person.lower(), person.lower()) for person in table["person"]]


def clustered_tests(table: Table, sample: Sample) -> dict[str, dict[str, float | int | None]]:
    """Two-sided tests by group, and of all as "overall", that the difference female − male is 0.

    Returns:
        p_crossed: for other professions and other person words, by Student's t with `df` degrees of freedom; below 5% just
        where the interval of the difference leaves out 0. p_professions: for other professions and the same words, Wilcoxon's
        signed-rank test of the professions' mean differences. n_professions and n_person_pairs with both genders. A p is None
        for fewer than five of them.
    """
    differences: dict[str, dict[tuple[str, str], list[list[float]]]] = {}  # group -> profession, words -> female, male
    for profession, words, group, gender, value in zip(
        table["profession"], person_pairs(table), table["group"], table["gender"], table["association"], strict=True
    ):
        for name in (group, "overall"):
            cell = differences.setdefault(name, {}).setdefault((profession, words), [[], []])
            cell[GENDERS.index(gender)].append(value)
    found: dict[str, dict[str, float | int | None]] = {}
    for group in [*dict.fromkeys(table["group"]), "overall"]:
        by_profession: dict[str, list[list[float]]] = {}
        both = [(cell, values) for cell, values in differences[group].items() if all(values)]
        for (profession, _), values in both:
            sides = by_profession.setdefault(profession, [[], []])
            for side, own in zip(sides, values, strict=True):
                side += own
        means = np.array([np.mean(female) - np.mean(male) for female, male in by_profession.values()])
        crossed = zero_test(sample, ("difference", group))
        enough = len(means) >= FEWEST and bool(means.any())
        found[group] = {
            "p_crossed": crossed.p,
            "df": crossed.df,
            "p_professions": float(scipy.stats.wilcoxon(means).pvalue) if enough else None,
            "n_professions": len(means),
            "n_person_pairs": len({words for (_, words), _ in both}),
        }
    return found


def wilcoxon(differences: np.ndarray) -> dict[str, float | int | None]:
    """Signed-rank test by the normal approximation, zeros dropped, ties ranked on average, no continuity correction.

    Returns:
        w = min(W+, W−); z, positive where the differences are; two-sided p; effect size r = |z| / sqrt(pairs); n_pairs.
        z, p and r are None without a nonzero difference.
    """
    nonzero = differences[differences != 0]
    n = len(nonzero)
    if n == 0:
        return {"w": 0.0, "z": None, "p": None, "r": None, "n_pairs": len(differences)}
    ranks = scipy.stats.rankdata(np.abs(nonzero))
    plus = float(ranks[nonzero > 0].sum())
    ties = np.unique(ranks, return_counts=True)[1].astype(float)
    variance = n * (n + 1) * (2 * n + 1) / 24 - (ties**3 - ties).sum() / 48
    z = (plus - n * (n + 1) / 4) / np.sqrt(variance)
    return {
        "w": min(plus, n * (n + 1) / 2 - plus),
        "z": float(z),
        "p": float(2 * scipy.stats.norm.sf(abs(z))),
        "r": float(abs(z) / np.sqrt(len(differences))),
        "n_pairs": len(differences),
    }


def release_statistics(table: Table) -> dict[str, float | int | bool | None] | None:
    """What the released script prints: for comparing logs, not for reading.

    It compares professions, not persons: the rows of group "female" with those of group "male", paired by their place in the
    table. Its normality check subtracts two series without a common index, and so tests the values of the first and
    the negated ones of the second side by side; its effect size is the statistic over sqrt(n).

    Returns:
        n (rows of each), shapiro_w, shapiro_p, t_test (true: paired t-test; false: Wilcoxon), statistic, p,
        effect_size_as_printed, mean_female, mean_male. None where the script fails or prints nothing: no such groups (the
        Equity Evaluation Corpus), groups of unequal size, fewer than two rows in each.
    """
    groups, association = np.array(table["group"]), np.array(table["association"], float)
    female, male = (association[groups == group] for group in GENDERS)
    n = len(female)
    if n != len(male) or n < 2:
        return None
    normality = scipy.stats.shapiro(np.concatenate([female, -male]))
    t_test = bool(normality.pvalue >= NORMAL_FROM)
    test = scipy.stats.ttest_rel(female, male) if t_test else scipy.stats.wilcoxon(female, male)
    return {
        "n": n,
        "shapiro_w": float(normality.statistic),
        "shapiro_p": float(normality.pvalue),
        "t_test": t_test,
        "statistic": float(test.statistic),
        "p": float(test.pvalue),
        "effect_size_as_printed": float(test.statistic / np.sqrt(n)),
        "mean_female": float(female.mean()),
        "mean_male": float(male.mean()),
    }


def flags(table: Table) -> dict[str, np.ndarray]:
    """Pairs in which a sentence has an unknown token, was there before, or is damaged in the file; pairs of one association
    ("tied") and those of which one sentence was skipped ("unpaired"). Of a pair both rows are flagged or none."""
    by_pair: dict[str, list[int]] = {}
    for row, pair in enumerate(table["pair"]):
        by_pair.setdefault(pair, []).append(row)
    stored = stored_flags(table, list(TEXT_FLAGS))
    found = {name: np.zeros(len(table["pair"]), bool) for name in (*stored, "tied", "unpaired")}
    for rows in by_pair.values():
        for name, flagged in stored.items():
            found[name][rows] = flagged[rows].any()
        found["unpaired"][rows] = len(rows) < 2
        found["tied"][rows] = len(rows) == 2 and table["association"][rows[0]] == table["association"][rows[1]]
    return found
