"""What text_to_image promises beyond the contract of every backend: its families, files and settings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES
from diffusers import (
    DDPMScheduler,
    FluxImg2ImgPipeline,
    IFImg2ImgPipeline,
    LatentConsistencyModelImg2ImgPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from test_generators import load, prompts
from tiny_models import BETAS, stable_diffusion
from tiny_pipelines import SIZE, VAE, deepfloyd_if, flux, lcm, sdxl, stable_diffusion_3, with_safety_checker

from gdacli.errors import GdaError
from gdacli.generators.text_to_image.passed_through import exact_strength
from gdacli.prompts import make_prompts, readable
from gdacli.schedules import Flow, Timesteps, num_denoising_steps
from gdacli.weights import locate_model, weights_digest

ROWS = 4
LABELS, SEEDS = torch.arange(ROWS) % 3, [11, 12, 13, 14]
TEXTS = [f"a photo of {readable(CLASSES[label])}" for label in LABELS]
IMAGES = torch.randint(0, 256, (ROWS, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def open_generator(folder: Path, **options: Any) -> Any:
    return load("text_to_image", folder, **options)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(3)) / 2


def assert_equal(made: torch.Tensor, expected: np.ndarray) -> None:
    assert np.abs(made.permute(0, 2, 3, 1).numpy() - 255 * expected).max() < 1


@pytest.fixture(scope="module")
def sd(make_generator) -> Path:
    return make_generator("text_to_image")


def changed(folder: Path, part: str, **config: Any) -> None:
    path = folder / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


GRID = [level.time for level in Timesteps([0.5] * 1000, "native").levels(0.6, 10)]


@pytest.mark.parametrize("negative_prompt", [None, "a ring"])
def test_sdxl_is_that_of_diffusers_pipeline(make_generator, negative_prompt):
    folder = make_generator("text_to_image-sdxl")
    pipeline = StableDiffusionXLImg2ImgPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDPMScheduler(clip_sample=False, **BETAS)
    latents = noise(4, 8, 8)
    expected = pipeline(
        prompt=TEXTS,
        negative_prompt=None if negative_prompt is None else [negative_prompt] * ROWS,
        image=latents,
        strength=1.0,
        timesteps=GRID,
        guidance_scale=2.0,
        generator=generators(),
        output_type="np",
    ).images
    settings = {"solver": "ddpm", "image_size": SIZE, "negative_prompt": negative_prompt}
    assert_equal(open_generator(folder, **settings).generate(latents, LABELS, 0.6, SEEDS), expected)


def test_lcm_is_that_of_diffusers_pipeline(make_generator):
    folder = make_generator("text_to_image-lcm")
    pipeline = LatentConsistencyModelImg2ImgPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    latents = noise(4, 8, 8)
    expected = pipeline(
        prompt=TEXTS,
        image=latents,
        strength=1.0,
        timesteps=GRID,
        guidance_scale=2.0,
        generator=generators(),
        output_type="np",
    ).images
    generator = open_generator(folder, solver="lcm", image_size=SIZE)
    assert_equal(generator.generate(latents, LABELS, 0.6, SEEDS), expected)


def test_deepfloyd_is_that_of_diffusers_pipeline(make_generator):
    """Learned variance, dynamic thresholding and T5 in one."""
    folder = make_generator("text_to_image-if")
    pipeline = IFImg2ImgPipeline.from_pretrained(folder, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    images = noise(3, 16, 16).clamp(-1, 1)
    expected = pipeline(
        prompt=TEXTS,
        image=images,
        strength=1.0,
        timesteps=GRID,
        guidance_scale=2.0,
        generator=generators(),
        clean_caption=False,
        output_type="np",
    ).images
    assert_equal(open_generator(folder, solver="ddpm").generate(images, LABELS, 0.6, SEEDS), expected)


@pytest.mark.parametrize("family", ["flux", "flux_dev"])
def test_flux_is_that_of_diffusers_pipeline(make_generator, family):
    folder = make_generator(f"text_to_image-{family}")
    pipeline = FluxImg2ImgPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    latents = noise(4, 8, 8)
    guidance = {"guidance_scale": 2.0} if family == "flux_dev" else {"true_cfg_scale": 2.0, "negative_prompt": [""] * 4}
    expected = pipeline(
        prompt=TEXTS,
        image=latents,
        height=SIZE,
        width=SIZE,
        strength=1.0,
        num_inference_steps=6,
        sigmas=[level.time / 1000 for level in Flow(lambda u: u, "native").levels(0.6, 10)],  # the pipeline shifts them
        generator=generators(),
        max_sequence_length=77,
        output_type="np",
        **guidance,
    ).images
    settings = {"solver": "ddim", "image_size": SIZE, "native_size": SIZE}
    assert_equal(open_generator(folder, **settings).generate(latents, LABELS, 0.6, SEEDS), expected)


def test_a_model_that_is_told_the_guidance_evaluates_once(tmp_path):
    folder = lcm(tmp_path / "lcm")
    settings = {"solver": "lcm", "num_inference_steps": 4}
    one, other = (open_generator(folder, guidance_scale=scale, **settings) for scale in (1.0, 8.0))
    latents, sizes = one.encode(IMAGES), []
    for generator in (one, other):
        generator._family.network.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    assert not torch.equal(*(each.generate(latents, LABELS, 0.5, SEEDS) for each in (one, other)))
    assert sizes == [ROWS] * 4  # two steps each
    with pytest.raises(GdaError, match="negative_prompt: found 'a ring'; this model is told the guidance scale"):
        open_generator(folder, negative_prompt="a ring")


def test_a_turbo_model_without_guidance_evaluates_once(sd):
    settings = {"solver": "ddpm", "num_inference_steps": 4, "guidance_scale": 1.0}
    generator, sizes = open_generator(sd, **settings), []
    generator._family.network.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    generator.generate(generator.encode(IMAGES), LABELS, 0.5, SEEDS)
    assert sizes == [ROWS] * 2


def test_a_negative_prompt_takes_the_place_of_none(sd):
    plain, empty, other = (open_generator(sd, negative_prompt=text) for text in (None, "", "a ring"))
    latents = plain.encode(IMAGES)
    made = [each.generate(latents, LABELS, 0.8, SEEDS) for each in (plain, empty, other)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert other.describe(0, 0.5, 1)["negative_prompt"] == "a ring"


def test_an_image_keeps_its_size_at_any_native_size(sd):
    for native_size in (32, 96):
        generator = open_generator(sd, native_size=native_size, image_size=16)
        latents = generator.encode(IMAGES)
        assert latents.shape[2:] == (native_size // 8,) * 2
        assert generator.generate(latents, LABELS, 0.3, SEEDS).shape == IMAGES.shape
        assert generator.describe(0, 0.5, 1)["native_size"] == native_size


def test_large_images_go_through_the_vae_one_by_one(sd, monkeypatch):
    from gdacli import autoencoder

    images = open_generator(sd).encode(IMAGES)
    monkeypatch.setattr(autoencoder, "_ALONE_FROM", 32)
    generator, sizes = open_generator(sd), []
    generator._pipeline.vae.encoder.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    assert generator.encode(IMAGES).numpy() == pytest.approx(images.numpy(), abs=1e-5)
    assert sizes == [1] * ROWS


def test_a_safety_checker_blackens_what_it_flags_unless_it_is_off(sd, tmp_path):
    strict, mild = (with_safety_checker(sd, tmp_path / f"{bound}", bound) for bound in (-1.5, 1.5))
    plain = open_generator(sd)
    latents = plain.encode(IMAGES)
    expected = plain.generate(latents, LABELS, 0.3, SEEDS)
    assert open_generator(strict).generate(latents, LABELS, 0.3, SEEDS).max() == 0
    assert (open_generator(mild).generate(latents, LABELS, 0.3, SEEDS) - expected.float()).abs().max() <= 1
    shutil.rmtree(strict / "safety_checker")
    off = open_generator(strict, safety_checker=False)
    assert torch.equal(off.generate(latents, LABELS, 0.3, SEEDS), expected)
    with pytest.raises(GdaError, match="safety_checker does not exist"):
        open_generator(strict)


def lora(model: Path, folder: Path, size: float) -> Path:
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(model, safety_checker=None)
    pipeline.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    torch.manual_seed(1)
    for name, weight in pipeline.unet.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, size)
    pipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(pipeline.unet))
    return folder


def test_lora_weights_are_merged_into_those_of_the_model(sd, tmp_path):
    folder = lora(sd, tmp_path / "lora", 0.5)
    file = folder / "pytorch_lora_weights.safetensors"
    plain, half = open_generator(sd), open_generator(sd, lora=file, lora_scale=0.5)
    before, after = (each._family.network.state_dict() for each in (plain, half))
    assert before.keys() == after.keys()
    names = [name.removesuffix(".lora_A.weight") for name in load_file(file) if name.endswith("lora_A.weight")]
    assert len(names) > 2
    for name in names:
        down, up = (load_file(file)[f"{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
        weight = f"{name.removeprefix('unet.')}.weight"
        assert torch.allclose(after[weight], before[weight] + 0.5 * up @ down, atol=1e-6)
    latents = plain.encode(IMAGES)
    full = open_generator(sd, lora=folder)  # the folder is as good as the file
    made = [each.generate(latents, LABELS, 0.8, SEEDS).float() for each in (plain, half, full)]
    assert 0 < (made[0] - made[1]).abs().mean() < (made[0] - made[2]).abs().mean()


def test_lora_weights_that_do_not_fit_are_one_line(sd, make_generator, tmp_path):
    def refused(path: Path, match: str) -> None:
        with pytest.raises(GdaError, match=match) as raised:
            open_generator(sd, lora=path)
        assert "\n" not in str(raised.value)

    refused(lora(sd, tmp_path / "zero", 0.0), "changes no weight of the model")
    fitting = load_file(lora(sd, tmp_path / "lora", 0.5) / "pytorch_lora_weights.safetensors")
    wider = {name: torch.zeros(weight.shape[0] + 1, weight.shape[1] + 1) for name, weight in fitting.items()}
    (tmp_path / "bad").mkdir()
    save_file(wider, tmp_path / "bad/wider.safetensors")
    refused(tmp_path / "bad", "does not fit StableDiffusionImg2ImgPipeline")
    save_file(
        {name.replace("unet.", "prior."): value for name, value in fitting.items()}, tmp_path / "bad/b.safetensors"
    )
    refused(tmp_path / "bad/b.safetensors", "no weights for StableDiffusionImg2ImgPipeline")
    refused(tmp_path / "bad", "has 2 .safetensors files; allowed: one")
    (tmp_path / "bad/pickled.pt").write_bytes(b"")
    refused(tmp_path / "bad/pickled.pt", "allowed: a .safetensors file, which holds no code")
    (tmp_path / "bad/cut.safetensors").write_bytes(b"cut")
    refused(tmp_path / "bad/cut.safetensors", "does not fit")


def test_only_the_files_that_are_used_identify_a_model(sd, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(sd, folder)

    def identity(variant: str | None = None, safety_checker: bool = True) -> str:
        return weights_digest(*locate_model(str(folder), None, variant, safety_checker), ())

    before = identity()
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    for unused in ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"):
        shutil.copy(weights, folder / unused)
    (folder / "vae_old").mkdir()
    shutil.copy(weights, folder / "vae_old/diffusion_pytorch_model.safetensors")
    assert identity() == before
    half = identity("fp16")
    assert half != before
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert identity() != before
    assert identity("fp16") == half
    weights.unlink()
    open_generator(folder, variant="fp16")
    with pytest.raises(GdaError, match="unet: Error no file named diffusion_pytorch_model.safetensors"):
        open_generator(folder)
    with pytest.raises(GdaError, match="generate.variant: found 'bf16', of which .* has no weights"):
        identity("bf16")
    with_safety_checker(sd, tmp_path / "checked", 0.0)
    folder = tmp_path / "checked"
    assert identity() != identity(safety_checker=False)


def test_another_family_is_passed_through_to_its_own_pipeline(tmp_path):
    folder = stable_diffusion_3(tmp_path / "sd3")
    settings = {"solver": "native", "num_inference_steps": 7, "guidance_scale": 2.0}
    generator = open_generator(folder, **settings)
    latents = generator.encode(IMAGES)
    made = generator.generate(latents, LABELS, 0.5, SEEDS)
    pipeline = StableDiffusion3Img2ImgPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipeline.set_progress_bar_config(disable=True)
    bicubic = torch.nn.functional.interpolate(latents, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = pipeline(
        prompt=TEXTS,
        image=bicubic / 2 + 0.5,
        strength=4 / 7,
        num_inference_steps=7,
        guidance_scale=2.0,
        height=SIZE,
        width=SIZE,
        generator=generators(),
        output_type="np",
    ).images
    own = open_generator(folder, **settings, image_size=SIZE)
    assert_equal(own.generate(latents, LABELS, 0.5, SEEDS), expected)
    order = [2, 0, 3, 1]
    again = generator.generate(latents[order], LABELS[order], 0.5, [SEEDS[row] for row in order])
    assert torch.equal(again, made[order])
    assert (made.shape, made.dtype) == (IMAGES.shape, torch.uint8)
    assert generator.sample(LABELS, SEEDS).shape == IMAGES.shape
    said = generator.describe(1, 0.5, 7)
    assert said.keys() == open_generator(stable_diffusion(tmp_path / "sd", size=SIZE)).describe(1, 0.5, 7).keys()
    assert (said["num_steps"], said["alpha_bar"], said["start_timestep"]) == (4, -1.0, -1.0)
    assert said["solver"] == "FlowMatchEulerDiscreteScheduler"
    for name, value in (("solver", "ddim"), ("noise_schedule", "glide"), ("compile", True)):
        with pytest.raises(GdaError, match=f"generate.{name}: .*passed through"):
            open_generator(folder, **{**settings, name: value})


@pytest.mark.parametrize("pipeline", [StableDiffusion3Img2ImgPipeline, StableDiffusionImg2ImgPipeline])
def test_a_passed_through_strength_loses_no_step(pipeline):
    """The one truncates the steps that are taken, the other those that are left out."""
    for total in (1, 2, 3, 7, 22, 25, 28, 50, 100, 999, 1000):
        for strength in (0.001, 0.1, 0.29, 0.3, 0.333, 0.5, 0.68, 0.7, 0.8, 0.999, 1.0):
            if steps := num_denoising_steps(strength, total):
                exact = exact_strength(pipeline, steps, total)
                stub = SimpleNamespace(scheduler=SimpleNamespace(timesteps=list(range(total)), order=1))
                assert len(pipeline.get_timesteps(stub, total, exact, None)[0]) == steps
                assert exact == pytest.approx(steps / total)


@pytest.mark.parametrize(
    ("write", "part", "config", "options", "match"),
    [
        (
            stable_diffusion,
            "",
            {},
            {"solver": "native"},
            "generate.solver: found native; allowed .*: ddpm,",
        ),
        (stable_diffusion, "", {}, {"native_size": 36}, "generate.native_size: found 36; allowed .*: multiples of 8"),
        (stable_diffusion, "", {}, {"cpu_offload": True}, "generate.cpu_offload: there is no GPU to spare on cpu"),
        (stable_diffusion, "scheduler/scheduler_config.json", {"beta_schedule": "x"}, {}, "scheduler: x "),
        (deepfloyd_if, "", {}, {"native_size": 32}, "generate.native_size: found 32; allowed for this model: 16"),
        (flux, "", {}, {"native_size": 36}, "generate.native_size: found 36; allowed for this model: multiples of 8"),
        (flux, "scheduler/scheduler_config.json", {"use_karras_sigmas": True}, {}, "with use_karras_sigmas; allowed"),
        (sdxl, "model_index.json", {"requires_aesthetics_score": True}, {}, "a refiner; allowed: the base model"),
    ],
)
def test_what_does_not_fit_a_family_is_one_line(
    tmp_path, write: Callable[[Path], Path], part: str, config: dict, options: dict, match: str
):
    folder = write(tmp_path / "model")
    if part:
        changed(folder, part, **config)
    with pytest.raises(GdaError, match=match) as raised:
        open_generator(folder, **options)
    assert "\n" not in str(raised.value)


def test_v_prediction_may_begin_without_any_signal(tmp_path):
    folder = stable_diffusion(tmp_path / "sd", size=SIZE, vae_channels=VAE, prediction_type="v_prediction")
    index = json.loads((folder / "model_index.json").read_text())
    changed(folder, "model_index.json", **{**index, "scheduler": ["diffusers", "DDIMScheduler"]})
    changed(folder, "scheduler/scheduler_config.json", _class_name="DDIMScheduler", rescale_betas_zero_snr=True)
    for solver in ("ddpm", "ddim", "dpmsolver++", "lcm"):
        generator = open_generator(folder, solver=solver)
        assert generator.describe(0, 1.0, 0)["alpha_bar"] == 0
        made = generator.generate(generator.encode(IMAGES), LABELS, 1.0, SEEDS)
        sampled = generator.sample(LABELS, SEEDS)
        assert torch.equal(made, sampled)  # nothing of the source is left
        assert sampled.float().std() > 1


def test_a_prompt_may_be_as_long_as_the_model_reads(make_generator):
    folder = make_generator("text_to_image-flux")
    settings = {"native_size": SIZE, "prompts": make_prompts(CLASSES, ["a photo of {class_name}" + " a" * 81], {})}
    with pytest.raises(GdaError, match="tokens; the model reads 77: shorten it"):
        open_generator(folder, **settings)
    open_generator(folder, native_size=SIZE, prompts=prompts("a photo of {class_name}" + " a" * 20))
