import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision.transforms.functional import to_tensor

from gdacli import augment_sections
from gdacli.augment import AUGMENTATIONS, MIXING, PIXELS, augment
from gdacli.augment_sections import Augment
from gdacli.errors import GdaError


def attention(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return images.mean(1)


def options(name: str, **changed: Any) -> dict[str, dict[str, Any]]:
    """Return what a stage passes: the section's defaults."""
    return Augment.model_validate({name: changed}).model_dump(exclude_none=True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=seeded(3))
    return pixels, torch.eye(4)[torch.arange(size) % 4]


def run(name: str, pixels: torch.Tensor, targets: torch.Tensor, seed: int = 0, epoch: int = 1, **changed: Any) -> Any:
    return augment(pixels, targets, seeded(seed), options(name, **changed), epoch=epoch, attention=attention)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_the_contract(name):
    pixels, targets = batch()
    before = pixels.clone()
    images, mixed = run(name, pixels, targets)
    assert torch.equal(pixels, before)
    assert (images.shape, images.dtype) == (pixels.shape, torch.float32)
    assert images.min() >= 0
    assert images.max() <= 1
    assert mixed.shape == targets.shape
    assert mixed.min() >= 0
    if name == "snap_mix":
        assert mixed.sum(1).max() <= 2
    else:
        assert torch.allclose(mixed.sum(1), torch.ones(len(images)))
    assert torch.equal(mixed, targets) == (name in PIXELS)
    assert all(torch.equal(*both) for both in zip(run(name, pixels, targets), (images, mixed), strict=True))
    assert not torch.equal(run(name, pixels, targets, seed=1)[0], images)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_is_random_per_image(name):
    pixels, targets = batch(1)
    if name in PIXELS:
        images, _ = run(name, pixels.expand(16, -1, -1, -1), targets.expand(16, -1))
        assert len({image.numpy().tobytes() for image in images}) > 1
    else:
        _, mixed = run(name, *batch(16))
        assert len({round(row.max().item(), 3) for row in mixed}) > 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_depends_on_its_own_draw_and_on_no_other_image_but_the_one_mixed_in(name):
    pixels, targets = batch()
    images, _ = run(name, pixels, targets)
    for row in range(4):
        other = pixels.clone()
        other[row] = 255 - other[row]
        changed = (run(name, other, targets)[0] != images).flatten(1).any(1)
        assert set(changed.nonzero().flatten().tolist()) - {row} == set() if name in PIXELS else changed.sum() <= 2


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_can_end_early(name):
    pixels, targets = batch()
    used, plain = run(name, pixels, targets, epoch=2, end_epoch=2), run(name, pixels, targets, epoch=3, end_epoch=2)
    assert not torch.equal(used[0], pixels / 255)
    assert torch.equal(plain[0], pixels / 255)
    assert torch.equal(plain[1], targets)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_number_of_threads_does_not_change_the_images(name):
    pixels, targets = (tensor.repeat_interleave(20, 0) for tensor in batch())
    threads = torch.get_num_threads()
    try:
        outcomes = []
        for number in (1, 3):
            torch.set_num_threads(number)
            outcomes.append(run(name, pixels, targets)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outcomes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_gpu_gives_the_images_that_a_cpu_gives(name):
    pixels, targets = batch()
    expected, labels = run(name, pixels, targets)
    images, mixed = run(name, pixels.cuda(), targets.cuda())
    apart = (images.cpu() - expected).abs()
    assert apart.max() == 0 if name in ("crop", "flip") else (apart > 1.01 / 255).float().mean() < 0.01
    assert torch.allclose(mixed.cpu(), labels, atol=1e-5)


@given(height=st.integers(4, 12), width=st.integers(4, 12), padding=st.integers(1, 5), seed=st.integers(0, 99))
def test_crop_cuts_a_window_of_the_padded_image(height, width, padding, seed):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=seeded(seed))
    cropped, _ = PIXELS["crop"](image.expand(3, -1, -1, -1), torch.ones(3, 1), seeded(seed), padding=padding)
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    windows = {
        padded[:, y : y + height, x : x + width].numpy().tobytes()
        for y in range(2 * padding + 1)
        for x in range(2 * padding + 1)
    }
    assert {row.numpy().tobytes() for row in cropped} <= windows


def test_crop_takes_every_window_equally_often():
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(5000, 3, 8, 8)
    cropped, _ = PIXELS["crop"](image, torch.ones(5000, 1), seeded(0), padding=2)
    padded = torch.nn.functional.pad(image[0], (2, 2, 2, 2))
    windows = {padded[:, y : y + 8, x : x + 8].numpy().tobytes(): (y, x) for y in range(5) for x in range(5)}
    found = [windows[row.numpy().tobytes()] for row in cropped]
    counts = [found.count(place) for place in windows.values()]
    assert min(counts) > 200 - 5 * 14
    assert max(counts) < 200 + 5 * 14


def test_flip_mirrors_at_its_probability():
    pixels, targets = batch(2000)
    flipped, _ = PIXELS["flip"](pixels, targets, seeded(0), probability=0.3)
    mirrored = (flipped == pixels.flip(3)).flatten(1).all(1)
    assert ((flipped == pixels).flatten(1).all(1) ^ mirrored).all()
    assert 0.25 < mirrored.float().mean() < 0.35


def test_nothing_named_is_what_torchvisions_to_tensor_gives():
    pixels, targets = batch()
    images, same = augment(pixels, targets, torch.Generator(), {}, epoch=1)
    assert torch.equal(images, torch.stack([to_tensor(image.permute(1, 2, 0).numpy()) for image in pixels]))
    assert same is targets


def test_a_batch_is_mixed_in_one_way_as_often_as_said():
    pixels = (torch.arange(8, dtype=torch.uint8) * 30)[:, None, None, None].expand(8, 3, 4, 4)
    both = options("mixup", probability=0.3) | options("cut_mix", probability=0.5)
    ways = {"mixup": 0, "cut_mix": 0, "none": 0}
    for seed in range(400):
        images, targets = augment(pixels, torch.eye(8), seeded(seed), both, epoch=1)
        if torch.equal(targets, torch.eye(8)):
            ways["none"] += 1
        else:
            flat = (images.flatten(1).std(1) < 1e-6).all()
            ways["mixup" if flat else "cut_mix"] += 1
    for way, share in (("mixup", 0.3), ("cut_mix", 0.5), ("none", 0.2)):
        assert abs(ways[way] - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5


def test_snap_mix_without_a_model_that_gives_attention_is_one_line():
    with pytest.raises(GdaError, match=re.escape("augment.snap_mix: this model gives no class activation maps; use")):
        augment(*batch(), seeded(0), options("snap_mix"), epoch=1)


def test_there_is_a_section_for_every_augmentation():
    assert list(Augment.model_fields) == [*AUGMENTATIONS, "random_resized_crop"]  # which the loader does
    assert list(MIXING) == list(augment_sections.MIXING)
    assert set(augment_sections.AUTOMATIC) < set(PIXELS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rand_augment": {}, "aug_mix": {}}, "found rand_augment and aug_mix; at most one of trivial_augment, rand_"),
        ({"mixup": {}, "cut_mix": {"probability": 0.5}}, "found probability of mixup 1, cut_mix 0.5; a batch is mixed"),
        ({"rand_augment": {"magnitude": 31}}, "magnitude 31: must be below num_magnitude_bins 31"),
    ],
)
def test_what_does_not_fit_together_is_an_error(values, message):
    with pytest.raises(ValidationError, match=message):
        Augment.model_validate(values)


def test_the_page_names_every_augmentation_and_its_example_is_valid():
    text = (Path(__file__).parents[1] / "docs/augmentation.md").read_text()
    for name, function in AUGMENTATIONS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        parameters = inspect.signature(function).parameters.values()
        kwonly = [each.name for each in parameters if each.kind == inspect.Parameter.KEYWORD_ONLY]
        assert all(f"`{option}`" in row for option in kwonly), row
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        Augment.model_validate(yaml.safe_load(block)["train"]["augment"])
