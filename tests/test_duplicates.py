import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from gdacli.duplicates import (
    LEAST,
    MOST,
    UNCALIBRATED,
    Pairs,
    aligned_correlation,
    calibrate,
    exact_pairs,
    grey_square,
    near_pairs,
    near_pairs_within,
    nearest,
    pixel_digest,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let no threads wait for each other over products as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiles() -> np.ndarray:
    """Cut two bundled photographs into 215 images that do not overlap, without the plain sky; shuffled."""
    made, side = [], 32
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name).transpose(2, 0, 1)
        for top in range(0, photo.shape[1] - side + 1, side):
            made += [
                photo[:, top : top + side, left : left + side] for left in range(0, photo.shape[2] - side + 1, side)
            ]
    images = np.random.default_rng(0).permutation(np.stack(made))
    return images[squares(images).std((1, 2)) > 20]


def digits() -> np.ndarray:
    return np.repeat((load_digits().images * (255 / 16)).round().astype(np.uint8)[:, None], 3, axis=1)


def features(images: np.ndarray) -> np.ndarray:
    """Return weak features, which see colours but no place, so that the pixels must propose."""
    means = np.concatenate([images.mean((2, 3)), images.std((2, 3))], axis=1) + 1
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float16)


def squares(images: np.ndarray) -> np.ndarray:
    side = min(32, *images.shape[2:])
    return np.array([grey_square(image, side) for image in images], np.uint8).reshape(-1, side, side)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).transpose(2, 0, 1)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    side = image.shape[1]
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
    return padded[:, 2 - down : 2 - down + side, 2 - right : 2 - right + side]


Copy = Callable[[np.ndarray], np.ndarray]
COPIES: dict[str, Copy] = {
    "exact": lambda image: image,
    "encoded again": lambda image: jpeg(image, 80),
    "mirrored": lambda image: image[:, :, ::-1],
    "moved by 1": lambda image: moved(image, 1, -1),
    "brighter": lambda image: (image * 0.8 + 40).astype(np.uint8),
    "moved by 2": lambda image: moved(image, -2, 2),
    "mirrored, encoded, darker": lambda image: jpeg((image[:, :, ::-1] * 0.7).astype(np.uint8), 80),
}


@pytest.fixture(scope="module")
def photo_sets() -> tuple[np.ndarray, np.ndarray]:
    images = tiles()
    return images[:160], images[160:]


@pytest.fixture(scope="module")
def digit_sets() -> tuple[np.ndarray, np.ndarray]:
    images = digits()
    return images[:200], images[200:300]


def found(train: np.ndarray, test: np.ndarray, chosen: np.ndarray, copy: Copy) -> tuple[Pairs, set[int], float]:
    """Put copies of the chosen train images at the first places of the test images, and look for them."""
    test = np.concatenate([np.stack([copy(image) for image in train[chosen]]), test[len(chosen) :]])
    threshold = calibrate(features(train), squares(train))
    pairs = near_pairs(features(test), squares(test), threshold, features(train), squares(train))
    right = {int(a) for a, b in zip(pairs.rows_a, pairs.rows_b, strict=True) if a < len(chosen) and chosen[a] == b}
    return pairs, right, threshold


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_of_photos_are_found(photo_sets, kind):
    train, test = photo_sets
    chosen = np.arange(20)
    pairs, right, _ = found(train, test, chosen, COPIES[kind])
    assert len(right) == 20
    assert (pairs.rows_a >= 20).sum() <= 1, "unrelated ones are paired"
    assert (pairs.mirrored[pairs.rows_a < 20] == kind.startswith("mirrored")).all()
    assert (np.diff(pairs.similarity) <= 0).all()


@pytest.mark.parametrize("kind", ["exact", "moved by 1"])
def test_planted_copies_of_digits_are_found_and_other_digits_are_not(digit_sets, kind):
    train, test = digit_sets
    pairs, right, _ = found(train, test, np.arange(0, 100, 5), COPIES[kind])
    assert len(right) == 20
    assert len(pairs) - 20 <= 2


def test_unrelated_images_are_not_paired(photo_sets, digit_sets):
    for (train, test), most in ((photo_sets, 1), (digit_sets, 2)):
        threshold = calibrate(features(train), squares(train))
        assert len(near_pairs(features(test), squares(test), threshold, features(train), squares(train))) <= most
        assert len(near_pairs_within(features(train), squares(train), threshold)) <= most


def test_copies_within_a_set_are_paired_once_and_hardly_move_it(photo_sets):
    train, _ = photo_sets
    chosen = np.arange(8)
    with_copies = np.concatenate([train, [jpeg(image, 80) for image in train[chosen]]])
    clean, threshold = (calibrate(features(images), squares(images)) for images in (train, with_copies))
    assert abs(threshold - clean) < 0.03
    pairs = near_pairs_within(features(with_copies), squares(with_copies), threshold)
    expected = {(int(row), 160 + place) for place, row in enumerate(chosen)}
    assert expected <= set(zip(pairs.rows_a.tolist(), pairs.rows_b.tolist(), strict=True))
    assert len(pairs) <= 9


def test_a_row_is_not_paired_with_the_one_it_must_not(photo_sets):
    train, _ = photo_sets
    chosen = np.arange(5)
    images = train[chosen]
    twice = np.concatenate([train, images[:1]])  # the first one has a twin
    pairs = near_pairs(features(images), squares(images), 0.99, features(twice), squares(twice), without=chosen)
    assert pairs.rows_a.tolist() == [0]
    assert pairs.rows_b.tolist() == [160]


@pytest.mark.parametrize("num", [0, 1, 2, 3, 101])
@pytest.mark.parametrize("side", [8, 32])
def test_plain_and_few_images(num, side):
    plain = np.full((num, 3, side, side), 9, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (num, 3, side, side)).astype(np.uint8)
    for train in (plain, noise):
        threshold = calibrate(features(train), squares(train))
        assert LEAST <= threshold <= MOST
        if num < 100:
            assert threshold == UNCALIBRATED
        assert len(near_pairs_within(features(train), squares(train), threshold)) == 0
        for test in (plain, noise[::-1]):
            pairs = near_pairs(features(test), squares(test), threshold, features(train), squares(train))
            assert len(pairs) == (num if train is noise and test is not plain else 0)
    digests = [pixel_digest(image) for image in plain]
    assert len(exact_pairs(digests)) == max(0, num - 1)  # plain ones are equal, and this finds them


def test_a_set_of_copies_alone_is_called_so():
    train = np.repeat(tiles()[:1], 120, axis=0)
    threshold = calibrate(features(train), squares(train))
    assert threshold == MOST
    pairs = near_pairs_within(features(train), squares(train), threshold)
    assert len(set(pairs.rows_a) | set(pairs.rows_b)) == 120


def test_exact_pairs_name_the_first_of_a_kind():
    pairs = exact_pairs([b"x", b"a", b"b", b"a"], [b"b", b"a", b"a"])
    assert list(zip(pairs.rows_a, pairs.rows_b, strict=True)) == [(1, 1), (2, 0), (3, 1)]
    within = exact_pairs([b"a", b"b", b"a", b"c", b"a", b"b"])
    assert sorted(zip(within.rows_a, within.rows_b, strict=True)) == [(0, 2), (0, 4), (1, 5)]
    assert len(exact_pairs([], [])) == len(exact_pairs([])) == 0


def test_a_digest_tells_pixels_and_shape():
    image = tiles()[0]
    assert pixel_digest(image) == pixel_digest(image[:, :, ::-1][:, :, ::-1]) != pixel_digest(image[:, :, ::-1])
    assert pixel_digest(np.zeros((3, 4, 6), np.uint8)) != pixel_digest(np.zeros((3, 6, 4), np.uint8))


def test_a_grey_square_is_the_centre():
    image = np.zeros((3, 40, 100), np.uint8)
    image[:, :, 30:70] = np.arange(40)[:, None]
    assert (grey_square(image, 10) == np.arange(10)[:, None] * 4 + 2).all()  # 1.5, rounded
    assert grey_square(image.transpose(0, 2, 1), 10).shape == (10, 10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(0, 999))
def test_nearest_is_a_sort(num_a, num_b, num, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((num_a, 5)), rng.standard_normal((num_b, 5))
    without = rng.integers(-1, num_b, num_a) if num_b else np.full(num_a, -1)
    similarity, rows = nearest(a, b, num, without)
    full = (a @ b.T).astype(np.float32)
    full[np.flatnonzero(without >= 0), without[without >= 0]] = -np.inf
    assert similarity.shape == rows.shape == (num_a, min(num, num_b))
    assert np.allclose(similarity, -np.sort(-full, axis=1)[:, : rows.shape[1]], atol=1e-5)
    assert np.allclose(np.take_along_axis(full, rows, axis=1), similarity, atol=1e-5)


def test_nearest_is_the_same_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    a, b, without = rng.standard_normal((50, 5)), rng.standard_normal((70, 5)), rng.integers(-1, 70, 50)
    similarity, rows = nearest(a, b, 4, without)
    monkeypatch.setattr("gdacli.duplicates._ROWS_A", 7)
    monkeypatch.setattr("gdacli.duplicates._ROWS_B", 9)
    again = nearest(a, b, 4, without)
    assert np.allclose(similarity, again[0], atol=1e-6)
    assert (rows == again[1]).all()


def test_correlation_knows_shifts_contrast_and_mirrors():
    images = squares(tiles()[:9])
    rows = np.arange(9)
    value, mirrored = aligned_correlation(np.roll(images, (2, -1), (1, 2)), images, rows)
    assert value == pytest.approx(1, abs=1e-5)
    assert not mirrored.any()
    value, mirrored = aligned_correlation(images[:, :, ::-1], images // 2 + 30, rows)
    assert (value > 0.98).all()
    assert mirrored.all()
    plain = np.full_like(images, 80)
    assert (aligned_correlation(plain, images, rows)[0] == 0).all()
    assert (aligned_correlation(images, plain, rows)[0] == 0).all()
