import numpy as np
import pytest

from gdacli.clustered_share import Share, clustered_share, difference_interval
from gdacli.two_sample import (
    LEAST_PAIRS,
    MOST_PAIRS,
    accuracy,
    pairs_of_classes,
    pairs_of_sources,
    told_apart,
)


def gaussian(num: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, width))


def test_two_halves_of_real_images_cannot_be_told_apart():
    """19 of 20 intervals hold 50 % at least."""
    for seed in range(4):
        real = gaussian(400, seed=seed)
        found = accuracy(told_apart(real[:200], real[200:], seed))
        assert found.low < 50 < found.high
        assert 12 < found.high - found.low < 17


def test_images_of_another_kind_are_told_every_time():
    found = accuracy(told_apart(gaussian(100), gaussian(100, seed=1) + 4))
    assert found.value > 99
    assert found.low > 90
    assert found.high == 100


def test_variants_are_not_told_by_their_sources():
    """A variant of a source that a classifier has seen would be taken for real: far more or less than 50 %."""
    real = gaussian(200, width=300)
    close = accuracy(told_apart(real, real + 1e-3 * gaussian(200, 300, seed=1)))
    assert close.low < 50 < close.high
    assert 45 < close.value < 55
    same = told_apart(real, real)
    assert (same.sum(0) == 1).all(), "of two equal images one is told right"
    assert accuracy(same).value == 50


def test_the_answer_does_not_change_and_scale_does_not_matter():
    real, made = gaussian(50), gaussian(50, seed=1) + 0.5
    first = told_apart(real, made)
    assert (told_apart(real, made) == first).all()
    assert (told_apart(1000 * real + 7, 1000 * made + 7) == first).mean() > 0.98
    dead = np.zeros((50, 1))
    assert (told_apart(np.hstack([real, dead]), np.hstack([made, dead])) == first).all()


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"N >= 20"):
        told_apart(gaussian(LEAST_PAIRS - 1), gaussian(LEAST_PAIRS - 1))
    with pytest.raises(ValueError, match=r"\[N, D\] twice"):
        told_apart(gaussian(30), gaussian(31))


def test_sources_are_paired_with_their_first_variant():
    rows, made = pairs_of_sources(np.array([7, 3, 3, 7, 5]))
    assert sorted(zip(rows.tolist(), made.tolist(), strict=True)) == [(3, 1), (5, 4), (7, 0)]
    many = np.repeat(np.arange(3000), 2)
    rows, made = pairs_of_sources(many)
    assert len(rows) == MOST_PAIRS == len(set(rows.tolist()))
    assert (many[made] == rows).all()
    assert (pairs_of_sources(many)[0] == rows).all()


def test_images_without_a_source_are_paired_within_classes():
    a, b = np.array([0] * 5 + [1] * 2 + [2] * 3), np.array([1] * 4 + [0] * 3 + [4])
    rows_a, rows_b = pairs_of_classes(a, b)
    assert (a[rows_a] == b[rows_b]).all()
    assert np.bincount(a[rows_a]).tolist() == [3, 2]
    assert len(set(rows_a.tolist())) == len(set(rows_b.tolist())) == 5
    assert len(pairs_of_classes(np.zeros(9, int), np.zeros(9, int), most=4)[0]) == 4
    assert [len(rows) for rows in pairs_of_classes(a, np.array([4]))] == [0, 0]


def test_a_share_of_independent_images_has_wilsons_interval():
    found = clustered_share(np.arange(1000) < 100, np.arange(1000))
    assert (found.value, found.num_groups) == (10, 1000)
    assert found.low == pytest.approx(8.29, abs=0.02)  # of 100 in 1,000, by any table
    assert found.high == pytest.approx(12.02, abs=0.02)


def test_images_that_hang_together_count_less():
    hits, sources = np.repeat(np.random.default_rng(0).random(100) < 0.7, 10), np.repeat(np.arange(100), 10)
    together, apart = clustered_share(hits, sources), clustered_share(hits, np.arange(1000))
    alone = clustered_share(hits[::10], sources[::10])
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.02)
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_an_interval_never_claims_more_than_it_can():
    every = clustered_share(np.ones(40, bool), np.repeat(np.arange(10), 4))
    assert (every.value, every.high) == (100, 100)
    assert every.low < 75, "ten sources, not forty images"
    one = clustered_share(np.array([True, False]), np.array([3, 3]))
    assert (one.low, one.high) == (0, 100)
    opposed = clustered_share(np.tile([True, False], 50), np.repeat(np.arange(50), 2))
    assert opposed.high - opposed.low > 20, "pairs of one hit each do not vary, and are no proof"
    with pytest.raises(ValueError, match=r"needs bool \[N\]"):
        clustered_share(np.zeros(0, bool), np.zeros(0, int))


def test_clusters_of_a_known_chance_are_covered():
    """Sources with a chance of their own, five variants each: 95 % of the intervals hold the mean chance."""
    rng, missed = np.random.default_rng(0), 0
    for _ in range(300):
        chances = rng.beta(2, 1, size=60)
        found = clustered_share((rng.random((60, 5)) < chances[:, None]).ravel(), np.repeat(np.arange(60), 5))
        missed += not found.low <= 100 * 2 / 3 <= found.high
    assert 3 <= missed <= 30


def test_the_interval_of_a_difference_is_newcombes():
    """56 of 70 against 48 of 80, his example (a): 0.2 with 0.0524 to 0.3339."""
    a, b = Share(80, 69.18, 87.70, 70, 70), Share(60, 49.04, 70.04, 80, 80)
    low, high = difference_interval(a, b)
    assert low == pytest.approx(5.24, abs=0.1)
    assert high == pytest.approx(33.39, abs=0.1)
