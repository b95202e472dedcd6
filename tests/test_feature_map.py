import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdacli.errors import GdaError
from gdacli.feature_map import NUM_POINTS, feature_map, principal_components
from gdacli.plots import feature_map_plot


def features(num_rows: int, width: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((num_rows, width)) * np.linspace(3, 0.1, width)).astype(np.float32)


def test_the_plane_is_that_of_most_variance():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((5, 5)))[0][:2]
    places = rng.standard_normal((60, 2)) * [5, 2]
    places -= places.mean(0)
    places = places @ np.linalg.svd(places, full_matrices=False)[2].T  # along its own axes
    found, variance = principal_components(places @ plane + 7)
    assert sum(variance) == pytest.approx(1)
    assert variance[0] == pytest.approx((places[:, 0] ** 2).sum() / (places**2).sum())
    np.testing.assert_allclose(np.abs(found), np.abs(places), atol=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), width=st.integers(2, 6), num_rows=st.integers(3, 12))
def test_a_map_of_features_keeps_no_more_than_their_distances(seed, width, num_rows):
    rows = np.random.default_rng(seed).standard_normal((num_rows, width))
    found, (first, second) = principal_components(rows)
    apart, apart_found = (np.linalg.norm(each[:, None] - each[None], axis=2) for each in (rows, found))
    assert (apart_found <= apart + 1e-9).all()
    assert 1 + 1e-9 >= first >= second >= 0
    if width == 2:
        np.testing.assert_allclose(apart_found, apart, atol=1e-9)
    moved, _ = principal_components(rows[::-1] + 3)  # neither order nor place turns or mirrors it
    np.testing.assert_allclose(moved[::-1], found, atol=1e-6)


@pytest.mark.parametrize(
    ("num_real", "num_synthetic", "drawn"),
    [(5000, 3000, (1000, 1000)), (300, 3000, (300, 1700)), (5000, 20, (1980, 20)), (40, 30, (40, 30)), (9, 0, (9, 0))],
)
def test_a_bounded_number_of_images_is_drawn_and_each_point_is_its_image(num_real, num_synthetic, drawn):
    real, synthetic = features(num_real), features(num_synthetic, seed=1) + 2
    found = feature_map(real, synthetic)
    assert (len(found.real_rows), len(found.synthetic_rows)) == drawn
    assert sum(drawn) <= NUM_POINTS
    for rows in (found.real_rows, found.synthetic_rows):
        assert (np.diff(rows) > 0).all()
    expected, variance = principal_components(
        np.concatenate([real[found.real_rows], synthetic[found.synthetic_rows]]).astype(float)
    )
    np.testing.assert_array_equal(np.concatenate([found.real_points, found.synthetic_points]), expected)
    assert found.variance == variance
    other = feature_map(real, synthetic, seed=1)
    assert (num_real <= drawn[0]) == np.array_equal(other.real_rows, found.real_rows)


def test_images_that_moved_together_lie_apart():
    real = features(400)
    found = feature_map(real, real + 10 * np.eye(8, dtype=np.float32)[7])  # where real images hardly vary
    gap = np.abs(found.synthetic_points.mean(0) - found.real_points.mean(0)).max()
    assert gap > 9


def test_umap_without_its_package_names_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(GdaError, match=r"evaluate.feature_map: umap needs .*pip install 'gdacli\[umap\]', or set pca"):
        feature_map(features(20), features(20), method="umap")


def test_features_without_a_plane_are_refused():
    for real, synthetic in (
        (features(2), features(0)),
        (features(9, 1), features(9, 1)),
        (features(9, 3), features(9)),
    ):
        with pytest.raises(ValueError, match="needs rows of the same width"):
            feature_map(real, synthetic)
    with pytest.raises(ValueError, match="needs one of pca, umap"):
        feature_map(features(9), features(9), method="tsne")  # type: ignore[arg-type]


def test_the_plot_has_a_colour_for_each_strength_and_stays_small():
    found = feature_map(features(4000), features(4000, seed=1) + 1)
    strengths = [("0.4", "0.75", "sampled")[row % 3] for row in range(4000)]
    svg = feature_map_plot(found, strengths)
    assert len(svg) < 300_000
    texts = [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314
    assert {"real", "strength 0.4", "strength 0.75", "sampled"} <= set(texts)
    assert any(re.fullmatch(r"principal component 1 \(\d+ % of the variance\)", text) for text in texts)
    assert svg == feature_map_plot(found, strengths)
    assert svg != feature_map_plot(found, strengths[1:] + strengths[:1])
