"""How near a set of synthetic features is to the real ones: kernel distance, neighbours, diversity."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

_BLOCK = 4096  # rows: a block of float32 distances takes 64 MB
_DIVERSITY_VALUES = 2**22
_ROUNDING = 8.0  # units in the last place that a squared distance may be off


@dataclass(frozen=True)
class KernelDistance:
    """Kernel distance over random subsets; lower = nearer, 0 on average for samples of one distribution."""

    mean: float
    """Of the unbiased estimates; may be a little negative."""
    sd: float
    """Standard deviation over subsets (n): of one subset's estimate, not of the mean."""


def kernel_distance(
    real: np.ndarray, synthetic: np.ndarray, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> KernelDistance:
    """Return the squared maximum mean discrepancy under the kernel (x . y / D + 1)^3; on Inception-v3 features, KID.

    Args:
        real: float [N, D].
        synthetic: float [M, D].
        num_subsets: drawn from each, without putting back within a subset.
        subset_size: rows of a subset, 2 to min(N, M).
        seed: of the draws; these and the defaults are torch-fidelity's, so that its values are found again.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or fewer rows than a subset needs.

    Source: Binkowski et al. (2018), "Demystifying MMD GANs", section 4 (KID). In double precision, where
    torch-fidelity takes that of the features.
    """
    _check(real, synthetic)
    if not 2 <= subset_size <= min(len(real), len(synthetic)):
        raise ValueError(
            f"found {len(real)} real and {len(synthetic)} synthetic rows, needs subsets of 2 to that many, "
            f"not of {subset_size}"
        )
    if num_subsets < 1:
        raise ValueError(f"found {num_subsets} subsets, needs at least 1")
    draws = np.random.RandomState(seed)  # the legacy generator: its stream is torch-fidelity's, and frozen
    scratch = np.empty((2, subset_size, subset_size))
    estimates = []
    for _ in range(num_subsets):
        x = _kernel_rows(real[draws.choice(len(real), subset_size, replace=False)])
        y = _kernel_rows(synthetic[draws.choice(len(synthetic), subset_size, replace=False)])
        within = sum(total - diagonal for total, diagonal in (_kernel_sums(x, x, scratch), _kernel_sums(y, y, scratch)))
        between, _ = _kernel_sums(x, y, scratch)
        estimates.append(within / (subset_size * (subset_size - 1)) - 2 * between / subset_size**2)
    return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)))


def _kernel_rows(features: np.ndarray) -> np.ndarray:
    """Return rows [n, D + 1] whose products are x . y / D + 1."""
    rows = np.ones((len(features), features.shape[1] + 1))
    np.divide(features, np.sqrt(features.shape[1]), out=rows[:, :-1])
    return rows


def _kernel_sums(x: np.ndarray, y: np.ndarray, scratch: np.ndarray) -> tuple[float, float]:
    """Return the sums of the kernel and of its diagonal; new memory for each matrix would cost more than the powers."""
    root, square = scratch
    np.matmul(x, y.T, out=root)
    np.square(root, out=square)
    return float(np.vdot(square, root)), float((root.diagonal() ** 3).sum())


@dataclass(frozen=True)
class Manifold:
    """Features and the balls around them that reach their k-th nearest neighbour; their union stands for the set."""

    features: np.ndarray
    """float [N, D]."""
    radii: np.ndarray
    """float [N]: Euclidean distance to the k-th nearest other row."""
    num_neighbours: int
    """k."""

    @classmethod
    def of(cls, features: np.ndarray, num_neighbours: int = 5) -> "Manifold":
        """Find the radii; it takes N^2 D operations in bounded memory: keep the radii of a reference.

        Args:
            features: float [N, D]; float32 and below are compared in single precision, float64 in double.
            num_neighbours: k, 1 to N - 1. 3 in Kynkäänniemi et al. (2019), 5 in Naeem et al. (2020).

        Raises:
            ValueError: another shape, values that are not finite, or no k other rows.
        """
        _check(features)
        if not 1 <= num_neighbours < len(features):
            raise ValueError(f"found {len(features)} rows, needs more than num_neighbours ({num_neighbours})")
        rows = _tensor(features, features.mean(0, dtype=np.float64))
        left, right = _expanded(rows)
        nearest = rows.new_full((len(rows), num_neighbours), torch.inf)
        blocks = list(_blocks(len(rows)))
        for number, first in enumerate(blocks):
            for second in blocks[number:]:  # distances are symmetric
                squares = left[first] @ right[second].T
                if first == second:
                    squares.fill_diagonal_(torch.inf)
                else:
                    _keep_nearest(nearest[second], squares.T)
                _keep_nearest(nearest[first], squares)
        return cls(features, nearest[:, -1].clamp(min=0).sqrt().numpy(), num_neighbours)


@dataclass(frozen=True)
class NeighbourScores:
    """What the neighbourhoods of two sets share; higher = better for each, 0 to 1 but for `density`."""

    precision: float
    """Share of synthetic rows within a ball of a real one: do they look real? One wide ball lets many in."""
    recall: float
    """Share of real rows within a ball of a synthetic one: is all that is real made?"""
    density: float
    """Mean number of real balls that hold a synthetic row, over k; may exceed 1; 1 expected for equal distributions."""
    coverage: float
    """Share of real balls that hold a synthetic row. For equal distributions about 1 - (N / (N + M))^k is expected
    (Naeem et al., Lemma 2: 97 % for N = M and k = 5): it grows with M, so compare sets of equal size."""


def neighbour_scores(real: Manifold, synthetic: Manifold) -> NeighbourScores:
    """Return precision, recall, density and coverage of synthetic features.

    A row on the edge of a ball, to rounding, counts as within.

    Args:
        real: N rows.
        synthetic: M rows, of the same D and k.

    Raises:
        ValueError: they differ in D or k.

    Source: precision and recall: Kynkäänniemi et al. (2019), eq. 1 and 2. Density and coverage: Naeem et al. (2020),
    section 3; there a row on the edge is outside, which matters for copies alone.
    """
    if real.num_neighbours != synthetic.num_neighbours:
        raise ValueError(f"found {real.num_neighbours} and {synthetic.num_neighbours} neighbours, needs equal numbers")
    _check(real.features, synthetic.features)
    center = real.features.mean(0, dtype=np.float64)
    x, y = _tensor(real.features, center), _tensor(synthetic.features, center)
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = x.to(dtype), y.to(dtype)
    off = _ROUNDING * torch.finfo(dtype).eps * (x.square().sum(1).max() + y.square().sum(1).max())
    reach_x, reach_y = (torch.from_numpy(each.radii).to(dtype).square() + off for each in (real, synthetic))
    left, right = _expanded(y)[0], _expanded(x)[1]
    precise, recalled = torch.zeros(len(y), dtype=torch.bool), torch.zeros(len(x), dtype=torch.bool)
    covered, num_held = torch.zeros_like(recalled), 0
    for made in _blocks(len(y)):
        for found in _blocks(len(x)):
            squares = left[made] @ right[found].T
            within = squares <= reach_x[found]
            precise[made] |= within.any(1)
            covered[found] |= within.any(0)
            num_held += int(within.count_nonzero())
            recalled[found] |= (squares <= reach_y[made, None]).any(0)
    return NeighbourScores(
        precision=_share(precise),
        recall=_share(recalled),
        density=num_held / (real.num_neighbours * len(y)),
        coverage=_share(covered),
    )


@dataclass(frozen=True)
class Diversity:
    """How much the variants of a source image differ, as mean Euclidean distances; each source counts the same."""

    between_variants: float | None
    """Higher = more diverse; None if no source has two variants."""
    to_source: float
    """Lower = more faithful."""
    num_sources: int
    """Sources with variants."""
    num_sources_with_several: int
    """Sources that `between_variants` is the mean of."""


def variant_diversity(variants: np.ndarray, source_rows: np.ndarray, sources: np.ndarray) -> Diversity:
    """Return how far variants of one source lie from each other, and from their source.

    Variants that are as far from each other as from the source add as much as they change; ones that are alike are
    copies of one change.

    Args:
        variants: float [N, D], N >= 1, in any order.
        source_rows: int [N], the row of `sources` that each was made of.
        sources: float [S, D]; rows without variants do not count.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or rows that are not there.
    """
    _check(variants, sources)
    if source_rows.shape != (len(variants),) or not len(variants):
        raise ValueError(
            f"found {len(variants)} variants and source rows {list(source_rows.shape)}, needs one for each"
        )
    if source_rows.min() < 0 or source_rows.max() >= len(sources):
        raise ValueError(f"found source rows {source_rows.min()} to {source_rows.max()}, needs 0 to {len(sources) - 1}")
    order = np.argsort(source_rows, kind="stable")
    found, firsts, counts = np.unique(source_rows[order], return_index=True, return_counts=True)
    to_source, between = 0.0, 0.0
    for count in np.unique(counts).tolist():
        same = counts == count
        step = max(1, _DIVERSITY_VALUES // (count * variants.shape[1]))
        for first in range(0, int(same.sum()), step):
            groups = slice(first, first + step)
            members = order[firsts[same][groups, None] + np.arange(count)]
            x = variants[members].astype(np.float64)  # [groups, count, D]
            to_source += np.linalg.norm(x - sources[found[same][groups], None], axis=2).mean(1).sum()
            if count > 1:
                apart = sum(np.linalg.norm(x[:, by:] - x[:, :-by], axis=2).sum() for by in range(1, count))
                between += apart / (count * (count - 1) / 2)
    several = int((counts > 1).sum())
    return Diversity(float(between) / several if several else None, float(to_source) / len(found), len(found), several)


def _check(*sets: np.ndarray) -> None:
    shapes = " and ".join(str(list(features.shape)) for features in sets)
    if any(features.ndim != 2 or not len(features) for features in sets) or len({each.shape[1] for each in sets}) > 1:
        raise ValueError(f"found features {shapes}, needs rows of the same width: [N, D], N >= 1")
    if not all(np.isfinite(features.sum(0, dtype=np.float64)).all() for features in sets):
        raise ValueError("found features that are not finite")


def _tensor(features: np.ndarray, center: np.ndarray) -> torch.Tensor:
    """Return features less `center`, without which squares of distances would lose digits."""
    dtype = np.float64 if features.dtype == np.float64 else np.float32
    rows = np.empty(features.shape, dtype)
    np.subtract(features, center, out=rows, casting="same_kind")
    return torch.from_numpy(rows)


def _expanded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two matrices [N, D + 2] whose products are squared distances: one pass over them, not three."""
    squares, ones = rows.square().sum(1, keepdim=True), rows.new_ones((len(rows), 1))
    return torch.cat([-2 * rows, squares, ones], 1), torch.cat([rows, ones, squares], 1)


def _blocks(num_rows: int) -> Iterator[slice]:
    yield from (slice(first, min(first + _BLOCK, num_rows)) for first in range(0, num_rows, _BLOCK))


def _keep_nearest(nearest: torch.Tensor, squares: torch.Tensor) -> None:
    """Merge squared distances [n, m] into the k smallest so far [n, k], ascending, in place."""
    k = nearest.shape[1]
    smallest = squares.topk(min(k, squares.shape[1]), largest=False).values
    nearest.copy_(torch.cat([nearest, smallest], 1).topk(k, largest=False).values)


def _share(flags: torch.Tensor) -> float:
    return int(flags.count_nonzero()) / len(flags)
