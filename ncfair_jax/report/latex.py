"""The report's tables as LaTeX, for a paper: figures only, no quoted sentence."""

from ncfair_jax.report.cells import Table
from ncfair_jax.report.summary import Summary
from ncfair_jax.report.tables import all_tables, measured_table

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at a row's start LaTeX would take it for the distance to the row before
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "…": r"\dots{}",
}


def latex(summary: Summary) -> str:
    """A `table` environment for each table; needs \\usepackage{booktabs} and UTF-8 input."""
    tables = all_tables(summary)
    tables += [measured_table(table) for item in summary.measured for table in item.tables]
    return "% \\usepackage{booktabs}\n\n" + "\n".join(map(table_latex, tables))


def table_latex(table: Table) -> str:
    """One table; the second line of a cell follows its first in small type."""
    columns = "".join("r" if column in table.numeric else "l" for column in range(len(table.header)))
    lines = [_line([escape(name) for name in table.header]), r"\midrule"]
    for row in table.rows:
        cells = [escape(cell.text) + (rf" {{\footnotesize {escape(cell.note)}}}" if cell.note else "") for cell in row]
        lines.append(_line(cells))
    caption = f"{escape(table.title)}. {escape(table.caption)}".strip()
    head = ["\\begin{table}", "\\centering", f"\\caption{{{caption}}}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    return "\n".join([*head, *lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line."""
    return "".join(ESCAPES.get(character, character) for character in " ".join(text.split()))


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
