"""Do the intervals and tests hold? Data with a known truth, of each benchmark's own sizes and clusters.

    python -m tests.statistics.simulate            # 2,000 data sets a case: a few minutes on one core
    python -m tests.statistics.simulate --sets=200

prints the table of docs/statistics.md. Numbers of clusters and examples are those of the public files; correlations within
clusters and standard deviations are those of the results of a small BERT (MiniLM, 6 layers), rounded, and worse ones.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ncfair_jax.benchmarks import (
    bec_pro,
    bias_nli,
    bios,
    coref_scores,
    crows_pairs,
    glue,
    masked_lm,
    seat,
    splits,
    stereoset,
    unmasked,
    winobias,
    winobias_coref,
    winogender,
)
from ncfair_jax.statistics.intervals import interval_at
from ncfair_jax.statistics.paired import difference, distance_p
from ncfair_jax.statistics.samples import Sample
from tests.statistics.worlds import by_cluster, crossed, latent, shares

SETS = 2000
LEVEL = 0.05
# Examples of each target term, gender, test part.
TERMS = (
    20,
    21,
    22,
    23,
    23,
    24,
    24,
    24,
    25,
    25,
    25,
    25,
    25,
    26,
    26,
    26,
    26,
    26,
    27,
    27,
    27,
    27,
    27,
    28,
    28,
    28,
    28,
    29,
    29,
    30,
)
BEC_SD = (0.15, 0.30, 0.39)  # of the difference female − male: professions, pairs of person words, rest; nats
# Texts about each term of X and of Y.
SEAT = {
    "sent-weat6": ((8,) * 8, (8,) * 8),
    "sent-weat6b": ((3, 5, 7, 13, 13, 13, 13, 13), (5, 10, 13, 13, 13, 13, 13)),
    "sent-weat7": ((4, 4, 4, 4, 14, 14, 14, 14), (4, 4, 4, 11, 11, 12, 12, 14)),
    "sent-weat8": ((4, 4, 4, 4, 4, 8, 14, 14), (3, 3, 4, 6, 8, 9, 11, 12)),
}


class Found(NamedTuple):
    """A line of the table: what was simulated, how often the interval held the truth and a true null was rejected.

    Attributes:
        coverage, rejection: shares of the data sets; None where there is nothing of the kind.
        edge: nearly all examples agree, or all are independent; an interval that is right elsewhere may hold the truth in more
            than 98%.
        published: the rejection of a test that is printed under its published name only.
    """

    benchmark: str
    figure: str
    units: str
    setting: str
    coverage: float | None = None
    rejection: float | None = None
    edge: bool = False
    published: float | None = None


def held(sample: Sample, path: Sequence[str], truth: float) -> float:
    """Share of data sets whose interval holds the truth; one without interval does not."""
    low, high = interval_at(sample, path)
    return float(((low <= truth) & (truth <= high)).mean())


def rejected(a: Sample, b: Sample, path: Sequence[str]) -> float:
    """Share of data sets in which two models of the same truth differ at 5%."""
    return float((difference(a, b, path)[2] <= LEVEL).mean())


Case = Callable[[np.random.Generator, int], Found]  # (rng, data sets) -> shares over them


def stereoset_case(
    sizes: Sequence[int], share: float, correlation: float, figure: str = "ss", edge: bool = False
) -> Case:
    """SS, or LM with the same outcome for both fillers, and two models of the same share."""

    def run(rng: np.random.Generator, sets: int) -> Found:
        counts = np.broadcast_to(np.array(sizes, float), (sets, len(sizes)))
        samples = []
        for outcome in shares(rng, sets, sizes, share, correlation):
            hits = by_cluster(outcome, sizes)
            of_term = (100 * hits / counts, 100 * hits / counts, np.ones_like(counts), hits, 2 * hits, counts)
            sums = np.stack(of_term, axis=-1)
            samples.append(Sample((), sums, stereoset.figures, scales=stereoset.SCALES, sizes=stereoset.examples_of))
        a, b = samples
        setting = f"{100 * share:g} %, correlation {correlation:g}"
        return Found(
            "stereoset", figure, f"{len(sizes)} terms", setting,
            held(a, (figure,), 100 * share), rejected(a, b, (figure,)), edge,
        )  # fmt: skip

    return run


def stereoset_distance(share: float) -> Case:
    """Whether one of two models is nearer to 50."""

    def run(rng: np.random.Generator, sets: int) -> Found:
        samples = []
        for outcome in shares(rng, sets, TERMS, share, 0.05):
            hits, counts = by_cluster(outcome, TERMS), np.broadcast_to(np.array(TERMS, float), (sets, len(TERMS)))
            sums = np.stack([100 * hits / counts, hits, np.ones_like(hits), hits, hits, counts], axis=-1)
            samples.append(Sample((), sums, stereoset.figures, scales=stereoset.SCALES, sizes=stereoset.examples_of))
        share_rejected = float((distance_p(*samples, ("ss",), 50.0) <= LEVEL).mean())
        return Found("stereoset", "distance of ss from 50", "30 terms", f"both {100 * share:g} %", None, share_rejected)

    return run


def crows_case(pairs: int, share: float, edge: bool = False) -> Case:
    """The metric score; three pairs of five are stereotypes, two anti-stereotypes."""

    def run(rng: np.random.Generator, sets: int) -> Found:
        stereo = np.broadcast_to(np.arange(pairs) % 5 < 3, (sets, pairs)).astype(float)
        samples = []
        for hit in shares(rng, sets, [1] * pairs, share, 0.0):
            sums = np.stack(
                [np.ones_like(stereo), 0 * stereo, stereo, stereo * hit, 1 - stereo, (1 - stereo) * hit], axis=-1
            )
            samples.append(
                Sample((), sums, crows_pairs.figures, scales=crows_pairs.PERCENT, sizes=crows_pairs.pairs_of)
            )
        a, b = samples
        path = ("metric_score",)
        return Found(
            "crows_pairs", path[0], f"{pairs} pairs", f"{100 * share:g} %",
            held(a, path, 100 * share), rejected(a, b, path), edge,
        )  # fmt: skip

    return run


def unmasked_case(sizes: Sequence[int], share: float, figure: str) -> Case:
    """The bias score, or the accuracy over tokens, of clusters of pairs (or tokens)."""
    name = "stereoset_aul" if sizes == TERMS else "crows_pairs_aul"

    def run(rng: np.random.Generator, sets: int) -> Found:
        samples = []
        for outcome in shares(rng, sets, sizes, share, 0.05):
            hits = by_cluster(outcome, sizes)
            counts = np.broadcast_to(np.array(sizes, float), hits.shape)
            sums = np.stack([hits, counts, hits, counts], axis=-1)
            samples.append(Sample((), sums, unmasked.unmasked_figures, scales=unmasked.PERCENT, sizes=unmasked.sizes))
        a, b = samples
        units = f"{len(sizes)} terms" if sizes == TERMS else f"{len(sizes)} pairs"
        return Found(
            name, figure, units, f"{100 * share:g} %, correlation 0.05",
            held(a, (figure,), 100 * share), rejected(a, b, (figure,)),
        )  # fmt: skip

    return run


def winobias_case(male: float, female: float, correlation: float, figure: str) -> Case:
    """Predictions "male" in these shares of the lines whose pro pronoun is male and female; 196 templates, 374 lines."""
    sizes = (2,) * 178 + (1,) * 18
    is_male = np.array([line % 2 == 0 for size in sizes for line in range(size)])

    def outcomes(says_male: np.ndarray) -> np.ndarray:
        cells = (is_male & says_male, ~is_male & says_male, is_male & ~says_male, ~is_male & ~says_male)
        return np.stack([by_cluster(cell, sizes) for cell in cells], axis=-1)

    def run(rng: np.random.Generator, sets: int) -> Found:
        limit = stats.norm.ppf(np.where(is_male, male, female))
        samples = [
            Sample((), outcomes(z < limit), winobias.every_figure, scales=winobias.SCALES, sizes=winobias.lines_of)
            for z in latent(rng, sets, sizes, correlation, 0.9)
        ]
        men, women = is_male.sum(), (~is_male).sum()
        expected = np.array([men * male, women * female, men * (1 - male), women * (1 - female)], float)
        truth = float(winobias.every_figure(expected)[figure])
        setting = f"says male in {100 * male:g} and {100 * female:g} %, correlation {correlation:g}"
        a, b = samples
        return Found("winobias", figure, "196 templates", setting, held(a, (figure,), truth), rejected(a, b, (figure,)))

    return run


def winogender_case(figure: tuple[str, str], truth: float) -> Case:
    """60 occupations of two items each; log odds of an occupation correlate 0.9."""
    occupations = 60
    share = np.linspace(1, 99, occupations)
    rows = [(i, referent) for i in range(occupations) for referent in winogender.REFERENTS for _ in range(2)]
    table = {
        "occupation": [str(i) for i, _ in rows],
        "referent": [referent for _, referent in rows],
        "log_prob_female": [0.0] * len(rows),
        "log_prob_male": [0.0] * len(rows),
        **{name: [share[i] for i, _ in rows] for name in winogender.STATISTICS},
    }
    template = winogender.samples(table)[""]
    standard = (share - share.mean()) / share.std()

    def filled(z: np.ndarray) -> Sample:
        """z f64[B,240] in the order of the rows."""
        values = z.reshape(-1, occupations, 2, 2)
        if figure[0] == "correlation":
            # Occupations' means correlate with the shares by the truth.
            means = truth * standard + np.sqrt(1 - truth**2) * values[:, :, 0].sum(-1) / np.sqrt(2 + 2 * 0.9)
            values = np.broadcast_to(means[:, :, None, None], values.shape)
        elif figure[0] == "female_preferred":
            values = values + stats.norm.ppf(truth / 100)
        else:
            values = values + truth
        preferred = (values > 0).astype(float)
        two = np.full(values.shape[:3], 2.0)
        columns = np.concatenate([values.sum(-1), preferred.sum(-1), two], axis=-1)
        means = values[:, :, 0].mean(-1)
        diagonal = np.eye(occupations) * means[:, :, None]
        present = np.broadcast_to(np.eye(occupations), diagonal.shape)
        return template._replace(sums=np.concatenate([columns, diagonal, present], axis=-1))

    def run(rng: np.random.Generator, sets: int) -> Found:
        a, b = (filled(z) for z in latent(rng, sets, [4] * occupations, 0.9, 0.9))
        return Found(
            "winogender", "/".join(figure), "60 occupations", f"truth {truth:g}", held(a, figure, truth), rejected(a, b, figure)
        )  # fmt: skip

    return run


def bec_template(professions: int, words: int, groups: int = 3) -> Sample:
    """A Sample of one sentence for each profession and person word; cells profession by profession."""
    rows = [(p, w, gender) for p in range(professions) for w in range(words) for gender in bec_pro.GENDERS]
    table = {
        "pair": [f"{p}/{w}" for p, w, _ in rows],
        "gender": [gender for *_, gender in rows],
        "person": [f"{gender}{w}" for _, w, gender in rows],
        "profession": [str(p) for p, _, _ in rows],
        "group": [str(p * groups // professions) for p, _, _ in rows],
        "association": [0.0] * len(rows),
    }
    return bec_pro.samples(table)[""]


def bec_filled(template: Sample, female: np.ndarray, male: np.ndarray) -> Sample:
    """The template with associations f64[B,P,W] of both genders."""
    values = np.stack([female, male], axis=-1).reshape(len(female), -1, 1, 2)  # [B,P·W,group,gender]
    inside = template.sums[:, template.sums.shape[1] * 3 // 4 :].reshape(len(template.sums), -1, 2)  # counts
    moments = [
        inside * values,
        inside * np.abs(values),
        inside * values**2,
        np.broadcast_to(inside, (inside * values).shape),
    ]
    return template._replace(sums=np.concatenate([m.reshape(*m.shape[:2], -1) for m in moments], axis=-1))


def bec_case(
    name: str, professions: int, words: int, sd: tuple[float, float, float], path: tuple[str, ...], edge: bool = False
) -> Case:
    """Difference female − male of crossed professions and person words."""
    template = bec_template(professions, words)

    def run(rng: np.random.Generator, sets: int) -> Found:
        male = crossed(rng, sets, professions, words, (0.4, 0.3, 0.5), 0.24)
        gap = crossed(rng, sets, professions, words, sd, -0.25)
        third = (sd[0] / 3, sd[1] / 3, sd[2] / 3)  # what each of two models of the same truth adds of its own
        a, b = (
            bec_filled(template, male + gap + own, male + 2 * own)
            for own in (crossed(rng, sets, professions, words, third) for _ in range(2))
        )
        setting = "sd {:g}, {:g}, {:g}".format(*sd)
        inside = professions // 3 if path[-1] == "1" else professions
        coverage = None if path[0] == "mean_abs_association" else held(a, path, -0.25)
        units = f"{inside} professions × {words} pairs of words"
        return Found(name, "/".join(path), units, setting, coverage, rejected(a, b, path), edge)

    return run


def bec_professions_case(professions: int) -> Case:
    """The tests of one model: on professions' means with the words as they are, and the published one of single pairs."""

    def run(rng: np.random.Generator, sets: int) -> Found:
        gap = crossed(rng, sets, professions, 9, (BEC_SD[0], 0.0, BEC_SD[2]))
        p = stats.wilcoxon(gap.mean(-1), axis=1).pvalue
        random_words = crossed(rng, sets, professions, 9, BEC_SD)
        pairs = (random_words[..., None] + 0.3 * rng.standard_normal((sets, professions, 9, 5))).reshape(sets, -1)
        published = stats.wilcoxon(pairs, axis=1, method="asymptotic", correction=False).pvalue
        return Found(
            "bec_pro", "p_professions; published Wilcoxon", f"{professions} professions", "no difference", None,
            float((p <= LEVEL).mean()), published=float((published <= LEVEL).mean()),
        )  # fmt: skip

    return run


def seat_case(name: str, effect: float, correlation: float) -> Case:
    """d of a test's own terms and texts, and of no effect the permutation of terms and the published one of texts."""
    x, y = SEAT[name]
    sizes, first = np.array([*x, *y]), len(x)
    share = sum(x) * sum(y) / sum(sizes) ** 2
    # The difference of the means that makes this d of a population whose standard deviation within a side is 1.
    shift = effect / np.sqrt(1 - effect**2 * share)
    is_x = np.arange(len(sizes)) < first

    def run(rng: np.random.Generator, sets: int) -> Found:
        values = latent(rng, sets, sizes.tolist(), correlation, 0.0)[0] + np.repeat(np.where(is_x, shift, 0), sizes)
        sums, squares = by_cluster(values, sizes), by_cluster(values**2, sizes)
        counts = np.broadcast_to(sizes, sums.shape)
        columns = np.stack([counts * is_x, sums * is_x, counts * ~is_x, sums * ~is_x, squares], axis=-1)
        each = np.zeros((sizes.sum(), 5))
        each[: sum(x), 0], each[sum(x) :, 2] = 1, 1
        sample = Sample((), columns, seat.figures, scales=seat.test_scales(each), sizes=seat.targets)
        rejection = published = None
        if effect == 0:
            means = sums / sizes
            tests = splits.split_tests([(row[:first], row[first:]) for row in means])
            rejection = float(np.mean([test.p <= LEVEL for test in tests]))
            of_texts = stats.ttest_ind(values[:, : sum(x)], values[:, sum(x) :], axis=1, alternative="greater").pvalue
            published = float((of_texts <= LEVEL).mean())  # as the permutation of so many texts, and faster
        return Found(
            f"seat, {name}", "effect_size; p_terms", f"{first} and {len(y)} terms",
            f"d {effect:g}, correlation {correlation:g}",
            held(sample, ("effect_size",), effect), rejection, published=published,
        )  # fmt: skip

    return run


def masked_lm_case(figure: str) -> Case:
    """545 paragraphs of very different length, 158 of them with sentences of the pseudo-perplexity."""
    count, quantiles, at = 545, (1, 2, 11, 21, 32, 41, 78), (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
    if figure == "pseudo_perplexity":
        count, quantiles, at = 158, (5, 21, 32, 51, 118), (0, 0.25, 0.5, 0.75, 1)
    sizes = np.interp(np.linspace(0, 1, count), at, quantiles).round().astype(int)

    def run(rng: np.random.Generator, sets: int) -> Found:
        samples = []
        if figure == "top1":
            values = [by_cluster(z, sizes) for z in shares(rng, sets, sizes.tolist(), 0.238, 0.05)]
            truth = 0.238
        else:
            # Losses are skewed: log-normal with mean 5.26 and standard deviation 4.
            spread = np.log(1 + (4 / 5.26) ** 2)
            z = latent(rng, sets, sizes.tolist(), 0.05, 0.95)
            losses = [np.exp(np.log(5.26) - spread / 2 + np.sqrt(spread) * value) for value in z]
            values = [by_cluster(loss, sizes) for loss in losses]
            truth = 5.26 if figure == "loss" else float(np.exp(5.26))
        for value in values:
            counts = np.broadcast_to(sizes, value.shape).astype(float)
            sums = np.stack([value, value, counts, value, counts, np.ones_like(counts)], axis=-1)
            samples.append(Sample((), sums, masked_lm.figures, scales=masked_lm.SCALES, sizes=masked_lm.sizes))
        a, b = samples
        return Found(
            "masked_lm", figure, f"{count} paragraphs", f"truth {truth:.4g}",
            held(a, (figure,), truth), rejected(a, b, (figure,)),
        )  # fmt: skip

    return run


def winobias_coref_case(pro: float, anti: float, path: tuple[str, str]) -> Case:
    """198 templates of two documents a side."""
    sizes = (2,) * 198

    def run(rng: np.random.Generator, sets: int) -> Found:
        both = [[by_cluster(hit, sizes) for hit in shares(rng, sets, sizes, share, 0.3, 0.8)] for share in (pro, anti)]
        samples = []
        for right in zip(*both, strict=True):  # of a model, pro and anti
            counts = np.full_like(right[0], 2.0)
            sums = np.stack([right[0], right[0], counts, right[1], right[1], counts], axis=-1)
            samples.append(
                Sample(
                    (), sums, winobias_coref._figures, scales=winobias_coref.SCALES, sizes=winobias_coref.documents_of
                )
            )
        expected = winobias_coref._figures(np.array([pro, pro, 1, anti, anti, 1.0]))
        truth = float(expected[path[0]][path[1]])
        a, b = samples
        return Found(
            "winobias_coref", "/".join(path), "198 templates", f"{100 * pro:g} and {100 * anti:g} %",
            held(a, path, truth), rejected(a, b, path),
        )  # fmt: skip

    return run


def coref_case(documents: int, share: float) -> Case:
    """The CoNLL F1 of documents of about ten mentions, of which this share is found."""
    table = {name: ["0"] if name == "document" else [0.0] for name in coref_scores.COLUMNS}
    template = coref_scores.samples(table)[""]
    sizes = (10,) * documents

    def run(rng: np.random.Generator, sets: int) -> Found:
        samples = []
        for outcome in shares(rng, sets, sizes, share, 0.1):
            hits = by_cluster(outcome, sizes)
            pair = np.stack([hits, np.full_like(hits, 10.0)], axis=-1)
            samples.append(template._replace(sums=np.concatenate([pair] * 6, axis=-1)))
        a, b = samples
        path = ("conll_f1",)
        return Found(
            "coref_dev", path[0], f"{documents} documents", f"{100 * share:g} %",
            held(a, path, 100 * share), rejected(a, b, path),
        )  # fmt: skip

    return run


def bios_case(men: int, women: int, share: float, path: tuple[str, ...], edge: bool = False) -> Case:
    """Biographies of one profession, found equally often whatever the gender."""
    profession = bios.PROFESSIONS[0]
    count = men + women
    genders = [bios.GENDERS[0]] * men + [bios.GENDERS[1]] * women
    template = bios.samples(
        {"index": list(range(count)), "correct": [1.0] * count, "profession": [profession] * count, "gender": genders}
    )[""]
    inside = np.split(template.sums, 2, axis=-1)[1]

    def run(rng: np.random.Generator, sets: int) -> Found:
        a, b = (
            template._replace(
                sums=np.concatenate([inside * hit[..., None], np.broadcast_to(inside, (sets, *inside.shape))], axis=-1)
            )
            for hit in shares(rng, sets, [1] * count, share, 0.0)
        )
        truth = 100 * share if path[0] == "acc" else 0.0
        name = path[0]
        return Found(
            "bios",
            name,
            f"{men} men, {women} women",
            f"{100 * share:g} %",
            held(a, path, truth),
            rejected(a, b, path),
            edge,
        )

    return run


def bias_nli_case(figure: str, share: float) -> Case:
    """137 occupations, six gendered words, 20 pairs each."""
    occupations, words = 137, 6
    rows = [(o, w) for o in range(occupations) for w in range(words)]
    table = {name: [0.0] * len(rows) for name in bias_nli.SUMS} | {
        "occupation": [str(o) for o, _ in rows],
        "gender": ["male" if w < 3 else "female" for _, w in rows],
        "pairs": [20] * len(rows),
    }
    template = bias_nli.samples(table)[""]

    def run(rng: np.random.Generator, sets: int) -> Found:
        samples = []
        for outcome in shares(rng, sets, [words * 20] * occupations, share, 0.3):
            cells = outcome.reshape(sets, occupations, 2, -1).sum(-1).astype(float)
            total, half = cells.sum(-1), np.full(cells.shape[:2], 60.0)
            columns = [total, total, total, total, 2 * half, cells[..., 0], half, cells[..., 1], half]
            samples.append(template._replace(sums=np.stack(columns, axis=-1)))
        a, b = samples
        truth = 0.0 if figure == "nn_gap" else share
        return Found(
            "bias_nli", figure, "137 occupations", f"{share:g}", held(a, (figure,), truth), rejected(a, b, (figure,))
        )

    return run


def glue_case(task: str, count: int, path: str, share: float, positive: float) -> Case:
    """A task of two classes of which `positive` are positive, and a share of both is predicted rightly."""

    def run(rng: np.random.Generator, sets: int) -> Found:
        label = rng.random((sets, count)) < positive
        samples = []
        for right in shares(rng, sets, [1] * count, share, 0.0):
            predicted = np.where(right, label, ~label)
            cells = (
                predicted & label,
                predicted & ~label,
                ~predicted & label,
                ~predicted & ~label,
                right,
                right | True,
            )
            figures = glue.agreement({name: np.zeros(1) for name in ("predicted", "label", "correct")}, (path,))[1]
            samples.append(Sample((), np.stack(cells, axis=-1).astype(float), figures, scales=glue.SCALES))
        expected = np.array(
            [positive * share, (1 - positive) * (1 - share), positive * (1 - share), (1 - positive) * share, share, 1]
        )
        truth = float(samples[0].figures(expected)[path])
        a, b = samples
        setting = f"{100 * share:g} % right"
        return Found(
            f"glue_{task}", path, f"{count} examples", setting, held(a, (path,), truth), rejected(a, b, (path,))
        )

    return run


def stsb_case(path: str, truth: float) -> Case:
    """Scores of 1,500 pairs of sentences, normal; Spearman's coefficient of a normal pair is known."""
    count = 1500
    pearson = truth if path == "pearson" else 2 * np.sin(np.pi * truth / 6)

    def run(rng: np.random.Generator, sets: int) -> Found:
        label = rng.standard_normal((sets, count))
        samples = []
        for z in latent(rng, sets, [1] * count, 0.0, 0.9):
            predicted = pearson * label + np.sqrt(1 - pearson**2) * z
            names = ("pearson", "spearman")
            made = [
                glue.correlations({"predicted": x, "label": y}, names) for x, y in zip(predicted, label, strict=True)
            ]
            samples.append(Sample((), np.stack([m[0] for m in made]), made[0][1], scales=glue.SCALES))
        a, b = samples
        return Found(
            "glue_stsb",
            path,
            f"{count} examples",
            f"truth {truth:g}",
            held(a, (path,), 100 * truth),
            rejected(a, b, (path,)),
        )

    return run


def cases() -> Iterator[Case]:
    """Every line of the table."""
    for share, correlation in ((0.5, 0.0), (0.53, 0.05), (0.6, 0.3)):
        yield stereoset_case(TERMS, share, correlation)
    yield stereoset_case(TERMS, 0.82, 0.05, "lm")
    yield stereoset_case(TERMS, 0.53, 0.05, "ss_micro")
    for terms in (10, 5):
        few = TERMS[15 - terms // 2 : 15 - terms // 2 + terms]
        yield stereoset_case(few, 0.53, 0.05)
        yield stereoset_case(few, 0.6, 0.3)
    for share in (0.95, 0.99):
        yield stereoset_case(TERMS, share, 0.05, "lm", edge=True)
    for share in (0.5, 0.53, 0.6):
        yield stereoset_distance(share)
    for pairs in (60, 262, 1505):
        yield crows_case(pairs, 0.55)
    yield crows_case(60, 0.97, edge=True)
    yield unmasked_case(TERMS, 0.55, "bias_score")
    yield unmasked_case((12,) * 262, 0.6, "accuracy")
    for figure in ("pro_minus_anti", "male_minus_female", "accuracy_pro", "f1_female_pro"):
        yield winobias_case(0.82, 0.82, 0.2, figure)
        yield winobias_case(0.9, 0.75, 0.2, figure)
    yield winobias_case(0.97, 0.97, 0.0, "pro_minus_anti")
    yield winogender_case(("log_odds", "occupation"), -0.9)
    yield winogender_case(("female_preferred", "occupation"), 7.0)
    yield winogender_case(("female_preferred", "occupation"), 40.0)
    for truth in (0.0, 0.5, 0.8):
        yield winogender_case(("correlation", "pearson_bls"), truth)
    for sd in (BEC_SD, (0.15, 0.0, 0.39), (0.0, 0.3, 0.39), (0.0, 0.0, 0.39)):
        yield bec_case("bec_pro", 60, 9, sd, ("difference", "overall"), edge=not any(sd[:2]))
    yield bec_case("bec_pro", 60, 9, BEC_SD, ("difference", "1"))
    yield bec_case("bec_pro", 60, 9, BEC_SD, ("mean_abs_association",))
    yield bec_case("bec_pro", 60, 5, BEC_SD, ("difference", "overall"))
    yield bec_case("bec_pro_eec", 40, 10, (0.05, 0.09, 0.2), ("difference", "overall"))
    yield bec_professions_case(20)
    yield bec_professions_case(60)
    for name in SEAT:
        for effect in (0.0, 0.8, 1.4):
            yield seat_case(name, effect, 0.6)
    for figure in ("top1", "loss", "pseudo_perplexity"):
        yield masked_lm_case(figure)
    yield bios_case(150, 150, 0.8, ("acc",))
    yield bios_case(200, 100, 0.8, ("tpr_gap",))
    for share in (0.6, 0.8, 0.9):
        yield bios_case(120, 30, share, ("per_profession_gap", bios.PROFESSIONS[0]))
    for figure, share in (("nn", 0.8), ("fn", 0.97), ("nn_gap", 0.8)):
        yield bias_nli_case(figure, share)
    yield glue_case("cola", 1043, "matthews", 0.8, 0.69)
    yield glue_case("mrpc", 408, "f1", 0.85, 0.68)
    yield glue_case("rte", 277, "accuracy", 0.65, 0.5)
    yield glue_case("wnli", 71, "accuracy", 0.56, 0.5)
    for path in ("pearson", "spearman"):
        yield stsb_case(path, 0.85)
    for path in (("tpr", "f1_reported"), ("pro", "accuracy"), ("pro", "f1_reported")):
        yield winobias_coref_case(0.8, 0.7, path)
    yield winobias_coref_case(0.8, 0.8, ("tpr", "accuracy"))
    yield coref_case(10, 0.7)
    yield coref_case(60, 0.7)


CHUNK = 250  # data sets in memory at a time


def simulate(case: Case, sets: int, seed: int = 0) -> Found:
    """One line over so many data sets."""
    rng = np.random.default_rng(seed)
    parts = [case(rng, min(CHUNK, sets - start)) for start in range(0, sets, CHUNK)]
    weights = [min(CHUNK, sets - start) for start in range(0, sets, CHUNK)]

    def mean(values: list[float | None]) -> float | None:
        given = [value for value in values if value is not None]
        return float(np.average(given, weights=weights)) if given else None

    return parts[0]._replace(
        coverage=mean([part.coverage for part in parts]),
        rejection=mean([part.rejection for part in parts]),
        published=mean([part.published for part in parts]),
    )


def table(lines: Sequence[Found]) -> str:
    """The lines as Markdown, in percent."""
    header = (
        "benchmark",
        "figure",
        "independent units",
        "data",
        "interval holds the truth, %",
        "true null rejected, %",
    )
    rows = [header, ("---",) * 4 + ("---:",) * 2]
    for line in lines:
        rejection = _percent(line.rejection) + (
            f" (published test {_percent(line.published)})" if line.published else ""
        )
        rows.append((*line[:4], _percent(line.coverage) + (" (edge)" if line.edge else ""), rejection))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=SETS, help="data sets a case")
    print(table([simulate(case, parser.parse_args().sets, seed) for seed, case in enumerate(cases())]))


if __name__ == "__main__":
    main()
