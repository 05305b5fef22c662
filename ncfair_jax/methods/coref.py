"""Coreference resolution by ranking of spans, as a way to fine-tune an encoder and to judge it on WinoBias.

Loss: the negative log-likelihood of each kept span's gold antecedents together (of the dummy where it has none), summed over a
document's spans, averaged over documents. The scorers are the method's own parameters.

Sources: Lee et al. 2018 (arXiv:1804.05392), Joshi et al. 2019 (arXiv:1908.09091), without higher-order inference. Different
here: special tokens begin and end no span, and a sentence that a segment's end cuts is two.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from ncfair_jax.benchmarks import registry
from ncfair_jax.benchmarks.coref_predict import predict_clusters
from ncfair_jax.benchmarks.coref_scores import score_documents
from ncfair_jax.benchmarks.winobias_coref import score_winobias
from ncfair_jax.config import CorefConfig, RunConfig
from ncfair_jax.data.conll import Cluster, Document, in_order, write_conll
from ncfair_jax.data.coref import document_files, load_coref_examples, read_documents
from ncfair_jax.data.pipeline import Examples
from ncfair_jax.data.winobias import read_winobias, winobias_files
from ncfair_jax.files.fingerprint import files_fingerprint
from ncfair_jax.files.notes import collected
from ncfair_jax.methods.base import EXTRA, Batch, Method, Metrics, Objective, Partial, stateless
from ncfair_jax.models.antecedents import marginal_loss
from ncfair_jax.models.coref import gold_clusters, init_coref, rank
from ncfair_jax.models.encoder import ModelConfig, Params
from ncfair_jax.models.fingerprint import model_fingerprint
from ncfair_jax.models.hf import Pretrained


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


def _extra_params(config: RunConfig, model: ModelConfig, rng: Key[Array, ""]) -> Params:
    return init_coref(config.coref, model, rng)


def _objective(config: RunConfig, model: Pretrained, examples: Examples) -> Objective:
    del examples
    return coref_objective(model.config, config.coref)


def _evaluate(config: RunConfig, trained: Pretrained, folder: Path, mesh: Mesh) -> dict[str, dict[str, Any]]:
    """Judges on WinoBias and on the documents of `config.coref.dev`, whichever are named.

    Also writes coref_dev.conll: the predicted clusters, for any other scorer.
    """
    coref = config.coref
    found = {}
    model = model_fingerprint(trained)

    def content(files: list[Path]) -> dict[str, str]:
        return {"model": model, "data": files_fingerprint(files)}

    def predict(documents: Sequence[Document]) -> list[tuple[Cluster, ...]]:
        return predict_clusters(trained, trained.params[EXTRA], coref, config.data.row_tokens, documents, mesh)

    if coref.winobias:
        with collected() as left_out:
            groups = read_winobias(Path(coref.winobias), coref.winobias_split)
        predictions = {group: list(zip(d, predict(d), strict=True)) for group, d in groups.items()}
        result = score_winobias(predictions, {"split": coref.winobias_split})
        result = result._replace(left_out=tuple(left_out))
        found["winobias_coref"] = registry.write(
            folder, "winobias_coref", config.name, result, content(_winobias_files(coref))
        )
    if coref.dev:
        with collected() as left_out:
            documents = read_documents(coref.dev)
        clusters = predict(documents)
        result = score_documents(documents, clusters)._replace(left_out=tuple(left_out))
        found["coref_dev"] = registry.write(folder, "coref_dev", config.name, result, content(_dev_files(coref)))
        if jax.process_index() == 0:
            answers = [d._replace(clusters=in_order(c)) for d, c in zip(documents, clusters, strict=True)]
            write_conll(folder / "coref_dev.conll", answers)
    return found


def _reads(config: RunConfig) -> dict[str, list[Path]]:
    return {"coref.train": document_files(config.coref.train) if config.coref.train else []}


def _judged_on(config: RunConfig) -> list[Path]:
    return [*_winobias_files(config.coref), *_dev_files(config.coref)]


def _winobias_files(config: CorefConfig) -> list[Path]:
    return winobias_files(Path(config.winobias), config.winobias_split) if config.winobias else []


def _dev_files(config: CorefConfig) -> list[Path]:
    return document_files(config.dev) if config.dev else []


COREF = Method(
    load_coref_examples,
    _reads,
    _objective,
    _extra_params,
    dev_metric="coref_loss",
    evaluate=_evaluate,
    judged_on=_judged_on,
)
