"""K-means with two clusters: many starts at once, as matrix products."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gdacli.row_files import Rows, blocks

NUM_STARTS = 64
_FINALISTS = 3
_SKETCH = 32
_MOST_ROUNDS = 300
_HELD = 2**25
"""Points with at most so many numbers are held as float32; of others a block at a time is read, every round."""

Blocks = Callable[[], Iterator[tuple[slice, np.ndarray]]]


@dataclass(frozen=True)
class TwoMeans:
    """Two clusters of n points."""

    centers: np.ndarray
    """float64 [2, C]."""
    distances: np.ndarray
    """float64 [n, 2], from each point to either center."""

    @property
    def second(self) -> np.ndarray:
        """The points of the second cluster, bool [n]."""
        return self.distances[:, 1] < self.distances[:, 0]

    @property
    def inertia(self) -> float:
        """The sum of the squared distances of the points to their own centers."""
        return float(np.square(self.distances.min(axis=1)).sum())


def two_means(points: Rows, seed: int) -> TwoMeans | None:
    """Split points into the two clusters of least inertia that Lloyd's algorithm finds from several starts.

    The starts run together, and those that meet in one partition go on as one: first in the plane of the 32 leading
    principal components (all of the space, if it has no more), then the best three in the whole space, in float32
    around the mean; from the best of these float64 goes on until nothing changes. The bits are the same every time if
    BLAS runs in one thread (`threadpoolctl.threadpool_limits(1)`).

    Args:
        points: float [n, C].
        seed: of the starts.

    Returns:
        None if the points fall into one cluster: fewer than two, or all alike.

    Source: Lloyd 1982. Starts: k-means++ (Arthur & Vassilvitskii 2007), NUM_STARTS times, and the sign of the first
    principal component, the relaxed optimum for two clusters (Ding & He 2004, Theorem 2.2). Components: one power
    iteration from a random plane (Halko, Martinsson & Tropp 2011, Algorithm 4.3).
    """
    cut = list(blocks(*points.shape))
    first_row = points[0:1]
    mean, alike = np.zeros(points.shape[1]), True
    for part in cut:
        block = points[part]
        alike = alike and bool((block == first_row).all())
        mean += block.sum(axis=0, dtype=np.float64)
    if alike:
        return None
    mean /= points.shape[0]
    centred = _around(points, cut, mean)
    rng = np.random.default_rng(seed)
    sketch = _principal(centred, points.shape[1], rng)
    few = _rounds(lambda: iter([(slice(None), sketch)]), _starts(sketch, rng))
    found = _rounds(centred, few[:_FINALISTS])
    return _polish(centred, found[0], mean) if len(found) else None


def _around(points: Rows, cut: list[slice], mean: np.ndarray) -> Blocks:
    """Return what yields the points around their mean as float32 blocks, each with its rows."""

    def read() -> Iterator[tuple[slice, np.ndarray]]:
        return ((part, (points[part] - mean).astype(np.float32)) for part in cut)

    if points.shape[0] * points.shape[1] > _HELD:
        return read
    held = list(read())
    return lambda: iter(held)


def _principal(centred: Blocks, num_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Return the coordinates of the points along their leading principal components, largest first, float32 [n, D]."""
    if num_columns > _SKETCH:
        plane = rng.standard_normal((num_columns, _SKETCH), np.float32)
        turned = sum(block.T @ (block @ plane) for _, block in centred())
        plane = np.linalg.qr(turned)[0].astype(np.float32)
        sketch = np.concatenate([block @ plane for _, block in centred()])
    else:
        sketch = np.concatenate([block for _, block in centred()])
    _, axes = np.linalg.eigh(sketch.astype(np.float64).T @ sketch)
    return sketch @ axes[:, ::-1].astype(np.float32)


def _starts(sketch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return partitions to start from, bool [NUM_STARTS + 1, n]."""
    first = rng.integers(len(sketch), size=NUM_STARTS)
    lengths = np.square(sketch).sum(axis=1)
    squares = lengths - 2 * (sketch[first] @ sketch.T) + lengths[first, None]
    squares[np.arange(NUM_STARTS), first] = 0
    sums = squares.clip(min=0).cumsum(axis=1, dtype=np.float64)
    draws = rng.random(NUM_STARTS) * sums[:, -1]
    second = np.array([np.searchsorted(row, draw, "right") for row, draw in zip(sums, draws, strict=True)])
    second = second.clip(max=len(sketch) - 1)
    normals, offsets = _planes(np.stack([sketch[first], sketch[second]]).astype(np.float64))
    return np.concatenate([normals @ sketch.T > offsets[:, None], sketch[None, :, 0] > 0])


def _rounds(centred: Blocks, starts: np.ndarray) -> np.ndarray:
    """Improve partitions, bool [S, n], until they stay; returns the different ones, of least inertia first."""
    finished: dict[bytes, np.ndarray] = {}
    going = _by_name(starts)
    for _ in range(_MOST_ROUNDS):
        if not going:
            break
        before = np.stack(list(going.values()))
        normals, offsets = _planes(_means(centred, before)[0])
        after = np.concatenate([normals @ block.T > offsets[:, None] for _, block in centred()], axis=1)
        stays = (after == before).all(axis=1)
        finished |= _by_name(before[stays])
        going = {name: side for name, side in _by_name(after[~stays]).items() if name not in finished}
    sides = list((finished | going).values())
    if not sides:
        return np.empty((0, starts.shape[1]), bool)
    result = np.stack(sides)
    centers, counts = _means(centred, result)
    explained = (counts * np.square(centers).sum(axis=2)).sum(axis=0)
    return result[np.argsort(-explained, kind="stable")]


def _by_name(sides: np.ndarray) -> dict[bytes, np.ndarray]:
    """Name partitions, bool [S, n], whichever cluster is the second; those with an empty cluster are left out."""
    sides = sides != sides[:, :1]
    return {name.tobytes(): side for name, side in zip(np.packbits(sides, axis=1), sides, strict=True) if side.any()}


def _means(centred: Blocks, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Partitions bool [S, n] => centers float64 [2, S, C] of their clusters, and numbers of points [2, S].

    The points sum up to 0, so the sum of one cluster gives the other's.
    """
    second = sum((sides[:, part].astype(block.dtype) @ block).astype(np.float64) for part, block in centred())
    count = sides.sum(axis=1)
    counts = np.stack([sides.shape[1] - count, count])
    return np.stack([-second, second]) / counts[:, :, None], counts


def _planes(centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centers float64 [2, S, C] => the plane halfway between each two: normal float32 [S, C], offset float32 [S]."""
    first, second = np.square(centers).sum(axis=2)
    return (centers[1] - centers[0]).astype(np.float32), ((second - first) / 2).astype(np.float32)


def _polish(centred: Blocks, second: np.ndarray, mean: np.ndarray) -> TwoMeans | None:
    """Go on from a partition, bool [n], in float64 until it stays."""

    def exact() -> Iterator[tuple[slice, np.ndarray]]:
        return ((part, block.astype(np.float64)) for part, block in centred())

    for _ in range(_MOST_ROUNDS):
        centers = _means(exact, second[None])[0][:, 0]
        distances = np.empty((len(second), 2))
        for part, block in exact():
            squares = np.einsum("nc,nc->n", block, block)[:, None] - 2 * (block @ centers.T)
            distances[part] = np.sqrt((squares + np.square(centers).sum(axis=1)).clip(min=0))
        result = TwoMeans(centers + mean, distances)
        if (result.second == second).all():
            break
        second = result.second
        if second.all() or not second.any():
            return None  # the points differ by less than rounding
    return result
