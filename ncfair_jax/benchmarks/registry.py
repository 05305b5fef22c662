"""Benchmarks by name, and the one function that runs them: read, ask, tabulate, write, go on if one fails."""

import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
from huggingface_hub.constants import HF_HUB_OFFLINE
from jax.sharding import Mesh

import ncfair_jax.benchmarks.bec_pro as bec_pro
import ncfair_jax.benchmarks.bias_nli as bias_nli
import ncfair_jax.benchmarks.bios as bios
import ncfair_jax.benchmarks.coref_scores as coref_scores
import ncfair_jax.benchmarks.crows_pairs as crows_pairs
import ncfair_jax.benchmarks.glue as glue
import ncfair_jax.benchmarks.masked_lm as masked_lm
import ncfair_jax.benchmarks.seat as seat
import ncfair_jax.benchmarks.stereoset as stereoset
import ncfair_jax.benchmarks.stereoset_intersentence as stereoset_intersentence
import ncfair_jax.benchmarks.unmasked as unmasked
import ncfair_jax.benchmarks.winobias as winobias
import ncfair_jax.benchmarks.winobias_coref as winobias_coref
import ncfair_jax.benchmarks.winogender as winogender
from ncfair_jax.benchmarks.base import Benchmark, Headline, defined_path, lookup, n_of
from ncfair_jax.benchmarks.quality import quality_report
from ncfair_jax.benchmarks.results import Result, write_result, write_table
from ncfair_jax.engine import Forward, Wrap, forward_of
from ncfair_jax.files import digests
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.locking import held_by_all
from ncfair_jax.files.notes import collected, tell
from ncfair_jax.files.reading import read_json
from ncfair_jax.files.records import wrong_form
from ncfair_jax.files.sources import DataError, DataFolder
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.models.fingerprint import model_fingerprint, params_fingerprint
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.run_log import say
from ncfair_jax.sharding import of_process_0
from ncfair_jax.stopping import stage


class EvaluationError(ValueError):
    """Some benchmarks failed. `results` holds the others', `failures` what went wrong, by name."""

    def __init__(self, results: dict[str, dict[str, Any]], failures: dict[str, Exception]):
        self.results, self.failures = results, failures
        super().__init__("; ".join(f"{name} failed: {error}" for name, error in failures.items()))


BENCHMARKS: dict[str, Benchmark] = {
    "crows_pairs": crows_pairs.BENCHMARK,
    "stereoset": stereoset.BENCHMARK,
    "stereoset_intersentence": stereoset_intersentence.BENCHMARK,
    **{name: bec_pro.benchmark(name) for name in bec_pro.FILES},
    "seat": seat.BENCHMARK,
    "crows_pairs_aul": unmasked.CROWS_PAIRS,
    "stereoset_aul": unmasked.STEREOSET,
    "winobias": winobias.BENCHMARK,
    "winogender": winogender.BENCHMARK,
    "masked_lm": masked_lm.BENCHMARK,
    "bios": bios.BENCHMARK,
    "bias_nli": bias_nli.BENCHMARK,
    **{glue.benchmark_name(task): glue.benchmark(task) for task in glue.TITLES},
    "winobias_coref": winobias_coref.BENCHMARK,
    "coref_dev": coref_scores.BENCHMARK,
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
            names_that_run = sorted(name for name, benchmark in BENCHMARKS.items() if benchmark.ask)
            raise ValueError(f"benchmark {name!r} is unknown; choose from {names_that_run}")
        if config := BENCHMARKS[name].trained_by:
            raise ValueError(
                f"benchmark {name!r} is of a model trained for it, which `launch/train.py --config={config}` "
                "makes and evaluates"
            )
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
    wrap: Wrap | None = None,
    mesh: Mesh | None = None,
    offline: bool = False,
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Runs benchmarks one after the other; what one of them wrote stays if a later one fails.

    A result that is there already, of the same model, data, selector and version of its figures, is read back. One of
    another content is deleted and made again.

    Args:
        benchmarks: names, as a list or with commas between (see `parse`).
        data_dir: folder with crows_pairs/, stereoset/, bec_pro/, …; None or "": public sources, pinned by hash.
        out_dir: gets NAME.json and NAME.csv of each, written by process 0.
        model_name: the name to write into the result files.
        wrap: what answers instead of the model itself.
        offline: fetch nothing.
    Returns:
        By name, the content of NAME.json.
    Raises:
        ValueError: for names that cannot be run, or if out_dir holds results of another model that this call would leave
            beside the new ones.
        LockedError: if another process works in out_dir.
        EvaluationError: at the end, if some failed.
    """
    parsed = parse(benchmarks)
    data = DataFolder(path_of(data_dir) if data_dir else None, offline or HF_HUB_OFFLINE)
    folder, model = path_of(out_dir), model_fingerprint(pretrained) + (f", {wrap.name}" if wrap else "")
    with held_by_all(folder):
        refuse_other_model(folder, model, [name for name, _ in parsed])
        return _evaluate(pretrained, parsed, data, folder, model, model_name, wrap, mesh, progress)


def _evaluate(
    pretrained: Pretrained,
    parsed: Sequence[tuple[str, str]],
    data: DataFolder,
    folder: Path,
    model: str,
    model_name: str,
    wrap: Wrap | None,
    mesh: Mesh | None,
    progress: bool,
) -> dict[str, dict[str, Any]]:
    """`evaluate`, in a folder that this process has for itself; `model` says what is evaluated."""
    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, Exception] = {}

    @cache
    def forward() -> Forward:
        return forward_of(pretrained, mesh=mesh, progress=progress and jax.process_index() == 0, wrap=wrap)

    for name, selector in parsed:
        benchmark = BENCHMARKS[name]
        try:
            assert benchmark.read is not None  # parse refuses the others
            content = {"model": model, "data": data.fingerprint(benchmark.files(selector))}
            if "nsp" in benchmark.needs:
                content["nsp"] = params_fingerprint(pretrained.params.get("nsp", {}))
            if kept := of_process_0(finished(folder, name, model_name, selector, content)):
                results[name] = kept
                if progress:
                    say(f"{name}: read back from {folder}; model, data and definition are the same")
                continue
            with stage(f"evaluating {name}"), collected() as left_out:
                questions = benchmark.questions(benchmark.read(data, selector), pretrained)
                result = questions.answered_by(forward())
            settings = result.settings | ({"selector": selector} if selector else {})
            result = result._replace(settings=settings, left_out=tuple(left_out))
            if benchmark.drill_down and jax.process_index() == 0:  # a report then needs no other folder
                with collected():  # the same notes as of the run
                    texts = benchmark.drill_down.texts(data, result.scores | result.examples)
                write_table(folder / f"{name}_texts.csv", texts)
            results[name] = write(folder, name, model_name, result, content)
        except Exception as error:
            if not isinstance(error, ValueError | OSError | NonFiniteError):
                traceback.print_exc(file=sys.stderr)
            failures[name] = error
    if failures:
        raise EvaluationError(results, failures)
    return results


def refuse_other_model(folder: Path, model: str, names: Sequence[str]) -> None:
    """A result folder is about one model.

    Args:
        model: the fingerprint of what is evaluated.
        names: benchmarks whose results are about to be made again.
    Raises:
        ValueError: if a result of another model would stay.
    """
    for name in [name for name in BENCHMARKS if name not in names]:
        theirs = _document(folder / f"{name}.json").get("fingerprints", {}).get("model", model)
        if theirs != model:
            raise ValueError(
                f"{folder / name}.json is of another model (fingerprint {theirs}, this one has {model}), and results of two "
                "models in one folder would be taken for one's; use another folder, or delete that file"
            )


def finished(
    folder: Path, name: str, model_name: str, selector: str, content: Mapping[str, str]
) -> dict[str, Any] | None:
    """NAME.json, if it and the tables beside it are of this model, data, selector and version; else None, and it is deleted."""
    path, benchmark = folder / f"{name}.json", BENCHMARKS[name]
    document = _document(path)
    asked = {"model": model_name, "version": benchmark.version, "fingerprints": content}
    if (
        {field: document.get(field) for field in asked} == asked
        and document.get("settings", {}).get("selector", "") == selector
        and not digests.damaged(folder, [f"{name}.json", *(f"{table}.csv" for table in _tables(name))])
    ):
        return document
    if jax.process_index() == 0:
        path.unlink(missing_ok=True)  # if the new one fails, this one must not stand in its place
    return None


def _tables(name: str) -> list[str]:
    """The tables beside NAME.json."""
    benchmark = BENCHMARKS[name]
    return (
        [name] + [f"{name}_examples"] * bool(benchmark.example_columns) + [f"{name}_texts"] * bool(benchmark.drill_down)
    )


def _document(path: Path) -> dict[str, Any]:
    """The content of NAME.json; {} where there is none, or it is damaged and of no use."""
    try:
        content = read_json(path)
    except DataError:
        return {}
    return content if not wrong_form(content, {"fingerprints?": dict, "settings?": dict}) else {}


def write(out_dir: Path, name: str, model_name: str, result: Result, content: Mapping[str, str]) -> dict[str, Any]:
    """Writes a benchmark's result, in process 0, with its data's quality, licence and warning.

    What was left out is also logged.

    Args:
        content: fingerprints of what it was made of: "model" and "data".
    Returns:
        The content of NAME.json.
    """
    benchmark = BENCHMARKS[name]
    if jax.process_index() == 0:
        for note in result.left_out:
            tell(note)
    lines = headlines_of(name, {"settings": result.settings})
    quality = quality_report(benchmark, lines, result.scores | result.examples)
    notes: dict[str, Any] = {"quality": quality} if quality else {}
    notes |= {"version": benchmark.version, "fingerprints": dict(content), "licence": benchmark.licence}
    notes |= {"content_warning": benchmark.content_warning} if benchmark.content_warning else {}
    document = write_result(out_dir, name, model_name, result, notes, write=jax.process_index() == 0)
    if jax.process_index() == 0:
        files = [f"{name}.json", *(f"{table}.csv" for table in _tables(name))]
        digests.record(out_dir, [file for file in files if (out_dir / file).is_file()])
    return document


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
