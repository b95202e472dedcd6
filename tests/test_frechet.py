import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdacli.frechet import GaussianStatistics, frechet_distance
from gdacli.row_files import RowFile

GOLDEN = {
    (600, 500, 32): 1.0808206964884377,
    (900, 1200, 128): 6.1608784185685295,
    (40, 60, 48): 11.481633636065013,
    (30, 25, 64): 32.29702355707978,
}
"""torch-fidelity 0.4.0: fid_statistics_to_metric of fid_features_to_statistics of each of two_sets(*shape)."""


def two_sets(num_a: int, num_b: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Make correlated features that are 0 or more, as behind a ReLU, from a stream that is frozen."""
    draws = np.random.RandomState(num_a)
    mixing = draws.standard_normal((width, width)) / np.sqrt(width)
    real = draws.standard_normal((num_a, width)) @ mixing
    synthetic = draws.standard_normal((num_b, width)) @ (mixing + np.eye(width) / 4) + 0.1
    return np.maximum(real + 0.5, 0), np.maximum(synthetic + 0.5, 0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(GaussianStatistics.of(a), GaussianStatistics.of(b))


def with_moments(mean: np.ndarray, covariance: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Make features [num, D] that have exactly this mean and covariance."""
    noise = np.random.default_rng(seed).standard_normal((num, len(mean)))
    noise -= noise.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(noise.T)), noise.T)
    return (np.linalg.cholesky(covariance) @ white).T + mean


def test_the_distance_of_known_gaussians():
    a = with_moments(np.array([1.0, 2, 3]), np.diag([1.0, 4, 9]), 40, seed=0)
    b = with_moments(np.array([1.0, 0, 3]), np.diag([4.0, 4, 1]), 60, seed=1)
    assert distance(a, b) == pytest.approx(2**2 + (2 - 1) ** 2 + 0 + (1 - 3) ** 2)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    assert distance(a @ rotation, b @ rotation) == pytest.approx(9)


@pytest.mark.parametrize("shape", GOLDEN)
def test_the_distance_is_torch_fidelitys(shape):
    a, b = two_sets(*shape)
    assert distance(a, b) == pytest.approx(GOLDEN[shape], rel=1e-6)
    assert distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(GOLDEN[shape], rel=1e-6)


@pytest.mark.parametrize(
    ("num_a", "num_b", "width"), [(200, 150, 16), (80, 70, 64), (20, 300, 48), (10, 12, 40), (2, 2, 5)]
)
def test_the_distance_is_the_one_by_the_matrix_root(num_a, num_b, width):
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(num_a)
    a = (rng.standard_normal((num_a, width)) @ rng.standard_normal((width, width))).astype(np.float32)
    b = (rng.standard_normal((num_b, width)) @ rng.standard_normal((width, width)) + 1).astype(np.float32)
    double_a, double_b = a.astype(float), b.astype(float)
    cov_a, cov_b = np.cov(double_a.T), np.cov(double_b.T)
    if min(num_a, num_b) > width:
        trace = np.trace(sqrtm(cov_a @ cov_b)).real
    else:  # sqrtm of a singular matrix is inexact; of a symmetric one eigenvalues are exact, if noise is left out
        values, vectors = np.linalg.eigh(cov_a)
        root_a = vectors * np.sqrt(values.clip(0)) @ vectors.T
        squares = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
        trace = np.sqrt(squares[squares > 1e-10 * squares.max()]).sum()
    expected = ((double_a.mean(0) - double_b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert distance(b, a) == pytest.approx(distance(a, b), rel=1e-12)
    assert distance(a, a[::-1]) == pytest.approx(0, abs=1e-9 * np.trace(cov_a))


def test_a_singular_covariance_costs_no_digits():
    flat = with_moments(np.zeros(2), np.diag([1.0, 1e-12]), 30, seed=0)
    wide = with_moments(np.zeros(2), np.diag([1.0, 4.0]), 30, seed=1)
    assert distance(flat, wide) == pytest.approx((2 - 1e-6) ** 2, rel=1e-12)  # a squared root would lose the 1e-6
    constant = np.ones((5, 2))
    assert distance(constant, wide) == pytest.approx(2 + 5)


@pytest.mark.parametrize("num_rows", [3, 9_000])  # fewer rows than features; three blocks, the last one short
def test_statistics_are_those_of_all_rows_at_once(num_rows, tmp_path):
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((num_rows, 6)) @ rng.standard_normal((6, 6)) + 100).astype(np.float32)
    found = GaussianStatistics.of(features)
    assert found.root.shape == (min(num_rows, 6), 6)
    np.testing.assert_allclose(found.mean, features.astype(float).mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features.T.astype(float)), rtol=1e-9, atol=1e-12)
    np.save(tmp_path / "rows.npy", features)
    from_file = GaussianStatistics.of(RowFile(tmp_path / "rows.npy"))
    np.testing.assert_array_equal(from_file.root, found.root)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), num=st.integers(2, 12), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_the_distance_moves_as_its_definition_says(seed, num, shift, scale):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((num, 4)), rng.standard_normal((num + 3, 4))
    assert distance(a, a + shift) == pytest.approx(4 * shift**2, abs=1e-9)
    assert distance(scale * a, scale * b) == pytest.approx(scale**2 * distance(a, b), rel=1e-8)


def test_features_that_cannot_be_compared_are_refused():
    good = np.ones((4, 3))
    for wrong in (np.ones((1, 3)), np.ones(3)):
        with pytest.raises(ValueError, match="needs \\[N, D\\]"):
            GaussianStatistics.of(wrong)
    with pytest.raises(ValueError, match="not finite"):
        GaussianStatistics.of(good * np.nan)
    with pytest.raises(ValueError, match="needs the same features"):
        distance(good, np.ones((4, 2)))
