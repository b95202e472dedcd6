import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import encoded
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionInstructPix2PixPipeline
from hypothesis import given
from hypothesis import strategies as st
from test_generators import load, prompts

from gdacli.errors import GdaError
from gdacli.generators.diffusemix import DiffuseMix, edit_guidance
from gdacli.generators.diffusemix.fractals import Fractals, julia, list_fractals
from gdacli.generators.diffusemix.masks import MASKS, draw_mask, edited_share
from gdacli.generators.diffusemix.mix import mix
from gdacli.schedules import Timesteps

SEEDS = st.integers(0, 2**63 - 1)


def load_mix(folder: Path, **options: Any) -> DiffuseMix:
    return cast(DiffuseMix, load("diffusemix", folder, **options))


@pytest.fixture(scope="module")
def folder(make_generator) -> Path:
    return make_generator("diffusemix")


@pytest.fixture(scope="module")
def sources() -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    images = np.random.default_rng(4).integers(0, 256, (16, 3, 16, 16), dtype=np.uint8)
    return torch.from_numpy(images), torch.arange(16) % 3, [500 + seed for seed in range(16)]


@given(st.sampled_from(MASKS), st.integers(4, 300))
def test_masks_are_halves_with_a_seam_and_mirrored_ones_complete_each_other(mask, size):
    share = edited_share(mask, size)
    assert (share.shape, share.dtype) == ((size, size), np.float32)
    assert 0 <= share.min() <= share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=1e-6)
    assert np.isin(share, (0, 1)).mean() >= 1 - 20 / 256 - 2 / size
    side = {
        "source_left": share[:, 0],
        "source_right": share[:, -1],
        "source_top": share[0],
        "source_bottom": share[-1],
    }
    assert (side[mask] == 0).all()
    left, right, top, bottom = (edited_share(each, size) for each in MASKS)
    assert np.abs(left + right - 1).max() < 1e-6
    assert np.abs(top + bottom - 1).max() < 1e-6
    assert np.array_equal(top, left.T)


def test_every_mask_is_drawn_as_often():
    drawn = [draw_mask(seed) for seed in range(2000)]
    assert all(400 < drawn.count(mask) < 600 for mask in MASKS)


@given(SEEDS, st.floats(0, 0.99))
def test_a_mix_is_source_edit_and_fractal_by_their_shares(seed, weight):
    rng = np.random.default_rng(seed)
    sources, edited, fractals = torch.from_numpy(rng.integers(0, 256, (3, 2, 3, 4, 4))).double()
    shares = torch.from_numpy(rng.random((2, 1, 4, 4)))
    made = mix(sources, edited, shares, fractals, weight)
    expected = (1 - weight) * ((1 - shares) * sources + shares * edited) + weight * fractals
    assert made.dtype == torch.uint8
    assert (made - expected).abs().max() <= 0.5 + 1e-6


def test_fractals_are_rich_of_their_seed_and_the_same_at_every_size():
    pictures = [julia(seed, 32) for seed in range(12)]
    for seed, picture in enumerate(pictures):
        assert (picture.shape, picture.dtype) == ((3, 32, 32), np.uint8)
        assert np.array_equal(picture, julia(seed, 32))
        assert picture.std((1, 2)).min() > 25  # no channel is flat
        large = julia(seed, 96).reshape(3, 32, 3, 32, 3).mean((2, 4))
        assert np.corrcoef(large.ravel(), picture.ravel())[0, 1] > 0.8
    assert len({picture.tobytes() for picture in pictures}) == 12


def test_fractals_of_a_folder_are_drawn_by_seed_and_resized(tmp_path):
    colours = {"b.png": (250, 0, 0), "a.png": (0, 250, 0), "c.jpg": (0, 0, 250)}
    for name, colour in colours.items():
        picture = np.broadcast_to(np.array(colour, np.uint8), (9, 14, 3))
        (tmp_path / name).write_bytes(encoded(picture, "JPEG" if name.endswith("jpg") else "PNG"))
    (tmp_path / "notes.txt").write_text("no image")
    fractals = Fractals(list_fractals(tmp_path), 8)
    assert [path.name for path in fractals.paths or ()] == ["a.png", "b.png", "c.jpg"]
    names = [fractals.name(seed) for seed in range(60)]
    assert set(names) == set(colours)
    for seed, name in enumerate(names):
        made = fractals(seed)
        assert (made.shape, made.dtype) == ((3, 8, 8), np.uint8)
        assert np.abs(made.mean((1, 2)) - colours[name]).max() < 5
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(GdaError, match=r"generate.fractals: .*a.png: [^\n]*: remove it, and run `gdacli fit`$"):
        fractals(names.index("a.png"))
    (tmp_path / "none").mkdir()
    with pytest.raises(GdaError, match=r"generate.fractals: .*none holds no image; allowed: .png, "):
        list_fractals(tmp_path / "none")


@pytest.mark.parametrize(("text_scale", "image_scale"), list(product([0.0, 1.0, 1.5, 7.5], repeat=2)))
def test_guidance_is_equation_3_with_no_needless_evaluation(text_scale, image_scale):
    text, no_text, image = (torch.full((1, 1), value, dtype=torch.float64) for value in (3.0, 5.0, 7.0))

    def predicted(condition: tuple[torch.Tensor, ...]) -> float:
        return condition[0].item() ** 2 + 11 * condition[1].item()

    conditions, scales = edit_guidance(text, no_text, image, text_scale, image_scale)
    *others, base = (predicted(condition) for condition in conditions)
    guided = base + sum(scale * (other - base) for scale, other in zip(scales, others, strict=True))
    full, pictured, none = 9 + 77, 25 + 77, 25
    assert guided == pytest.approx(none + image_scale * (pictured - none) + text_scale * (full - pictured))
    assert len(conditions) == (text_scale != 0) + (image_scale != text_scale) + (image_scale != 1)


@pytest.mark.parametrize(("solver", "strength"), [("ddpm", 1.0), ("dpmsolver++", 1.0), ("ddpm", 0.6)])
def test_edits_are_those_of_diffusers_pipeline(folder, sources, solver, strength):
    """From the same sources, noise and grid, over text encoder, both guidances, denoiser, solver and VAE.

    The pipeline knows no strength: for one below 1 it gets noised sources to start from, and our grid.
    """
    images, labels, seeds = sources
    schedule: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = (
        DDPMScheduler(clip_sample=False, **schedule) if solver == "ddpm" else DPMSolverMultistepScheduler(**schedule)
    )
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([torch.randn(1, 4, 4, 4, generator=generator) for generator in generators])
    grid = [level.time for level in Timesteps([0.5] * 1000, "native").levels(strength, 20)]
    scheduler, set_timesteps = pipeline.scheduler, pipeline.scheduler.set_timesteps
    scheduler.set_timesteps = lambda num_inference_steps, device: set_timesteps(timesteps=grid, device=device)
    alpha_bar, pixels = scheduler.alphas_cumprod[grid[0]], images.float() / 127.5 - 1
    with torch.inference_mode():
        clean = pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor
    kept = clean if strength < 1 else torch.zeros_like(clean)
    names = ("disc", "ring shape", "square")
    expected = pipeline(
        prompt=[f"make it a photo of {names[label]}" for label in labels],
        image=pixels,
        latents=alpha_bar**0.5 * kept + (1 - alpha_bar) ** 0.5 * noise,
        num_inference_steps=20,
        guidance_scale=4.0,
        image_guidance_scale=1.5,
        generator=generators,
        output_type="np",
    ).images
    ours = load_mix(
        folder,
        solver=solver,
        num_inference_steps=20,
        guidance_scale=4.0,
        image_guidance_scale=1.5,
    )
    made = ours.edit(ours.encode(images), labels, strength, seeds)
    difference = np.abs(made.permute(0, 2, 3, 1).numpy() - 255 * expected)
    assert difference.max() < 0.51  # ours is rounded
    assert np.std(255 * expected) > 10


def test_a_mixed_image_is_half_its_source_and_half_its_edit(folder, sources):
    images, labels, seeds = sources
    plain, mixed = (load_mix(folder, fractal_weight=weight) for weight in (0.0, 0.2))
    latents = plain.encode(images)
    edited, made = (step(latents, labels, 0.5, seeds) for step in (plain.edit, plain.generate))
    said = [plain.describe(int(label), 0.5, seed)["mask"] for label, seed in zip(labels, seeds, strict=True)]
    assert set(said) == set(MASKS)
    for row, mask in enumerate(said):
        share = torch.from_numpy(edited_share(mask, 16)).expand(3, 16, 16)
        assert torch.equal(made[row][share == 0], images[row][share == 0])
        assert torch.equal(made[row][share == 1], edited[row][share == 1])
    blended = mixed.generate(latents, labels, 0.5, seeds)
    fractals = torch.stack([torch.from_numpy(Fractals(None, 16)(seed)) for seed in seeds]).float()
    assert (blended - (0.8 * made.float() + 0.2 * fractals)).abs().max() <= 1


def test_a_larger_strength_edits_more_and_1_forgets_all_but_the_condition(folder, sources):
    images, labels, seeds = sources
    generator = load_mix(folder)
    latents = generator.encode(images)
    made = [generator.edit(latents, labels, strength, seeds).float() for strength in (0.1, 0.3, 0.5, 0.8, 1.0)]
    distances = [(edited - made[0]).square().mean().item() for edited in made]
    assert distances == sorted(set(distances))
    blind = load_mix(folder, guidance_scale=0.0, image_guidance_scale=0.0)
    other = torch.roll(latents, 1, 0)
    assert torch.equal(blind.edit(latents, labels, 1.0, seeds), blind.edit(other, labels, 1.0, seeds))
    assert not torch.equal(blind.edit(latents, labels, 0.9, seeds), blind.edit(other, labels, 0.9, seeds))
    assert not torch.equal(generator.edit(latents, labels, 1.0, seeds), generator.edit(other, labels, 1.0, seeds))


def test_the_native_size_and_the_fractals_are_those_asked_for(folder, sources, tmp_path):
    images, labels, seeds = sources
    (tmp_path / "grey.png").write_bytes(encoded(np.full((8, 8, 3), 128, np.uint8)))
    generator = load_mix(folder, native_size=32, fractals=tmp_path)
    said = generator.describe(0, 1.0, 7)
    assert (said["native_size"], said["fractal"]) == (32, "grey.png")
    latents = generator.encode(images)
    assert latents.shape == (16, 4 * 8 * 8 + 3 * 16 * 16)
    made = generator.generate(latents, labels, 1.0, seeds)
    plain = load_mix(folder, native_size=32, fractal_weight=0.0).generate(latents, labels, 1.0, seeds)
    assert (made - (0.8 * plain.float() + 0.2 * 128)).abs().max() <= 1
    small = load_mix(folder, fractal_weight=0.0)
    assert not torch.equal(plain, small.generate(small.encode(images), labels, 1.0, seeds))


def test_a_model_of_another_family_or_a_broken_folder_is_refused(tmp_path, folder, make_generator):
    def refused(match: str, model: Path, **options: Any) -> None:
        with pytest.raises(GdaError, match=match) as raised:
            load_mix(model, **options)
        assert "\n" not in str(raised.value)

    refused("found a StableDiffusionPipeline; allowed: StableDiffusionInst", make_generator("text_to_image"))
    refused("model_index.json does not exist; allowed: a folder of InstructPix2Pix", tmp_path)
    refused("has 86 tokens; the model reads 77: shorten it", folder, prompts=prompts("Autumn" + " a" * 78))
    other = tmp_path / "other"
    shutil.copytree(make_generator("text_to_image"), other)
    shutil.copy(folder / "model_index.json", other)
    refused("the UNet takes 4 channels, the VAE makes 4; allowed: twice as many", other)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    scheduler = json.loads((broken / "scheduler/scheduler_config.json").read_text())
    (broken / "scheduler/scheduler_config.json").write_text(json.dumps({**scheduler, "prediction_type": "sample"}))
    refused("found prediction_type sample; allowed: epsilon, v_prediction", broken)
    (broken / "scheduler/scheduler_config.json").write_text(json.dumps({**scheduler, "rescale_betas_zero_snr": True}))
    refused("found 1000 timesteps down to alpha_bar 0 for epsilon; allowed: 1000 that end above 0", broken)
    (broken / "unet/diffusion_pytorch_model.safetensors").unlink()
    refused("unet: Error no file named diffusion_pytorch_model.safetensors", broken)
