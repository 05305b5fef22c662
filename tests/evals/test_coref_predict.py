"""From links between spans to clusters of words."""

import numpy as np

from ncfair_jax.data.coref import encode_document
from ncfair_jax.evals.coref_predict import clusters_of, predict_clusters
from tests import tiny_coref
from tests.objectives.test_coref import CONFIG, MODEL, OWN


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
