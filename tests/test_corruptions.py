import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from gdacli.corruption_constants import CIFAR, IMAGENET
from gdacli.corruptions import CORRUPTIONS, SEVERITIES, corrupt_batch, scaled_constants
from gdacli.textures import frost_texture, plasma

NOT_MONOTONE = {  # as published
    "glass_blur": "severity 4 blurs less than 3, in more rounds",
    "elastic_transform": "the corners are shifted ever less",
    "frost": "the weights of severities 3 to 5 are nearly the same",
    "pixelate": "of a side of 32: 30 and 28 squares cost the same",
}


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt one image."""
    return corrupt_batch(image[None], name, severity, [rng])[0]


def photos(num: int, side: int) -> np.ndarray:
    """Return crops of two bundled photographs, uint8 [num, 3, side, side]."""
    made = []
    for number in range(num):
        photo = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[number % 2]))
        left = 20 * (number // 2)
        made.append(np.asarray(photo.crop((left, 0, left + 420, 420)).resize((side, side))).transpose(2, 0, 1))
    return np.stack(made)


SMALL, LARGE = photos(12, 32), photos(2, 224)


def generators(num: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, number)) for number in range(num)]


def grey(level: int, side: int = 64) -> np.ndarray:
    return np.full((3, side, side), level, np.uint8)


def distance(images: np.ndarray, name: str, severity: int) -> float:
    changed = corrupt_batch(images, name, severity, generators(len(images)))
    return float(((changed.astype(float) - images) ** 2).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_contract(name):
    for images in (SMALL[:3], LARGE[:1], photos(2, 8), photos(2, 65)):
        for severity in (1, 5):
            out = corrupt_batch(images, name, severity, generators(len(images)))
            assert (out.dtype, out.shape) == (np.uint8, images.shape)
            assert all((each != image).any() for each, image in zip(out, images, strict=True)), "it is the identity"
            if len(images) > 1:
                alone = corrupt(images[1], name, severity, np.random.default_rng((0, 1)))
                assert (alone == out[1]).all(), "an image depends on its neighbours"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_moves_images_further_away(name):
    found = [distance(SMALL, name, severity) for severity in SEVERITIES]
    if name in NOT_MONOTONE:
        assert found[4] > 1.7 * found[0] or name == "elastic_transform", found
    else:
        assert found == sorted(found), found


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "snow", "frost", "fog"])
def test_another_seed_is_another_image(name):
    first, again, other = (corrupt(SMALL[0], name, 3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", [64, 128])
def test_noise_has_the_published_spread(severity, side):
    constants = (CIFAR if side == 64 else IMAGENET).severities
    image, level = grey(128, side), 128 / 255
    noisy = corrupt(image, "gaussian_noise", severity, np.random.default_rng(0)) / 255
    sd = constants["gaussian_noise"][severity - 1][0]
    if sd < 0.15:  # beyond, it is clipped
        assert noisy.std() == pytest.approx(sd, rel=0.03)
    photons = constants["shot_noise"][severity - 1][0]
    shot = corrupt(image, "shot_noise", severity, np.random.default_rng(0)) / 255
    if photons > 20:
        assert shot.std() == pytest.approx(np.sqrt(level / photons), rel=0.03)
        assert shot.mean() == pytest.approx(level, rel=0.03)
    share = constants["impulse_noise"][severity - 1][0]
    hit = corrupt(image, "impulse_noise", severity, np.random.default_rng(0))
    assert set(np.unique(hit)) == {0, 128, 255}
    assert (hit != 128).mean() == pytest.approx(share, abs=4 * np.sqrt(share / hit.size))
    assert (hit == 255).sum() == pytest.approx((hit == 0).sum(), rel=0.3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_and_brightness_in_closed_form(severity):
    rng = np.random.default_rng(0)
    image = SMALL[1] / 255
    factor = CIFAR.severities["contrast"][severity - 1][0]
    means = image.mean(axis=(1, 2), keepdims=True)
    flat = corrupt(SMALL[1], "contrast", severity, rng) / 255
    assert flat == pytest.approx(means + factor * (image - means), abs=0.6 / 255)
    added = CIFAR.severities["brightness"][severity - 1][0]
    bright = corrupt(SMALL[1], "brightness", severity, rng)
    for before, after in zip(SMALL[1].reshape(3, -1).T[::97], bright.reshape(3, -1).T[::97], strict=True):
        hsv = _hsv(before)
        assert _hsv(after)[2] == pytest.approx(min(hsv[2] + added, 1), abs=0.6 / 255)
        assert _hsv(after)[1] == pytest.approx(hsv[1], abs=0.02)
    assert corrupt(grey(0), "brightness", severity, rng) == pytest.approx(added * 255, abs=0.6)


def _hsv(rgb: np.ndarray) -> tuple[float, float, float]:
    import colorsys

    return colorsys.rgb_to_hsv(*(rgb / 255).tolist())


@pytest.mark.parametrize("images", [SMALL, LARGE], ids=["32", "224"])
def test_jpeg_and_pixelate_are_pillows(images):
    constants = (CIFAR if images.shape[3] == 32 else IMAGENET).severities
    for severity in SEVERITIES:
        picture = Image.fromarray(images[0].transpose(1, 2, 0))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=int(constants["jpeg_compression"][severity - 1][0]))
        expected = np.asarray(Image.open(stream)).transpose(2, 0, 1)
        assert (corrupt(images[0], "jpeg_compression", severity, np.random.default_rng(0)) == expected).all()
        small = int(images.shape[3] * constants["pixelate"][severity - 1][0])
        box = Image.Resampling.BOX
        expected = np.asarray(picture.resize((small, small), box).resize(picture.size, box)).transpose(2, 0, 1)
        assert (corrupt(images[0], "pixelate", severity, np.random.default_rng(0)) == expected).all()


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"])
@pytest.mark.parametrize("side", [32, 96])
def test_what_moves_light_changes_no_flat_image(name, side):
    for severity in SEVERITIES:
        assert (corrupt(grey(77, side), name, severity, np.random.default_rng(0)) == 77).all()


def test_defocus_spreads_a_point_over_the_published_disk():
    image = np.zeros((3, 224, 224), np.uint8)
    image[:, 112, 112] = 255
    wide = corrupt(image, "defocus_blur", 1, np.random.default_rng(0))[0]
    y, x = np.nonzero(wide)
    assert np.hypot(y - 112, x - 112).max() == 3
    assert len(y) == 29  # the pixels within 3 of one
    assert wide.max() == round(255 / 29)


def test_motion_smears_a_point_along_a_line():
    image = np.zeros((3, 32, 32), np.uint8)
    image[:, 16, 24] = 255
    out = corrupt(image, "motion_blur", 5, np.random.default_rng(0))[0].astype(float)
    y, x = np.nonzero(out)
    assert len(x) >= 5
    assert x.max() == 24  # to one side
    assert np.argmax(out[y, x]) == np.argmax(x)  # strongest at the point itself
    assert np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() <= 1
    assert out.sum() == pytest.approx(255, abs=10)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_the_published_mean_of_zooms(severity):
    image = SMALL[0] / 255
    total, factors = image.copy(), np.arange(1, *CIFAR.severities["zoom_blur"][severity - 1])
    for factor in factors:
        kept = int(np.ceil(32 / factor))
        top = (32 - kept) // 2
        enlarged = ndimage.zoom(image[:, top : top + kept, top : top + kept], (1, factor, factor), order=1)
        trim = (enlarged.shape[1] - 32) // 2
        total += enlarged[:, trim : trim + 32, trim : trim + 32]
    out = corrupt(SMALL[0], "zoom_blur", severity, np.random.default_rng(0))
    assert out / 255 == pytest.approx(total / (len(factors) + 1), abs=0.51 / 255)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 70), st.floats(1.2, 3), st.integers(0, 9))
def test_textures_stay_in_range(side, decay, seed):
    clouds = plasma(side, decay, np.random.default_rng(seed))
    ice = frost_texture(side, np.random.default_rng(seed))
    assert clouds.shape == (side, side)
    assert ice.shape == (3, side, side)
    for each in (clouds, ice):
        assert each.dtype == np.float32
        assert 0 <= each.min() <= each.max() <= 1
        assert each.std() > 0


def test_lengths_follow_the_side_where_that_leaves_a_blur():
    assert scaled_constants("motion_blur", 1, 8) == scaled_constants("motion_blur", 1, 32) == (6, 1)
    assert scaled_constants("motion_blur", 1, 64) == (12, 2)
    assert scaled_constants("motion_blur", 1, 224) == (10, 3)
    assert scaled_constants("motion_blur", 1, 65) == (5, 1.5)
    assert scaled_constants("motion_blur", 1, 448) == (20, 6)
    assert scaled_constants("snow", 1, 64) == (0.1, 0.2, 1, 0.6, 16, 6, 0.95)
    assert scaled_constants("elastic_transform", 2, 16) == pytest.approx((0.8, 3.2, 1.12))
    assert scaled_constants("contrast", 1, 64) == (0.75,)


@pytest.mark.parametrize(
    ("images", "name", "severity", "num", "message"),
    [
        (SMALL, "rain", 1, 12, "found corruption rain; allowed: gaussian_noise"),
        (SMALL, "fog", 6, 12, "found severity 6; allowed: 1 to 5"),
        (SMALL, "fog", 1, 11, "found 11 generators"),
        (SMALL[..., :31], "fog", 1, 12, r"found uint8 \[12, 3, 32, 31\]"),
        (SMALL / 255, "fog", 1, 12, "found float64"),
        (SMALL[..., :4, :4], "fog", 1, 12, "sides of 8"),
    ],
)
def test_refused(images, name, severity, num, message):
    with pytest.raises(ValueError, match=message):
        corrupt_batch(images, name, severity, generators(num))
