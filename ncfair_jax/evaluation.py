"""Fairness, usefulness and collapse of a model: the figures that a run reports before and after."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ncfair_jax.benchmarks import evaluate, headline
from ncfair_jax.benchmarks.registry import BENCHMARKS, parse
from ncfair_jax.collapse.jackknife import CORRECTED, CORRECTED_SUFFIX, measure_groups
from ncfair_jax.collapse.measures import VERSION
from ncfair_jax.collapse.survey import survey
from ncfair_jax.config import EvalConfig
from ncfair_jax.data.texts import measured_files, text_sentences
from ncfair_jax.data.token_building import temporary_store
from ncfair_jax.engine import Wrap
from ncfair_jax.files.atomic import write_json
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.digests import drop_damaged, record
from ncfair_jax.files.fingerprint import present_fingerprint, why_again
from ncfair_jax.files.notes import as_json, collected, tell
from ncfair_jax.files.records import FIGURES, JUDGE_AGAIN, read_record
from ncfair_jax.files.sources import DataFolder
from ncfair_jax.lexicons.classes import build_classes, refuse_missing_groups, token_counts
from ncfair_jax.lexicons.lexicon import lexicon_file, load_lexicon
from ncfair_jax.models.families import family_of
from ncfair_jax.models.fingerprint import model_fingerprint
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.run_log import finite, say
from ncfair_jax.sharding import agreed

FIGURES_FILE = "figures.json"
ROW_TOKENS = 128
# Features the classifier multiplies, and the encoder's own; NC figures of both, whatever the training used.
FEATURES = ("transform", "hidden")

Figures = dict[str, Any]


def evaluate_model(
    model: Pretrained,
    config: EvalConfig,
    model_name: str,
    folder: Path,
    mesh: Mesh,
    own: Callable[[Pretrained, Path, Mesh], Mapping[str, Mapping[str, Any]]] | None = None,
    judged_on: Sequence[Path] = (),
    wrap: Wrap | None = None,
) -> Figures:
    """Runs what the config asks for, or reads it back if it was done before with the same model, data and definitions.

    Args:
        own: what runs instead of the config's benchmarks, where the method brings its own (`Method.evaluate`).
        judged_on: the files that `own` reads.
        wrap: what answers the benchmarks instead of the model itself.
    Returns:
        {"benchmarks": [[name, value, [low, high], n], …], "collapse": {features: {figure: [value, low, high]}}, "content":
        what they were made of, and "left_out", what of the collapse text and lexicon was left out, if anything}, also in
        folder/figures.json, written last.
    """
    path = folder / FIGURES_FILE
    content = {"model": model_fingerprint(model)} | evaluation_content(config, judged_on)
    if wrap is not None:
        content["wrap"] = wrap.name
    if problems := drop_damaged(folder) if jax.process_index() == 0 else []:
        say(f"{'; '.join(problems)}; what is missing or damaged is made again")
        path.unlink(missing_ok=True)
    if agreed(path.exists()):
        stored: Figures = read_record(path, FIGURES, JUDGE_AGAIN)
        recorded = stored.get("content", {})
        if recorded == content:
            return stored
        say(f"{folder} is judged again: {why_again(content, recorded)}")
    results: Mapping[str, Mapping[str, Any]] = {}
    if own is not None:
        results = own(model, folder, mesh)
    elif config.benchmarks:
        results = evaluate(
            model, config.benchmarks, config.data, folder, model_name=model_name, wrap=wrap, mesh=mesh, progress=True
        )
    with collected() as left_out:
        collapse = collapse_figures(model, config, mesh, folder) if config.collapse_text else {}
    figures: Figures = {
        "benchmarks": [list(line) for line in headline(results)],
        "collapse": collapse,
        "content": content,
    }
    if left_out:
        figures["left_out"] = as_json(left_out)
    if jax.process_index() == 0:
        for note in left_out:
            tell(note)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, figures)
        record(folder, [FIGURES_FILE])
    return figures


def evaluation_content(config: EvalConfig, judged_on: Sequence[Path] = ()) -> dict[str, str]:
    """What figures depend on besides the model: for each benchmark, and for the collapse figures, the version of their
    definition and the fingerprint of what they read.

    Raises:
        ValueError: for an unknown benchmark.
        DataError: if a public file cannot be fetched.
    """
    data = DataFolder(path_of(config.data) if config.data else None)
    content = {}
    for name, selector in parse(config.benchmarks) if config.benchmarks else []:
        benchmark = BENCHMARKS[name]
        content[f"benchmark {name}"] = f"version {benchmark.version}, {data.fingerprint(benchmark.files(selector))}"
    if config.collapse_text:
        files = [*measured_files(config.collapse_text, config.data), lexicon_file(config.lexicon)]
        content["collapse"] = f"version {VERSION}, {present_fingerprint(files)}"
    if judged_on:
        content["task"] = present_fingerprint(judged_on)
    return content


def collapse_figures(
    model: Pretrained, config: EvalConfig, mesh: Mesh, folder: Path
) -> dict[str, dict[str, list[float | None]]]:
    """NC figures of whole lexicon words, each token with its own representation, on text that nothing trains on.

    Args:
        folder: where the encoded text lies as long as this takes.
    Returns:
        By features and figure: [value, low, high] of the 95% jackknife interval, which is of what other texts of the same kind
        and size give on average; None where undefined. "nc3_corrected" and so on are without the bias of rare words
        (`collapse.jackknife`), of "corrected_words" words.
    """
    row_tokens = min(ROW_TOKENS, model.config.max_tokens)
    sentences = text_sentences(config.collapse_text, config.data)
    with temporary_store(sentences, model.tokenizer, row_tokens, folder) as examples:
        classes = build_classes(load_lexicon(config.lexicon), model.tokenizer)
        refuse_missing_groups(classes, token_counts(examples, len(model.tokenizer), classes.boundaries))
        surveyed = survey(
            model.config, model.params, examples, classes, features=FEATURES, row_tokens=row_tokens, mesh=mesh
        )
    weight, bias = (np.asarray(x)[classes.token_ids] for x in family_of(model.config).classifier(model.params))
    found: dict[str, dict[str, list[float | None]]] = {}
    for features, groups in surveyed.items():
        measured = measure_groups(groups, weight, bias)
        intervals = measured.intervals()
        found[features] = {
            name: [finite(x) for x in (value, *intervals.get(name, (math.nan, math.nan)))]
            for name, value in measured.figures.items()
        }
        for name in CORRECTED:
            value, interval = measured.corrected(name)
            found[features][name + CORRECTED_SUFFIX] = [finite(x) for x in (value, *interval)]
        found[features]["corrected_words"] = [float(measured.corrected_words), None, None]
    return found
