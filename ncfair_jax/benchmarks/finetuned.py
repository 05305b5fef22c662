"""Judges a model that was fine-tuned for a task by that task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ncfair_jax.benchmarks import bias_nli, bios, glue, registry
from ncfair_jax.benchmarks.coref_predict import predict_clusters
from ncfair_jax.benchmarks.coref_scores import score_documents
from ncfair_jax.benchmarks.winobias_coref import score_winobias
from ncfair_jax.files.bucket import path_of
from ncfair_jax.files.fingerprint import files_fingerprint
from ncfair_jax.files.notes import collected
from ncfair_jax.models.base import EXTRA
from ncfair_jax.models.fingerprint import model_fingerprint
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.tasks.classification.config import ClassificationRun
from ncfair_jax.tasks.classification.loss import task_of
from ncfair_jax.tasks.coreference.config import CorefRun
from ncfair_jax.tasks.coreference.conll import Cluster, Document, in_order, write_conll
from ncfair_jax.tasks.coreference.documents import document_files, read_documents
from ncfair_jax.tasks.coreference.winobias import read_winobias, winobias_files


def classifier(config: ClassificationRun, model: Pretrained, folder: Path, mesh: Mesh) -> dict[str, dict[str, Any]]:
    """Judges the trained classifier; see `Method.evaluate`."""
    task, head = config.classification.task, model.params[EXTRA]
    with collected() as left_out:
        if task == "bios":
            name, result = task, bios.evaluate(config, model, head, mesh)
        elif task == "bias_nli":
            name, result = task, bias_nli.evaluate(config, model, head, mesh)
        else:
            name, result = glue.benchmark_name(task), glue.evaluate(task, config, model, head, mesh)
    result = result._replace(left_out=tuple(left_out))
    content = {"model": model_fingerprint(model), "data": files_fingerprint(classifier_files(config))}
    return {name: registry.write(folder, name, config.name, result, content)}


def classifier_files(config: ClassificationRun) -> list[Path]:
    """The local files that `classifier` reads."""
    return task_of(config).files(config, "test")


def coreference(config: CorefRun, trained: Pretrained, folder: Path, mesh: Mesh) -> dict[str, dict[str, Any]]:
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
            groups = read_winobias(path_of(coref.winobias), coref.winobias_split)
        predictions = {group: list(zip(d, predict(d), strict=True)) for group, d in groups.items()}
        result = score_winobias(predictions, {"split": coref.winobias_split})
        result = result._replace(left_out=tuple(left_out))
        found["winobias_coref"] = registry.write(
            folder, "winobias_coref", config.name, result, content(_winobias_files(config))
        )
    if coref.dev:
        with collected() as left_out:
            documents = read_documents(coref.dev)
        clusters = predict(documents)
        result = score_documents(documents, clusters)._replace(left_out=tuple(left_out))
        found["coref_dev"] = registry.write(folder, "coref_dev", config.name, result, content(_dev_files(config)))
        if jax.process_index() == 0:
            answers = [d._replace(clusters=in_order(c)) for d, c in zip(documents, clusters, strict=True)]
            write_conll(folder / "coref_dev.conll", answers)
    return found


def coreference_files(config: CorefRun) -> list[Path]:
    """The local files that `coreference` reads."""
    return [*_winobias_files(config), *_dev_files(config)]


def _winobias_files(config: CorefRun) -> list[Path]:
    coref = config.coref
    return winobias_files(path_of(coref.winobias), coref.winobias_split) if coref.winobias else []


def _dev_files(config: CorefRun) -> list[Path]:
    return document_files(config.coref.dev) if config.coref.dev else []
