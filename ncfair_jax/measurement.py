"""What `launch/measure.py` runs: several models on one text, on several sets of words, and what differs between them.

Every model gets a folder with the groups of its survey (a killed measurement goes on there), `measures.json`, `words.csv`
and `stats.npz`, from which all figures can be computed again without the model.
"""

import csv
import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from ncfair_jax.benchmarks.results import plain_cell
from ncfair_jax.collapse.agreement import Agreement
from ncfair_jax.collapse.class_stats import ClassStats, merge, take
from ncfair_jax.collapse.jackknife import measure_groups
from ncfair_jax.collapse.measures import VERSION
from ncfair_jax.collapse.model_measures import ModelMeasures, from_json, to_json
from ncfair_jax.collapse.permutation import figures_of_lists
from ncfair_jax.collapse.stored import StoredGroups, save_stats
from ncfair_jax.collapse.survey import Groups, HeldOut, survey, survey_nc4
from ncfair_jax.collapse.word_sets import EVERYTHING, LEXICON, WORD_SETS, union, word_sets
from ncfair_jax.collapse.words import COLUMNS, word_table
from ncfair_jax.config import differences
from ncfair_jax.data.runs import split
from ncfair_jax.data.texts import measured_files, text_sentences
from ncfair_jax.data.token_building import temporary_store
from ncfair_jax.engine.forward import layer_names
from ncfair_jax.files import digests
from ncfair_jax.files.atomic import remove, write_json, write_text, written
from ncfair_jax.files.fingerprint import present_fingerprint, why_again
from ncfair_jax.files.locking import held_by_all
from ncfair_jax.files.notes import as_json, collected, tell
from ncfair_jax.files.records import MEASURE_AGAIN, MEASURES, read_record, taken_apart
from ncfair_jax.lexicons.classes import FairnessClasses, build_classes, matched_lists, token_counts
from ncfair_jax.lexicons.lexicon import lexicon_file, load_lexicon
from ncfair_jax.models.families import family_of
from ncfair_jax.models.folders import find_folder, model_files
from ncfair_jax.models.hf import Pretrained, load_pretrained
from ncfair_jax.report import collapse_figures
from ncfair_jax.report.collapse_table import measured_text
from ncfair_jax.report.measured import MEASURES_FILE, folder_names, write_models
from ncfair_jax.run_log import say
from ncfair_jax.sharding import agreed
from ncfair_jax.stopping import stage
from ncfair_jax.strings import several_strings

WORDS_FILE, STATS_FILE = "words.csv", "stats.npz"
TABLE_FILE, SURVEY_FOLDER = "table.md", "survey"
ROW_TOKENS = 128


class MeasureError(ValueError):
    """A measurement that cannot be made or belongs to other settings; one line with the remedy."""


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured, the same for every model.

    Attributes:
        corpus: "wikitext2" (the held-out text), "gap", or a text file or folder.
        data: folder that holds the named corpora; "" = public sources.
        lexicon: shipped name or JSON file.
        word_sets: names in `word_sets.WORD_SETS`.
        word_rule: how words become classes, `lexicons.classes.build_classes`.
        features: "transform", what the decoder multiplies, or "hidden".
        layer: "last", "all" (figures by depth besides those of the last), or the number of a layer (0 = embeddings).
        alignment: "same" or "next".
        held_out: share of the sentences that only NC4 sees; 0 = no NC4 of rows.
        groups: of the jackknife.
        permutations: random lists of the permutation test; 0 = none.
        seed: of the controls.
        max_sentences: keep the first so many; 0 = all.
    """

    corpus: str = "wikitext2"
    data: str = ""
    lexicon: str = "gender"
    word_sets: tuple[str, ...] = WORD_SETS
    word_rule: str = "whole_word"
    features: str = "transform"
    layer: str = "last"
    alignment: str = "same"
    held_out: float = 0.1
    groups: int = 20
    permutations: int = 999
    seed: int = 0
    max_sentences: int = 0

    def __post_init__(self) -> None:
        several_strings("word_sets", self.word_sets)
        if not 0 <= self.held_out < 1:
            raise MeasureError(f"held_out={self.held_out}; a share from 0 to below 1")
        if self.layer not in ("last", "all") and not self.layer.isdecimal():
            raise MeasureError(f"layer={self.layer!r}; last, all, or a number from 0 (the embeddings)")
        if self.layer.isdecimal() and self.features == "transform":
            raise MeasureError("the transform follows the last layer only; use features=hidden with a single layer")
        if self.permutations and LEXICON not in self.word_sets:
            raise MeasureError("the permutation test is of the lexicon; add it to the word sets, or use permutations=0")
        for name, least in (("groups", 1), ("permutations", 0), ("max_sentences", 0)):
            if getattr(self, name) < least:
                raise MeasureError(f"{name}={getattr(self, name)}; at least {least}")


class Text(NamedTuple):
    """Encoded sentences on disk: those that moments are collected on, and those that only NC4 sees."""

    collected: Sequence[np.ndarray]
    held_out: Sequence[np.ndarray]
    row_tokens: int


class Words(NamedTuple):
    """The word sets, the random lists of the permutation test (token ids i32[N, C]), and all their words together."""

    sets: dict[str, FairnessClasses]
    lists: np.ndarray
    union: FairnessClasses


class Surveyed(NamedTuple):
    """What a survey of all words gives.

    Attributes:
        moments: groups of the main features.
        layers: by other features, theirs.
        total: `moments` together.
        agreements: of `nc4_of_sets`.
    """

    moments: Groups
    layers: dict[str, Groups]
    total: ClassStats
    agreements: dict[str, dict[str, list[Agreement]]]


def measure_model(
    path: str, settings: MeasureSettings, folder: Path, mesh: Mesh, offline: bool = False
) -> ModelMeasures:
    """Measures one model. A finished measurement in the folder is replaced, an unfinished one goes on.

    Args:
        path: Hugging Face folder or Hub name.
        folder: of this model's results.
    Raises:
        SurveyError: if the folder holds an unfinished measurement of another model, text or other words.
    """
    content = measured_content(path, settings, offline)
    clear(folder)
    model = load_pretrained(path, offline=offline)
    with ExitStack() as stack:
        with collected() as left_out:
            text = stack.enter_context(read_examples(model, settings, folder))
            words = choose_words(model, text, settings)
        for note in left_out if jax.process_index() == 0 else ():
            tell(note)
        surveyed = survey_text(model, text, words, settings, folder / SURVEY_FOLDER, mesh)
    found = figures(path, model, text, words, surveyed)
    if jax.process_index() == 0:
        weight, bias = (np.asarray(x)[words.union.token_ids] for x in family_of(model.config).classifier(model.params))
        write_words(
            folder / WORDS_FILE,
            words,
            surveyed.moments,
            np.asarray(family_of(model.config).classifier(model.params)[0]),
        )
        save_stats(folder / STATS_FILE, surveyed.total, words.union, weight, bias)
        document = to_json(found, recorded_settings(path, settings)) | {
            "left_out": as_json(left_out),
            "content": content,
        }
        write_json(folder / MEASURES_FILE, document)  # last: it says that the rest is there
        digests.record(folder, [MEASURES_FILE, WORDS_FILE, STATS_FILE])
    return found


def survey_text(
    model: Pretrained, text: Text, words: Words, settings: MeasureSettings, folder: Path, mesh: Mesh
) -> Surveyed:
    """Both passes over the text: class moments of all words, then NC4 of each set on what was held out."""
    main, features = feature_names(settings, model)
    options: dict[str, Any] = {
        "alignment": settings.alignment,
        "row_tokens": text.row_tokens,
        "mesh": mesh,
        "progress": jax.process_index() == 0,
    }
    moments = survey(
        model.config,
        model.params,
        text.collected,
        words.union,
        features=features,
        groups=settings.groups,
        folder=folder,
        **options,
    )
    total: ClassStats = jax.tree.map(np.asarray, reduce(merge, moments[main]))
    agreements = nc4_of_sets(model, text, words, total, options | {"features": main, "groups": len(moments[main])})
    layers = {name: groups for name, groups in moments.items() if name != main}
    return Surveyed(moments[main], layers, total, agreements)


def figures(path: str, model: Pretrained, text: Text, words: Words, surveyed: Surveyed) -> ModelMeasures:
    """All figures of a survey."""
    weight, bias = (np.asarray(x) for x in family_of(model.config).classifier(model.params))
    sets = {
        name: measure_groups(
            select(surveyed.moments, words.union, x),
            weight[x.token_ids],
            bias[x.token_ids],
            surveyed.agreements.get(name),
        )
        for name, x in words.sets.items()
    }
    depth = {
        name: {
            layer: measure_groups(select(groups, words.union, x), weight[x.token_ids])
            for layer, groups in surveyed.layers.items()
        }
        for name, x in words.sets.items()
        if name != EVERYTHING and surveyed.layers
    }
    slots = words.union.slot_of_token[words.lists]
    lists = figures_of_lists(surveyed.total, weight[words.union.token_ids], slots)
    counts = {name: x.num_classes for name, x in words.sets.items()}
    return ModelMeasures(path, counts, len(text.collected), len(text.held_out), sets, depth, lists)


def read_measures(path: str, settings: MeasureSettings, folder: Path, offline: bool = False) -> ModelMeasures | None:
    """What `measure_model` wrote, if it is of the same model, text, words and version of the figures; else None.

    Raises:
        MeasureError: if the folder belongs to other settings, naming them.
        DataError: if the file is damaged.
    """
    result = folder / MEASURES_FILE
    if not result.exists():
        return None
    if agreed(bool(problems := digests.damaged(folder) if jax.process_index() == 0 else [])):
        say(f"{'; '.join(problems)}; {folder} is measured again")
        return None
    stored = read_record(result, MEASURES, MEASURE_AGAIN)
    if lines := differences(recorded_settings(path, settings), stored["settings"], "settings"):
        raise MeasureError(f"{folder} was measured with other settings: {'; '.join(lines)}. Use another --out")
    content, recorded = measured_content(path, settings, offline), stored.get("content", {})
    if recorded == content:
        with taken_apart(result, MEASURE_AGAIN):
            return from_json(stored)
    say(f"{folder} is measured again: {why_again(content, recorded)}")
    return None


def recorded_settings(path: str, settings: MeasureSettings) -> dict[str, Any]:
    """The settings as measures.json has them."""
    found: dict[str, Any] = json.loads(json.dumps({"model": path} | dataclasses.asdict(settings)))
    return found


def measured_content(path: str, settings: MeasureSettings, offline: bool = False) -> dict[str, str]:
    """What a measurement was made of: fingerprints of model, text and words, and the version of the figures."""
    files = {
        "model": model_files(find_folder(path, offline)),
        "corpus": measured_files(settings.corpus, settings.data),
        "lexicon": [lexicon_file(settings.lexicon)],
    }
    found = {name: present_fingerprint(paths) for name, paths in files.items()}
    return found | {"figures": f"version {VERSION}"}


def clear(folder: Path) -> None:
    """Removes a finished measurement, of which the survey would refuse another model."""
    if not (folder / MEASURES_FILE).exists():
        return
    if jax.process_count() > 1:  # all have seen that it is there
        multihost_utils.sync_global_devices(f"{folder} is outdated")
    if jax.process_index() == 0:
        remove(folder / SURVEY_FOLDER)
        (folder / MEASURES_FILE).unlink()  # last: a killed process starts again from here
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{folder} is empty")


@contextmanager
def read_examples(model: Pretrained, settings: MeasureSettings, folder: Path) -> Iterator[Text]:
    """The corpus, encoded and split; it lies in the folder as long as the context lasts."""
    row_tokens = min(ROW_TOKENS, model.config.max_tokens)
    sentences = text_sentences(settings.corpus, settings.data)
    if most := settings.max_sentences:  # the rest is read, too: a fault in it is told whatever part is used
        sentences = (sentence for number, sentence in enumerate(sentences) if number < most)
    with temporary_store(sentences, model.tokenizer, row_tokens, folder) as examples:
        yield Text(*split(examples, settings.groups, settings.held_out), row_tokens)


def choose_words(model: Pretrained, text: Text, settings: MeasureSettings) -> Words:
    """The word sets of the settings, of words that occur in the collected text, and the random lists."""
    lexicon = build_classes(load_lexicon(settings.lexicon), model.tokenizer, settings.word_rule)
    counts = token_counts(text.collected, len(model.tokenizer), lexicon.boundaries)
    sets = word_sets(settings.word_sets, lexicon, counts, settings.seed, model.tokenizer)
    lists = np.zeros((0, 0), np.int32)
    if settings.permutations:
        tested = sets[LEXICON]
        lists = matched_lists(tested, counts, settings.permutations, settings.seed, model.tokenizer)
    return Words(sets, lists, union(sets, lists, model.tokenizer))


def nc4_of_sets(
    model: Pretrained, text: Text, words: Words, total: ClassStats, options: dict[str, Any]
) -> dict[str, dict[str, list[Agreement]]]:
    """NC4's counts of each set on the held-out examples; nothing where there are none."""
    if not text.held_out:
        return {}
    weight, bias = (np.asarray(x) for x in family_of(model.config).classifier(model.params))
    held = {
        name: HeldOut(x, take(total, words.union.slot_of_token[x.token_ids]), weight[x.token_ids], bias[x.token_ids])
        for name, x in words.sets.items()
    }
    return survey_nc4(model.config, model.params, text.held_out, held, **options)


def select(groups: Groups, union: FairnessClasses, words: FairnessClasses) -> StoredGroups:
    """The groups of one set's words."""
    assert isinstance(groups, StoredGroups)  # the survey had a folder
    return groups.select(union.slot_of_token[words.token_ids])


def write_words(path: Path, words: Words, groups: Groups, weight: np.ndarray) -> None:
    """words.csv: one line for each word of each set, with the number of groups of sentences that hold the word."""
    total: ClassStats = jax.tree.map(np.asarray, reduce(merge, groups))
    holding = np.sum([np.asarray(group.count) > 0 for group in groups], axis=0)
    with written(path) as half, half.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("word_set", *COLUMNS, "groups"))
        writer.writeheader()
        for name, x in words.sets.items():
            slots = words.union.slot_of_token[x.token_ids]
            number = dict(zip(x.token_ids.tolist(), holding[slots].tolist(), strict=True))
            for row in word_table(x, take(total, slots), weight[x.token_ids]):
                cells = {"word_set": name} | row | {"word": plain_cell(row["word"]), "groups": number[row["token_id"]]}
                writer.writerow(cells)


def feature_names(settings: MeasureSettings, pretrained: Pretrained) -> tuple[str, list[str]]:
    """The features of the main figures, and all to be read off the forward pass."""
    if settings.layer == "last":
        return settings.features, [settings.features]
    if settings.layer == "all":
        return settings.features, [settings.features, *layer_names(pretrained.config)]
    return f"layer_{settings.layer}", [f"layer_{settings.layer}"]


def measure_models(models: Sequence[str], settings: MeasureSettings, out: Path, *, offline: bool = False) -> str:
    """Measures every model and compares them with the first, on all devices.

    Returns:
        The tables as Markdown; also in out/table.md, beside figures/ and a folder for each model (with one model: its files).
    Raises:
        TypeError: `models` is a single string.
        LockedError: if another process works in `out`.
    """
    with held_by_all(out), stage("measuring"):
        return _measure_models(several_strings("models", models), settings, out, offline)


def _measure_models(models: Sequence[str], settings: MeasureSettings, out: Path, offline: bool) -> str:
    for path in models:  # a wrong name should not wait until the models before it are measured
        find_folder(path, offline)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    names = folder_names(models)
    folders = [out] if len(models) == 1 else [out / name for name in names]
    stored = [read_measures(path, settings, folder, offline) for path, folder in zip(models, folders, strict=True)]
    if None in stored and jax.process_index() == 0:
        (out / TABLE_FILE).unlink(missing_ok=True)  # a killed process must not leave the tables of before
    measured = [
        dataclasses.replace(found or measure_model(path, settings, folder, mesh, offline), name=name)
        for path, folder, name, found in zip(models, folders, names, stored, strict=True)
    ]
    text = measured_text(measured)
    if jax.process_index() == 0:
        if len(models) > 1:
            write_models(out, names)
        write_text(out / TABLE_FILE, text)
        collapse_figures.draw_all(measured, folders, out / "figures")
    return text
