"""Survey of a model on a corpus: class moments of the listed words, and neural-collapse figures with intervals.

Letters: E examples, R rows of a batch, T tokens a row, D hidden, K classes, G groups of examples.
"""

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int
from scipy.stats import t as student_t

from ncfair_jax.collapse.class_stats import ClassStats, merge, update
from ncfair_jax.collapse.measures import measure
from ncfair_jax.data.packing import PackedRows, pack_for_inference, round_up
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.models.encoder import ModelConfig, Params, encode
from ncfair_jax.models.heads import mlm_transform
from ncfair_jax.sharding import put_tree, replicate

FEATURES = ("hidden", "transform")
ALIGNMENTS = ("same", "next")
CONFIDENCE = 0.95
WITHOUT_INTERVAL = ("classes", "singletons", "pairs_skipped")  # they describe the sample, not the model


def survey(
    config: ModelConfig,
    params: Params,
    examples: Sequence[np.ndarray],
    classes: FairnessClasses,
    *,
    features: str = "hidden",
    alignment: str = "same",
    row_tokens: int = 128,
    batch_rows: int = 16,
    mesh: Mesh | None = None,
    groups: int = 20,
) -> list[ClassStats]:
    """Class moments of a corpus, by deterministic forward passes at full float32 matmul precision.

    Args:
        examples: E encoded sentences, i32[L] each with special tokens, L at most `row_tokens`.
        classes: the listed words. A token counts as the word it is; special tokens and pads never count.
        features: "hidden", the last hidden state, or "transform", what the decoder multiplies.
        alignment: "same", a word's feature is the one at its own token; "next", the one at the token before it (the
            released code's shift).
        row_tokens: T; sentences are packed into rows of that many tokens.
        batch_rows: R at most, rounded up to the number of devices; smaller where no group fills it.
        mesh: rows are shared out over all its devices, and over all processes, which must make the same call; the
            moments come back whole in every process. Parameters are replicated unless they lie on the mesh already.
        groups: G; the corpus is cut into as many runs of consecutive examples, so that what belongs together (sentences
            of one article) mostly stays together.
    Returns:
        Moments of each group: `reduce(merge, ...)` gives those of the corpus, `measure_with_intervals` its figures.
        There are fewer than `groups` where there are fewer examples.
    Raises:
        ValueError: for an unknown choice, no examples, an example longer than a row, or longer than the model can read.
    """
    _check(config, examples, features, alignment, row_tokens, groups)
    devices = 1 if mesh is None else mesh.size
    runs = np.array_split(np.arange(len(examples)), min(groups, len(examples)))
    packed = [pack_for_inference([examples[i] for i in run], row_tokens, devices) for run in runs]
    rows = min(round_up(batch_rows, devices), max(len(group.tokens) for group in packed))
    everywhere = None if mesh is None else NamedSharding(mesh, P())
    params = replicate(params, mesh)
    slot_of_token, empty = replicate(
        (classes.slot_of_token, ClassStats.zeros(classes.num_classes, config.hidden_size)), mesh
    )
    found = []
    for group in packed:
        stats = empty
        for start in range(0, len(group.tokens), rows):
            batch = _put_rows(group, start, rows, mesh)
            with jax.default_matmul_precision("highest"):
                stats = _add_rows(config, features, alignment, everywhere, params, stats, slot_of_token, *batch)
        found.append(jax.tree.map(np.asarray, stats))
    return found


def measure_with_intervals(
    groups: Sequence[ClassStats], classifier: Float[Array, "K D"], bias: Float[Array, "K"] | None = None
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Figures of all groups together, with 95% intervals by the delete-a-group jackknife.

    The standard error of a figure is sqrt((G - 1) / G * sum_g (f_g - mean f)^2) with f_g the figure without group g; the
    interval is the figure plus and minus that times the 97.5% quantile of Student's t with G - 1 degrees of freedom (2.09
    for 20 groups). It speaks of other text of the same kind, given this model and these words.

    Args:
        groups: moments of G disjoint parts of a corpus, from `survey`.
        classifier, bias: output embeddings and biases of the K listed words.
    Returns:
        `measure`'s figures by name, and (low, high) by name for all but those that describe the sample. An interval is
        NaN with fewer than two groups, and where the figure is undefined without some group.
    Raises:
        ValueError: without groups.
    Source: Kott 2001, The delete-a-group jackknife; Quenouille and Tukey's variance for G equal groups.
    """
    if not groups:
        raise ValueError("no groups of class moments; expected those of one survey")
    figures = measure(reduce(merge, groups), classifier, bias)
    names = [name for name in figures if name not in WITHOUT_INTERVAL]
    if len(groups) < 2:
        return figures, dict.fromkeys(names, (float("nan"), float("nan")))
    partial_figures = [measure(rest, classifier, bias) for rest in _without_each(groups)]
    intervals = {name: _jackknife(figures[name], [part[name] for part in partial_figures]) for name in names}
    return figures, intervals


def _jackknife(figure: float, leave_one_out: Sequence[float]) -> tuple[float, float]:
    """The interval around a figure from its values without each group in turn."""
    number = len(leave_one_out)
    error = np.sqrt((number - 1) * np.var(leave_one_out))
    reach = float(student_t.ppf((1 + CONFIDENCE) / 2, number - 1) * error)
    return figure - reach, figure + reach


def _without_each(groups: Sequence[ClassStats]) -> list[ClassStats]:
    """The merged moments of all groups but one, for each: 3 G merges instead of G squared."""
    empty = jax.tree.map(np.zeros_like, groups[0])
    before, after = [empty], [empty]
    for group in groups[:-1]:
        before.append(merge(before[-1], group))
    for group in reversed(groups[1:]):
        after.append(merge(group, after[-1]))
    return [merge(head, tail) for head, tail in zip(before, reversed(after), strict=True)]


@partial(jax.jit, static_argnames=("config", "features", "alignment", "everywhere"))
def _add_rows(
    config: ModelConfig,
    features: str,
    alignment: str,
    everywhere: NamedSharding | None,
    params: Params,
    stats: ClassStats,
    slot_of_token: Int[Array, "V"],
    tokens: Int[Array, "R T"],
    segment_ids: Int[Array, "R T"],
    positions: Int[Array, "R T"],
) -> ClassStats:
    """Moments with one batch of rows in; the sum over sharded rows is global, and the result is on every device."""
    hidden = encode(config, params, tokens, segment_ids, positions).hidden_states
    if features == "transform":
        hidden = mlm_transform(config, params, hidden)
    nothing = stats.count.shape[0]
    slots = jnp.where(segment_ids > 0, slot_of_token[tokens], nothing)
    if alignment == "next":
        follows = segment_ids[:, 1:] == segment_ids[:, :-1]
        slots = jnp.pad(jnp.where(follows, slots[:, 1:], nothing), ((0, 0), (0, 1)), constant_values=nothing)
    stats = update(stats, hidden.reshape(-1, hidden.shape[-1]), slots.reshape(-1))
    return stats if everywhere is None else jax.lax.with_sharding_constraint(stats, everywhere)


def _put_rows(group: PackedRows, start: int, rows: int, mesh: Mesh | None) -> list[Any]:
    """Rows from `start` on, filled up with pads, shared out over the mesh: each process gives its own devices' rows."""
    batch = [np.asarray(x[start : start + rows]) for x in (group.tokens, group.segment_ids, group.positions)]
    full = [np.pad(x, ((0, rows - len(x)), (0, 0))) for x in batch]
    return full if mesh is None else put_tree(full, [NamedSharding(mesh, P(mesh.axis_names))] * len(full))


def _check(
    config: ModelConfig, examples: Sequence[np.ndarray], features: str, alignment: str, row_tokens: int, groups: int
) -> None:
    for name, value, choices in (("features", features, FEATURES), ("alignment", alignment, ALIGNMENTS)):
        if value not in choices:
            raise ValueError(f"{name}={value!r}; choose from {sorted(choices)}")
    if not len(examples) or groups < 1:
        raise ValueError(f"{len(examples)} examples in {groups} groups; a survey needs at least one of each")
    if (longest := max(len(example) for example in examples)) > config.max_tokens:
        raise ValueError(f"an example has {longest} tokens, the model reads {config.max_tokens}: encode it truncated")
