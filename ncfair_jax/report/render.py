"""Tables as text: for a terminal and table.md, and as Markdown that nothing can hide in. (HTML: page/page.html.)"""

import re
from collections.abc import Iterable

from ncfair_jax.report.cells import Table

SPECIAL = re.compile(r"([\\`*_<>|#~$&])")


def table_text(table: Table, gap: str = " ") -> str:
    """A table as it is printed, with its caption below; only bars are escaped, so that it reads well as it stands.

    Args:
        gap: beside the dashes of the rule under the header.
    """
    rule = "|" + "|".join(f"{gap}{dashes}{gap}" for dashes in _rule(table)) + "|"
    header, *body = (_line(cell.replace("|", "\\|") for cell in row) for row in _texts(table))
    return "\n".join([header, rule, *body]) + "\n" + (f"\n{table.caption}\n" if table.caption else "")


def table_markdown(table: Table) -> str:
    """A table of a report; all of its text is shown as it stands."""
    header, *body = (_line(map(escape, row)) for row in _texts(table))
    return "\n".join([header, _line(_rule(table)), *body])


def escape(text: str) -> str:
    """Text that Markdown shows as it stands, on one line; neither HTML nor a link nor a cell's end can hide in it."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("](", "]\\(")


def _texts(table: Table) -> list[list[str]]:
    """Header and rows; the second line of a cell follows its first."""
    return [list(table.header), *([f"{cell.text} {cell.note}".strip() for cell in row] for row in table.rows)]


def _rule(table: Table) -> list[str]:
    return ["---:" if column in table.numeric else "---" for column in range(len(table.header))]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
