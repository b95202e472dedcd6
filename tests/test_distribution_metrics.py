import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gdacli.distribution_metrics import Manifold, kernel_distance, neighbour_scores, variant_diversity

GOLDEN_KERNEL = (0.08137124776435778, 0.025572432605670343)
GOLDEN_SHARES = {3: (0.724, 0.8783333333333333), 5: (0.836, 0.9416666666666667)}
"""torch-fidelity 0.4.0 on golden_sets: kid_features_to_metric(kid_subsets=20, kid_subset_size=200), and by the number
of neighbours precision and recall of prc_features_to_metric."""


def golden_sets() -> tuple[np.ndarray, np.ndarray]:
    """Make features that are 0 or more, as behind a ReLU, from a stream that is frozen."""
    draws = np.random.RandomState(600)
    mixing = draws.standard_normal((32, 32)) / np.sqrt(32)
    real = draws.standard_normal((600, 32)) @ mixing
    synthetic = draws.standard_normal((500, 32)) @ (mixing + np.eye(32) / 4) + 0.1
    return np.maximum(real + 0.5, 0), np.maximum(synthetic + 0.5, 0)


def normal(num_rows: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, width)) + shift


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_kernel_distance_is_torch_fidelitys(dtype):
    real, synthetic = (features.astype(dtype) for features in golden_sets())
    found = kernel_distance(real, synthetic, num_subsets=20, subset_size=200)
    assert (found.mean, found.sd) == pytest.approx(GOLDEN_KERNEL, rel=2e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("num_neighbours", GOLDEN_SHARES)
def test_precision_and_recall_are_torch_fidelitys(num_neighbours, dtype):
    real, synthetic = (Manifold.of(features.astype(dtype), num_neighbours) for features in golden_sets())
    found = neighbour_scores(real, synthetic)
    assert (found.precision, found.recall) == pytest.approx(GOLDEN_SHARES[num_neighbours], rel=1e-12)


def test_the_kernel_distance_of_whole_sets_is_its_definition():
    x, y = normal(9, 4, 0), normal(9, 4, 1, shift=0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    pairs = [(i, j) for i in range(9) for j in range(9)]
    within = sum(kernel(each[i], each[j]) for each in (x, y) for i, j in pairs if i != j) / (9 * 8)
    between = sum(kernel(x[i], y[j]) for i, j in pairs) / 81
    found = kernel_distance(x, y, num_subsets=3, subset_size=9)
    assert found.mean == pytest.approx(within - 2 * between, rel=1e-12)
    assert found.sd == pytest.approx(0, abs=1e-12)


def test_the_kernel_distance_is_nought_on_average_for_one_distribution_and_grows_with_a_shift():
    estimates = [kernel_distance(normal(200, 8, 0), normal(200, 8, 1, shift), subset_size=60) for shift in (0, 0.2, 1)]
    same, near, far = (estimate.mean for estimate in estimates)
    assert abs(same) < 0.02 < near < far


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return cdist(a.astype(float), b.astype(float))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("num_real", "num_synthetic", "k"), [(40, 60, 3), (70, 30, 5), (7, 300, 1)])
def test_the_scores_are_their_definitions(num_real, num_synthetic, k, dtype):
    real, synthetic = normal(num_real, 6, 0).astype(dtype), normal(num_synthetic, 6, 1, shift=0.4).astype(dtype)
    radius_real, radius_synthetic = (np.sort(distances(each, each), axis=1)[:, k] for each in (real, synthetic))
    apart = distances(real, synthetic)
    inside_real, inside_synthetic = apart <= radius_real[:, None], apart <= radius_synthetic[None]
    manifolds = Manifold.of(real, k), Manifold.of(synthetic, k)
    np.testing.assert_allclose(manifolds[0].radii, radius_real, rtol=1e-5 if dtype == np.float32 else 1e-12)
    found = neighbour_scores(*manifolds)
    assert found.precision == pytest.approx(inside_real.any(0).mean(), abs=1e-12)
    assert found.recall == pytest.approx(inside_synthetic.any(1).mean(), abs=1e-12)
    assert found.density == pytest.approx(inside_real.sum() / (k * num_synthetic), abs=1e-12)
    assert found.coverage == pytest.approx(inside_real.any(1).mean(), abs=1e-12)


def test_many_rows_are_compared_in_blocks():
    real, synthetic = normal(5000, 2, 0), normal(4500, 2, 1, shift=1.0)
    apart = distances(real, synthetic)
    manifold = Manifold.of(real, 2)
    some = np.array([0, 4095, 4096, 4999])
    expected = np.sort(distances(real[some], real), axis=1)[:, 2]
    np.testing.assert_allclose(manifold.radii[some], expected, rtol=1e-9)
    found = neighbour_scores(manifold, Manifold.of(synthetic, 2))
    inside = apart <= manifold.radii[:, None]
    assert found.precision == pytest.approx(inside.any(0).mean())
    assert found.coverage == pytest.approx(inside.any(1).mean())
    assert found.density == pytest.approx(inside.sum() / (2 * 4500))


@pytest.mark.parametrize("offset", [0.0, 300.0])  # features far from 0 lose no neighbours to rounding
def test_a_set_and_its_copy_share_all(offset):
    rows = (normal(80, 16, 0) + offset).astype(np.float32)
    found = neighbour_scores(Manifold.of(rows), Manifold.of(rows[::-1].copy()))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx((5 + 1) / 5)  # in its own ball, and in as many as it has rows, on average


def test_sets_far_apart_share_nothing():
    found = neighbour_scores(Manifold.of(normal(50, 4, 0)), Manifold.of(normal(60, 4, 1, shift=100)))
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_samples_of_one_distribution_score_what_is_expected():
    found = neighbour_scores(Manifold.of(normal(1500, 4, 0)), Manifold.of(normal(1500, 4, 1)))
    assert found.density == pytest.approx(1, abs=0.08)
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.02)


def test_modes_that_are_left_out_cost_recall_and_noise_costs_precision():
    real = np.concatenate([normal(200, 4, 0), normal(200, 4, 1, shift=20)])
    one_mode = neighbour_scores(Manifold.of(real), Manifold.of(normal(200, 4, 2)))
    assert one_mode.precision > 0.8
    assert one_mode.recall <= 0.5
    assert one_mode.coverage <= 0.5
    noisy = neighbour_scores(Manifold.of(real[:200]), Manifold.of(6 * normal(200, 4, 3)))
    assert noisy.precision < 0.5 < noisy.recall


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), num=st.integers(4, 20), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_the_scores_depend_on_neighbours_alone(seed, num, scale, shift):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((num, 3)), rng.standard_normal((num + 5, 3)) + 0.3
    found = neighbour_scores(Manifold.of(a, 2), Manifold.of(b, 2))
    assert neighbour_scores(Manifold.of(scale * a + shift, 2), Manifold.of(scale * b + shift, 2)) == found
    swapped = neighbour_scores(Manifold.of(b, 2), Manifold.of(a, 2))
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)
    assert 0 <= found.coverage <= 1
    assert found.density >= found.precision / 2


def test_diversity_is_the_mean_over_sources_of_the_mean_over_pairs():
    sources = np.array([[0.0, 0], [10, 0], [50, 50], [0, 10]])
    variants = np.array([[13.0, 0], [3, 4], [10, 0], [0, 0], [10, 4], [0, 11]])
    found = variant_diversity(variants, np.array([1, 0, 1, 0, 1, 3]), sources)
    # source 0: 5 apart; 5 and 0 away. source 1: 3, 4 and 5 apart; 3, 0 and 4 away. source 3: one variant, 1 away.
    assert found.between_variants == pytest.approx((5 + 4) / 2)
    assert found.to_source == pytest.approx((2.5 + 7 / 3 + 1) / 3)
    assert (found.num_sources, found.num_sources_with_several) == (3, 2)


def test_one_variant_of_each_has_no_diversity_and_a_copy_is_no_way_from_its_source():
    sources = normal(6, 3, 0).astype(np.float32)
    found = variant_diversity(sources[[4, 2]], np.array([4, 2]), sources)
    assert found.between_variants is None
    assert found.to_source == 0
    assert found.num_sources_with_several == 0


def test_many_variants_are_measured_in_groups():
    sources, rows = normal(900, 512, 0), np.repeat(np.arange(900), 3)  # more values than are compared at a time
    variants = sources[rows] + normal(2700, 512, 1)
    apart = [np.linalg.norm(variants[a::3] - variants[b::3], axis=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    found = variant_diversity(variants.astype(np.float32), rows, sources.astype(np.float32))
    assert found.between_variants == pytest.approx(np.mean(apart), rel=1e-5)
    assert found.to_source == pytest.approx(np.linalg.norm(variants - sources[rows], axis=1).mean(), rel=1e-5)


def test_features_that_cannot_be_compared_are_refused():
    good = normal(6, 3, 0)
    with pytest.raises(ValueError, match="subsets of 2 to that many"):
        kernel_distance(good, good, subset_size=7)
    with pytest.raises(ValueError, match="0 subsets"):
        kernel_distance(good, good, subset_size=2, num_subsets=0)
    with pytest.raises(ValueError, match="same width"):
        kernel_distance(good, good[:, :2], subset_size=2)
    with pytest.raises(ValueError, match="not finite"):
        Manifold.of(good * np.nan, 2)
    with pytest.raises(ValueError, match="more than num_neighbours"):
        Manifold.of(good, 6)
    with pytest.raises(ValueError, match="equal numbers"):
        neighbour_scores(Manifold.of(good, 2), Manifold.of(good, 3))
    with pytest.raises(ValueError, match="one for each"):
        variant_diversity(good, np.arange(5), good)
    with pytest.raises(ValueError, match="needs 0 to 5"):
        variant_diversity(good, np.arange(1, 7), good)
