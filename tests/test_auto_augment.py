"""The batched operations and policies against torchvision's, which work on one image at a time."""

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import AugMix, InterpolationMode, RandAugment, TrivialAugmentWide, autoaugment

from gdacli.auto_augment import (
    aug_mix,
    aug_mix_space,
    draw_operations,
    rand_augment,
    rand_space,
    trivial_augment,
    trivial_space,
)
from gdacli.image_operations import COLOURS, GEOMETRY, apply_operations

SIZE = (20, 16)
TORCHVISION = {name: name.title().replace("_", "") for name in [*GEOMETRY, *COLOURS]}
SPACES = {
    "trivial": (trivial_space(31), TrivialAugmentWide()._augmentation_space(31)),
    "trivial_4": (trivial_space(4), TrivialAugmentWide()._augmentation_space(4)),
    "rand": (rand_space(31, *SIZE), RandAugment()._augmentation_space(31, SIZE)),
    "aug_mix": (aug_mix_space(*SIZE, all_ops=True), AugMix()._augmentation_space(10, SIZE)),
    "aug_mix_few": (aug_mix_space(*SIZE, all_ops=False), AugMix(all_ops=False)._augmentation_space(10, SIZE)),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(size: tuple[int, int] = SIZE, number: int = 1) -> torch.Tensor:
    """Return noise, dim noise, one colour, and ramps: uint8 [4 * number, 3, *size]."""
    generator = seeded(5)
    noise = torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8, generator=generator)
    ramp = (torch.arange(size[0])[:, None] * 7 + torch.arange(size[1]) * 3) % 256
    ramps = (ramp + torch.tensor([0, 40, 90])[:, None, None]).clamp(max=255).to(torch.uint8)
    return torch.cat([noise, noise // 3 + 40, torch.full_like(noise, 77), ramps.expand_as(noise)])


@pytest.mark.parametrize("policy", SPACES)
def test_the_operations_and_magnitudes_are_torchvisions(policy):
    ours, theirs = SPACES[policy]
    assert {TORCHVISION[name] for name in ours} == set(theirs)
    for name, (magnitudes, signed) in ours.items():
        expected, expected_signed = theirs[TORCHVISION[name]]
        assert torch.equal(magnitudes, expected.float().reshape(-1))
        assert signed == expected_signed


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_every_operation_gives_torchvisions_pixels(name, interpolation):
    images = pictures()
    tried = 0
    for ours, theirs in SPACES.values():
        if name not in ours:
            continue
        choices, signed = theirs[TORCHVISION[name]]
        magnitudes = choices.reshape(-1).tolist()
        for magnitude in magnitudes[::6] + magnitudes[-1:]:
            for sign in (1, -1)[: 1 + signed]:
                which = torch.full((len(images),), list(ours).index(name))
                m = torch.full((len(images),), sign * magnitude, dtype=torch.float64)
                found = apply_operations(images, list(ours), which, m, interpolation)
                mode = InterpolationMode(interpolation)
                expected = torch.stack(
                    [autoaugment._apply_op(x, TORCHVISION[name], sign * magnitude, mode, None) for x in images]
                )
                apart = (found.int() - expected.int()).abs()
                # bilinear values at half an integer round either way: one step of 255, in few pixels
                assert apart.max() <= (interpolation == "bilinear" and name in GEOMETRY)
                assert (apart > 0).float().mean() < 0.01
                tried += 1
    assert tried >= 2


def test_images_of_a_batch_may_have_different_operations():
    space, _ = SPACES["trivial"]
    names, images = list(space), pictures(number=14)
    which = torch.randint(len(names), (len(images),), generator=seeded(1))
    magnitudes = torch.tensor([space[names[index]][0][-1].item() for index in which], dtype=torch.float64)
    together = apply_operations(images, names, which, magnitudes, "nearest")
    for row in range(len(images)):
        one = slice(row, row + 1)
        alone = apply_operations(images[one], names, which[one], magnitudes[one], "nearest")
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize("policy", ["trivial_4", "aug_mix"])
def test_operations_magnitudes_and_signs_are_drawn_as_often_as_torchvisions(policy):
    ours, theirs = SPACES[policy]
    num_bins = max(len(magnitudes) for magnitudes, _ in ours.values())
    generator, size, names = seeded(0), 100_000, list(ours)
    bins = torch.randint(num_bins, (size,), generator=generator)
    which, magnitudes = draw_operations(ours, bins, generator)
    found = Counter((TORCHVISION[names[i]], round(m, 4)) for i, m in zip(which.tolist(), magnitudes.tolist()))
    expected: Counter[tuple[str, float]] = Counter()
    for name, (choices, signed) in theirs.items():
        values = choices.reshape(-1).tolist()
        for value in values:
            for sign in (1, -1)[: 1 + signed]:
                expected[name, round(sign * value, 4)] += size / len(theirs) / len(values) / (1 + signed)
    assert {cell for cell in found if found[cell]} == set(expected)
    assert chisquare([found[cell] for cell in expected], list(expected.values())).pvalue > 1e-3


@pytest.mark.parametrize(("policy", "transform"), [("trivial", TrivialAugmentWide()), ("rand", RandAugment(num_ops=1))])
def test_torchvision_itself_draws_as_often(policy, transform, monkeypatch):
    drawn: list[tuple[str, float]] = []

    def record(image: torch.Tensor, name: str, magnitude: float, **_: Any) -> torch.Tensor:
        drawn.append((name, magnitude))
        return image

    monkeypatch.setattr(autoaugment, "_apply_op", record)
    torch.manual_seed(0)
    for _ in range(2000):
        transform(torch.zeros(3, *SIZE, dtype=torch.uint8))
    ours, _ = SPACES[policy]
    generator, names = seeded(0), list(ours)
    bins = torch.randint(31, (20_000,), generator=generator) if policy == "trivial" else torch.full((20_000,), 9)
    which, magnitudes = draw_operations(ours, bins, generator)
    operations = Counter(TORCHVISION[names[i]] for i in which.tolist())
    theirs = Counter(name for name, _ in drawn)
    assert set(theirs) == set(operations)
    assert chisquare([theirs[name] for name in operations], [n / 10 for n in operations.values()]).pvalue > 1e-3
    their_magnitudes = torch.tensor([magnitude for _, magnitude in drawn])
    shares = [(m[m != 0] > 0).double().mean() for m in (their_magnitudes, magnitudes)]
    assert abs(shares[0] - shares[1]) < 4 * (0.25 / 1500) ** 0.5


@pytest.mark.parametrize(
    ("ours", "theirs", "draws"),
    [
        (trivial_augment, TrivialAugmentWide(), 200),
        (rand_augment, RandAugment(), 150),
        (aug_mix, AugMix(), 60),
    ],
)
def test_pixel_statistics_are_those_of_torchvision(ours, theirs, draws):
    """Mean and spread of the images, over many draws on the same ones, agree within 4 standard errors."""
    images = pictures().repeat(draws, 1, 1, 1)
    torch.manual_seed(1)
    expected = torch.stack([theirs(image) for image in images]).double().view(draws, 4, -1)
    many = images.repeat(8, 1, 1, 1)
    found, _ = ours(many, torch.zeros(len(many), 1), seeded(2))
    found = found.double().view(8 * draws, 4, -1)
    for statistic in (lambda x: x.mean(2), lambda x: x.std(2)):
        a, b = statistic(found), statistic(expected)
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= 4 * error + 1e-9).all()


def test_rand_augment_of_no_magnitude_changes_only_what_has_none():
    """At bin 0 (solarize: 255) all but autocontrast and equalize keep noise without its extremes as it is."""
    images = pictures()[:1].clamp(1, 254).repeat(600, 1, 1, 1)
    found, _ = rand_augment(images, torch.zeros(600, 1), seeded(0), num_ops=1, magnitude=0)
    apart = (found != images).flatten(1).any(1)
    assert abs(apart.sum().item() - 600 * 2 / 14) < 4 * (600 * 2 / 14 * 12 / 14) ** 0.5


@pytest.mark.parametrize(("depth", "depths"), [(None, (1, 2, 3)), (2, (2,)), (4, (4,))])
def test_the_chains_of_aug_mix_are_as_deep_as_said(depth, depths):
    """At severity 1 only 3 of 13 operations change dim noise: posterize, autocontrast and equalize."""
    images = pictures()[1:2].repeat(2000, 1, 1, 1)
    mixed, _ = aug_mix(
        images, torch.zeros(2000, 1), seeded(0), severity=1, mixture_width=1, chain_depth=depth, alpha=1e6
    )
    same = ((mixed.int() - images.int()).abs() <= 1).flatten(1).all(1).double().mean().item()  # the mean truncates
    expected = sum((10 / 13) ** each for each in depths) / len(depths)
    assert abs(same - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5


def test_aug_mix_interpolates_between_pixels():
    """A picture of two values has more after shears and rotations (3 of 9, 9 of 10 magnitudes), and no other."""
    images = (pictures()[:1] // 128 * 254).repeat(900, 1, 1, 1)
    mixed, _ = aug_mix(
        images, torch.zeros(900, 1), seeded(0), severity=10, mixture_width=1, chain_depth=1, alpha=1e6, all_ops=False
    )
    many = sum(len(image.unique()) > 12 for image in mixed)
    assert abs(many - 900 * 0.3) < 4 * (900 * 0.3 * 0.7) ** 0.5
