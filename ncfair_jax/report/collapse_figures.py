"""Pictures of neural collapse for a paper: each as PDF and PNG, in colours that colour-blind readers tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.results import text_of_cell
from ncfair_jax.collapse.jackknife import Measured
from ncfair_jax.collapse.model_measures import ModelMeasures
from ncfair_jax.collapse.stored import load_stats
from ncfair_jax.collapse.word_sets import EVERYTHING, LEXICON
from ncfair_jax.files.atomic import written
from ncfair_jax.files.reading import DataError, RowError
from ncfair_jax.files.records import metrics_lines
from ncfair_jax.files.rows import Row
from ncfair_jax.files.tables import comma_separated, table_rows
from ncfair_jax.run_log import METRICS_FILE, say

# Okabe and Ito's palette (2008), without its yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 6.5  # inches, a page's text
MAX_LABELS = 60  # words of a map that are named: more cannot be read at this size
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # letters stay letters
}
NAMES = {"nc1": "NC1", "nc3": "NC3: mean cosine", "unc3": "UNC3: sd of cosines"}


def _pyplot() -> Any:
    """Matplotlib, which draws into files alone here. It takes a second to load, which runs without pictures need not wait."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_all(models: Sequence[ModelMeasures], folders: Sequence[Path], out: Path) -> list[Path]:
    """Every picture that the measurements allow; returns the PNG files.

    Args:
        models, folders: measured models, and the folder of each with words.csv and stats.npz.
        out: made if it is not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = {model.name: read_words(folder) for model, folder in zip(models, folders, strict=True)}
    figures = {}
    if all(LEXICON in model.sets for model in models):
        figures["word_cosines"] = word_cosines({name: _of(rows, LEXICON) for name, rows in tables.items()})
        for model, folder in zip(models, folders, strict=True):
            figures[f"word_map_{model.name}"] = word_map(folder, _of(tables[model.name], LEXICON), model.name)
    figures["cosine_by_frequency"] = cosine_by_frequency(tables)
    if all(model.depth for model in models):
        figures["by_layer"] = by_layer({model.name: model.depth for model in models})
    return [save(figure, out / name) for name, figure in figures.items()]


def draw_training(workdirs: Mapping[str, Path], out: Path) -> Path:
    """Collapse over the training steps of one or more runs, by their names; returns the PNG file."""
    out.mkdir(parents=True, exist_ok=True)
    return save(over_steps({name: read_metrics(workdir) for name, workdir in workdirs.items()}), out / "over_steps")


def save(figure: Any, path: Path) -> Path:
    """Writes path.pdf and path.png and lets go of the figure."""
    with _pyplot().rc_context(STYLE):
        for suffix in (".pdf", ".png"):
            whole = path.with_name(path.name + suffix)
            with written(whole) as half:
                figure.savefig(half, format=suffix.removeprefix("."))
    _pyplot().close(figure)
    return path.with_name(path.name + ".png")


def word_cosines(tables: Mapping[str, Sequence[Row]]) -> Any:
    """One line for each word with its cosine in every model, in the order of the first."""
    first = next(iter(tables))
    words = [row["word"] for row in sorted(tables[first], key=lambda row: row["cosine"])]
    with _pyplot().rc_context(STYLE):
        figure, axes = _pyplot().subplots(figsize=(WIDTH, 0.6 + 0.17 * len(words)))
        cosines = {name: {row["word"]: row["cosine"] for row in rows} for name, rows in tables.items()}
        for place, word in enumerate(words):
            found = [by_word[word] for by_word in cosines.values() if word in by_word]
            axes.plot([min(found), max(found)], [place, place], color="0.8", linewidth=1, zorder=1)
        for number, (name, by_word) in enumerate(cosines.items()):
            heights = [place for place, word in enumerate(words) if word in by_word]
            axes.scatter(
                [by_word[words[place]] for place in heights],
                heights,
                s=14,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                label=name,
                zorder=2,
            )
        axes.set_yticks(range(len(words)), [word.strip() for word in words], fontsize=7)
        axes.set_ylim(-1, len(words))
        axes.set_xlabel("cosine of class mean and classifier row")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(len(tables), 3))
    return figure


def by_layer(depths: Mapping[str, Mapping[str, Mapping[str, Measured]]]) -> Any:
    """NC3 and UNC3 of each word set over the layers, with 95% intervals: colour for the model, line for the set."""
    with _pyplot().rc_context(STYLE):
        figure, panels = _pyplot().subplots(1, 2, figsize=(WIDTH, 3), layout="constrained")
        for axes, figure_name in zip(panels, ("nc3", "unc3"), strict=True):
            for number, (model, sets) in enumerate(depths.items()):
                for line, (words, layers) in zip(("-", "--", ":"), sets.items(), strict=False):
                    measured = list(layers.values())
                    depth = range(len(measured))
                    low, high = zip(*(x.interval(figure_name) for x in measured), strict=True)
                    colour = COLOURS[number % len(COLOURS)]
                    values = [x.figures[figure_name] for x in measured]
                    axes.plot(depth, values, line, color=colour, label=f"{model}, {words}", linewidth=1.2)
                    axes.fill_between(depth, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.set_xlabel("layer (0: embeddings)")
            axes.set_xticks(range(len(measured)))
            axes.set_title(NAMES[figure_name], loc="left", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def cosine_by_frequency(tables: Mapping[str, Sequence[Row]]) -> Any:
    """Cosine of every word over its count: the lexicon on the full vocabulary, or on what else was measured."""
    with _pyplot().rc_context(STYLE):
        figure, panels = _pyplot().subplots(
            1, len(tables), figsize=(WIDTH, 3.2), sharey=True, squeeze=False, layout="constrained"
        )
        for axes, (name, rows) in zip(panels[0], tables.items(), strict=True):
            listed = _of(rows, LEXICON)
            others = _of(rows, EVERYTHING) or [row for row in rows if row["word_set"] != LEXICON]
            kwargs = {"s": 3, "color": "0.65", "linewidth": 0, "rasterized": True, "label": "other words"}
            axes.scatter([row["count"] for row in others], [row["cosine"] for row in others], **kwargs)
            axes.scatter(
                [row["count"] for row in listed],
                [row["cosine"] for row in listed],
                s=14,
                color=COLOURS[1],
                label="lexicon",
            )
            axes.set_xscale("log")
            axes.set_xlabel("times in the text")
            axes.set_title(name, loc="left", fontsize=9 if len(tables) < 3 else 7)
        panels[0][0].set_ylabel("cosine of class mean\nand classifier row")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return figure


def over_steps(runs: Mapping[str, Sequence[Row]]) -> Any:
    """NC1, NC3 and UNC3 over the steps of training: colour for the run, dashes for the control words."""
    with _pyplot().rc_context(STYLE):
        figure, panels = _pyplot().subplots(1, len(NAMES), figsize=(WIDTH, 2.8), layout="constrained")
        for axes, (key, title) in zip(panels, NAMES.items(), strict=True):
            for number, (run, rows) in enumerate(runs.items()):
                for words, line, shown in (("lexicon", "-", "lexicon"), ("control", "--", "matched words")):
                    points = [(row["step"], row[f"{words}_{key}"]) for row in rows if f"{words}_{key}" in row]
                    if points:
                        label = f"{run}, {shown}"
                        axes.plot(*zip(*points, strict=True), line, color=COLOURS[number % len(COLOURS)], label=label)
            axes.set_xlabel("step")
            axes.set_title(title, loc="left", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def word_map(folder: Path, rows: Sequence[Row], title: str) -> Any:
    """Centred class means and classifier rows of the words on the two main directions of both together.

    Both are brought to length 1 first, as in the cosine; a line joins what belongs together.
    """
    stored = load_stats(folder / "stats.npz")
    slots = np.searchsorted(stored.token_ids, [row["token_id"] for row in rows])
    centred_means = np.asarray(stored.stats.mean, np.float64)[slots]
    means = _unit(centred_means - centred_means.mean(axis=0))
    weights = _unit(stored.classifier[slots].astype(np.float64))
    both = np.concatenate([means, weights])
    centred = both - both.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:2].T
    share = sizes**2 / np.sum(sizes**2)
    first, second = projected[: len(slots)], projected[len(slots) :]
    with _pyplot().rc_context(STYLE):
        figure, axes = _pyplot().subplots(figsize=(WIDTH, 5.2))
        for a, b in zip(first, second, strict=True):
            axes.plot(*zip(a, b, strict=True), color="0.85", linewidth=0.6, zorder=1)
        axes.scatter(*first.T, s=16, color=COLOURS[0], label="class mean", zorder=2)
        axes.scatter(*second.T, s=16, color=COLOURS[1], marker="s", label="classifier row", zorder=2)
        named = sorted(range(len(rows)), key=lambda i: -rows[i]["count"])[:MAX_LABELS]
        texts = [axes.text(*first[i], rows[i]["word"].strip(), fontsize=7, zorder=3) for i in named]
        axes.set_xlabel(f"first direction, {100 * share[0]:.0f}% of the variance")
        axes.set_ylabel(f"second direction, {100 * share[1]:.0f}%")
        axes.set_title(title, loc="left", fontsize=9)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
        from adjustText import adjust_text

        adjust_text(texts, x=projected[:, 0], y=projected[:, 1], ax=axes, expand=(1.2, 1.5), iter_lim=100)
    return figure


def read_words(folder: Path) -> list[Row]:
    """The columns of words.csv that are drawn, numbers as numbers.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path, kinds = folder / "words.csv", {"word_set": str, "token_id": int, "count": int, "cosine": float}
    rows: list[Row] = []
    for place, row in table_rows(comma_separated(path), path, ("word", *kinds)):
        try:
            if isinstance(row, RowError):
                raise row
            rows.append({"word": text_of_cell(row["word"])} | {name: kind(row[name]) for name, kind in kinds.items()})
        except ValueError as error:
            fault = error.fault if isinstance(error, RowError) else error
            raise DataError(f"{place}: {fault}; delete measures.json beside it and measure again") from None
    return rows


def read_metrics(run: Path) -> list[Row]:
    """metrics.jsonl of a workdir; damaged lines are told and left out."""
    lines, faults = metrics_lines(run / METRICS_FILE)
    for fault in faults:
        say(f"warning: {fault}")
    return [line.figures for line in lines]


def _of(rows: Sequence[Row], word_set: str) -> list[Row]:
    return [row for row in rows if row["word_set"] == word_set]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
