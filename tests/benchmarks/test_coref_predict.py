"""From links between spans to clusters of words."""

import jax
import numpy as np
import pytest

from ncfair_jax.benchmarks import coref_predict
from ncfair_jax.benchmarks.coref_predict import clusters_of, predict_clusters
from ncfair_jax.engine import forward
from ncfair_jax.finite import NonFiniteError
from ncfair_jax.tasks.coreference.documents import encode_document, shape_of
from tests import tiny_coref
from tests.tasks.coreference.test_loss import CONFIG, MODEL, OWN


def test_chains_in_the_order_of_their_second_mentions():
    starts, ends = np.array([0, 2, 4, 6, 8, 9]), np.array([1, 2, 5, 6, 8, 9])
    antecedents = np.array([-1, -1, 1, 0, 2, -1])  # 4-2-1 is begun before 3-0
    assert clusters_of(starts, ends, antecedents) == [[(2, 2), (4, 5), (8, 8)], [(0, 1), (6, 6)]]
    assert clusters_of(starts, ends, np.full(6, -1)) == []


def test_a_document_alone_or_among_others():
    """Whatever else is predicted, in documents of one and of several segments."""
    documents = tiny_coref.documents(5)
    segments = {encode_document(document, MODEL.tokenizer, 16).num_segments for document in documents}
    assert len(segments) > 1
    together = predict_clusters(MODEL, OWN, CONFIG, 16, documents)
    assert sum(map(len, together)) > 3  # untrained, so it finds something wrong; but finds it
    for document, clusters in zip(documents, together, strict=True):
        words = sum(map(len, document.sentences))
        assert all(0 <= first <= last < words for cluster in clusters for first, last in cluster)
        assert all(len(cluster) > 1 for cluster in clusters)
    assert predict_clusters(MODEL, OWN, CONFIG, 16, documents[::-1])[::-1] == together


def test_batches_after_the_first_of_a_shape_trace_nothing(monkeypatch):
    documents = tiny_coref.documents(20)
    shapes = {shape_of([encode_document(document, MODEL.tokenizer, 16)], 16) for document in documents}
    traced, batches = [], []
    rank, put = coref_predict.rank_spans, forward.put_rows
    monkeypatch.setattr(
        coref_predict, "rank_spans", lambda *args: traced.append(args[3]["tokens"].shape) or rank(*args)
    )
    monkeypatch.setattr(
        forward, "put_rows", lambda batch, mesh: batches.append(batch["tokens"].shape) or put(batch, mesh)
    )
    monkeypatch.setattr(coref_predict, "BATCH_TOKENS", 16)  # a document at a time
    jax.clear_caches()
    for _ in range(2):
        predict_clusters(MODEL, OWN, CONFIG, 16, documents)
    assert len(traced) == len(set(traced)) == len(shapes) > 1
    assert len(batches) == 2 * len(documents)


@pytest.mark.parametrize("part", ["encoder", "mention", "coarse", "fine"])
def test_scores_that_are_not_finite_are_no_clusters(part):
    """Such a score is no larger than the dummy's 0: a document would have no clusters, or one link less."""
    params, own = (jax.tree.map(np.array, tree) for tree in (MODEL.params, OWN))
    if part == "encoder":
        params["encoder"]["layer_0"]["norm"]["scale"][3] = np.nan
    else:
        leaf = own[part] if part == "coarse" else own[part]["output"]
        leaf["bias"][...] = np.nan
    documents = tiny_coref.documents(2)
    with pytest.raises(
        NonFiniteError, match=f"a score in document {documents[0].name}, part {documents[0].part}, is nan"
    ):
        predict_clusters(MODEL._replace(params=params), own, CONFIG, 16, documents)
