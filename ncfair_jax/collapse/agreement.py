"""NC4: does the linear classifier decide like the nearest class mean? Counted over held-out rows as they stream by."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ncfair_jax.collapse.class_stats import ClassStats, check_classifier
from ncfair_jax.collapse.regularizer import SEEN

ROWS_AT_A_TIME = 512  # bounds the decisions' memory to so many rows of K logits


class Agreement(NamedTuple):
    """NC4's own accumulator over held-out rows, [K] int32 each: a pytree, added up by `update_agreement`.

    Attributes:
        matches, misses: rows of each true class on which the two classifiers agree, and do not.
        linear, nearest: rows that each of them gives to a class, from which chance agreement follows.
    """

    matches: Int[Array, "K"]
    misses: Int[Array, "K"]
    linear: Int[Array, "K"]
    nearest: Int[Array, "K"]

    @classmethod
    def zeros(cls, num_classes: int) -> "Agreement":
        return cls(*(jnp.zeros(num_classes, jnp.int32) for _ in cls._fields))


def nc4_decisions(
    stats: ClassStats,
    classifier: Float[Array, "K D"],
    features: Float[Array, "N D"],
    bias: Float[Array, "K"] | None = None,
) -> tuple[Int[Array, "N"], Int[Array, "N"]]:
    """What the linear classifier and the nearest class mean make of each row, among the seen classes; ties to the lowest.

    Args:
        stats: moments of the collection rows.
        classifier, bias: output embeddings and, where the linear decision is to have them, biases.
        features: rows that are not in `stats`.
    """
    check_classifier(stats, classifier, bias)
    seen = stats.count > SEEN
    centre = jnp.sum(jnp.where(seen[:, None], stats.mean, 0), axis=0) / jnp.maximum(jnp.sum(seen), 1)
    centred = stats.mean - centre[None, :]  # distances from a point amid the means: uncentred ones cancel in float32
    offset = jnp.sum(jnp.square(centred), axis=1) / 2
    features = features.astype(stats.mean.dtype)
    linear = linear_decisions(seen, classifier, features, bias)
    return linear, linear_decisions(seen, centred, features - centre[None, :], -offset)


def linear_decisions(
    seen: Bool[Array, "K"], weight: Float[Array, "K D"], features: Float[Array, "N D"], bias: Float[Array, "K"] | None
) -> Int[Array, "N"]:
    """The seen class of the largest <weight_c, x> + bias_c for each row, ties to the lowest."""
    shift = jnp.where(seen, 0 if bias is None else bias, -jnp.inf)

    def decide(row: Float[Array, "D"]) -> Array:
        return jnp.argmax(jnp.matmul(weight, row, precision="highest") + shift)

    decisions = jax.lax.map(decide, features, batch_size=min(len(features), ROWS_AT_A_TIME))
    return decisions.astype(jnp.int32)


def update_agreement(
    agreement: Agreement,
    stats: ClassStats,
    classifier: Float[Array, "K D"],
    features: Float[Array, "N D"],
    slots: Int[Array, "N"],
    bias: Float[Array, "K"] | None = None,
) -> Agreement:
    """Adds held-out rows to NC4's counts. Rows of unlisted or unseen classes are left out.

    Agreement is not accuracy: the true class only says under which class a row is counted.
    """
    num_classes = stats.mean.shape[0]
    linear, nearest = nc4_decisions(stats, classifier, features, bias)
    counted = (slots >= 0) & (slots < num_classes) & (stats.count.at[slots].get(mode="fill", fill_value=0) > SEEN)

    def histogram(keys: Array, kept: Array) -> Array:
        return jax.ops.segment_sum(kept.astype(jnp.int32), jnp.where(kept, keys, num_classes), num_classes)

    return Agreement(
        agreement.matches + histogram(slots, counted & (linear == nearest)),
        agreement.misses + histogram(slots, counted & (linear != nearest)),
        agreement.linear + histogram(linear, counted),
        agreement.nearest + histogram(nearest, counted),
    )


def nc4_rate(agreement: Agreement) -> float:
    """NC4: fraction of held-out rows on which the two classifiers agree; 1 at collapse."""
    matches, misses = float(np.sum(agreement.matches)), float(np.sum(agreement.misses))
    return matches / (matches + misses) if matches + misses else float("nan")


def nc4_macro(agreement: Agreement) -> float:
    """The same with every true class that is present weighing alike."""
    matches, rows = np.asarray(agreement.matches), np.asarray(agreement.matches) + np.asarray(agreement.misses)
    return float(np.mean(matches[rows > 0] / rows[rows > 0])) if rows.any() else float("nan")


def nc4_chance(agreement: Agreement) -> float:
    """Agreement of two classifiers that give away as many rows per class as these do, but independently."""
    linear, nearest = np.asarray(agreement.linear, np.float64), np.asarray(agreement.nearest, np.float64)
    return float(linear @ nearest / np.sum(linear) ** 2) if np.sum(linear) else float("nan")
