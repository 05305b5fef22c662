"""Two models on the same benchmarks: paired differences with intervals and tests.

A model may have several result folders, one per seed: its scores are averaged example by example before the comparison, so
that the intervals are about examples and not about seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ncfair_jax.benchmarks.base import Benchmark, defined_path, lookup, n_of
from ncfair_jax.benchmarks.registry import BENCHMARKS, headlines_of
from ncfair_jax.benchmarks.results import Table, numbers, read_table, scored
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.records import DOCUMENT, EVALUATE_AGAIN, read_record, taken_apart
from ncfair_jax.files.sources import DataError
from ncfair_jax.statistics.paired import compare_distance, compare_paired, holm
from ncfair_jax.statistics.samples import Sample

Folders = str | Path | Sequence[str | Path]


class Difference(NamedTuple):
    """One figure of two models: difference = b − a, its 95% interval (None: there is none) and two-sided p (NaN: none).

    Those named |… − unbiased| measure bias: a negative difference is less biased, and overshooting is no success. They have a
    p and no interval. p_holm is p adjusted for all rows that are compared together; None where two models only are.
    """

    name: str
    n: int
    value_a: float
    value_b: float
    difference: float
    interval: tuple[float, float] | None
    p: float
    p_holm: float | None = None


def compare(folders_a: Folders, folders_b: Folders) -> list[Difference]:
    """Compares the headline figures of the benchmarks that both models have results of.

    Args:
        folders_a, folders_b: a result folder of `evaluate`, or one per seed.
    Raises:
        DataError: if there is no common benchmark, a result file is broken, or the examples differ.
    """
    listed_a, listed_b = _listed(folders_a), _listed(folders_b)
    common = [name for name in BENCHMARKS if all((f / f"{name}.json").is_file() for f in listed_a + listed_b)]
    if not common:
        raise DataError(f"{listed_a} and {listed_b} have results of no benchmark in common; run `evaluate` on both")
    return [row for name in common for row in _compare_benchmark(name, listed_a, listed_b)]


def compare_many(
    folders: Mapping[str, Folders], against: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[Difference]]:
    """Compares every model with the first, or with the one named for it.

    Args:
        folders: by model, what `compare` takes.
        against: by model, the one it is compared with instead of the first.
    Returns:
        By model but the first, its rows. With three or more models p_holm is adjusted over the rows of all of them.
    Raises:
        DataError: as `compare`.
    """
    first, *others = folders or [""]
    rows = {name: compare(folders[against.get(name, first)], folders[name]) for name in others}
    if len(others) < 2:
        return rows
    adjusted = iter(holm([row.p for listed in rows.values() for row in listed]))
    return {name: [row._replace(p_holm=next(adjusted)) for row in listed] for name, listed in rows.items()}


def _listed(folders: Folders) -> list[Path]:
    return [path_of(folders)] if isinstance(folders, str | Path) else [path_of(folder) for folder in folders]


def _compare_benchmark(name: str, folders_a: list[Path], folders_b: list[Path]) -> list[Difference]:
    benchmark = BENCHMARKS[name]
    documents = {
        folder: read_record(folder / f"{name}.json", DOCUMENT, EVALUATE_AGAIN) for folder in (*folders_a, *folders_b)
    }
    table_a, table_b = (read_averaged(name, benchmark, folders) for folders in (folders_a, folders_b))
    _check_same_examples(name, benchmark, [table_a, table_b], [folders_a[0], folders_b[0]])
    samples_a, samples_b = benchmark.samples(table_a), benchmark.samples(table_b)
    _check_same_version(name, documents)
    document = documents[folders_a[0]]
    rows = []
    for line in headlines_of(name, document):
        path = defined_path(line, document["metrics"])
        if path is None:
            continue
        a, inside = find_sample(samples_a, path)
        b, _ = find_sample(samples_b, path)
        with taken_apart(folders_a[0] / f"{name}.json", EVALUATE_AGAIN):
            n = n_of(line, path, document)
        rows.append(Difference(line.name, n, *compare_paired(a, b, inside)))
        if line.unbiased is not None:
            label = f"|{line.name} − {line.unbiased:g}|" if line.unbiased else f"|{line.name}|"
            rows.append(Difference(label, n, *compare_distance(a, b, inside, line.unbiased)))
    return rows


def find_sample(samples: Any, path: Sequence[str]) -> tuple[Sample, tuple[str, ...]]:
    """The Sample on the way of a path, and the rest of the path inside its figures. A lone Sample is under ""."""
    if "" in samples:
        return samples[""], tuple(path)
    for depth in range(1, len(path) + 1):
        node = lookup(samples, path[:depth])
        if isinstance(node, Sample):
            return node, tuple(path[depth:])
    raise AssertionError(f"no sample at {path}")


def read_averaged(name: str, benchmark: Benchmark, folders: Sequence[Path]) -> Table:
    """Scores and examples of a benchmark, the scores averaged over the folders; None where one of them was not scored.

    Raises:
        DataError: if the folders are about different examples.
    """
    tables = [_read(name, benchmark, folder) for folder in folders]
    _check_same_examples(name, benchmark, tables, folders)
    scores = [column for column, kind in benchmark.columns.items() if issubclass(kind, float)]
    averaged: Table = {}
    for column in scores:
        values = [table[column] for table in tables]
        means = np.mean([numbers(each) for each in values], axis=0).tolist()
        averaged[column] = [mean if kept else None for mean, kept in zip(means, scored(*values), strict=True)]
    return tables[0] | averaged


def _read(name: str, benchmark: Benchmark, folder: Path) -> Table:
    table = read_table(folder / f"{name}.csv", benchmark.columns)
    if benchmark.example_columns:
        table |= read_table(folder / f"{name}_examples.csv", benchmark.example_columns)
    return table


def _check_same_version(name: str, documents: Mapping[Path, Mapping[str, Any]]) -> None:
    first, *others = documents
    for folder in others:
        ours, theirs = (documents[x].get("version", "none recorded") for x in (first, folder))
        if ours != theirs:
            raise DataError(
                f"{name}: the figures of {first} and {folder} are of different versions of their definition ({ours} and "
                f"{theirs}); evaluate the older one again"
            )


def _check_same_examples(name: str, benchmark: Benchmark, tables: Sequence[Table], folders: Sequence[Path]) -> None:
    columns = [
        c for c, kind in (*benchmark.columns.items(), *benchmark.example_columns.items()) if not issubclass(kind, float)
    ]
    for table, folder in zip(tables, folders, strict=True):
        differing = [column for column in columns if table[column] != tables[0][column]]
        if differing:
            raise DataError(
                f"{name}: {folders[0]} and {folder} differ in the column {differing[0]!r}, so they are about different "
                "examples; evaluate both models on the same data with the same selector"
            )
