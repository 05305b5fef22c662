"""The NC3 regulariser as a plug-in: any objective gains `+ weight · nc3_loss`."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ncfair_jax.collapse import ClassStats, decay, merge, nc3_loss, update
from ncfair_jax.fields import allowed, choice, not_negative
from ncfair_jax.lexicons.classes import FairnessClasses
from ncfair_jax.methods.base import Batch, Metrics, Objective, Partial
from ncfair_jax.models.base import ModelConfig, Params
from ncfair_jax.models.families import family_of
from ncfair_jax.sharding import keep_rows, keep_whole


@dataclass(frozen=True)
class NC3Config:
    """The plug-in regulariser `+ weight · std_c cos(class mean, classifier row)`; weight 0 leaves it out.

    Attributes:
        lexicon: shipped name or JSON file of the fairness words; with ":random" or ":frequency-matched" after it, as many
            neutral words of the training text instead: a control.
        word_rule: "whole_word", "listed_token" or "first_piece": how words become classes
            (`lexicons.classes.build_classes`).
        features: "hidden" (last layer) or "transform" (what the classifier really multiplies).
        alignment: "same" (row t is the token at t) or "next" (the token at t + 1).
        labels: "original" (before masking) or "input" (after masking).
        window: "run", "epoch", "ema" or "batch": how long class means live.
        ema_decay: decay of counts a step under "ema".
        gradient: "classifier" (classifier rows only) or "both" (also the features of the current batch).
    """

    weight: float = not_negative(0.0)
    lexicon: str = "gender"
    word_rule: str = choice("whole_word", "listed_token", "first_piece")
    features: str = choice("hidden", "transform", default="transform")
    alignment: str = choice("same", "next")
    labels: str = choice("original", "input")
    window: str = choice("run", "epoch", "ema", "batch", default="ema")
    ema_decay: float = allowed(0.99, lambda decay: 0 < decay < 1, "must lie between 0 and 1")
    gradient: str = choice("classifier", "both", default="both")


PAPER = {
    "word_rule": "first_piece",
    "features": "hidden",
    "alignment": "next",
    "labels": "input",
    "window": "run",
    "gradient": "classifier",
}
ALIGNED = {
    "word_rule": "whole_word",
    "features": "transform",
    "alignment": "same",
    "labels": "original",
    "window": "ema",
    "ema_decay": 0.99,
    "gradient": "both",
}
PRESETS = {"paper": PAPER, "aligned": ALIGNED}


def with_nc3(
    objective: Objective, config: NC3Config, classes: FairnessClasses, model: ModelConfig, steps_per_epoch: int
) -> Objective:
    """The objective with the regulariser added to its loss.

    The batch names the class of each token in "slots" [R, T] (K = none), so alignment and labels are the pipeline's business.
    The running ClassStats live in the carry; the current batch is merged in before the loss is read.

    Args:
        objective: the task; its hidden states are the features.
        config: weight, features, window, decay, gradient.
        classes: the K fairness words.
        steps_per_epoch: where window "epoch" starts anew.
    Returns:
        An objective whose metrics also hold "nc3_loss" (std of cosines), "nc3" (their mean), "nc3_classes" (seen so far)
        and "nc3_grad_norm", the norm of weight · dNC3/dW on the classifier rows in closed form.
    Source: arXiv:2410.04472.
    """
    num_classes, token_ids = len(classes.words), jnp.asarray(classes.token_ids)

    def init(params: Params) -> dict[str, Any]:
        empty = ClassStats.zeros(num_classes, model.hidden_size, decayed=config.window == "ema")
        return {"task": objective.init(params), "nc3": empty}

    def partial(
        params: Params, carry: dict[str, Any], batch: Batch, rng: Key[Array, ""] | None
    ) -> tuple[Partial, Float[Array, "R T D"]]:
        part, hidden = objective.partial(params, carry["task"], batch, rng)
        features = hidden if config.features == "hidden" else family_of(model).features(model, params, hidden)
        if config.gradient == "classifier":
            features = jax.lax.stop_gradient(features)
        stats = update(
            ClassStats.zeros(num_classes, model.hidden_size),
            keep_rows(features).reshape(-1, model.hidden_size),
            batch["slots"].reshape(-1),
        )
        return Partial(part.sums, (*part.stats, keep_whole(stats))), hidden

    def loss(
        params: Params, carry: dict[str, Any], total: Partial, step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Metrics, dict[str, Any]]]:
        task_loss, (metrics, task) = objective.loss(params, carry["task"], total._replace(stats=total.stats[:-1]), step)
        stats = remembered(config, carry["nc3"], total.stats[-1], step % steps_per_epoch == 0)
        rows = keep_whole(family_of(model).classifier(params)[0][token_ids])  # [K, D]
        value, aux = nc3_loss(stats, rows)
        one = jnp.ones(())
        own = {"nc3_loss": value, "nc3": aux["nc3"], "nc3_classes": aux["classes_seen"]}
        own["nc3_grad_norm"] = config.weight * aux["grad_norm"]
        metrics = metrics | {name: (figure, one) for name, figure in own.items()}
        return task_loss + config.weight * value, (metrics, {"task": task, "nc3": jax.lax.stop_gradient(stats)})

    def refresh(params: Params, carry: dict[str, Any]) -> dict[str, Any]:
        assert objective.refresh is not None  # asked for only where it is due
        return carry | {"task": objective.refresh(params, carry["task"])}

    wrapped = Objective(init, partial, loss)
    if objective.refresh is None:
        return wrapped
    return wrapped._replace(refresh=refresh, refresh_every=objective.refresh_every)


def remembered(config: NC3Config, past: ClassStats, batch: ClassStats, new_epoch: Bool[Array, ""]) -> ClassStats:
    """The running class statistics with those of a batch, as long as the config's window keeps them."""
    if config.window == "ema":
        past = decay(past, config.ema_decay)
        batch = batch._replace(count=batch.count.astype(past.count.dtype))
    elif config.window == "epoch":
        past = jax.tree.map(lambda x: jnp.where(new_epoch, jnp.zeros_like(x), x), past)
    elif config.window == "batch":
        past = jax.tree.map(jnp.zeros_like, past)
    return merge(past, batch)
