"""The map of features by UMAP, whose package is an extra: `make soak`, not `make test`."""

import numpy as np

from gdacli.feature_map import feature_map
from gdacli.plots import feature_map_plot


def test_umap_keeps_groups_together():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(60, 8)), rng.normal(size=(60, 8)) + 50
    found = feature_map(real, made, method="umap")
    assert found.variance is None
    centres = found.real_points.mean(0), found.synthetic_points.mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > found.real_points.std()
    np.testing.assert_array_equal(feature_map(real, made, method="umap").real_points, found.real_points)
    assert ">UMAP 1<" in feature_map_plot(found, ["0.5"] * 60)
