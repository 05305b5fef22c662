"""Which plots a report has: figures of the summary as dots with whiskers, and what a run logged as curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from ncfair_jax.report.plots import Dot, Line, dot_plot, line_plot, style_of
from ncfair_jax.report.runs import Figure, Group
from ncfair_jax.report.summary import Summary, shared_before
from ncfair_jax.report.tables import all_figures

BEFORE = "before"  # style of a starting model
COLLAPSE = {"nc1": "NC1", "nc3": "NC3: mean cosine", "unc3": "UNC3: sd of cosines"}
CURVES = {
    "loss": "Loss of the method, with its regulariser",
    "dev_loss": "Development loss",
    "mlm_loss": "Masked-LM loss, nats",
    "mlm_accuracy": "Masked-LM accuracy",
    "nc3_loss": "NC3 loss: sd of cosines",
}
TECHNICAL = {
    "learning_rate": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "tokens_per_second": "Tokens a second",
    "examples_per_second": "Examples a second",
    "pad_fraction": "Share of padding",
}


def summary_plots(summary: Summary) -> list[Markup]:
    """One plot for each figure: a row for the model before and for each group."""
    plots = []
    shared = shared_before(summary.groups)
    for figure in all_figures(summary.groups):
        rows = []
        if shared and (start := shared.figures.get(figure.name)) and start.value is not None:
            rows.append(_dot("before", BEFORE, [start]))
        for number, group in enumerate(summary.groups):
            for when in ("after",) if shared else ("before", "after"):
                found = [r.figures.get(figure.name) for run in group.runs if (r := getattr(run, when))]
                values = [x for x in found if x and x.value is not None]
                if values:
                    label, style = (
                        (f"{group.name}, before", BEFORE) if when == "before" else (group.name, style_of(number))
                    )
                    rows.append(_dot(label, style, values))
        if rows:
            reference = float(figure.better) if figure.better.lstrip("-").isdigit() else None
            plots.append(dot_plot(figure.name, rows, reference))
    return plots


def _dot(label: str, style: str, figures: Sequence[Figure]) -> Dot:
    """One model with its interval over examples; several seeds with their mean ± sd and a small dot each."""
    values = [figure.value for figure in figures if figure.value is not None]
    if len(set(values)) == 1:  # seeds that start from one model
        low, high = figures[0].interval or (None, None)
        return Dot(label, style, values[0], low, high)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    return Dot(label, style, mean, mean - sd, mean + sd, tuple(values))


def training_curves(groups: Sequence[Group]) -> tuple[list[Markup], list[Markup], list[Markup]]:
    """Losses and accuracies; collapse; and what concerns the machine: each a plot, if some run logged it."""
    logged = dict.fromkeys(name for group in groups for run in group.runs for row in run.metrics for name in row)
    collapse = [line_plot(title, lines) for key, title in COLLAPSE.items() if (lines := _collapse_lines(groups, key))]
    special = {"step", *TECHNICAL, *(name for name in logged if name.startswith(("lexicon_", "control_")))}
    own = {name: name.replace("_", " ") for name in logged if name not in special | set(CURVES)}
    main = CURVES | {name: title for name, title in own.items() if name.endswith(("loss", "accuracy"))}
    losses = _plots(groups, main)
    return (
        losses,
        collapse,
        _plots(groups, {name: title for name, title in (TECHNICAL | own).items() if name not in main}),
    )


def _plots(groups: Sequence[Group], titles: Mapping[str, str]) -> list[Markup]:
    """A plot for each of the keys that some run logged."""
    return [line_plot(title, lines) for key, title in titles.items() if (lines := _lines(groups, key))]


def _collapse_lines(groups: Sequence[Group], key: str) -> list[Line]:
    return [
        *_lines(groups, f"lexicon_{key}", ", words of the lexicon"),
        *_lines(groups, f"control_{key}", ", matched words", dashed=True),
    ]


def _lines(groups: Sequence[Group], key: str, suffix: str = "", *, dashed: bool = False) -> list[Line]:
    """A curve for each group: the mean over its seeds at the steps that all of them logged, with their spread."""
    lines = []
    for number, group in enumerate(groups):
        by_run = [{row["step"]: row[key] for row in run.metrics if _finite(row.get(key))} for run in group.runs]
        steps = [step for step in by_run[0] if all(step in values for values in by_run)]
        if not steps:
            continue
        values = np.array([[run[step] for step in steps] for run in by_run])
        several = len(by_run) > 1
        lines.append(
            Line(
                group.name + suffix,
                style_of(number),
                tuple(zip(map(float, steps), values.mean(0).tolist(), strict=True)),
                dashed,
                tuple(values.min(0).tolist()) if several else (),
                tuple(values.max(0).tolist()) if several else (),
            )
        )
    return lines


def _finite(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))
