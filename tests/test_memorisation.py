import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdacli.memorisation import coarse_pixels, memorisation, nearest_train_images


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100), st.floats(-100, 100))
def test_relative_distances_know_no_scale_and_no_origin(seed, scale, shift):
    rng = np.random.default_rng(seed)
    images, train = rng.normal(size=(5, 4)), rng.normal(size=(30, 4))
    found = nearest_train_images([images], train)
    moved = nearest_train_images([scale * images + shift], scale * train + shift)
    assert found.rows.tolist() == np.linalg.norm(images[:, None] - train, axis=2).argmin(1).tolist()
    assert moved.rows.tolist() == found.rows.tolist()
    assert np.allclose(moved.relative_distances, found.relative_distances, rtol=1e-3)
    assert (found.relative_distances <= 1).all()


@given(st.integers(0, 2**32 - 1), st.integers(4, 40))
def test_a_copy_is_at_zero_and_an_image_is_not_its_own_neighbour(seed, num_train):
    train = np.random.default_rng(seed).normal(size=(num_train, 6)).astype(np.float32) + 50
    rows = np.arange(num_train)
    copies = nearest_train_images([-train, train], train)  # the second view is the copy
    assert copies.rows.tolist() == rows.tolist()
    assert copies.relative_distances.max() < 1e-6
    others = nearest_train_images([train], train, rows)
    assert (others.rows != rows).all()
    assert others.relative_distances.min() > 0


def test_many_train_images_are_looked_through_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    images, train, without = rng.normal(size=(50, 8)), rng.normal(size=(400, 8)), rng.integers(0, 400, 50)
    whole = nearest_train_images([images], train, without)
    monkeypatch.setattr("gdacli.memorisation._TRAIN_ROWS", 64)
    monkeypatch.setattr("gdacli.memorisation._ROWS", 16)
    parts = nearest_train_images([images], train, without)
    assert (whole.rows == parts.rows).all()
    assert np.allclose(whole.relative_distances, parts.relative_distances)
    with pytest.raises(ValueError, match="found 2 train images, needs 3 or more"):
        nearest_train_images([images], train[:2])


def test_chance_is_rarely_suspect_and_copies_are():
    rng = np.random.default_rng(1)
    p_values = [memorisation(rng.normal(size=300), rng.normal(size=400)).p_value for _ in range(500)]
    assert np.mean(np.array(p_values) < 0.05) < 0.08  # 0.05, and 0.02 for the luck of 500
    real = rng.normal(5, 1, 400)
    few = memorisation(np.r_[rng.normal(5, 1, 285), np.zeros(15)], real)  # one in twenty
    assert few.suspect
    assert few.share >= 0.05
    assert 0.005 < (real < few.threshold).mean() <= 0.01


def test_pixels_are_averaged():
    images = np.zeros((2, 3, 32, 32), np.uint8)
    images[1, :, :2, :2] = 100
    seen = coarse_pixels(images)
    assert seen.shape == (2, 768)
    assert (seen[1].reshape(3, 16, 16)[:, 0, 0] == 100).all()
    assert seen[1].sum() == 300
    assert coarse_pixels(images[..., :8, :8]).shape == (2, 192)
