"""Coreference clusters of documents, by a model that was trained with objective "coref"."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from ncfair_jax.engine.forward import Batch, HostBatch, evaluation_config, reduced
from ncfair_jax.finite import require_finite
from ncfair_jax.models.base import Hidden, ModelConfig, Params
from ncfair_jax.models.hf import Pretrained
from ncfair_jax.sharding import replicate
from ncfair_jax.tasks.coreference.antecedents import best_antecedents
from ncfair_jax.tasks.coreference.config import CorefConfig
from ncfair_jax.tasks.coreference.conll import Cluster, Document
from ncfair_jax.tasks.coreference.documents import Encoded, columns_of, encode_document, lay_out, shape_of
from ncfair_jax.tasks.coreference.model import rank_spans

BATCH_TOKENS = 2048  # of a device's batch, unless one document has more


@dataclass(frozen=True)
class Links:
    """Reduces the rows of B documents to the links between their spans.

    Gives starts, ends and antecedents (-1: none, or no span) of the kept spans, and whether all scores and hidden states of a
    document are finite.
    """

    config: CorefConfig
    attention: ClassVar[bool] = False

    def __call__(
        self, config: ModelConfig, own: Params, hidden: Hidden, rows: Batch
    ) -> tuple[Int[Array, "B K"], Int[Array, "B K"], Int[Array, "B K"], Bool[Array, "B"]]:
        states = hidden.hidden_states
        ranked = rank_spans(self.config, own, states, rows, None)
        inside = rows["segment_ids"].reshape(len(states), -1, 1) > 0
        behind = (jnp.where(inside, states, 0), jnp.where(ranked.antecedents.real, ranked.antecedents.scores, 0))
        of_states, of_scores = (jnp.isfinite(x).reshape(len(rows["genre"]), -1).all(axis=1) for x in behind)
        antecedents = jax.vmap(best_antecedents)(ranked.antecedents)
        return ranked.kept.starts, ranked.kept.ends, antecedents, of_states & of_scores


def predict_clusters(
    pretrained: Pretrained,
    own: Params,
    config: CorefConfig,
    segment_tokens: int,
    documents: Sequence[Document],
    mesh: Mesh | None = None,
) -> list[tuple[Cluster, ...]]:
    """Clusters of every document, as words.

    Args:
        own: the scorers' parameters, as `init_coref` makes them.
        segment_tokens: as in training.
    Returns:
        Per document its clusters of at least two mentions, in the order in which their second mention comes, as the
        published evaluation has them.
    Raises:
        NonFiniteError: if a score that decides between antecedents is not finite, naming the document.
    """
    encoded = [encode_document(document, pretrained.tokenizer, segment_tokens) for document in documents]
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, document in enumerate(encoded):
        by_shape[shape_of([document], segment_tokens)].append(number)
    model = evaluation_config(pretrained.config)
    params, own = replicate((pretrained.params, own), mesh)
    devices = 1 if mesh is None else mesh.size
    found: list[tuple[Cluster, ...]] = [()] * len(encoded)
    for (segments, row_tokens), numbers in by_shape.items():
        per_device = min(BATCH_TOKENS // (segments * row_tokens), -(-len(numbers) // devices))
        size = max(1, per_device) * devices
        chosen = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        batches = _batches([[encoded[i] for i in some] for some in chosen], size, segment_tokens, config.max_width)
        results = reduced(model, Links(config), mesh, params, own, batches)
        for some, (*links, finite) in zip(chosen, results, strict=True):
            names = [f"a score in document {documents[i].name}, part {documents[i].part}," for i in some]
            require_finite(np.where(finite[: len(some)], 0, np.nan), names.__getitem__)
            for row, number in enumerate(some):
                spans = clusters_of(*(array[row] for array in links))
                found[number] = _as_words(spans, encoded[number], row_tokens)
    return found


def _batches(
    documents: Sequence[Sequence[Encoded]], size: int, segment_tokens: int, max_width: int
) -> Iterator[HostBatch]:
    """Batches of so many documents, without what only training looks at."""
    for some in documents:
        batch = lay_out(some, size, segment_tokens, max_width)
        yield {name: array for name, array in batch.items() if name not in ("gold", "weights")}


def clusters_of(starts: np.ndarray, ends: np.ndarray, antecedents: np.ndarray) -> list[list[tuple[int, int]]]:
    """Chains of spans and their antecedents.

    Args:
        starts, ends: i32[K], spans in the order of the document.
        antecedents: i32[K], index of an earlier span; -1 = none.
    """
    clusters: list[list[tuple[int, int]]] = []
    cluster_of: dict[int, int] = {}
    for span, antecedent in enumerate(antecedents.tolist()):
        if antecedent < 0:
            continue
        if antecedent not in cluster_of:
            cluster_of[antecedent] = len(clusters)
            clusters.append([(int(starts[antecedent]), int(ends[antecedent]))])
        cluster_of[span] = cluster_of[antecedent]
        clusters[cluster_of[span]].append((int(starts[span]), int(ends[span])))
    return clusters


def _as_words(clusters: list[list[tuple[int, int]]], document: Encoded, row_tokens: int) -> tuple[Cluster, ...]:
    """From places in the padded document to words; spans that begin or end inside a word take the whole of it."""
    word = dict(
        zip((document.segments * row_tokens + columns_of(document)).tolist(), document.words.tolist(), strict=True)
    )
    mentions = [sorted({(word[start], word[end]) for start, end in cluster}) for cluster in clusters]
    return tuple(tuple(cluster) for cluster in mentions if len(cluster) > 1)
