"""What a benchmark is: what it reads and asks, what its tables hold, and which of its figures are worth a line.

A benchmark never runs a model: it asks, and whoever runs it gets the answers, from a model or from what stands in for it.

Each benchmark's file ends with its `BENCHMARK`; the registry lists them by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ncfair_jax.benchmarks.results import Result, Table
from ncfair_jax.engine import Answer, Forward, Request
from ncfair_jax.files.sources import DataFolder, Source
from ncfair_jax.models.hf import Pretrained

MASKED, CAUSAL = "masked", "causal"
STEREOTYPES = (
    "Quotes or scores sentences that express harmful stereotypes; they were collected to measure models, and are neither "
    "true nor anybody's opinion here."
)


class Headline(NamedTuple):
    """A figure worth a line in a table.

    Attributes:
        name: with its unit or its unbiased value.
        path: names leading to it in the metrics; the first path that is defined counts.
        unbiased: where the figure measures bias, the value of an unbiased model.
        n: path of its number of examples; () = n of the benchmark.
        kind: "fairness" or "utility": where a report lists it.
        better: "higher" or "lower" where one of them is better whatever the value; "" otherwise.
    """

    name: str
    paths: tuple[tuple[str, ...], ...]
    unbiased: float | None = None
    n: tuple[str, ...] = ()
    kind: str = "fairness"
    better: str = ""

    @property
    def ideal(self) -> str:
        """The value of an unbiased model as text, else which way is better."""
        return self.better if self.unbiased is None else f"{self.unbiased:g}"


class DrillDown(NamedTuple):
    """How a report finds the most stereotyped examples of a benchmark.

    Attributes:
        label: the benchmark's name in a heading.
        unit: what the strength is, with its unit.
        strength: table of scores and examples -> f64[E], larger = more stereotyped; NaN = not ranked.
        texts: (data, table) -> columns "stereotyped" and "other", the two sentences of each example in the table's order.
    """

    label: str
    unit: str
    strength: Callable[[Table], np.ndarray]
    texts: Callable[[DataFolder, Table], Table]


class Questions(NamedTuple):
    """What a benchmark asks of a model, and how the answers, one a request in their order, become its result."""

    requests: list[Request]
    table: Callable[[Sequence[Answer]], Result]

    def answered_by(self, forward: Forward) -> Result:
        """The result of what a model, or what stands in for it, answers."""
        return self.table(forward(self.requests))


class Benchmark(NamedTuple):
    """What the registry knows of a benchmark.

    Attributes:
        samples: table of scores and examples -> nested dict of `statistics.samples.Sample`, shaped as the metrics.
        columns, example_columns: types of NAME.csv and NAME_examples.csv.
        licence, content_warning: of the benchmark's data.
        read: (data, selector) -> examples; the selector is what follows a colon in the name. None with `trained_by`.
        ask: by MASKED or CAUSAL, how a masked or a causal language model is asked: (examples, model) -> Questions, by the
            model's vocabulary and sizes. Empty with `trained_by`.
        needs: what a model must have beside a head for masked tokens: "nsp", BERT's pooler and next-sentence head.
        takes_selector: whether a name may be followed by a colon and a selector.
        trained_by: config file of the runs that train a classifier for it and evaluate it themselves (`Method.evaluate`); a
            masked LM alone cannot be run on it.
        drill_down: of benchmarks whose examples are stereotyped one by one.
        flags: table of scores and examples -> by name, which rows one may doubt, bool[rows]; see `quality`.
        flag_columns: types of the columns of NAME.csv that only `flags` needs. They may differ between two models that are
            compared, and result folders without them can still be compared.
        version: of the definition of its figures. Raise it by one whenever the same model and data would get another score,
            figure, interval or p-value than before; results of an earlier version are then made again instead of shown.
        files: selector -> all files that `read` reads, or reads if they are there.
    """

    samples: Callable[[Table], dict[str, Any]]
    columns: Mapping[str, type]
    example_columns: Mapping[str, type]
    headlines: tuple[Headline, ...]
    licence: str
    content_warning: str = STEREOTYPES
    read: Callable[[DataFolder, str], Any] | None = None
    ask: Mapping[str, Callable[[Any, Pretrained], Questions]] = {}
    needs: frozenset[str] = frozenset()
    takes_selector: bool = False
    trained_by: str = ""
    drill_down: DrillDown | None = None
    flags: Callable[[Table], Mapping[str, np.ndarray]] = lambda table: {}
    flag_columns: Mapping[str, type] = {}
    version: int = 1
    files: Callable[[str], Sequence[Source]] = lambda selector: ()

    def questions(self, examples: Any, model: Pretrained) -> Questions:
        """What it asks this model.

        Raises:
            ValueError: if it asks no models of this kind.
        """
        manner = CAUSAL if model.config.causal else MASKED
        if manner not in self.ask:
            raise ValueError(f"asks {' or '.join(self.ask)} language models, and this one is {manner}; leave it out")
        return self.ask[manner](examples, model)


def defined_path(line: Headline, metrics: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The first path of a headline that leads to a number."""
    return next((path for path in line.paths if isinstance(lookup(metrics, path), int | float)), None)


def n_path(line: Headline, path: tuple[str, ...]) -> tuple[str, ...]:
    """Where the number of examples behind a headline is: named by it, else the `n` beside the figure."""
    return line.n or (*path[:-1], "n")


def n_of(line: Headline, path: tuple[str, ...], document: Mapping[str, Any]) -> int:
    """Number of examples behind a headline."""
    return int(lookup(document["metrics"], n_path(line, path)))


def lookup(tree: Any, path: Sequence[str]) -> Any:
    """The node at a path of a nested dict; None if there is none."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
