"""MABEL: contrastive learning on entailment pairs, alignment of the two gender directions, and masked-LM.

Letters besides those of the pipeline: V views of a pair (premise o0, hypothesis o1, swapped a0 and a1, and with hard
negatives h_o and h_a), M rows of one side of a contrast. The loss compares all pairs of the batch, on however many devices
it lies: `example_cls` gathers across the mesh, so all devices' pairs are each other's negatives and carry gradients.

Source: He et al. 2022 (arXiv:2210.14975). Differences from its released code: decoder and word embeddings stay tied, and
the masked-LM head reads the encoder under a3 too (there it read a projection, which an exported model does not have).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ncfair_jax.data.pipeline import Examples
from ncfair_jax.files.bucket import path_of
from ncfair_jax.lexicons.lexicon import lexicon_file
from ncfair_jax.methods.base import Batch, Method, Metrics, Objective, Partial, stateless
from ncfair_jax.methods.mabel.config import SWITCHES, TEMPLATES, MabelConfig, MabelRun, describe, rules
from ncfair_jax.methods.mabel.pairs import load_pair_examples
from ncfair_jax.methods.mlm import head_sums
from ncfair_jax.models.base import EXTRA, Ask, ModelConfig, Params, Rows
from ncfair_jax.models.families import family_of
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.models.layers import linear

SMALLEST_NORM = 1e-8
HARD_BONUS = 0.1  # added to the logit of a premise and its own hard negative
TWO_LAYERS = ("avg_top2", "avg_first_last")


def cosines(x: Float[Array, "M D"], y: Float[Array, "N D"]) -> Float[Array, "M N"]:
    """Cosine of every row of x with every row of y; rows shorter than 1e-8 count as that long."""
    # At a temperature of 0.05 the bfloat16 products of some backends would be off by a tenth of a nat.
    return jnp.matmul(_unit(x), _unit(y).T, precision=jax.lax.Precision.HIGHEST)


def contrastive_loss(
    queries: Float[Array, "M D"],
    keys: Float[Array, "M D"],
    temperature: float,
    hard: Float[Array, "M D"] | None = None,
) -> Float[Array, ""]:
    """Mean cross-entropy (nats) of finding each query's own key among all keys by cosine / temperature.

    Args:
        hard: further keys that are nobody's; the logit of row i and hard key i is raised by 0.1.
    Returns:
        ln M at equal embeddings without hard keys.
    Source: arXiv:2210.14975, with queries [o0; a0], keys [o1; a1] and one direction only.
    """
    logits = cosines(queries, keys) / temperature  # [M, M]
    own = jnp.diagonal(logits)
    if hard is not None:
        extra = cosines(queries, hard) / temperature + HARD_BONUS * jnp.eye(len(hard))
        logits = jnp.concatenate([logits, extra], axis=1)  # [M, 2M]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - own)


def similarity_alignment(
    premises: Float[Array, "M D"],
    hypotheses: Float[Array, "N D"],
    swapped_premises: Float[Array, "M D"],
    swapped_hypotheses: Float[Array, "N D"],
    temperature: float,
) -> Float[Array, ""]:
    """a1: squared difference of the two directions' similarities, summed over hypotheses, averaged over premises.

    The sum makes it grow with the batch, and the temperature enters squared: 400 times the raw cosines' at 0.05.
    """
    gap = (cosines(premises, hypotheses) - cosines(swapped_premises, swapped_hypotheses)) / temperature  # [M, N]
    return jnp.mean(jnp.sum(jnp.square(gap), axis=1))


def embedding_alignment(original: Float[Array, "M D"], swapped: Float[Array, "M D"]) -> Float[Array, ""]:
    """Half of a2: mean squared distance of sentences from their swapped copies."""
    return jnp.mean(jnp.sum(jnp.square(original - swapped), axis=1))


def sentence_states(
    pooler: str,
    layers: tuple[Float[Array, "R T D"], ...],
    segment_ids: Int[Array, "R T"],
    cls: Int[Array, "E V 2"],
) -> Float[Array, "E V D"]:
    """Sentence embeddings of the views before any MLP, float32.

    Args:
        pooler: as MabelConfig.pooler. The means are over all tokens of a sentence, special ones included.
        layers: embeddings and every layer's output for "avg_top2" and "avg_first_last"; else the last one suffices.
        cls: row and column of each sentence's first token.
    """
    row, column = cls[..., 0], cls[..., 1]
    if pooler in ("cls", "cls_before_pooler"):
        return layers[-1][row, column].astype(jnp.float32)
    states = layers[-1].astype(jnp.float32)
    if pooler in TWO_LAYERS:
        states = (states + layers[-2 if pooler == "avg_top2" else 0].astype(jnp.float32)) / 2
    own = segment_ids[row] == segment_ids[row, column][..., None]  # [E, V, T]
    sums = jnp.einsum("evt,evtd->evd", own.astype(jnp.float32), states[row])
    return sums / jnp.sum(own, axis=-1, keepdims=True)


def mlp(params: Params, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """dense2(tanh(dense1(x))): what SimCSE does with one layer."""
    return linear(params["dense2"], jnp.tanh(linear(params["dense1"], x)))


def pair_losses(config: MabelConfig, params: Params, views: Float[Array, "E V D"]) -> dict[str, Float[Array, ""]]:
    """The losses of the pairs that the config asks for: "contrastive" and "alignment".

    Args:
        params: the method's own: `projection` is read by a3.
        views: sentence embeddings.
    """
    o0, o1, a0, a1, *hard = (views[:, i] for i in range(views.shape[1]))
    losses: dict[str, Array] = {}
    if config.contrastive:
        queries, keys = jnp.concatenate([o0, a0]), jnp.concatenate([o1, a1])
        negatives = jnp.concatenate(hard) if hard else None
        losses["contrastive"] = contrastive_loss(queries, keys, config.softmax_temp, negatives)
    if config.align_loss == "a1":
        if hard:  # hard negatives are further premises here
            o0, a0 = jnp.concatenate([o0, hard[0]]), jnp.concatenate([a0, hard[1]])
        losses["alignment"] = similarity_alignment(o0, o1, a0, a1, config.softmax_temp)
    elif config.align_loss == "a2":
        losses["alignment"] = embedding_alignment(o0, a0) + embedding_alignment(o1, a1)
    elif config.align_loss == "a3":
        original, swapped = (linear(params["projection"], jnp.concatenate(x)) for x in ((o0, o1), (a0, a1)))
        losses["alignment"] = contrastive_loss(original, swapped, config.align_temp)
    return losses


def mixed(config: MabelConfig, losses: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
    """Contrastive and alignment loss as one; either alone has weight 1, and 0 without any."""
    if len(losses) < 2:
        return sum(losses.values(), jnp.zeros(()))
    weight = config.align_weight
    contrastive = losses["contrastive"] * (1 - weight if config.mix == "convex" else 1)
    return contrastive + weight * losses["alignment"]


def mabel_objective(model: ModelConfig, config: MabelConfig) -> Objective:
    """mixed(contrastive, alignment) + mlm_weight · masked-LM (mean over the masked positions of all views).

    Metrics: "contrastive_loss", "alignment_loss" (where asked for), "mlm_loss" (nats) and "mlm_accuracy" (fraction).
    """

    def partial(params: Params, batch: Batch, rng: Key[Array, ""] | None) -> tuple[Partial, Float[Array, "R T D"]]:
        output = family_of(model).hidden(
            model, params, Rows.of(batch), Ask(dropout_rng=rng, all_layers=config.pooler in TWO_LAYERS)
        )
        hidden = output.hidden_states
        sums = head_sums(model, params, hidden, batch)
        layers = output.all_layers or (hidden,)
        views = sentence_states(config.pooler, layers, batch["segment_ids"], batch["example_cls"])
        if config.pooler == "cls":
            views = mlp(params[EXTRA], views)
        # A batch is one micro-batch (the method does not accumulate), so these losses of it are its sums.
        return Partial(sums | pair_losses(config, params[EXTRA], views)), hidden

    def loss(sums: dict[str, Float[Array, ""]]) -> tuple[Float[Array, ""], Metrics]:
        losses: dict[str, Array] = {name: sums[name] for name in ("contrastive", "alignment") if name in sums}
        mlm = sums["loss"] / jnp.maximum(sums["masked"], 1)
        one = jnp.ones(())
        metrics = {f"{name}_loss": (value, one) for name, value in losses.items()}
        metrics |= {
            "mlm_loss": (sums["loss"], sums["masked"]),
            "mlm_accuracy": (sums["correct"], sums["masked"]),
        }
        return mixed(config, losses) + config.mlm_weight * mlm, metrics

    return stateless(partial, loss)


def _extra_params(config: MabelRun, model: ModelConfig, rng: Key[Array, ""]) -> Params:
    """The MLP (`dense1`, `dense2`) and the projection of a3, N(0, initializer_range²) and 0; unused ones stay as they are."""
    del config
    size = model.hidden_size

    def layer(key: Key[Array, ""]) -> dict[str, Any]:
        return {"kernel": model.initializer_range * jax.random.normal(key, (size, size)), "bias": jnp.zeros(size)}

    names = ("dense1", "dense2", "projection")
    return dict(zip(names, map(layer, jax.random.split(rng, len(names))), strict=True))


def _objective(config: MabelRun, model: Pretrained, examples: Examples) -> Objective:
    del examples
    return mabel_objective(model.config, config.mabel)


def _unit(x: Float[Array, "M D"]) -> Float[Array, "M D"]:
    # The maximum is inside the root: a row of zeros then has the gradient 0 and not NaN.
    return x / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=1, keepdims=True), SMALLEST_NORM**2))


def _reads(config: MabelRun) -> dict[str, list[Path]]:
    if config.mabel.pairs == TEMPLATES:
        return {"data.lexicon": [lexicon_file(config.data.lexicon)]}
    return {"mabel.pairs": [path_of(config.mabel.pairs)]}


MABEL = Method(
    MabelRun,
    load_pair_examples,
    _reads,
    describe,
    _objective,
    rules,
    SWITCHES,
    extra_params=_extra_params,
    accumulates=False,
)
