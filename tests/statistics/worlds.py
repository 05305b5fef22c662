"""Data with a known truth, many data sets at a time: shares, means and effects of examples that come in clusters.

Letters: B data sets, C clusters, E examples, P professions, W person words.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri


def shares(
    rng: np.random.Generator, sets: int, sizes: Sequence[int], share: float, correlation: float, alike: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes 0 and 1 of two models on the same examples, bool[B,E] each, true in `share` of all examples there could be.

    Args:
        sizes: examples in each cluster; they stand together.
        correlation: between the latent values of two examples of a cluster.
        alike: between those of the two models.
    """
    first, second = latent(rng, sets, sizes, correlation, alike)
    return first < ndtri(share), second < ndtri(share)


def latent(
    rng: np.random.Generator, sets: int, sizes: Sequence[int], correlation: float, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal values of two models f64[B,E] each; see `shares`."""
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    shared = rng.standard_normal((sets, len(sizes))), rng.standard_normal((sets, len(cluster)))
    found = []
    for _ in range(2):
        of_cluster, own = (
            np.sqrt(alike) * part + np.sqrt(1 - alike) * rng.standard_normal(part.shape) for part in shared
        )
        found.append(np.sqrt(correlation) * of_cluster[:, cluster] + np.sqrt(1 - correlation) * own)
    return found[0], found[1]


def by_cluster(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Sums f64[B,C] of values [B,E] over clusters that stand together."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.add.reduceat(values.astype(float), starts, axis=1)


def crossed(
    rng: np.random.Generator, sets: int, professions: int, words: int, sd: tuple[float, float, float], mean: float = 0.0
) -> np.ndarray:
    """f64[B,P,W]: mean + effect of the profession + effect of the word + rest, with standard deviations `sd`."""
    of_profession = sd[0] * rng.standard_normal((sets, professions, 1))
    of_word = sd[1] * rng.standard_normal((sets, 1, words))
    return mean + of_profession + of_word + sd[2] * rng.standard_normal((sets, professions, words))
