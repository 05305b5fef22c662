"""Benchmarks by name, and the one function that runs them: load, score, write, go on if one fails."""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from huggingface_hub.constants import HF_HUB_OFFLINE
from jax.sharding import Mesh

from ncfair_jax.evals import bec_pro, crows_pairs, masked_lm, stereoset
from ncfair_jax.evals.files import DataFolder
from ncfair_jax.evals.results import Result, Table, write_result
from ncfair_jax.models.hf import Pretrained

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
    """

    name: str
    paths: tuple[tuple[str, ...], ...]
    unbiased: float | None = None
    n: tuple[str, ...] = ()


class Benchmark(NamedTuple):
    """What the registry knows of a benchmark.

    Attributes:
        run: (pretrained, data, selector, mesh, progress) -> Result; the selector is what follows a colon in the name.
        samples: table of scores and examples -> nested dict of `significance.Sample`, shaped as the metrics.
        columns, example_columns: types of NAME.csv and NAME_examples.csv.
        licence, content_warning: of the benchmark's data.
        takes_selector: whether a name may be followed by a colon and a selector.
    """

    run: Callable[[Pretrained, DataFolder, str, Mesh | None, bool], Result]
    samples: Callable[[Table], dict[str, Any]]
    columns: Mapping[str, type]
    example_columns: Mapping[str, type]
    headlines: tuple[Headline, ...]
    licence: str
    content_warning: str = STEREOTYPES
    takes_selector: bool = False


class EvaluationError(ValueError):
    """Some benchmarks failed. `results` holds the others', `failures` what went wrong, by name."""

    def __init__(self, results: dict[str, dict[str, Any]], failures: dict[str, Exception]):
        self.results, self.failures = results, failures
        super().__init__("; ".join(f"{name} failed: {error}" for name, error in failures.items()))


def _run_crows_pairs(
    pretrained: Pretrained, data: DataFolder, selector: str, mesh: Mesh | None, progress: bool
) -> Result:
    pairs = crows_pairs.select(crows_pairs.read_pairs(data.path(crows_pairs.FILE)), selector)
    return crows_pairs.evaluate(pretrained, pairs, mesh=mesh, progress=progress)


def _run_stereoset(
    pretrained: Pretrained, data: DataFolder, selector: str, mesh: Mesh | None, progress: bool
) -> Result:
    return stereoset.evaluate(pretrained, stereoset.load_examples(data), mesh=mesh, progress=progress)


def _run_bec_pro(name: str) -> Callable[[Pretrained, DataFolder, str, Mesh | None, bool], Result]:
    def run(pretrained: Pretrained, data: DataFolder, selector: str, mesh: Mesh | None, progress: bool) -> Result:
        rows = bec_pro.read_rows_of(data.path(bec_pro.FILES[name]))
        return bec_pro.evaluate(pretrained, rows, mesh=mesh, progress=progress)

    return run


def _run_masked_lm(
    pretrained: Pretrained, data: DataFolder, selector: str, mesh: Mesh | None, progress: bool
) -> Result:
    return masked_lm.evaluate(pretrained, masked_lm.load_paragraphs(data), mesh=mesh, progress=progress)


def _stereoset_headlines() -> tuple[Headline, ...]:
    def headline(label: str, figure: str, unbiased: float | None) -> Headline:
        # The test part where there is one.
        return Headline(
            label, (("gender", "test", figure), ("overall", "test", figure), ("overall", "all", figure)), unbiased
        )

    return (
        headline("StereoSet SS, %", "ss", 50.0),
        headline("StereoSet LM, %", "lm", None),
        headline("StereoSet ICAT, %", "icat", None),
    )


def _bec_pro_benchmark(name: str, label: str, licence: str) -> Benchmark:
    return Benchmark(
        _run_bec_pro(name),
        bec_pro.samples,
        bec_pro.COLUMNS,
        bec_pro.EXAMPLE_COLUMNS,
        (
            Headline(f"{label} female − male", (("difference", "overall"),), 0.0, ("n",)),
            Headline(f"{label} mean |association|", (("mean_abs_association",),), None, ("n",)),
        ),
        licence,
    )


BENCHMARKS: dict[str, Benchmark] = {
    "crows_pairs": Benchmark(
        _run_crows_pairs,
        crows_pairs.samples,
        crows_pairs.COLUMNS,
        crows_pairs.EXAMPLE_COLUMNS,
        (
            Headline("CrowS-Pairs gender, %", (("modified_mean", "gender", "metric_score"),), 50.0),
            Headline("CrowS-Pairs all, %", (("modified_mean", "overall", "metric_score"),), 50.0),
        ),
        "CC BY-SA 4.0 (Nangia et al. 2020, nyu-mll/crows-pairs)",
        takes_selector=True,
    ),
    "stereoset": Benchmark(
        _run_stereoset,
        stereoset.samples,
        stereoset.COLUMNS,
        stereoset.EXAMPLE_COLUMNS,
        _stereoset_headlines(),
        "CC BY-SA 4.0 (Nadeem et al. 2021, moinnadeem/StereoSet)",
    ),
    "bec_pro": _bec_pro_benchmark("bec_pro", "BEC-Pro", "CC BY 4.0 (Bartl et al. 2020, marionbartl/gender-bias-BERT)"),
    "bec_pro_de": _bec_pro_benchmark(
        "bec_pro_de", "BEC-Pro German", "CC BY 4.0 (Bartl et al. 2020, marionbartl/gender-bias-BERT)"
    ),
    "bec_pro_eec": _bec_pro_benchmark(
        "bec_pro_eec", "EEC", "research use, see the corpus's own terms (Kiritchenko and Mohammad 2018)"
    ),
    "masked_lm": Benchmark(
        _run_masked_lm,
        masked_lm.samples,
        masked_lm.COLUMNS,
        masked_lm.EXAMPLE_COLUMNS,
        (
            Headline("Held-out top-1 accuracy", (("top1",),), None, ("n_positions",)),
            Headline("Held-out loss, nats", (("loss",),), None, ("n_positions",)),
            Headline("Pseudo-perplexity", (("pseudo_perplexity",),), None, ("n_sentences",)),
        ),
        "CC BY-SA (WikiText-2, Merity et al. 2016)",
        content_warning="",
    ),
}


def parse(names: str | Sequence[str]) -> list[tuple[str, str]]:
    """Benchmark names, as a list or with commas between, to (name, selector): "crows_pairs:gender" selects a bias type.

    Raises:
        ValueError: for a name that is unknown or twice there, or a selector where none is taken.
    """
    listed = names.split(",") if isinstance(names, str) else list(names)
    parsed = [(name.strip(), selector.strip()) for name, _, selector in (text.partition(":") for text in listed)]
    for name, selector in parsed:
        if name not in BENCHMARKS:
            raise ValueError(f"benchmark {name!r} is unknown; choose from {sorted(BENCHMARKS)}")
        if selector and not BENCHMARKS[name].takes_selector:
            raise ValueError(f"benchmark {name!r} takes no selector, but {selector!r} follows its colon; leave it out")
    if len({name for name, _ in parsed}) < len(parsed):
        raise ValueError(f"benchmarks {listed} name one twice; its files would overwrite each other")
    return parsed


def content_warnings(names: str | Sequence[str]) -> list[str]:
    """The distinct warnings of these benchmarks, to be shown once."""
    return list(dict.fromkeys(w for name, _ in parse(names) if (w := BENCHMARKS[name].content_warning)))


def evaluate(
    pretrained: Pretrained,
    benchmarks: str | Sequence[str],
    data_dir: str | Path | None,
    out_dir: str | Path,
    *,
    model_name: str,
    mesh: Mesh | None = None,
    offline: bool = False,
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Runs benchmarks one after the other; what one of them wrote stays if a later one fails.

    Args:
        benchmarks: names, as a list or with commas between (see `parse`).
        data_dir: folder with crows_pairs/, stereoset/, bec_pro/, …; None or "": public sources, pinned by hash.
        out_dir: gets NAME.json and NAME.csv of each, written by process 0.
        model_name: as it shall stand in the files.
        offline: fetch nothing.
    Returns:
        By name, the content of NAME.json.
    Raises:
        ValueError: for names that cannot be run.
        EvaluationError: at the end, if some failed.
    """
    parsed = parse(benchmarks)
    data = DataFolder(Path(data_dir) if data_dir else None, offline or HF_HUB_OFFLINE)
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, Exception] = {}
    for name, selector in parsed:
        benchmark = BENCHMARKS[name]
        try:
            result = benchmark.run(pretrained, data, selector, mesh, progress and jax.process_index() == 0)
            result = result._replace(settings=result.settings | ({"selector": selector} if selector else {}))
            notes = {"licence": benchmark.licence}
            notes |= {"content_warning": benchmark.content_warning} if benchmark.content_warning else {}
            results[name] = write_result(Path(out_dir), name, model_name, result, notes, write=jax.process_index() == 0)
        except Exception as error:
            if not isinstance(error, ValueError | OSError):
                traceback.print_exc(file=sys.stderr)
            failures[name] = error
    if failures:
        raise EvaluationError(results, failures)
    return results


def headline(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float | None, list[float] | None, int]]:
    """(name, value, 95% interval, n) of the figures worth a line, from the contents of NAME.json by name."""
    lines = []
    for name, document in results.items():
        for line in headlines_of(name, document):
            path = defined_path(line, document["metrics"])
            if path is not None:
                value, interval = lookup(document["metrics"], path), lookup(document["intervals"], path)
                lines.append((line.name, value, interval, n_of(line, path, document)))
    return lines


def headlines_of(name: str, document: Mapping[str, Any]) -> list[Headline]:
    """A benchmark's headlines, without those over everything where a selector left one part."""
    selected = "selector" in document["settings"]
    return [line for line in BENCHMARKS[name].headlines if not (selected and "overall" in line.paths[0])]


def defined_path(line: Headline, metrics: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The first path of a headline that leads to a number."""
    return next((path for path in line.paths if isinstance(lookup(metrics, path), int | float)), None)


def n_of(line: Headline, path: tuple[str, ...], document: Mapping[str, Any]) -> int:
    """Number of examples behind a headline: named by it, else the `n` beside the figure."""
    return int(lookup(document["metrics"], line.n or (*path[:-1], "n")))


def lookup(tree: Any, path: Sequence[str]) -> Any:
    """The node at a path of a nested dict; None if there is none."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def figure_at(figures: Mapping[str, Any], path: Sequence[str]) -> np.ndarray:
    """The array at a path of nested figures."""
    return np.asarray(lookup(figures, path))
