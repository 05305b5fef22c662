"""Averages over all pairs of C vectors, in tiles that are reduced at once: a whole vocabulary needs no grid of memory.

Tiles run on the device in the dtype of the vectors; what they give is merged in float64 on the host.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ncfair_jax.collapse.regularizer import ROUNDING, TINY

TILE = 1024  # classes along each side of a tile
EXACT_MEDIAN_PAIRS = 10**7  # above this many, a median comes from fixed log bins
BINS_PER_DECADE, LOWEST_DECADE, DECADES = 1000, -12, 24
CLOSE = 1e-2  # 1 - cos below which a distance is taken from differences: 2 - 2 cos has lost too many digits


class PairSummary(NamedTuple):
    """A figure over pairs of classes: its mean, sample standard deviation, and how many pairs count and do not."""

    mean: float
    std: float
    pairs: int
    skipped: int


class Vectors(NamedTuple):
    """C vectors as directions and lengths, with what pairs of them need: numpy on the host, jax arrays in a tile."""

    unit: Any  # [C, D]; zeros where there is no direction
    length: Any  # [C]
    noise: Any  # [C] how far rounding may have moved a vector
    variance: Any  # [C] of the class the vector stands for
    count: Any  # type: ignore[assignment]  # [C] rows of that class

    @property
    def classes(self) -> int:
        return len(self.length)

    @property
    def directed(self) -> Any:
        """[C] whether the vector has a direction: it is longer than rounding could make it."""
        return (self.length > self.noise) & (self.length > TINY**0.5)


class Pairs(NamedTuple):
    """A tile of pairs [S, S]."""

    cosine: Array
    chord2: Array  # squared distance of the unit vectors
    distance2: Array  # squared distance of the vectors
    variance: Array  # mean of the two variances
    many: Array  # both classes have two rows or more
    apart: Array  # the vectors differ by more than rounding
    directions_apart: Array  # so do their directions
    directed: Array  # both have a direction


Kernel = Callable[[Pairs], tuple[Array, Array]]  # values, and where they are defined


def cdnv(pairs: Pairs) -> tuple[Array, Array]:
    return pairs.variance / pairs.distance2, pairs.apart


def cdnv_squared(pairs: Pairs) -> tuple[Array, Array]:
    return pairs.variance / jnp.square(pairs.distance2), pairs.apart


def cdnv_min2(pairs: Pairs) -> tuple[Array, Array]:
    return pairs.variance / pairs.distance2, pairs.apart & pairs.many


def cosine(pairs: Pairs) -> tuple[Array, Array]:
    return pairs.cosine, pairs.directed


def log_kernel(pairs: Pairs) -> tuple[Array, Array]:
    return -0.5 * jnp.log(pairs.chord2), pairs.directed & pairs.directions_apart


def riesz_kernel(pairs: Pairs) -> tuple[Array, Array]:
    return jax.lax.rsqrt(pairs.chord2), pairs.directed & pairs.directions_apart


def vectors(rows: np.ndarray, origin: np.ndarray, variance: np.ndarray, count: np.ndarray) -> Vectors:
    """Directions and lengths of rows [C, D] seen from an origin [D], with the variance and count of each class [C]."""
    noise = ROUNDING * np.finfo(rows.dtype).eps * _lengths(rows)
    shifted = np.subtract(rows, origin, out=np.empty_like(rows), dtype=np.float64, casting="same_kind")
    length = _lengths(shifted)
    found = Vectors(shifted, length, noise, variance, count)
    return found._replace(unit=shifted / np.where(found.directed, length, np.inf)[:, None].astype(rows.dtype))


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("cd,cd->c", vectors, vectors, dtype=np.float64))


def over_pairs(rows: Vectors, kernels: tuple[Kernel, ...]) -> list[PairSummary]:
    """Mean and deviation of each kernel over the pairs of rows, merged tile by tile by Chan's rule in float64."""
    totals = [(0.0, 0.0, 0.0)] * len(kernels)  # pairs, mean, sum of squared deviations
    for tile in _tiles(rows):
        summaries = _reduced_tile(*tile, kernels=kernels)
        totals = [_merge_moments(total, *summary) for total, summary in zip(totals, summaries, strict=True)]
    possible = rows.classes * (rows.classes - 1) // 2
    return [
        PairSummary(
            mean if pairs else float("nan"),
            float(np.sqrt(m2 / (pairs - 1))) if pairs > 1 else float("nan"),
            int(pairs),
            possible - int(pairs),
        )
        for pairs, mean, m2 in totals
    ]


def _merge_moments(
    total: tuple[float, float, float], count: Array, mean: Array, m2: Array
) -> tuple[float, float, float]:
    """Adds the moments of many groups, [S] each, to the running ones."""
    counts = np.append(np.asarray(count, np.float64), total[0])
    means = np.append(np.asarray(mean, np.float64), total[1])
    pairs = float(np.sum(counts))
    merged = float(counts @ means / pairs) if pairs else 0.0
    return pairs, merged, float(np.sum(np.asarray(m2, np.float64)) + total[2] + counts @ np.square(means - merged))


def _tiles(rows: Vectors) -> Iterator[tuple[Vectors, int, int]]:
    """The upper triangle in tiles. Zeros fill up classes and width to one of few sizes: few programs are compiled."""
    classes = -rows.classes % (TILE if rows.classes > TILE else 64)
    width = -rows.unit.shape[1] % 64
    fill = [(0, classes), (0, width)]
    padded = Vectors(*(jnp.asarray(np.pad(x, fill[: x.ndim]), rows.unit.dtype) for x in rows))
    for first in range(0, rows.classes, TILE):
        for second in range(first, rows.classes, TILE):
            yield padded, first, second


@functools.partial(jax.jit, static_argnames="kernels")
def _reduced_tile(rows: Vectors, first: int, second: int, kernels: tuple[Kernel, ...]) -> list[tuple]:
    """Of each kernel: number, mean and summed squared deviation of the pairs in every row of the tile, [S] each.

    Row by row, because a float32 sum over a million pairs would be off by more than the figures' tolerance.
    """
    pairs, inside = _pair_tile(rows, first, second)
    summaries = []
    for kernel in kernels:
        values, valid = kernel(pairs)
        valid = valid & inside
        count = jnp.sum(valid, axis=1).astype(values.dtype)
        mean = jnp.sum(jnp.where(valid, values, 0), axis=1) / jnp.maximum(count, 1)
        summaries.append((count, mean, jnp.sum(jnp.where(valid, jnp.square(values - mean[:, None]), 0), axis=1)))
    return summaries


def pair_values(rows: Vectors, kernel: Kernel) -> Iterator[tuple[Array, Array]]:
    """Values of one kernel, tile by tile, and where they count."""
    for tile in _tiles(rows):
        yield _valued_tile(*tile, kernel=kernel)


@functools.partial(jax.jit, static_argnames="kernel")
def _valued_tile(rows: Vectors, first: int, second: int, kernel: Kernel) -> tuple[Array, Array]:
    pairs, inside = _pair_tile(rows, first, second)
    values, valid = kernel(pairs)
    return values, valid & inside


@jax.jit
def _binned_tile(rows: Vectors, first: int, second: int) -> Array:
    """Counts of a tile's CDNVs in log bins; the first bin holds zeros and what is below, the last what is above."""
    pairs, inside = _pair_tile(rows, first, second)
    values, valid = cdnv(pairs)
    valid = valid & inside
    place = (jnp.log10(jnp.where(valid & (values > 0), values, 1)) - LOWEST_DECADE) * BINS_PER_DECADE
    index = jnp.clip(jnp.floor(place) + 1, 0, BINS_PER_DECADE * DECADES + 1).astype(jnp.int32)
    index = jnp.where(valid, jnp.where(values > 0, index, 0), -1).ravel()
    return jax.ops.segment_sum((index >= 0).astype(jnp.int32), jnp.maximum(index, 0), BINS_PER_DECADE * DECADES + 2)


def median_over_pairs(rows: Vectors) -> float:
    """Median CDNV: exact up to `EXACT_MEDIAN_PAIRS`, beyond that to within 0.12%."""
    if rows.classes * (rows.classes - 1) // 2 > EXACT_MEDIAN_PAIRS:
        counts = np.zeros(BINS_PER_DECADE * DECADES + 2, np.int64)
        for tile in _tiles(rows):
            counts += np.asarray(_binned_tile(*tile))
        return _binned_median(counts)
    kept = [np.asarray(values)[np.asarray(valid)] for values, valid in pair_values(rows, cdnv)]
    found = np.concatenate(kept) if kept else np.empty(0)
    return float(np.median(found)) if found.size else float("nan")


def _binned_median(counts: np.ndarray) -> float:
    """Median from `_binned_tile`'s counts: the geometric middle of the bin that holds it."""
    total = int(np.sum(counts))
    if not total:
        return float("nan")
    middle = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
    if middle == 0:
        return 0.0
    if middle == len(counts) - 1:
        return float("inf")
    return float(10 ** (LOWEST_DECADE + (middle - 0.5) / BINS_PER_DECADE))


def _pair_tile(rows: Vectors, first: int, second: int) -> tuple[Pairs, Array]:
    """Geometry of one tile, and which of its pairs are in the strict upper triangle of existing classes."""
    size = min(TILE, rows.unit.shape[0])
    a, b = (Vectors(*(jax.lax.dynamic_slice_in_dim(x, start, size) for x in rows)) for start in (first, second))
    index = jnp.arange(size)
    inside = (first + index)[:, None] < (second + index)[None, :]
    inside = inside & (a.count > 0)[:, None] & (b.count > 0)[None, :]

    cosine = jnp.matmul(a.unit, b.unit.T, precision="highest")  # [S, S]
    close = inside & (cosine > 1 - CLOSE)
    chord2 = jax.lax.cond(
        jnp.any(close),
        lambda: jnp.where(close, _squared_distances(a.unit, b.unit), 2 - 2 * cosine),
        lambda: 2 - 2 * cosine,
    )
    # |a - b|^2 as a sum of two squares: nothing cancels, also where lengths are equal or one of them is zero.
    product = a.length[:, None] * b.length[None, :]
    distance2 = jnp.square(a.length[:, None] - b.length[None, :]) + product * chord2
    noise2 = jnp.square(a.noise)[:, None] + jnp.square(b.noise)[None, :]
    least = jnp.maximum(noise2, TINY)
    return Pairs(
        cosine=cosine,
        chord2=chord2,
        distance2=distance2,
        variance=(a.variance[:, None] + b.variance[None, :]) / 2,
        many=(a.count >= 2)[:, None] & (b.count >= 2)[None, :],
        apart=distance2 > least,
        directions_apart=product * chord2 > least,
        directed=a.directed[:, None] & b.directed[None, :],
    ), inside


def _squared_distances(a: Float[Array, "S D"], b: Float[Array, "S D"]) -> Float[Array, "S S"]:
    """By differences, one row of the tile at a time to stay small: slow, and right for close vectors."""
    return jax.lax.map(lambda row: jnp.sum(jnp.square(b - row[None, :]), axis=1), a)
