"""Neural collapse while a run trains: NC1 to NC3 of the fairness words and of a control, on a few fixed sentences."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from ncfair_jax.collapse.class_stats import take
from ncfair_jax.collapse.measures import measure
from ncfair_jax.collapse.survey import survey
from ncfair_jax.lexicons.classes import (
    FairnessClasses,
    build_classes,
    classes_of,
    frequency_matched,
    occurring,
    split_control,
    token_counts,
)
from ncfair_jax.lexicons.lexicon import load_lexicon
from ncfair_jax.models.base import Params
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import to_host
from ncfair_jax.vocabulary import whole_words

TRACKED = ("nc1", "nc2_norm_cv", "nc2_interference_rmse", "gnc2", "nc3", "unc3")


class Tracker(NamedTuple):
    """What is measured at every tracking point: the same sentences and words all along.

    Attributes:
        examples: encoded sentences with fairness words.
        classes: all words together; `slots` names those of the lexicon and of its control among them.
    """

    model: Pretrained
    examples: list[np.ndarray]
    classes: FairnessClasses
    slots: dict[str, np.ndarray]
    row_tokens: int
    mesh: Mesh


def make_tracker(
    model: Pretrained, lexicon: str, examples: Sequence[np.ndarray], sentences: int, row_tokens: int, mesh: Mesh
) -> Tracker | None:
    """Chooses sentences and control words; None where fewer than two fairness words occur in the examples.

    Whole words, each token with the representation of its own that the classifier multiplies, whatever a regulariser looks
    at: so all runs on a text can be compared. The control is a neutral word of about the same count in these sentences for
    each of their fairness words.

    Args:
        lexicon: shipped name or JSON file; a control named after it (`lexicons.classes.split_control`) is not looked at.
        sentences: how many, spread evenly over the examples that hold a fairness word.
    """
    fairness = build_classes(load_lexicon(split_control(lexicon)[0]), model.tokenizer)
    holding = [example for example in examples if _holds(example, fairness)]
    chosen = [holding[i] for i in np.linspace(0, len(holding) - 1, min(sentences, len(holding))).astype(int)]
    counts = token_counts(chosen, len(model.tokenizer), fairness.boundaries)
    if np.sum(counts[fairness.token_ids] > 0) < 2:
        return None
    words = occurring(fairness, counts, model.tokenizer)
    sets = {"lexicon": words}
    with suppress(ValueError):  # a small vocabulary has too few neutral words for a control
        sets["control"] = frequency_matched(words, counts, 0, model.tokenizer)
    token_ids = np.concatenate([x.token_ids for x in sets.values()])
    classes = classes_of(token_ids, model.tokenizer, fairness.boundaries)
    slots = {name: classes.slot_of_token[x.token_ids] for name, x in sets.items()}
    return Tracker(model, chosen, classes, slots, row_tokens, mesh)


def _holds(example: np.ndarray, words: FairnessClasses) -> bool:
    """Whether one of the words occurs in the example."""
    assert words.boundaries is not None  # they are whole words
    listed = words.slot_of_token[example] < words.num_classes
    return bool(np.any(listed & whole_words(example, np.arange(len(example)), words.boundaries)))


def track(tracker: Tracker, params: Params) -> dict[str, float]:
    """Figures of the current parameters, without dropout: "lexicon_nc1", "control_nc1", …; undefined ones are left out."""
    config = tracker.model.config
    surveyed = survey(
        config,
        params,
        tracker.examples,
        tracker.classes,
        features=("transform",),
        row_tokens=tracker.row_tokens,
        mesh=tracker.mesh,
        groups=1,
    )
    (stats,) = surveyed["transform"]
    rows = to_host(family_of(config).classifier(params)[0][tracker.classes.token_ids])
    found: dict[str, float] = {}
    for words, slots in tracker.slots.items():
        figures = measure(take(stats, slots), rows[slots])
        found |= {f"{words}_{name}": figures[name] for name in TRACKED if np.isfinite(figures[name])}
    return found
