"""Averages over all pairs of C vectors, in tiles that are reduced at once: a whole vocabulary needs no grid of memory.

Tiles run on the device in the dtype of the vectors; what they give is merged in float64 on the host.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ncfair_jax.collapse.regularizer import ROUNDING, TINY

TILE = 1024  # classes along each side of a tile
EXACT_MEDIAN_PAIRS = 10**7  # above this many, a median comes from fixed bins
DROPPED_BITS = 13  # of a float32's 23 of mantissa: 1024 bins for each power of two
BINS = 2 ** (31 - DROPPED_BITS)
CLOSE = 1e-2  # 1 - cos below which a distance is taken from differences: 2 - 2 cos has lost too many digits


class PairSummary(NamedTuple):
    """A figure over pairs of classes: its mean, sample standard deviation, how many pairs count and do not; its median
    only where that was asked for."""

    mean: float
    std: float
    pairs: int
    skipped: int
    median: float = float("nan")


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


def over_pairs(rows: Vectors, kernels: tuple[Kernel, ...], *, median_of_first: bool = False) -> list[PairSummary]:
    """Mean and deviation of each kernel over the pairs of rows, merged tile by tile by Chan's rule in float64.

    Args:
        median_of_first: also the median of the first kernel, whose values must not be negative: exact up to
            `EXACT_MEDIAN_PAIRS` pairs, beyond that from bins of equal relative width, to within 0.1%.
    """
    possible = rows.classes * (rows.classes - 1) // 2
    detail = ("bins" if possible > EXACT_MEDIAN_PAIRS else "values") if median_of_first else None
    totals = [(0.0, 0.0, 0.0)] * len(kernels)  # pairs, mean, sum of squared deviations
    binned, values = np.zeros(BINS + 1, np.int64), [np.empty(0)]
    reduce_tile = partial(_reduced_tile, kernels=kernels, detail=detail)
    shifts = np.zeros(len(kernels))
    if rows.classes:  # sums are taken about the means of the first tile: squares lose few digits there
        (sums, _) = next(_tile_results(rows, partial(reduce_tile, shifts=jnp.zeros(len(kernels))), upper=True))
        shifts = np.array([float(np.sum(total)) / max(float(np.sum(count)), 1) for count, total, _ in sums])
    origin = jnp.asarray(shifts, rows.unit.dtype)
    for sums, details in _tile_results(rows, partial(reduce_tile, shifts=origin), upper=True):
        parts = zip(totals, sums, np.asarray(origin, np.float64), strict=True)
        totals = [_merge_moments(total, tile, shift) for total, tile, shift in parts]
        if detail == "bins":
            binned += np.bincount(np.asarray(details).ravel(), minlength=BINS + 1)
        elif detail == "values":
            values.append(np.asarray(details)[~np.isnan(details)])
    summaries = [
        PairSummary(
            mean if pairs else float("nan"),
            float(np.sqrt(m2 / (pairs - 1))) if pairs > 1 else float("nan"),
            int(pairs),
            possible - int(pairs),
        )
        for pairs, mean, m2 in totals
    ]
    if detail == "bins":
        summaries[0] = summaries[0]._replace(median=_binned_median(binned[:BINS]))
    elif detail == "values":
        found = np.concatenate(values)
        summaries[0] = summaries[0]._replace(median=float(np.median(found)) if found.size else float("nan"))
    return summaries


def _merge_moments(
    total: tuple[float, float, float], columns: tuple[Array, Array, Array], shift: float
) -> tuple[float, float, float]:
    """Adds columns of a tile, [S] each (number, sum and sum of squares about `shift`), to the running moments."""
    counts, sums, squares = (np.asarray(x, np.float64) for x in columns)
    offsets = sums / np.maximum(counts, 1)  # of each column's mean from the shift
    scatter = np.maximum(squares - sums * offsets, 0)
    counts, means = np.append(counts, total[0]), np.append(shift + offsets, total[1])
    pairs = float(np.sum(counts))
    merged = float(counts @ means / pairs) if pairs else 0.0
    return pairs, merged, float(np.sum(scatter) + total[2] + counts @ np.square(means - merged))


def _tile_results(rows: Vectors, reduce_tile: Callable[..., Any], *, upper: bool) -> Iterator[Any]:
    """What `reduce_tile` makes of each tile of the upper triangle, or of the whole square.

    It returns (highest cosine of each column, result). Where a cosine is close to 1 the tile is done again from differences.
    """
    padded = _padded(rows)
    starts = range(0, rows.classes, TILE)
    places = [(first, second) for first in starts for second in starts if second >= first or not upper]
    running: list[Any] = []
    for number in range(len(places) + 1):
        if number < len(places):
            running.append((places[number], reduce_tile(padded, *places[number], close=False)))
        if number:  # while the device computes this tile, the one before it is merged
            done, (highest, result) = running.pop(0)
            if np.max(highest) > 1 - CLOSE:
                _, result = reduce_tile(padded, *done, close=True)
            yield result


def _padded(rows: Vectors) -> Vectors:
    """On the device; zeros fill up classes and width to one of few sizes, so that few programs are compiled."""
    classes = -rows.classes % (TILE if rows.classes > TILE else 64)
    width = -rows.unit.shape[1] % 64
    fill = [(0, classes), (0, width)]
    return Vectors(*(jnp.asarray(np.pad(x, fill[: x.ndim]), rows.unit.dtype) for x in rows))


@partial(jax.jit, static_argnames=("kernels", "detail", "close"))
def _reduced_tile(
    rows: Vectors,
    first: Int[Array, ""],
    second: Int[Array, ""],
    shifts: Float[Array, "kernels"],
    kernels: tuple[Kernel, ...],
    detail: str | None,
    close: bool,
) -> tuple[Array, tuple[list[tuple], Array | None]]:
    """Of each kernel: number, sum and sum of squares about its shift of the pairs in every column of the tile, [S] each.

    Column by column, because a float32 sum over a million pairs would be off by more than the figures' tolerance; and
    columns rather than rows, because sums down the columns run side by side in vector registers.

    Returns:
        Also, of the first kernel, each pair's bin (`detail="bins"`) or value (`"values"`), [S, S].
    """
    pairs, inside = _pair_tile(rows, first, second, close)
    index = jnp.arange(inside.shape[0])
    inside = inside & ((first + index)[:, None] < (second + index)[None, :])
    sums, details = [], None
    for number, kernel in enumerate(kernels):
        values, valid = kernel(pairs)
        valid = valid & inside
        if number == 0 and detail == "bins":
            details = jnp.where(valid, _bin(values), BINS)
        elif number == 0 and detail == "values":
            details = jnp.where(valid, values, jnp.nan)
        sums.append(_column_sums(values, valid, shifts[number]))
    return _highest(pairs, inside), (sums, details)


def _highest(pairs: Pairs, inside: Array) -> Array:
    return jnp.max(jnp.where(inside, pairs.cosine, -1), axis=0)


def _column_sums(values: Float[Array, "S S"], valid: Array, shift: Float[Array, ""]) -> tuple[Array, Array, Array]:
    kept = jnp.where(valid, values - shift, 0)
    # The count is written as a function of the values, so that XLA's CPU compiler fuses it with their sums: a sum of the
    # mask alone takes longer than the tile's matrix product (measured with jax 0.10: 25 ms a tile against 12 for all).
    count = jnp.sum(jnp.where(valid, 0 * kept + 1, 0), axis=0)
    return count, jnp.sum(kept, axis=0), jnp.sum(jnp.square(kept), axis=0)


def _bin(values: Float[Array, "A B"]) -> Int[Array, "A B"]:
    """A bin of equal relative width (2^-10 of a power of two) for values >= 0: the leading bits of the float32."""
    return jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32) >> DROPPED_BITS


def _binned_median(counts: np.ndarray) -> float:
    """Median from counts by bin: the geometric middle of the bin that holds it."""
    total = int(np.sum(counts))
    if not total:
        return float("nan")
    middle = int(np.searchsorted(np.cumsum(counts), (total + 1) // 2))
    low, high = (np.array([middle, middle + 1], np.int32) << DROPPED_BITS).view(np.float32)
    return float(np.sqrt(np.float64(low) * high)) if np.isfinite(low) else float(low)


def means_over_others(rows: Vectors, kernels: tuple[Kernel, ...]) -> list[np.ndarray]:
    """For each kernel, the mean over each vector's pairs with all others, f64[C]; NaN where it has none."""
    found = [np.zeros((2, rows.classes)) for _ in kernels]  # sums, and how many
    for second, sums in _tile_results(rows, partial(_tile_sums, kernels=kernels), upper=False):
        here = slice(int(second), min(int(second) + TILE, rows.classes))
        for total, sums_and_counts in zip(found, sums, strict=True):
            total[:, here] += np.asarray(sums_and_counts, np.float64)[::-1, : here.stop - here.start]
    return [sums / np.where(counts > 0, counts, np.nan) for sums, counts in found]


@partial(jax.jit, static_argnames=("kernels", "close"))
def _tile_sums(
    rows: Vectors, first: Int[Array, ""], second: Int[Array, ""], kernels: tuple[Kernel, ...], close: bool
) -> tuple[Array, tuple[Int[Array, ""], list[tuple[Array, Array]]]]:
    """Where a tile's columns begin, and number and sum of the pairs in every column, a vector with itself left out."""
    pairs, inside = _pair_tile(rows, first, second, close)
    index = jnp.arange(inside.shape[0])
    inside = inside & ((first + index)[:, None] != (second + index)[None, :])
    found = []
    for kernel in kernels:
        values, valid = kernel(pairs)
        found.append(_column_sums(values, valid & inside, jnp.zeros((), values.dtype))[:2])
    return _highest(pairs, inside), (second, found)


def _pair_tile(rows: Vectors, first: Int[Array, ""], second: Int[Array, ""], close: bool) -> tuple[Pairs, Array]:
    """Geometry of one tile, and which of its pairs are of existing classes.

    Args:
        close: some vectors point almost the same way, so that 2 - 2 cos has lost too many digits: take differences.
    """
    size = min(TILE, rows.unit.shape[0])
    a, b = (Vectors(*(jax.lax.dynamic_slice_in_dim(x, start, size) for x in rows)) for start in (first, second))
    inside = (a.count > 0)[:, None] & (b.count > 0)[None, :]

    cosine = jnp.matmul(a.unit, b.unit.T, precision="highest")  # [S, S]
    chord2 = _squared_distances(a.unit, b.unit) if close else 2 - 2 * cosine
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
