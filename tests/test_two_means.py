import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

import gdacli.two_means
from gdacli.row_files import RowFile, Subset
from gdacli.two_means import two_means


def clusters(num: int, columns: int, seed: int, apart: float = 6) -> np.ndarray:
    """Points that vary along few directions, as logits do, a third of them apart."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(num, 5)) @ rng.normal(size=(5, columns)) + 0.3 * rng.normal(size=(num, columns))
    points[rng.random(num) < 0.3] += rng.normal(size=columns) * apart
    return (points + 100).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 2), (300, 10), (200, 90), (600, 40)])
def test_it_is_as_good_as_scikit_learn_and_finds_the_same_clusters(shape):
    for seed in range(4):
        points = clusters(shape[0], shape[1], seed)
        ours = two_means(points, seed)
        theirs = KMeans(2, n_init=10, random_state=seed, tol=0, max_iter=1000).fit(points.astype(float))
        assert ours is not None
        assert ours.inertia <= theirs.inertia_ * (1 + 1e-6)
        if ours.inertia > theirs.inertia_ * (1 - 1e-9):
            assert len(set(zip(ours.second.tolist(), theirs.labels_.tolist(), strict=True))) == 2


def test_without_clear_clusters_it_is_better_than_scikit_learn_on_average():
    ours, theirs = [], []
    for seed in range(6):
        points = clusters(200, 50, seed, apart=0)
        found = two_means(points, seed)
        assert found is not None
        ours.append(found.inertia)
        theirs.append(KMeans(2, n_init=10, random_state=seed).fit(points.astype(float)).inertia_)
    assert np.mean(ours) <= np.mean(theirs)


@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30)
def test_every_point_is_nearer_to_its_own_mean(num, columns, seed):
    points = np.random.default_rng(seed).normal(size=(num, columns)).astype(np.float32)
    found = two_means(points, seed)
    assert found is not None
    assert 0 < found.second.sum() < num
    for cluster, center in zip((~found.second, found.second), found.centers, strict=True):
        assert center == pytest.approx(points[cluster].astype(float).mean(axis=0), abs=1e-5)
    distances = np.linalg.norm(points[:, None].astype(float) - found.centers, axis=2)
    assert found.distances == pytest.approx(distances, abs=1e-5)


def test_points_that_fall_into_one_cluster():
    assert two_means(np.ones((1, 3), np.float32), 0) is None
    assert two_means(np.full((9, 50), 0.1, np.float32), 0) is None
    twins = two_means(np.array([[1000.0], [1000.0], [1000.0001]], np.float32), 0)
    assert twins is not None
    assert sorted(twins.second.tolist()) in ([False, False, True], [False, True, True])


def test_what_is_read_in_blocks_gives_the_same(tmp_path, monkeypatch):
    points = clusters(400, 60, 0)
    np.save(tmp_path / "points.npy", np.repeat(points, 2, axis=0))
    file = Subset(RowFile(tmp_path / "points.npy"), 2 * np.arange(400))
    whole = two_means(points, 3)
    assert whole is not None
    with threadpool_limits(1, "blas"):
        again = two_means(file, 3)
        monkeypatch.setattr(gdacli.two_means, "_HELD", 0)  # every round reads
        read = two_means(file, 3)
    assert again is not None
    assert read is not None
    assert (again.distances == read.distances).all()
    assert (again.second == whole.second).all()
