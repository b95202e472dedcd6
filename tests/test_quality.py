import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gdacli import quality
from gdacli.distribution_metrics import Manifold, kernel_distance, neighbour_scores, variant_diversity
from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.pools import NO_SOURCE, UNKNOWN
from gdacli.quality import PoolQuality, pool_quality

WIDTH = 6
NUM_REAL = 300
SOURCES = np.arange(40, 240)
"""A third of the train images has no variants, so that sources and train images are not the same set."""


def real_features(seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).standard_normal((NUM_REAL, WIDTH)).astype(np.float32)
    features[SOURCES] += 0.5
    return features


def of_pool(
    cache: Path, real: np.ndarray, parts: dict[int | None, np.ndarray], variants: int = 1, right: float = 1.0
) -> list[PoolQuality]:
    """Measure a pool; strength in thousandths -> features of the variants of SOURCES, None -> sampled images."""
    synthetic = np.concatenate(list(parts.values()))
    rows = np.concatenate(
        [
            np.repeat(SOURCES, variants) if strength is not None else np.full(len(part), NO_SOURCE)
            for strength, part in parts.items()
        ]
    )
    strengths = np.concatenate(
        [np.full(len(part), 1000 if strength is None else strength) for strength, part in parts.items()]
    )
    shuffled = np.random.default_rng(5).permutation(len(rows))  # nothing hangs on the order of the pool
    labels = np.arange(len(rows)) % 3
    predictions = np.where(np.arange(len(rows)) < right * len(rows), labels, (labels + 1) % 3)
    return pool_quality(
        real,
        synthetic[shuffled],
        pools=[""] * len(rows),
        source_rows=rows[shuffled],
        strengths=strengths[shuffled],
        labels=labels,
        predictions=predictions,
        real_digest="0" * 64,
        cache=cache,
    )


def statistics(features: np.ndarray) -> GaussianStatistics:
    return GaussianStatistics.of(features)


def test_copies_did_not_move_and_shifts_did_by_as_much(tmp_path):
    real = real_features()
    parts: dict[int | None, np.ndarray] = {500: real[SOURCES], 400: real[SOURCES] + 2}
    shifted, copied = of_pool(tmp_path, real, parts, right=0.75)
    assert (shifted.strength, copied.strength) == (0.4, 0.5)
    assert (copied.num_images, copied.num_sources, copied.num_compared) == (200, 200, 200)
    assert copied.frechet == pytest.approx(0, abs=1e-9)
    assert copied.floor == pytest.approx(frechet_distance(statistics(real[SOURCES]), statistics(real)))
    assert copied.floor is not None
    assert copied.floor > 0.01
    assert copied.frechet_to_train == pytest.approx(copied.floor)
    assert copied.neighbours is not None
    assert (copied.neighbours.precision, copied.neighbours.recall, copied.neighbours.coverage) == (1, 1, 1)
    assert copied.neighbours.density == pytest.approx(6 / 5)
    assert copied.diversity is not None
    assert copied.diversity.to_source == 0
    assert shifted.frechet == pytest.approx(WIDTH * 4, rel=1e-5)
    assert shifted.floor == copied.floor
    assert shifted.diversity is not None
    assert shifted.diversity.to_source == pytest.approx(np.sqrt(WIDTH * 4), rel=1e-5)
    assert shifted.neighbours is not None
    assert shifted.neighbours.coverage < 0.5
    assert copied.kernel is not None
    assert shifted.kernel is not None
    assert shifted.kernel.mean > 1 > abs(copied.kernel.mean)
    wrong = (400 - 300) / 400  # of both together; the last labels are wrong, which the shuffle spreads
    assert (copied.faithfulness + shifted.faithfulness) / 2 == pytest.approx(100 * (1 - wrong))


def test_each_strength_is_measured_against_its_sources_and_sampled_images_against_all(tmp_path):
    real = real_features()
    rng = np.random.default_rng(1)
    noisy = np.repeat(real[SOURCES], 3, axis=0) + rng.standard_normal((600, WIDTH), np.float32) / 2
    sampled = rng.standard_normal((150, WIDTH), np.float32)
    varied, free = of_pool(tmp_path, real, {700: noisy, None: sampled}, variants=3)
    assert varied.frechet == pytest.approx(frechet_distance(statistics(noisy), statistics(real[SOURCES])))
    assert varied.frechet_to_train == pytest.approx(frechet_distance(statistics(noisy), statistics(real)))
    assert varied.diversity is not None
    expected = dataclasses.asdict(variant_diversity(noisy, np.repeat(SOURCES, 3), real))
    assert dataclasses.asdict(varied.diversity) == pytest.approx(expected)
    assert (varied.num_images, varied.num_compared) == (600, 200)
    assert free.strength is None
    assert free.diversity is None
    assert (
        free.frechet == free.frechet_to_train == pytest.approx(frechet_distance(statistics(sampled), statistics(real)))
    )
    assert free.floor == 0
    assert (free.num_images, free.num_sources, free.num_compared) == (150, NUM_REAL, 150)
    assert free.kernel is not None
    near = kernel_distance(real, sampled, subset_size=75).mean
    assert free.kernel.mean == pytest.approx(near, abs=4 * free.kernel.sd / 10)


def test_one_variant_of_each_source_is_compared(tmp_path):
    real = real_features()
    copies = np.repeat(real[SOURCES], 3, axis=0)
    copies[1::3] += 100  # far away, wherever the shuffle puts it
    rows, strengths = np.repeat(SOURCES, 3), np.full(600, 500)
    labels = np.zeros(600, int)
    (found,) = pool_quality(
        real,
        copies,
        pools=[""] * 600,
        source_rows=rows,
        strengths=strengths,
        labels=labels,
        predictions=labels,
        real_digest="a",
        cache=tmp_path,
    )
    assert found.neighbours == neighbour_scores(Manifold.of(real[SOURCES]), Manifold.of(real[SOURCES]))
    assert found.frechet is not None
    assert found.frechet > 100
    assert found.diversity is not None
    assert found.diversity.between_variants == pytest.approx(np.sqrt(WIDTH) * 200 / 3, rel=1e-3)


def test_of_many_images_a_fixed_draw_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "NUM_COMPARED", 50)
    real = real_features()
    noise = np.random.default_rng(1).standard_normal((2, 200, WIDTH), np.float32) / 4
    parts: dict[int | None, np.ndarray] = {400: real[SOURCES], 500: real[SOURCES] + noise[0], None: real[:80]}
    first, again = of_pool(tmp_path / "a", real, parts), of_pool(tmp_path / "b", real, parts)
    assert first == again
    assert [each.num_compared for each in first] == [50, 50, 50]
    assert first[0].neighbours is not None
    assert (
        first[0].neighbours.precision == first[0].neighbours.recall == 1
    )  # a source and its variant are drawn together
    manifolds = [path for path in (tmp_path / "a").iterdir() if "radii" in np.load(path).files]
    assert len(manifolds) == 2  # both strengths share theirs


def test_what_is_known_of_the_real_images_is_kept(tmp_path):
    real = real_features()
    parts: dict[int | None, np.ndarray] = {500: real[SOURCES] + 1, None: real[:90]}
    first = of_pool(tmp_path, real, parts)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 4  # sources, all images, and the neighbourhoods of both
    assert of_pool(tmp_path, real, parts) == first
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept


def test_few_images_say_what_they_can(tmp_path):
    real = real_features()

    def measure(count: int) -> PoolQuality:
        labels = np.zeros(count, int)
        (found,) = pool_quality(
            real,
            real[SOURCES[:count]],
            pools=[""] * count,
            source_rows=SOURCES[:count],
            strengths=np.full(count, 500),
            labels=labels,
            predictions=labels,
            real_digest=str(count),
            cache=tmp_path,
        )
        return found

    assert measure(100).kernel is not None
    few = measure(99)
    assert few.kernel is None
    assert few.kernel_missing == "fewer than 100 images"
    assert few.neighbours is not None
    five, one = measure(5), measure(1)
    assert five.neighbours is None
    assert five.frechet == pytest.approx(0, abs=1e-9)
    assert (one.frechet, one.frechet_to_train, one.floor, one.faithfulness) == (None, None, None, 100)
    dataclasses.asdict(one)  # is what a report writes as JSON


def test_imported_pools_are_looked_at_one_by_one_with_or_without_sources(tmp_path):
    real = real_features()
    parts = [(name, strength) for name in ("", "rival") for strength in (500, UNKNOWN, None)]
    rows = np.concatenate(
        [SOURCES if strength is not None else np.full(len(SOURCES), NO_SOURCE) for _, strength in parts]
    )
    labels = np.zeros(len(rows), int)
    found = pool_quality(
        real,
        np.concatenate([real[SOURCES] + step for step in range(len(parts))]),
        pools=[name for name, _ in parts for _ in SOURCES],
        source_rows=rows,
        strengths=np.repeat([1000 if strength is None else strength for _, strength in parts], len(SOURCES)),
        labels=labels,
        predictions=labels,
        real_digest="a",
        cache=tmp_path,
    )
    names = {each.name: each.frechet for each in found}
    assert set(names) == {"", "0.5", "sampled", "rival", "rival 0.5", "rival, no source"}
    assert names["0.5"] == pytest.approx(0, abs=1e-6)
    assert names["rival"] == pytest.approx(4**2 * WIDTH, rel=1e-3), "each is compared with its own sources"
    assert [each.num_sources for each in found if each.name.endswith("source")] == [NUM_REAL]


def test_an_empty_pool_has_no_quality_and_columns_must_fit(tmp_path):
    real, none = real_features(), np.empty(0, int)
    empty = pool_quality(
        real,
        real[:0],
        pools=[],
        source_rows=none,
        strengths=none,
        labels=none,
        predictions=none,
        real_digest="a",
        cache=tmp_path,
    )
    assert empty == []
    with pytest.raises(ValueError, match="3 features, 0 pools, 0 sources"):
        pool_quality(
            real,
            real[:3],
            pools=[],
            source_rows=none,
            strengths=none,
            labels=none,
            predictions=none,
            real_digest="a",
            cache=tmp_path,
        )
