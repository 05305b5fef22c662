"""Survey of a model on a corpus: one deterministic pass for class moments, and a second over held-out rows for NC4.

The corpus is cut into groups, which the jackknife leaves out in turn. With a folder each finished group is a file, so a
killed survey goes on with the next group, bit for bit. No more than a part of a group is in memory, and only as much of the
examples if they lie on disk (`data.token_store`).

Letters: E examples, G groups, D hidden, K classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int
from rich.console import Console
from rich.progress import track

from ncfair_jax.collapse.agreement import Agreement, update_agreement
from ncfair_jax.collapse.class_stats import ClassStats, all_reduce, merge, update
from ncfair_jax.collapse.forward import (
    Rows,
    batches,
    check_choices,
    rows_of_batch,
    token_features,
    token_slots,
)
from ncfair_jax.collapse.measures import require_finite_moments
from ncfair_jax.collapse.stored import StoredGroups, refuse_other_survey
from ncfair_jax.data.packing import PackedRows, first_fit_decreasing, pack_for_inference, round_up
from ncfair_jax.data.runs import group_runs, parts
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.inference import untuned_jit
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.models.encoder import ModelConfig, Params
from ncfair_jax.sharding import replicate

Groups = Sequence[ClassStats]
Counts = tuple[dict[str, dict[str, Agreement]], Int[Array, ""]]  # by word set and kind; tokens that are not finite


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
            (`forward.token_features`).
        alignment: "same" or "next" (`forward.token_slots`).
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
    devices = 1 if mesh is None else mesh.size
    runs, rows = _plan(config, examples, groups, row_tokens, batch_rows, devices)
    if folder is not None:
        choices = {"features": list(features), "alignment": alignment, "row_tokens": row_tokens, "rows": rows}
        refuse_other_survey(folder, config, params, examples, classes, choices | {"groups": len(runs)})
    done = 0 if folder is None else StoredGroups.complete(folder, len(runs))
    params, slot_of_token = replicate((params, classes.slot_of_token), mesh)
    zeros = ClassStats.zeros(classes.num_classes, config.hidden_size)
    empty = replicate(dict.fromkeys(features, zeros), mesh)
    found: list[dict[str, ClassStats]] = []
    for number in shown(range(done, len(runs)), "class moments", progress):
        stats = empty
        for packed in packed_parts(examples, runs[number], row_tokens, devices):
            for batch in batches(packed, rows, classes.boundaries, mesh):
                with jax.default_matmul_precision("highest"):
                    stats = _add_moments(config, alignment, mesh, params, stats, slot_of_token, batch)
        stats = jax.tree.map(np.asarray, stats)
        for name, moments in stats.items():
            require_finite_moments(moments, partial(_moments_of, classes, name))
        if folder is None:
            found.append(stats)
        else:
            StoredGroups.write(folder, number, stats)
    if folder is not None:
        return {name: StoredGroups(folder, len(runs), name) for name in features}
    return {name: [stats[name] for stats in found] for name in features}


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
    devices = 1 if mesh is None else mesh.size
    runs, rows = _plan(config, examples, groups, row_tokens, batch_rows, devices)
    arrays = {
        name: (word_set.classes.slot_of_token, word_set.stats, word_set.classifier, word_set.bias)
        for name, word_set in word_sets.items()
    }
    params, arrays = replicate((params, arrays), mesh)
    empty = {
        name: {kind: Agreement.zeros(word_set.classes.num_classes) for kind in ("nc4", "nc4_bias")}
        for name, word_set in word_sets.items()
    }
    found: dict[str, dict[str, list[Agreement]]] = {name: {"nc4": [], "nc4_bias": []} for name in word_sets}
    for run in shown(runs, "NC4", progress):
        counts = replicate((empty, np.zeros((), np.int32)), mesh)
        for packed in packed_parts(examples, run, row_tokens, devices):
            for batch in batches(packed, rows, boundaries[0], mesh):
                with jax.default_matmul_precision("highest"):
                    counts = _add_agreement(config, features, alignment, mesh, params, counts, arrays, batch)
        agreements, broken = jax.tree.map(np.asarray, counts)
        if broken:
            raise NonFiniteError(
                f"the model gives {broken} tokens of the held-out text representations that are not finite, so NC4 cannot "
                "be measured; its weights are not finite, or so large that its numbers overflow: take earlier ones"
            )
        for name, kinds in agreements.items():
            for kind, agreement in kinds.items():
                found[name][kind].append(agreement)
    return found


def shown(parts: Sequence[Any], what: str, progress: bool) -> Iterable[Any]:
    """The parts, with a progress bar on stderr if asked for."""
    return track(parts, description=what, console=Console(stderr=True), disable=not progress)


def packed_parts(
    examples: Sequence[np.ndarray], run: range, row_tokens: int, row_multiple: int
) -> Iterator[PackedRows]:
    """A group packed part by part: a whole group would grow with the text."""
    for part in parts(examples, run):
        yield pack_for_inference(part, row_tokens, row_multiple)


@partial(untuned_jit, static_argnames=("config", "alignment", "mesh"))
def _add_moments(
    config: ModelConfig,
    alignment: str,
    mesh: Mesh | None,
    params: Params,
    stats: dict[str, ClassStats],
    slot_of_token: Int[Array, "V"],
    rows: Rows,
) -> dict[str, ClassStats]:
    """Moments with one batch of rows in, of every kind of features."""

    def of_rows(
        params: Params, empty: dict[str, ClassStats], slot_of_token: Array, rows: Rows
    ) -> dict[str, ClassStats]:
        features = token_features(config, params, rows, tuple(empty))
        num_classes = next(iter(empty.values())).count.shape[0]
        slots = token_slots(rows, slot_of_token, num_classes, alignment)
        moments = {name: update(empty[name], values, slots) for name, values in features.items()}
        return moments if mesh is None else {name: all_reduce(x, mesh.axis_names) for name, x in moments.items()}

    nothing = jax.tree.map(jax.numpy.zeros_like, stats)
    batch = _over_rows(of_rows, mesh)(params, nothing, slot_of_token, rows)
    return {name: merge(stats[name], batch[name]) for name in stats}


@partial(untuned_jit, static_argnames=("config", "features", "alignment", "mesh"))
def _add_agreement(
    config: ModelConfig,
    features: str,
    alignment: str,
    mesh: Mesh | None,
    params: Params,
    counts: Counts,
    arrays: dict[str, tuple[Array, ClassStats, Array, Array]],
    rows: Rows,
) -> Counts:
    """NC4's counts with one batch of rows in, of every word set; and how many tokens are not finite."""

    def of_rows(params: Params, empty: Counts, arrays: dict[str, tuple], rows: Rows) -> Counts:
        values = token_features(config, params, rows, (features,))[features]
        broken = jnp.sum((rows.segment_ids.reshape(-1) > 0) & ~jnp.isfinite(values).all(axis=1), dtype=jnp.int32)
        found = {}
        for name, (slot_of_token, stats, classifier, bias) in arrays.items():
            slots = token_slots(rows, slot_of_token, classifier.shape[0], alignment)
            found[name] = {
                kind: update_agreement(
                    empty[0][name][kind], stats, classifier, values, slots, bias if kind == "nc4_bias" else None
                )
                for kind in empty[0][name]
            }
        both = (found, broken)
        return both if mesh is None else jax.tree.map(lambda x: jax.lax.psum(x, mesh.axis_names), both)

    nothing = jax.tree.map(jax.numpy.zeros_like, counts)
    return jax.tree.map(jax.numpy.add, counts, _over_rows(of_rows, mesh)(params, nothing, arrays, rows))


def _over_rows(function: Any, mesh: Mesh | None) -> Any:
    """A function of (parameters, state, arrays, rows) on each device's rows; what it returns is the same on all."""
    if mesh is None:
        return function
    everywhere, shared_out = P(), P(mesh.axis_names)
    return jax.shard_map(
        function, mesh=mesh, in_specs=(everywhere, everywhere, everywhere, shared_out), out_specs=everywhere
    )


def _moments_of(classes: FairnessClasses, features: str, slot: int) -> str:
    return f'the moments of "{classes.words[slot]}" ({features} features)'


def _plan(
    config: ModelConfig,
    examples: Sequence[np.ndarray],
    groups: int,
    row_tokens: int,
    batch_rows: int,
    devices: int,
) -> tuple[list[range], int]:
    """The groups, and R, from the lengths of the examples alone."""
    if not len(examples) or groups < 1:
        raise ValueError(f"{len(examples)} examples in {groups} groups; a survey needs at least one of each")
    runs = group_runs(len(examples), groups)
    largest = 0
    for part in (part for run in runs for part in parts(examples, run)):
        lengths = np.array([len(example) for example in part])
        if (longest := lengths.max()) > config.max_tokens:
            raise ValueError(
                f"an example has {longest} tokens, the model reads {config.max_tokens}: encode it truncated"
            )
        largest = max(largest, first_fit_decreasing(lengths, row_tokens).num_rows)
    return runs, rows_of_batch(round_up(largest, devices), batch_rows, devices)
