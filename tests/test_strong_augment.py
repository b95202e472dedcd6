"""The differentiable RandAugment: the pixels of the one on bytes, gradients, and a draw for each image."""

import pytest
import torch
import torch.nn.functional as F

from gdacli.auto_augment import rand_space
from gdacli.image_operations import GEOMETRY, apply_operations
from gdacli.strong_augment import NAMES, Drawn, draw, strongly_augmented

SIZE = 20
SPACE = rand_space(31, SIZE, SIZE)
STEPS = {
    **dict.fromkeys(("identity", "posterize", "solarize", "equalize"), 0.01),
    **dict.fromkeys(GEOMETRY, 0.52),
    **{"brightness": 1.01, "auto_contrast": 1.01, "contrast": 2.01, "color": 2.01, "sharpness": 1.6},
}
"""Steps of 8 bits that the bytes lose: half of one where they round, one where they cut, one more for a cut grey."""
STRAIGHT_THROUGH = ("identity", "posterize", "equalize")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures() -> torch.Tensor:
    """Return blurs, noise, one colour and a dim blur: uint8 [6, 3, SIZE, SIZE]."""
    small = torch.rand(2, 3, 6, 6, generator=seeded(0))
    blurs = F.interpolate(small, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1).mul(255).round().to(torch.uint8)
    noise = torch.randint(0, 256, blurs.shape, dtype=torch.uint8, generator=seeded(1))
    return torch.cat([blurs, noise, torch.full_like(noise[:1], 77), blurs[:1] // 3 + 40])


def all_of(name: str, magnitude: float, count: int) -> Drawn:
    return Drawn(torch.full((1, count), NAMES.index(name)), torch.full((1, count), magnitude))


def soft_pictures(count: int) -> torch.Tensor:
    """Return pictures that none of the tested operations clips, between the steps of 8 bits."""
    return 0.3 + 0.4 * torch.rand(count, 3, 7, 7, generator=seeded(3), dtype=torch.float64)


def drawn_for(count: int, seed: int = 0, num_ops: int = 2) -> Drawn:
    return draw(count, seeded(seed), num_ops=num_ops, magnitude=9, image_size=SIZE)


def test_the_operations_are_those_of_rand_augment():
    assert tuple(SPACE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_gives_the_pixels_of_the_one_on_bytes(name):
    pixels = pictures()
    magnitudes, signed = SPACE[name]
    largest = 0.0
    for magnitude in magnitudes[::6].tolist():
        for sign in (1, -1)[: 1 + signed]:
            drawn = all_of(name, sign * magnitude, len(pixels))
            expected = apply_operations(pixels, NAMES, drawn.ops[0], drawn.magnitudes[0].double(), "bilinear")
            found = strongly_augmented(pixels.float() / 255, drawn)
            assert found.min() >= 0
            assert found.max() <= 1
            largest = max(largest, (255 * found - expected.float()).abs().max().item())
    assert largest <= STEPS[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_a_finite_gradient_of_every_operation(name):
    images = (pictures().float() / 255).requires_grad_()
    magnitude = SPACE[name][0][-1 if len(SPACE[name][0]) == 1 else 15].item()
    augmented = strongly_augmented(images, all_of(name, magnitude, len(images)))
    (gradient,) = torch.autograd.grad(augmented.square().sum(), images)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("name", STRAIGHT_THROUGH)
def test_steps_pass_the_gradient_straight_through(name):
    images = (pictures().float() / 255).requires_grad_()
    upstream = torch.randn(images.shape, generator=seeded(2))
    augmented = strongly_augmented(images, all_of(name, 5.0, len(images)))
    assert torch.equal(torch.autograd.grad(augmented, images, upstream)[0], upstream)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STRAIGHT_THROUGH])
def test_the_other_gradients_are_the_derivatives(name):
    magnitude = {"translate_x": 2.0, "translate_y": 3.0, "rotate": 17.0, "solarize": 127.5}.get(name, 0.2)
    images = soft_pictures(1).requires_grad_()
    drawn = all_of(name, magnitude, 1)
    assert torch.autograd.gradcheck(lambda x: strongly_augmented(x, drawn), images, eps=1e-6, fast_mode=True)


def test_a_channel_of_nearly_one_colour_is_not_stretched():
    images = (0.5 + 1e-3 * torch.rand(2, 3, 8, 8, generator=seeded(4))).requires_grad_()
    augmented = strongly_augmented(images, all_of("auto_contrast", 0.0, 2))
    assert torch.equal(augmented, images)
    assert torch.autograd.grad(augmented.sum(), images)[0].abs().max() <= 1


def test_the_operation_and_the_sign_differ_from_image_to_image():
    drawn = drawn_for(2000, num_ops=1)
    assert torch.equal(drawn.ops.unique(), torch.arange(len(NAMES)))
    rotations = drawn.magnitudes[drawn.ops == NAMES.index("rotate")]
    assert rotations.unique().tolist() == [-9.0, 9.0]
    copies = strongly_augmented(torch.rand(1, 3, SIZE, SIZE, generator=seeded(5)).expand(50, -1, -1, -1), drawn[:50])
    assert len(copies.flatten(1).unique(dim=0)) > 8


def test_a_draw_is_that_of_its_seed():
    first, second, other = drawn_for(64), drawn_for(64), drawn_for(64, seed=1)
    assert torch.equal(first.ops, second.ops)
    assert torch.equal(first.magnitudes, second.magnitudes)
    assert not torch.equal(first.ops, other.ops)
    assert first.ops.shape == first.magnitudes.shape == (2, 64)
    assert (first.ops.dtype, first.magnitudes.dtype) == (torch.int64, torch.float32)


def test_a_slice_of_the_draw_gives_the_slice_of_the_images():
    images = torch.rand(64, 3, SIZE, SIZE, generator=seeded(6)).requires_grad_()
    drawn, upstream = drawn_for(64), torch.randn(images.shape, generator=seeded(7))
    whole = strongly_augmented(images, drawn)
    shares = [strongly_augmented(images[rows], drawn[rows]) for rows in (slice(0, 3), slice(3, 64), slice(64, None))]
    torch.testing.assert_close(torch.cat(shares), whole, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(made, images, upstream)[0] for made in (whole, torch.cat(shares))]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-4)


def test_operations_follow_one_another():
    images, drawn = torch.rand(32, 3, SIZE, SIZE, generator=seeded(8)), drawn_for(32, num_ops=3)
    step = images
    for number in range(3):
        step = strongly_augmented(step, Drawn(drawn.ops[number, None], drawn.magnitudes[number, None]))
    torch.testing.assert_close(strongly_augmented(images, drawn), step, rtol=0, atol=1e-6)
    assert torch.equal(strongly_augmented(images, drawn_for(32, num_ops=0)), images)


def test_neither_the_layout_nor_autocast_changes_the_images():
    images, drawn = torch.rand(64, 3, SIZE, SIZE, generator=seeded(9)), drawn_for(64)
    expected = strongly_augmented(images, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(strongly_augmented(images, drawn), expected)
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(strongly_augmented(last, drawn), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "identity"])
def test_nan_stays_nan(name):
    images = torch.full((2, 3, SIZE, SIZE), torch.nan)
    assert strongly_augmented(images, all_of(name, 5.0 if name == "posterize" else 0.1, 2)).isnan().any()
