"""GLIDE against numbers of its reference implementation, at a tiny width; the made-up weights are `tiny_models`'s."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import glide, made_up_weights

from gdacli.errors import GdaError
from gdacli.generators.glide import load, make_denoiser
from gdacli.generators.glide.checkpoint import build, read_checkpoint
from gdacli.generators.glide.tokens import VOCABULARY_SIZE, tokenize
from gdacli.prompts import Prompts
from gdacli.schedules import GlideTimesteps

GOLDEN = np.load(Path(__file__).parent / "golden/glide_tiny.npz", allow_pickle=False)
HEAD_WIDTH = 16
PROMPTS = GOLDEN["prompts"].tobytes().decode().split("\n")


def table(name: str) -> dict[str, list[int]]:
    """Return the names and shapes of the reference's parameters."""
    lines = (line.split(" ") for line in GOLDEN[name].tobytes().decode().splitlines())
    return {key: [int(size) for size in shape.split(",")] for key, shape in lines}


@pytest.fixture(scope="module")
def networks():
    weights = made_up_weights(table("tiny_parameters"))
    return build(weights, Path("tiny.pt"), torch.float32, HEAD_WIDTH)


def embedded(networks, prompts) -> tuple[torch.Tensor, torch.Tensor]:
    _, text = networks
    tokens, masks = zip(*(tokenize(prompt, text.length) for prompt in prompts), strict=True)
    with torch.inference_mode():
        return text(torch.stack(tokens), torch.stack(masks))


def test_tokens_are_those_of_the_reference():
    for prompt, tokens, mask in zip(PROMPTS, GOLDEN["tokens"], GOLDEN["mask"], strict=True):
        ids, present = tokenize(prompt, 16)
        assert (ids.tolist(), present.tolist()) == (tokens.tolist(), mask.tolist())


def test_a_prompt_may_have_any_characters_but_not_too_many():
    ids, present = tokenize("naïve 画 🙂 <|endoftext|>", 128)
    assert 10 < present.sum() < 40
    assert ids[present].max() < VOCABULARY_SIZE - 1  # the words of the end are not the end
    assert ids[~present].unique().tolist() == [VOCABULARY_SIZE - 1]
    assert tokenize("a" + " photo" * 15, 16)[1].all()
    with pytest.raises(GdaError, match=r"^generate.prompt: 'a photo.*' has 17 tokens; .* at most 16: shorten it$"):
        tokenize("a" + " photo" * 16, 16)


def test_the_networks_give_the_numbers_of_the_reference(networks):
    unet, _ = networks
    states, vectors = embedded(networks, [PROMPTS[row] for row in GOLDEN["rows"]])
    with torch.inference_mode():
        x, t = torch.from_numpy(GOLDEN["x"]), torch.from_numpy(GOLDEN["t"])
        out = unet(x, t, states, class_labels=vectors).sample
    assert np.abs(out[:, :, ::3, ::3].numpy() - GOLDEN["out"]).max() < 1e-4


def test_guided_sampling_gives_the_numbers_of_the_reference(networks, monkeypatch):
    """The noise is the only thing that is put in from outside: the golden numbers were made with other seeds."""
    unet, _ = networks
    seen = []

    def watched(noisy, *arguments, **keywords):
        seen.append(noisy[:1])
        return unet(noisy, *arguments, **keywords)

    noises = iter(torch.from_numpy(GOLDEN["noises"])[:, None])
    monkeypatch.setattr("gdacli.denoiser.seeded_noise", lambda like, seeds: lambda: next(noises))
    denoiser = make_denoiser(
        watched,
        solver="ddpm",
        num_inference_steps=100,
        dtype=torch.float32,
        memory_format=torch.contiguous_format,
    )
    conditions = [embedded(networks, [PROMPTS[0]]), embedded(networks, [""])]
    made = denoiser(torch.from_numpy(GOLDEN["ref"])[None], conditions, [3.0], 0.06, [0])
    assert np.abs(seen[0][0, :, ::4, ::4].numpy() - GOLDEN["start"]).max() < 1e-5
    assert np.abs(seen[1][0, :, ::2, ::2].numpy() - GOLDEN["after_first_step"]).max() < 1e-4
    assert np.abs(made[0].numpy() - GOLDEN["final"]).max() < 1e-4
    assert (len(seen), next(noises, None)) == (6, None)


def test_levels_are_those_of_the_respaced_process():
    levels = GlideTimesteps().levels(1.0, 100)[::-1]
    assert [level.time for level in levels] == GOLDEN["timestep_map"].tolist()
    assert [level.alpha_bar for level in levels] == pytest.approx(GOLDEN["alphas_cumprod"].tolist(), rel=1e-9)


def test_images_are_scaled_to_64_pixels_and_back(tmp_path):
    settings: dict[str, Any] = {
        "class_names": ["disc"],
        "image_size": 24,
        "solver": "ddpm",
        "num_inference_steps": 100,
        "guidance_scale": 1.0,
        "noise_schedule": "native",
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "memory_format": torch.contiguous_format,
        "compile": False,
        "model": glide(tmp_path),
        "prompts": Prompts([["a disc"]]),
        "native_size": None,
    }
    with pytest.raises(GdaError, match="^generate.prompt: 'so very .*' has 18 tokens; the model reads at most 16"):
        load(tmp_path, **settings | {"prompts": Prompts([["a disc", "so" + " very" * 16 + " long"]])})
    generator = load(tmp_path, **settings)
    ramp = torch.linspace(0, 255, 24).to(torch.uint8)
    images = torch.stack([ramp.expand(3, 24, 24), ramp[:, None].expand(3, 24, 24)])
    latents = generator.encode(images)
    assert (latents.shape, latents.dtype) == ((2, 3, 64, 64), torch.float32)
    assert latents.abs().max() == 1
    made = generator.generate(latents, torch.tensor([0, 0]), 0.01, [1, 2])  # one step at the least noise
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert (made.float() - images.float()).abs().max() < 12
    assert generator.describe(0, 0.5, 1)["native_size"] == 64


@pytest.mark.parametrize(("name", "head_width"), [("tiny", HEAD_WIDTH), ("full", 64)])
def test_every_parameter_of_the_reference_is_read(name, head_width):
    shapes = table(f"{name}_parameters")
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    unet, text = build(weights, Path("x"), torch.float32, head_width)
    read = [*unet.parameters(), *text.parameters()]
    assert sum(map(torch.Tensor.numel, read)) == sum(map(torch.Tensor.numel, weights.values()))
    tokens = torch.zeros(2, text.length, dtype=torch.int64, device="meta")
    states, vectors = text(tokens, tokens > 0)
    out = unet(torch.empty(2, 3, 64, 64, device="meta"), tokens[:, 0], states, class_labels=vectors).sample
    assert out.shape == (2, 6, 64, 64)


def test_files_of_each_kind_hold_the_same_weights(tmp_path):
    plain = glide(tmp_path)
    expected = read_checkpoint(plain, torch.float32)
    for file, tolerance in [
        (glide(tmp_path, name="other.safetensors"), 0.0),
        (glide(tmp_path, name="half.pt", dtype=torch.float16), 1e-3),
    ]:
        for network, like in zip(read_checkpoint(file, torch.float32), expected, strict=True):
            for (key, found), wanted in zip(network.state_dict().items(), like.state_dict().values(), strict=True):
                assert found.dtype == torch.float32
                assert torch.allclose(found, wanted, atol=tolerance, rtol=0), key


class _Unsafe:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def test_another_checkpoint_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = torch.load(glide(tmp_path), weights_only=True)
    file = tmp_path / "other.pt"

    def refused(match: str, saved: object = None) -> None:
        if saved is not None:
            torch.save(saved, file)
        with pytest.raises(GdaError, match=match) as raised:
            read_checkpoint(file, torch.float32)
        message = str(raised.value)
        assert str(file) in message
        assert "\n" not in message
        assert len(message) < 700

    refused("cannot be read .FileNotFoundError.*; allowed: the weights of GLIDE's base model")
    refused("found no mapping of names to tensors", [1, 2])
    refused("found no mapping of names to tensors", {"state_dict": whole})
    refused("damaged, or more than a mapping of names to tensors; allowed", {**whole, "run": _Unsafe()})
    assert not Path("touched").exists()
    refused("1 parameters, none of them 'output_blocks.*'", {"weight": torch.zeros(3)})
    without = {key: tensor for key, tensor in whole.items() if ".skip_connection." not in key}
    refused(r"14 parameters missing \(input_blocks.5.0.skip_connection.bias, .*, \.\.\.\); allowed", without)
    more = {**whole, "label_emb.weight": torch.ones(2), "more": torch.ones(1)}
    refused(r"2 parameters too many \(label_emb.weight, more\)", more)
    inpaint = {**whole, "input_blocks.0.0.weight": torch.zeros(32, 7, 3, 3)}
    refused(r"1 parameters of another shape \(input_blocks.0.0.weight is \[32, 7, 3, 3\], not \[32, 3, 3, 3\]", inpaint)
    narrow = made_up_weights(table("tiny_parameters"))
    refused(r"levels of \[32, 64, 96, 128\] .*; allowed: multiples of 32, of 64 where there is attention", narrow)
    file.write_bytes(file.read_bytes()[:100_000])
    refused("cannot be read")
    glide(tmp_path, name="whole.safetensors")
    file.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:100_000])
    refused("cannot be read .SafetensorError")
