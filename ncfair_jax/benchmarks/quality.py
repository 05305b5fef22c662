"""How much a benchmark's figures owe to examples one may doubt: the same figures without them.

A benchmark flags rows of its table (`Benchmark.flags`): words unknown to the vocabulary, ties, repetitions, malformed or
doubtful items (also those whose text spells out a control token, such as [MASK]). The figures without them come from the
same scores by the same function, so they differ by the rows only.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ncfair_jax.benchmarks.base import Benchmark, Headline, defined_path, lookup, n_path
from ncfair_jax.benchmarks.results import Table
from ncfair_jax.data.encoding import MASK
from ncfair_jax.statistics.samples import point_figures

ANY = "any"
TEXT_FLAGS: dict[str, type] = {"unknown": int, "duplicate": int, "malformed": int}  # columns that most benchmarks write


def quality_report(benchmark: Benchmark, lines: Sequence[Headline], table: Table) -> dict[str, Any]:
    """By flag, and for "any" of them: how many rows have it, and every headline figure with all rows and without those.

    Args:
        lines: the headlines to compute again; those that the table does not define are left out.
        table: scores, examples and the benchmark's `flag_columns`.
    Returns:
        {flag: {"flagged": rows, "headlines": {name: {"figure", "n", "figure_without", "n_without"}}}}, figures None where
        nothing is left; {} for a benchmark without flags.
    Raises:
        ValueError: if a flag has another number of rows than the table.
    """
    flags = {name: np.asarray(flagged, bool) for name, flagged in benchmark.flags(table).items()}
    if not flags:
        return {}
    rows = len(next(iter(table.values())))
    wrong = [name for name, flagged in flags.items() if flagged.shape != (rows,)]
    if wrong:
        raise ValueError(f"flag {wrong[0]!r} has shape {flags[wrong[0]].shape}, but the table has {rows} rows")
    flags[ANY] = np.logical_or.reduce(list(flags.values()))
    whole = _figures(benchmark, table)
    paths = {line: path for line in lines if (path := defined_path(line, whole)) is not None}
    report = {}
    for name, flagged in flags.items():
        kept = np.flatnonzero(~flagged)
        without = whole
        if len(kept) < rows:
            without = _figures(benchmark, {column: [values[i] for i in kept] for column, values in table.items()})
        report[name] = {
            "flagged": int(flagged.sum()),
            "headlines": {
                line.name: {
                    "figure": lookup(whole, path),
                    "n": lookup(whole, n_path(line, path)),
                    "figure_without": lookup(without, path),
                    "n_without": lookup(without, n_path(line, path)) or 0,
                }
                for line, path in paths.items()
            },
        }
    return report


def _figures(benchmark: Benchmark, table: Table) -> Mapping[str, Any]:
    """The metrics of a table as they stand in NAME.json, without intervals; {} for an empty table."""
    if not next(iter(table.values())):
        return {}
    figures = point_figures(benchmark.samples(table))
    return figures.get("", figures)  # a lone Sample is under ""


def stored_flags(table: Table, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Flags that a benchmark wrote into its table as 0 and 1."""
    return {name: np.array(table[name], bool) for name in names}


def holds_unknown(sequences: Iterable[np.ndarray], tokenizer: Any) -> list[int]:
    """1 where a sequence of token ids has one that stands for words unknown to the vocabulary, else 0."""
    return [int((tokens == tokenizer.unk_token_id).any()) for tokens in sequences]


def holds_control_token(texts: Iterable[str], tokenizer: Any) -> list[int]:
    """1 where a text spells out a control token of the tokenizer, or [MASK], else 0. They are scored as text."""
    control = {MASK, *tokenizer.all_special_tokens}
    return [int(any(token in text for token in control)) for text in texts]


def repeats(keys: Sequence[Hashable]) -> list[int]:
    """1 where a key was there before, else 0."""
    first: dict[Hashable, int] = {}
    return [int(first.setdefault(key, place) != place) for place, key in enumerate(keys)]


def irregular(text: str) -> bool:
    """Whether a text has blanks at an end, several in a row, or white space other than blanks."""
    return text != " ".join(text.split())
