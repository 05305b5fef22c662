"""Every figure of one set of class moments word by word."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from ncfair_jax.collapse.class_stats import ClassStats
from ncfair_jax.collapse.measures import (
    dual_distances,
    nc2_norms,
    pair_means_by_word,
    seen_classes,
    similarities,
    variances,
)
from ncfair_jax.lexicons.classes import FairnessClasses

COLUMNS = (
    "word",
    "token_id",
    "group",
    "count",
    "cosine",
    "cosine_centred",
    "dual_distance",
    "norm",
    "variance",
    "nc1",
    "nc1_w",
    "interference",
    "gnc2",
    "gnc2_w",
)


def word_table(classes: FairnessClasses, stats: ClassStats, classifier: Float[Array, "K D"]) -> list[dict[str, Any]]:
    """One row for each word that was seen, in the order of the classes.

    `cosine` is the word's share of NC3, `norm` that of the NC2 norms; `nc1`, `nc1_w`, `interference`, `gnc2` and `gnc2_w`
    are means over the word's pairs with all others. Undefined figures are NaN.
    """
    slots = seen_classes(stats)
    columns: dict[str, Any] = {
        "word": [classes.words[slot] for slot in slots],
        "token_id": classes.token_ids[slots].tolist(),
        "group": classes.group[slots].tolist(),
        "count": np.asarray(stats.count)[slots].tolist(),
        "cosine": similarities(stats, classifier),
        "cosine_centred": similarities(stats, classifier, centre=True),
        "dual_distance": dual_distances(stats, classifier),
        "norm": nc2_norms(stats),
        "variance": variances(stats),
        **pair_means_by_word(stats, classifier),
    }
    return [
        dict(zip(COLUMNS, values, strict=True)) for values in zip(*(columns[name] for name in COLUMNS), strict=True)
    ]
