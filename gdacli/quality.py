"""How good the synthetic images are: each strength beside the real images that it varies, by features of a model."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from gdacli.array_cache import cached_arrays
from gdacli.console import progress
from gdacli.distribution_metrics import (
    Diversity,
    KernelDistance,
    Manifold,
    NeighbourScores,
    kernel_distance,
    neighbour_scores,
    variant_diversity,
)
from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.pools import NO_SOURCE, UNKNOWN
from gdacli.rng import derive_seed, digest
from gdacli.row_files import Subset

VERSION = 1
"""Raise it when the same features give other reference statistics."""

NUM_COMPARED = 10_000
"""Of each set at most, for precision, recall, density and coverage, whose time grows with the square; the usual number
(Kynkäänniemi et al. 2019, Naeem et al. 2020)."""

NUM_NEIGHBOURS = 5
"""k of these four, as in Naeem et al. (2020)."""

KID_SUBSET_SIZE = 1000
"""At most; half of the smaller set if that is less, for a subset of nearly all images would show no spread."""

KID_LEAST_IMAGES = 100
"""Of each set, for a kernel distance."""


@dataclass(frozen=True)
class PoolQuality:
    """How good images of a pool are, those of one strength, or without a source; None: too few images to say."""

    pool: str
    """Name of an imported pool; empty for the generated one."""
    strength: float | None
    """None where none is known, as of images without a source."""
    num_images: int
    num_sources: int
    """Real images in the reference: those that the images were made from; of sampled ones all train images."""
    frechet: float | None
    """Fréchet distance to the reference; lower = nearer, 0 = did not move from what it varies."""
    frechet_to_train: float | None
    """The same to all train images, as a FID is usually quoted; about `floor` if it is no worse than its sources."""
    floor: float | None
    """Fréchet distance of the reference itself to all train images."""
    kernel: KernelDistance | None
    """To the reference (KID)."""
    kernel_missing: str | None
    """Why there is no kernel distance."""
    neighbours: NeighbourScores | None
    """Of as many images as the reference has, see `pool_quality`; None of NUM_NEIGHBOURS or fewer."""
    num_compared: int
    """Images of each side in `neighbours`."""
    diversity: Diversity | None
    """In the unit of the features; None of sampled images."""
    faithfulness: float
    """Share in % of the images whose label a model trained on real images alone finds again; higher = better."""

    @property
    def name(self) -> str:
        """What the images are called in a table: their strength, `sampled`, or their pool with its strength."""
        return group_name(self.pool, self.strength, has_source=self.diversity is not None)


def group_name(pool: str, strength: float | None, *, has_source: bool) -> str:
    """Return what images of a pool are called that are looked at together.

    >>> group_name("", 0.5, has_source=True), group_name("rival", None, has_source=True)
    ('0.5', 'rival')
    >>> group_name("", None, has_source=False), group_name("rival", None, has_source=False)
    ('sampled', 'rival, no source')
    """
    if not has_source:
        return f"{pool}, no source" if pool else "sampled"
    return " ".join(filter(None, (pool, "" if strength is None else f"{strength:g}")))


def pool_quality(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    pools: Sequence[str],
    source_rows: np.ndarray,
    strengths: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    real_digest: str,
    cache: Path,
) -> list[PoolQuality]:
    """Compare each strength, and the images without a source, of each pool with the real ones they were made from.

    Precision, recall, density and coverage take equally many of both sides, NUM_COMPARED at most, so that strengths
    with more variants do not cover more: of variants the first one of each source, and if there are more sources than
    that a draw of them; of sampled images and the train images beside them a draw of each. The seed is fixed, and the
    same sources give the same draw at every strength. All else takes all images.

    Args:
        real: float32 [N, D], features of all train images.
        synthetic: float32 [M, D], features of the pools' images by the same model.
        pools: names [M], of `pools.read_pools`, as are `strengths`, int [M] in thousandths.
        source_rows: int [M], of `pools.sources_in`.
        labels: int [M], the classes that the images were made for.
        predictions: int [M], the classes by a model that saw real images alone.
        real_digest: `ImageFeatures.digest` of `real`, under which its statistics are kept.
        cache: folder of `array_cache.cached_arrays`.

    Returns:
        pool by pool, the generated one first, each by rising strength, images without a source last.

    Raises:
        ValueError: shapes that do not fit, or features that are not finite.
    """
    if not len(synthetic) == len(pools) == len(source_rows) == len(strengths) == len(labels) == len(predictions):
        raise ValueError(
            f"found {len(synthetic)} features, {len(pools)} pools, {len(source_rows)} sources, {len(strengths)} "
            f"strengths, {len(labels)} labels, {len(predictions)} predictions, needs one of each for an image"
        )
    reference = _Reference(real, real_digest, cache)
    groups = pool_groups(np.asarray(pools), source_rows, strengths)
    found = []
    # One thread each: on these shapes more wait for each other more than they help, and add up in varying order.
    with progress("quality", len(synthetic), "images") as advance, threadpool_limits(1, "blas"):
        for pool, strength, members in groups:
            found.append(
                _quality(
                    pool,
                    strength,
                    reference,
                    synthetic,
                    members,
                    source_rows[members],
                    float(100 * (predictions[members] == labels[members]).mean()),
                )
            )
            advance(len(members))
    return found


def pool_groups(
    pools: np.ndarray, source_rows: np.ndarray, strengths: np.ndarray
) -> list[tuple[str, float | None, np.ndarray]]:
    """Return pool, strength and members, ascending, of the images that are looked at together; see `pool_quality`."""
    found: list[tuple[str, float | None, np.ndarray]] = []
    for pool in sorted(set(pools.tolist())):
        varied = (pools == pool) & (source_rows != NO_SOURCE)
        for strength in np.unique(strengths[varied]).tolist():
            known = None if strength == UNKNOWN else strength / 1000
            found.append((pool, known, np.flatnonzero(varied & (strengths == strength))))
        if len(others := np.flatnonzero((pools == pool) & ~varied)):
            found.append((pool, None, others))
    return found


def _quality(
    pool: str,
    strength: float | None,
    reference: "_Reference",
    synthetic: np.ndarray,
    members: np.ndarray,
    member_sources: np.ndarray,
    faithfulness: float,
) -> PoolQuality:
    varies = bool(member_sources[0] != NO_SOURCE)
    sources = np.unique(member_sources) if varies else np.arange(len(reference.features))
    frechet = to_train = floor = kernel = missing = neighbours = None
    if min(len(members), len(sources)) >= 2:
        made = GaussianStatistics.of(Subset(synthetic, members))
        train, of_sources = reference.statistics(np.arange(len(reference.features))), reference.statistics(sources)
        frechet, to_train = frechet_distance(made, of_sources), frechet_distance(made, train)
        floor = frechet_distance(of_sources, train)
    fewest = min(len(members), len(sources))
    if fewest >= KID_LEAST_IMAGES:
        size = min(KID_SUBSET_SIZE, fewest // 2)
        kernel = kernel_distance(reference.features[sources], synthetic[members], subset_size=size)
    else:
        missing = f"fewer than {KID_LEAST_IMAGES} images"
    real_rows, made_rows = _compared(sources, members, member_sources if varies else None)
    if len(made_rows) > NUM_NEIGHBOURS:
        neighbours = neighbour_scores(reference.manifold(real_rows), Manifold.of(synthetic[made_rows], NUM_NEIGHBOURS))
    diversity = None
    if varies:
        diversity = variant_diversity(synthetic[members], member_sources, reference.features)
    return PoolQuality(
        pool=pool,
        strength=strength,
        num_images=len(members),
        num_sources=len(sources),
        frechet=frechet,
        frechet_to_train=to_train,
        floor=floor,
        kernel=kernel,
        kernel_missing=missing,
        neighbours=neighbours,
        num_compared=len(made_rows),
        diversity=diversity,
        faithfulness=faithfulness,
    )


def _compared(
    sources: np.ndarray, members: np.ndarray, member_sources: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return equally many rows of the real and of the synthetic features, ascending; see `pool_quality`."""
    if member_sources is None:
        count = min(NUM_COMPARED, len(sources), len(members))
        real, made = _drawn(len(sources), "real", count), _drawn(len(members), "sampled", count)
        return sources[real], members[made]
    _, first = np.unique(member_sources, return_index=True)  # in the order of `sources`
    chosen = _drawn(len(sources), "real", min(NUM_COMPARED, len(sources)))
    return sources[chosen], members[first[chosen]]


def _drawn(num_rows: int, name: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(derive_seed("quality", name, num_rows))
    return np.sort(rng.permutation(num_rows)[:count])


class _Reference:
    """The train images' features, and what is kept of subsets of them.

    Args:
        features: float [N, D].
        identity: hash of them.
        cache: folder.
    """

    def __init__(self, features: np.ndarray, identity: str, cache: Path) -> None:
        self.features = features
        self._identity, self._cache = identity, cache

    def statistics(self, rows: np.ndarray) -> GaussianStatistics:
        """Return mean and covariance of some rows."""
        kept = self._kept(
            "gaussian", rows, {"mean", "root"}, lambda: vars(GaussianStatistics.of(Subset(self.features, rows)))
        )
        return GaussianStatistics(**kept)

    def manifold(self, rows: np.ndarray) -> Manifold:
        """Return the neighbourhoods of some rows; radii are kept, features are here."""
        features = self.features[rows]
        kept = self._kept(
            f"radii {NUM_NEIGHBOURS}", rows, {"radii"}, lambda: {"radii": Manifold.of(features, NUM_NEIGHBOURS).radii}
        )
        return Manifold(features, kept["radii"], NUM_NEIGHBOURS)

    def _kept(
        self, what: str, rows: np.ndarray, names: set[str], compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        chosen = hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()
        return cached_arrays(self._cache, digest(what, VERSION, self._identity, chosen), names, compute)
