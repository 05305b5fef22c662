"""One page that needs nothing but itself: style, script and pictures are in it, and its policy forbids it any request.

What comes from files (names, sentences, settings) is untrusted: Jinja escapes all of it, and the policy lets no script or
style run but the two of this package, known by their hashes.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ncfair_jax.environment import NOT_INSTALLED, version_of
from ncfair_jax.report.measured import MeasuredFolder
from ncfair_jax.report.pictures import summary_plots, training_curves
from ncfair_jax.report.plots import style_of
from ncfair_jax.report.summary import Drilled, Summary
from ncfair_jax.report.tables import (
    commands,
    difference_tables,
    drill_table,
    measured_table,
    quality_table,
    runs_table,
    setup_tables,
    summary_table,
    versions,
)


def page(summary: Summary) -> str:
    """The report as HTML."""
    runs = [run for group in summary.groups for run in group.runs]
    style, script = (Markup(_file(name)) for name in ("style.css", "sort.js"))
    losses, collapse, technical = training_curves(summary.groups)
    seeds = any(len(group.runs) > 1 for group in summary.groups)
    content: dict[str, Any] = {
        "summary": summary,
        "title": f"Report: {summary.title}",
        "version": "" if (found := version_of("ncfair_jax")) == NOT_INSTALLED else found,
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "style_of": style_of,
        "setup": setup_tables(summary),
        "overview": summary_table(summary),
        "plots": summary_plots(summary),
        "plots_caption": _plots_caption(seeds),
        "differences": difference_tables(summary),
        "quality": quality_table(summary),
        "losses": losses,
        "collapse": collapse,
        "technical": technical,
        "band": " Lines: mean over the seeds; bands: least to largest." if seeds else "",
        "measured": [_measured(item) for item in summary.measured],
        "drilled": [_drilled(item) for item in summary.drilled],
        "runs": runs_table(summary),
        "commands": commands(runs),
        "versions": versions(runs),
        "configs": [(run.name, json.dumps(run.config, indent=1)) for run in runs if run.config],
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_file("page.html")).render(content | {"sections": _sections(content)}) + "\n"


def _sections(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchors and names of the parts that this page has."""
    curves = content["losses"] or content["collapse"] or content["technical"]
    parts = [
        ("setup", "What was run", content["setup"]),
        ("summary", "Summary", content["overview"]),
        ("differences", "Differences", content["differences"]),
        ("quality", "Data quality", content["quality"]),
        ("curves", "Training", curves),
        *((f"collapse{i}", "Neural collapse", True) for i, _ in enumerate(content["measured"], start=1)),
        ("examples", "Examples", content["drilled"]),
        ("commands", "Commands and versions", content["runs"] or content["commands"] or content["configs"]),
        ("notes", "How to read it", True),
    ]
    return [(anchor, name) for anchor, name, present in parts if present]


def _plots_caption(seeds: bool) -> str:
    if seeds:
        return (
            "Dashed: an unbiased model. Grey, the model before: value and 95% interval over examples. Coloured: mean over "
            "the seeds ± standard deviation, each seed as a small dot."
        )
    return "Dots: values; whiskers: 95% intervals over examples, where a figure has one. Dashed: an unbiased model."


def _drilled(item: Drilled) -> dict[str, Any]:
    tables = [drill_table(name, quoted) for name, quoted in item.examples.items()]
    return vars(item) | {"tables": tables}


def _measured(item: MeasuredFolder) -> dict[str, Any]:
    tables = [measured_table(table) for table in item.tables]
    return {"name": item.name, "tables": tables, "pictures": item.pictures}


def _file(name: str) -> str:
    return resources.files("ncfair_jax.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
