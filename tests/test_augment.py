from typing import Any

import pytest
import torch

from gdacli.augment import AUGMENTATIONS, augment

OPTIONS: dict[str, dict[str, Any]] = {"crop": {"padding": 2}, "flip": {"probability": 0.5}}


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(size, 3, 8, 8, generator=generator), torch.eye(4)[torch.arange(size) % 4]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_the_contract(name):
    images, targets = batch()
    before = images.clone()
    one = AUGMENTATIONS[name](images, targets, torch.Generator().manual_seed(0), **OPTIONS[name])
    two = AUGMENTATIONS[name](images, targets, torch.Generator().manual_seed(0), **OPTIONS[name])
    assert torch.equal(images, before)
    assert one[0].shape == images.shape
    assert one[0].min() >= 0
    assert one[0].max() <= 1
    assert torch.equal(one[0], two[0])
    assert torch.allclose(one[1].sum(1), torch.ones(len(images)))
    other = AUGMENTATIONS[name](images, targets, torch.Generator().manual_seed(1), **OPTIONS[name])
    assert not torch.equal(one[0], other[0])


def test_crop_cuts_a_window_of_the_padded_image_everywhere_equally_often():
    image = torch.arange(1, 65).float().view(1, 1, 8, 8).expand(5000, 3, 8, 8) / 64
    cropped, _ = AUGMENTATIONS["crop"](image, torch.ones(5000, 1), torch.Generator().manual_seed(0), padding=2)
    padded = torch.nn.functional.pad(image[0], (2, 2, 2, 2))
    windows = {padded[:, y : y + 8, x : x + 8].numpy().tobytes(): (y, x) for y in range(5) for x in range(5)}
    found = [windows[row.numpy().tobytes()] for row in cropped]
    counts = [found.count(place) for place in windows.values()]
    assert min(counts) > 200 - 5 * 14
    assert max(counts) < 200 + 5 * 14


def test_flip_mirrors_at_its_probability():
    images, targets = batch(2000)
    flipped, _ = AUGMENTATIONS["flip"](images, targets, torch.Generator().manual_seed(0), probability=0.3)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) ^ mirrored).all()
    assert 0.25 < mirrored.float().mean() < 0.35


def test_nothing_named_is_nothing_done():
    images, targets = batch()
    assert augment(images, targets, torch.Generator(), {})[0] is images
