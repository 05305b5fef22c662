"""The report as Markdown, for a file of its own and for the exported model's card."""

import html
import re
from collections.abc import Sequence

from ncfair_jax.report.render import escape, table_markdown
from ncfair_jax.report.summary import Summary
from ncfair_jax.report.tables import all_tables, commands, drill_table, measured_table, versions


def markdown(summary: Summary, level: int = 1, *, quotes: bool = True) -> str:
    """Tables, commands, versions and quoted examples.

    Args:
        level: of the title; sections are one level lower.
        quotes: whether to quote the benchmarks' sentences, folded.
    """
    mark, runs = "#" * (level + 1), [run for group in summary.groups for run in group.runs]
    parts = [f"{'#' * level} Report: {escape(summary.title)}"]
    parts += [f"> **Warning.** {escape(text)}" for text in summary.diverged]
    if quotes:
        parts += [f"> **Content warning.** {escape(warning)}" for warning in summary.warnings]
    if summary.notes:
        parts += [f"{mark} What is missing", "\n".join(f"- {escape(note)}" for note in summary.notes)]
    for table in all_tables(summary):
        parts += [f"{mark} {escape(table.title)}", table_markdown(table), escape(table.caption)]
    for item in summary.measured:
        parts.append(f"{mark} Neural collapse: {escape(item.name)}")
        parts += [table_markdown(measured_table(table)) for table in item.tables]
    if quotes and summary.drilled:
        parts += _quotes(summary, mark)
    if lines := commands(runs):
        parts += [f"{mark} Commands and versions", *map(code_block, lines), *map(escape, versions(runs))]
    return "\n\n".join(part for part in parts if part) + "\n"


def code_block(text: str) -> str:
    """Text as code; its fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _quotes(summary: Summary, mark: str) -> Sequence[str]:
    parts = [f"{mark} Most stereotyped examples"]
    for item in summary.drilled:
        heading = f"{item.label}: {item.unit}, stereotyped minus other sentence. Data: {item.licence}."
        parts += [escape(heading), f"> {escape(item.warning)}"]
        for name, quoted in item.examples.items():
            table = drill_table(name, quoted)
            title = html.escape(" ".join(table.title.split()))  # inside HTML, where a backslash escapes nothing
            parts.append(f"<details><summary>{title}</summary>\n\n{table_markdown(table)}\n\n</details>")
    return parts
