"""Survey of a model on a corpus: one deterministic pass for class moments, and a second over held-out rows for NC4.

The corpus is cut into groups, which the jackknife leaves out in turn. With a folder each finished group is a file, so a
killed survey goes on with the next group, bit for bit. No more than a part of a group is in memory, and only as much of the
examples if they lie on disk (`data.token_store`).

Letters: E examples, G groups, D hidden, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ncfair_jax.collapse.accumulators import AgreementCounts, ClassMoments, check_choices, counted_rows
from ncfair_jax.collapse.agreement import Agreement
from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.measures import require_finite_moments
from ncfair_jax.collapse.stored import StoredGroups, refuse_other_survey
from ncfair_jax.data.packing import first_fit_decreasing, pack_for_inference, round_up
from ncfair_jax.data.runs import group_runs, parts
from ncfair_jax.engine.batching import batches
from ncfair_jax.engine.forward import HostBatch, accumulated
from ncfair_jax.engine.progress import shown
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.models.base import ModelConfig, Params
from ncfair_jax.sharding import replicate
from ncfair_jax.vocabulary import WordBoundaries

Groups = Sequence[ClassStats]


def survey(
    config: ModelConfig,
    params: Params,
    examples: Sequence[np.ndarray],
    classes: FairnessClasses,
    *,
    features: Sequence[str] = ("hidden",),
    alignment: str = "same",
    row_tokens: int = 128,
    batch_rows: int = 16,
    mesh: Mesh | None = None,
    groups: int = 20,
    folder: Path | None = None,
    progress: bool = False,
) -> dict[str, Groups]:
    """Class moments of a corpus, at full float32 matmul precision.

    Args:
        examples: E encoded sentences, i32[L] each with special tokens, L at most `row_tokens`; in memory or on disk.
        classes: the listed words, and where their tokens count.
        features: one or more of "transform", "hidden", "layer_0", …, all read off the same forward pass
            (`engine.forward.token_features`).
        alignment: "same" or "next" (`accumulators.token_slots`).
        row_tokens: T; sentences are packed into rows of that many tokens, at most `runs.PART` of them together.
        batch_rows: R at most, rounded up to the number of devices; smaller where no group fills it.
        mesh: rows are shared out over all its devices, and over all processes, which must make the same call; the
            moments come back whole in every process. Parameters are replicated unless they lie on the mesh already.
        groups: G; the corpus is cut into as many runs of consecutive examples, so that what belongs together (sentences
            of one article) mostly stays together.
        folder: where finished groups go and are found again; processes share it. None: all stay in memory.
        progress: show a progress bar on stderr.
    Returns:
        By features, the moments of each group: `reduce(merge, ...)` gives those of the corpus, `jackknife.measure_groups`
        the figures. There are fewer than `groups` where there are fewer examples.
    Raises:
        ValueError: for an unknown choice, no examples, an example longer than a row or than the model can read, or a
            folder that holds another survey, naming what differs.
        NonFiniteError: if a representation is not finite, or too large for its variance to be; naming its word.
    """
    check_choices(config, features, alignment)
    plan = make_plan(config, examples, groups, row_tokens, batch_rows, 1 if mesh is None else mesh.size)
    number_of_groups = len(plan.runs)
    if folder is not None:
        choices = {
            "features": list(features),
            "alignment": alignment,
            "row_tokens": row_tokens,
            "rows": plan.batch_rows,
        }
        refuse_other_survey(folder, config, params, examples, classes, choices | {"groups": number_of_groups})
    done = 0 if folder is None else StoredGroups.complete(folder, number_of_groups)
    accumulator, numbers = ClassMoments(tuple(features), alignment), range(done, number_of_groups)
    surveyed = _group_moments(config, params, examples, classes, accumulator, plan, numbers, mesh)
    each = zip(shown(numbers, "class moments", progress), surveyed, strict=True)
    if folder is None:
        found = [stats for _, stats in each]
        return {name: [stats[name] for stats in found] for name in features}
    for number, stats in each:
        StoredGroups.write(folder, number, stats)
    return {name: StoredGroups(folder, number_of_groups, name) for name in features}


def _group_moments(
    config: ModelConfig,
    params: Params,
    examples: Sequence[np.ndarray],
    classes: FairnessClasses,
    accumulator: ClassMoments,
    plan: "Plan",
    numbers: Sequence[int],
    mesh: Mesh | None,
) -> Iterator[dict[str, ClassStats]]:
    """By features, the moments of each of these groups, all finite."""
    params, slot_of_token = replicate((params, classes.slot_of_token), mesh)
    zeros = ClassStats.zeros(classes.num_classes, config.hidden_size)
    empty = replicate(dict.fromkeys(accumulator.features, zeros), mesh)
    for number in numbers:
        rows = group_batches(plan, examples, number, classes.boundaries)
        stats = jax.tree.map(np.asarray, accumulated(config, accumulator, mesh, params, empty, slot_of_token, rows))
        for name, moments in stats.items():
            require_finite_moments(moments, partial(_moments_of, classes, name))
        yield stats


class HeldOut(NamedTuple):
    """A word set for NC4: its classes, the moments of the collection rows, output embeddings [K, D] and biases [K]."""

    classes: FairnessClasses
    stats: ClassStats
    classifier: np.ndarray
    bias: np.ndarray


def survey_nc4(
    config: ModelConfig,
    params: Params,
    examples: Sequence[np.ndarray],
    word_sets: Mapping[str, HeldOut],
    *,
    features: str = "transform",
    alignment: str = "same",
    row_tokens: int = 128,
    batch_rows: int = 16,
    mesh: Mesh | None = None,
    groups: int = 20,
    progress: bool = False,
) -> dict[str, dict[str, list[Agreement]]]:
    """NC4 of several word sets in one pass over examples that are not in their moments.

    Args:
        examples: E held-out sentences; the other arguments as in `survey`.
        word_sets: whose tokens count by the same rule.
    Returns:
        By word set, {"nc4": without output biases, "nc4_bias": with them}, each one accumulator for each group.
    Raises:
        ValueError: as `survey`, and for word sets whose tokens count by different rules.
        NonFiniteError: if a representation of the held-out text is not finite.
    """
    check_choices(config, [features], alignment)
    boundaries = [word_set.classes.boundaries for word_set in word_sets.values()]
    if len({of_set is None for of_set in boundaries}) > 1:
        raise ValueError("word sets of different word rules; build all of them by the same one")
    plan = make_plan(config, examples, groups, row_tokens, batch_rows, 1 if mesh is None else mesh.size)
    arrays = {
        name: (word_set.classes.slot_of_token, word_set.stats, word_set.classifier, word_set.bias)
        for name, word_set in word_sets.items()
    }
    params, arrays = replicate((params, arrays), mesh)
    empty = {
        name: {kind: Agreement.zeros(word_set.classes.num_classes) for kind in ("nc4", "nc4_bias")}
        for name, word_set in word_sets.items()
    }
    accumulator = AgreementCounts((features,), alignment)
    found: dict[str, dict[str, list[Agreement]]] = {name: {"nc4": [], "nc4_bias": []} for name in word_sets}
    for number in shown(range(len(plan.runs)), "NC4", progress):
        counts = replicate((empty, np.zeros((), np.int32)), mesh)
        rows = group_batches(plan, examples, number, boundaries[0])
        agreements, broken = jax.tree.map(
            np.asarray, accumulated(config, accumulator, mesh, params, counts, arrays, rows)
        )
        if broken:
            raise NonFiniteError(
                f"the model gives {broken} tokens of the held-out text representations that are not finite, so NC4 cannot "
                "be measured; its weights are not finite, or so large that its numbers overflow: take earlier ones"
            )
        for name, kinds in agreements.items():
            for kind, agreement in kinds.items():
                found[name][kind].append(agreement)
    return found


class Plan(NamedTuple):
    """How examples are run: the groups, T, R of every batch, so one program, and of how many rows R is a multiple."""

    runs: list[range]
    row_tokens: int
    batch_rows: int
    devices: int


def group_batches(
    plan: Plan, examples: Sequence[np.ndarray], number: int, boundaries: WordBoundaries | None
) -> Iterator[HostBatch]:
    """Batches of a group, packed part by part: a whole group would grow with the text."""
    for part in parts(examples, plan.runs[number]):
        packed = pack_for_inference(part, plan.row_tokens, plan.devices)
        yield from batches(counted_rows(packed, boundaries), plan.batch_rows)


def _moments_of(classes: FairnessClasses, features: str, slot: int) -> str:
    return f'the moments of "{classes.words[slot]}" ({features} features)'


def make_plan(
    config: ModelConfig,
    examples: Sequence[np.ndarray],
    groups: int,
    row_tokens: int,
    batch_rows: int,
    devices: int,
) -> Plan:
    """The plan of a survey, from the lengths of the examples alone.

    Args:
        batch_rows: R at most; the largest part is cut evenly into as few batches as that allows.
    """
    if not len(examples) or groups < 1:
        raise ValueError(f"{len(examples)} examples in {groups} groups; a survey needs at least one of each")
    runs = group_runs(len(examples), groups)
    largest = 0  # rows of a part
    for part in (part for run in runs for part in parts(examples, run)):
        lengths = np.array([len(example) for example in part])
        if (longest := lengths.max()) > config.max_tokens:
            raise ValueError(
                f"an example has {longest} tokens, the model reads {config.max_tokens}: encode it truncated"
            )
        largest = max(largest, first_fit_decreasing(lengths, row_tokens).num_rows)
    largest = round_up(largest, devices)
    number = -(-largest // round_up(batch_rows, devices))
    return Plan(runs, row_tokens, round_up(-(-largest // number), devices), devices)
