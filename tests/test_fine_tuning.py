"""Low-rank layers beside a tiny model with random weights: they must learn, resume, and reach `generate`."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.utils.checkpoint
from safetensors import safe_open
from tiny_models import stable_diffusion
from tiny_pipelines import FAMILIES as TINY
from tiny_pipelines import SIZE, stable_diffusion_3

from gdacli.denoiser import Denoiser
from gdacli.errors import GdaError
from gdacli.generators.text_to_image import FAMILIES, fine_tune, open_pipeline
from gdacli.generators.text_to_image.family import Family
from gdacli.pixels import resize, to_model
from gdacli.prompts import make_prompts

NAMES = ("red", "green", "blue")
LABELS = torch.arange(24) % 3
PROMPTS = make_prompts(NAMES, ["a photo of {class_name}"], {})
FILE = "pytorch_lora_weights.safetensors"


def coloured(seed: int) -> torch.Tensor:
    images = torch.full((len(LABELS), 3, 16, 16), 40, dtype=torch.uint8)
    light = torch.randint(190, 250, (len(LABELS),), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    images[torch.arange(len(LABELS)), LABELS] = light[:, None, None]
    return images


def tuned(model: Path, folder: Path, **options: Any) -> list[list[float]]:
    settings: dict[str, Any] = {
        "prompts": PROMPTS,
        "variant": None,
        "native_size": None,
        "dtype": torch.float32,
        "updates": 40,
        "batch_size": 8,
        "lr": 1e-2,
        "rank": 8,
        "prompt_dropout": 0.1,
        "flip": True,
        "gradient_checkpointing": False,
        "seed": 0,
        "on_update": lambda update, loss: None,
        **options,
    }
    return fine_tune(model, coloured(0), LABELS, folder=folder, **settings)


def opened(model: Path, lora: Path | None) -> Family:
    device, memory_format = torch.device("cpu"), torch.contiguous_format
    pipeline = open_pipeline(
        model,
        variant=None,
        lora=lora,
        lora_scale=1.0,
        safety_checker=False,
        cpu_offload=False,
        device=device,
        dtype=torch.float32,
        memory_format=memory_format,
    )
    return FAMILIES[type(pipeline).__name__](
        pipeline, native_size=None, guidance_scale=1.0, device=device, memory_format=memory_format, compile=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a Stable Diffusion whose latents are about as large as its noise, as trained ones are."""
    torch.set_num_threads(1)
    folder = stable_diffusion(tmp_path_factory.mktemp("lora") / "sd", size=32)
    config = folder / "vae/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 4.0}))
    return folder


def test_samples_move_towards_the_images_of_their_class(model, tmp_path):
    losses = tuned(model, tmp_path / "lora", updates=50)
    assert [update for update, _ in losses] == list(range(10, 51, 10))

    def distances(lora: Path | None) -> torch.Tensor:
        """Between samples from noise alone and unseen images of their class, by latents, [3]."""
        family = opened(model, lora)
        target = family.encode(resize(to_model(coloured(1)), family.native_size))
        denoiser = Denoiser(
            predict=family.predict,
            schedule=family.schedule("native"),
            prediction_type=family.prediction_type,
            threshold=family.threshold,
            learned_variance=family.learned_variance,
            solver="ddim",
            num_inference_steps=10,
            dtype=torch.float32,
            memory_format=torch.contiguous_format,
        )
        told = tuple(
            torch.stack(parts) for parts in zip(*(family.embed(PROMPTS(label, 0)) for label in LABELS.tolist()))
        )
        made = denoiser(torch.zeros_like(target), [told], [], 1.0, range(len(LABELS)))
        rows = [torch.arange(label, len(LABELS), 3) for label in range(3)]
        return torch.stack([(made[row].mean(0) - target[row].mean(0)).norm() for row in rows])

    before, after = distances(None), distances(tmp_path / "lora")
    assert (after < 0.95 * before).all(), (before, after)


def test_a_training_that_goes_on_from_a_saved_state_gives_the_same_bytes(model, tmp_path):
    states: list[dict[str, Any]] = []

    class Keeper:
        def due(self) -> bool:
            return True

        def save(self, state: dict[str, Any]) -> None:
            torch.save(state, tmp_path / "state.pt")
            if state["update"] == 10:
                states.append(torch.load(tmp_path / "state.pt", weights_only=True))

    whole = tuned(model, tmp_path / "whole", updates=15, keeper=Keeper())
    (state,) = states
    assert tuned(model, tmp_path / "resumed", updates=15, state=state) == whole
    assert (tmp_path / "resumed" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    told, untold = (tuned(model, tmp_path / "other", updates=1, prompt_dropout=share) for share in (0.0, 0.99))
    assert told != untold


@pytest.mark.parametrize("family", [name for name in TINY if name != "sd3"])
def test_every_family_is_fine_tuned_and_loads_it(family, tmp_path, monkeypatch):
    computed_twice = Mock(wraps=torch.utils.checkpoint.checkpoint)
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", computed_twice)
    model = TINY[family](tmp_path / "model")
    size = SIZE if family.startswith("flux") else None
    tuned(model, tmp_path / "lora", updates=2, batch_size=2, rank=2, gradient_checkpointing=True, native_size=size)
    assert computed_twice.called
    opened(model, tmp_path / "lora")  # refuses what does not fit, or changes nothing
    with safe_open(tmp_path / "lora" / FILE, "pt") as file:
        assert all(file.get_tensor(key).dtype == torch.float32 for key in file.keys())  # noqa: SIM118


def test_a_family_that_is_passed_through_is_refused(tmp_path):
    with pytest.raises(GdaError, match="fit.lora: found a model for StableDiffusion3Img2ImgPipeline; allowed: one for"):
        tuned(stable_diffusion_3(tmp_path / "model"), tmp_path / "lora")


def test_a_prompt_that_the_model_cannot_read_names_its_own_field(model, tmp_path):
    with pytest.raises(GdaError, match="fit.lora.prompt: 'word .* tokens; the model reads 77: shorten it"):
        tuned(model, tmp_path / "lora", prompts=make_prompts(NAMES, ["word " * 90 + "{class_name}"], {}))
