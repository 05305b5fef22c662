"""Coreference resolution by ranking of spans, as a way to fine-tune an encoder and to judge it on WinoBias.

Loss: the negative log-likelihood of each kept span's gold antecedents together (of the dummy where it has none), summed over a
document's spans, averaged over documents. The scorers are the method's own parameters.

Sources: Lee et al. 2018 (arXiv:1804.05392), Joshi et al. 2019 (arXiv:1908.09091), without higher-order inference. Different
here: special tokens begin and end no span, and a sentence that a segment's end cuts is two.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ncfair_jax.data.pipeline import Examples
from ncfair_jax.methods.base import Batch, Method, Metrics, Objective, Partial, stateless
from ncfair_jax.models.base import EXTRA, ModelConfig, Params
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.coreference.antecedents import marginal_loss
from ncfair_jax.tasks.coreference.config import SWITCHES, CorefConfig, CorefRun, describe
from ncfair_jax.tasks.coreference.documents import document_files, load_coref_examples
from ncfair_jax.tasks.coreference.model import gold_clusters, init_coref, rank


def coref_objective(model: ModelConfig, config: CorefConfig) -> Objective:
    """Mean loss of the documents.

    Metrics: "coref_loss" (nats a document) and "mention_recall" (gold mentions among the kept spans, fraction).
    """

    def partial(params: Params, batch: Batch, rng: Key[Array, ""] | None) -> tuple[Partial, Float[Array, "R T D"]]:
        ranked, hidden = rank(model, config, params, params[EXTRA], batch, rng)
        clusters = gold_clusters(ranked, batch["gold"])
        losses = jax.vmap(marginal_loss)(ranked.antecedents, ranked.kept.real, clusters)
        sums = {
            "loss": jnp.sum(losses * batch["weights"]),
            "documents": jnp.sum(batch["weights"]),
            "found": jnp.sum(clusters > 0).astype(jnp.float32),
            "mentions": jnp.sum(batch["gold"] > 0).astype(jnp.float32),
        }
        return Partial(sums), hidden

    def loss(sums: dict[str, Float[Array, ""]]) -> tuple[Float[Array, ""], Metrics]:
        metrics = {
            "coref_loss": (sums["loss"], sums["documents"]),
            "mention_recall": (sums["found"], sums["mentions"]),
        }
        return sums["loss"] / jnp.maximum(sums["documents"], 1), metrics

    return stateless(partial, loss)


def _extra_params(config: CorefRun, model: ModelConfig, rng: Key[Array, ""]) -> Params:
    return init_coref(config.coref, model, rng)


def _objective(config: CorefRun, model: Pretrained, examples: Examples) -> Objective:
    del examples
    return coref_objective(model.config, config.coref)


def _reads(config: CorefRun) -> dict[str, list[Path]]:
    return {"coref.train": document_files(config.coref.train) if config.coref.train else []}


COREF = Method(
    CorefRun,
    load_coref_examples,
    _reads,
    describe,
    _objective,
    switches=SWITCHES,
    extra_params=_extra_params,
    dev_metric="coref_loss",
)
