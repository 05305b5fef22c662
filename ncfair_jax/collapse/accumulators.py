"""What the two passes over a corpus add up: class moments, and the counts of NC4.

The engine runs the model and hands them the features of packed rows. Letters: R rows of a batch, T tokens a row, N = R T,
D hidden, K classes, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ncfair_jax.collapse.agreement import Agreement, update_agreement
from ncfair_jax.collapse.class_stats import ClassStats, all_reduce, merge, update
from ncfair_jax.data.packing import PackedRows
from ncfair_jax.engine.forward import Batch, HostBatch, layer_names
from ncfair_jax.models.base import ModelConfig
from ncfair_jax.strings import several_strings
from ncfair_jax.vocabulary import WordBoundaries, whole_words

ALIGNMENTS = ("same", "next")

Features = dict[str, Float[Array, "N D"]]
Moments = dict[str, ClassStats]  # by features
Counts = tuple[dict[str, dict[str, Agreement]], Int[Array, ""]]  # by word set and kind; tokens that are not finite
WordSet = tuple[
    Int[Array, "V"], ClassStats, Float[Array, "K D"], Float[Array, "K"]
]  # class of a token, moments, classifier


@dataclass(frozen=True)
class ClassMoments:
    """Adds up the moments of each kind of features; its arrays are the class of every token of the vocabulary, i32[V]."""

    features: tuple[str, ...]
    alignment: str

    def of_rows(self, features: Features, rows: Batch, empty: Moments, arrays: Int[Array, "V"]) -> Moments:
        """Moments of some rows."""
        slots = token_slots(rows, arrays, len(empty[self.features[0]].count), self.alignment)
        return {name: update(empty[name], values, slots) for name, values in features.items()}

    def all_reduce(self, state: Moments, axes: Sequence[str]) -> Moments:
        """Those of all devices."""
        return {name: all_reduce(moments, axes) for name, moments in state.items()}

    def merge(self, state: Moments, other: Moments) -> Moments:
        """Those of both."""
        return {name: merge(state[name], other[name]) for name in state}


@dataclass(frozen=True)
class AgreementCounts:
    """Adds up NC4's counts of every word set, and how many tokens are not finite; its arrays are the word sets, by name."""

    features: tuple[str]
    alignment: str

    def of_rows(self, features: Features, rows: Batch, empty: Counts, arrays: dict[str, WordSet]) -> Counts:
        """Counts of some rows."""
        (values,) = features.values()
        broken = jnp.sum((rows["segment_ids"].reshape(-1) > 0) & ~jnp.isfinite(values).all(axis=1), dtype=jnp.int32)
        found = {}
        for name, (slot_of_token, stats, classifier, bias) in arrays.items():
            slots = token_slots(rows, slot_of_token, classifier.shape[0], self.alignment)
            found[name] = {
                kind: update_agreement(
                    empty[0][name][kind], stats, classifier, values, slots, bias if kind == "nc4_bias" else None
                )
                for kind in empty[0][name]
            }
        return found, broken

    def all_reduce(self, state: Counts, axes: Sequence[str]) -> Counts:
        """Those of all devices."""
        total: Counts = jax.tree.map(lambda x: jax.lax.psum(x, axes), state)
        return total

    def merge(self, state: Counts, other: Counts) -> Counts:
        """Those of both."""
        total: Counts = jax.tree.map(jnp.add, state, other)
        return total


def check_choices(config: ModelConfig, features: Sequence[str], alignment: str) -> None:
    """Refuses features and alignments that do not exist.

    Raises:
        TypeError: `features` is a single string.
        ValueError: naming what there is.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment={alignment!r}; choose from {', '.join(ALIGNMENTS)}")
    known = ["transform", "hidden", *layer_names(config)]
    for name in several_strings("features", features):
        if name not in known:
            raise ValueError(f"features={name!r}; choose from {', '.join(known)}")
    if not features or len(set(features)) < len(features):
        raise ValueError(f"features={tuple(features)}; name one or more, each once")


def token_slots(rows: Batch, slot_of_token: Int[Array, "V"], num_classes: int, alignment: str) -> Int[Array, "N"]:
    """Class of every token, K for none.

    Args:
        alignment: "same", a word's feature is the one at its own token; "next", the one at the token before it (the
            released code's shift).
    """
    slots = jnp.where(rows["counted"], slot_of_token[rows["tokens"]], num_classes)
    if alignment == "next":
        follows = rows["segment_ids"][:, 1:] == rows["segment_ids"][:, :-1]
        ahead = jnp.where(follows, slots[:, 1:], num_classes)
        slots = jnp.pad(ahead, ((0, 0), (0, 1)), constant_values=num_classes)
    return slots.reshape(-1)


def counted_rows(packed: PackedRows, boundaries: WordBoundaries | None) -> HostBatch:
    """The rows, and "counted" bool[R,T]: where a token may count as a class, so nowhere at pads.

    Args:
        boundaries: of the classes, which say where a token counts (`FairnessClasses`).
    """
    counted: Any = packed.segment_ids > 0
    if boundaries is not None:
        whole = whole_words(packed.tokens.ravel(), packed.positions.ravel(), boundaries)
        counted = counted & whole.reshape(counted.shape)
    rows = {name: getattr(packed, name) for name in ("tokens", "segment_ids", "positions")}
    return rows | {"counted": np.asarray(counted)}
