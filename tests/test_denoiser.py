import pytest
import torch

from gdacli.denoiser import Denoiser, seeded_noise
from gdacli.diffusion import add_noise, cosine_alpha_bars, timestep_grid

BARS = cosine_alpha_bars()
SEEDS = [3, 1, 2, 7]


class Network:
    """Know the clean image: it is `condition` everywhere. Keeps what it was given."""

    def __init__(self, prediction_type: str) -> None:
        self.prediction_type = prediction_type
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x, t, condition, return_dict):
        self.seen.append((x, t))
        level = torch.tensor(BARS)[t][:, None, None, None]
        clean = condition[:, None, None, None].expand_as(x)
        noise = (x.float() - level.sqrt() * clean) / (1 - level).sqrt()
        v_prediction = level.sqrt() * noise - (1 - level).sqrt() * clean
        return ((noise if self.prediction_type == "epsilon" else v_prediction).to(x.dtype),)


def denoiser(network: Network, **options) -> Denoiser:
    settings = {
        "alpha_bars": BARS,
        "prediction_type": network.prediction_type,
        "clip": False,
        "solver": "ddim",
        "num_inference_steps": 10,
        "guidance_scale": 1.0,
        "dtype": torch.float32,
        "memory_format": torch.contiguous_format,
        **options,
    }
    return Denoiser(network, **settings)


CONDITION, NULL = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor(0.05)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("scale", "expected"), [(1.0, CONDITION), (3.0, NULL + 3 * (CONDITION - NULL)), (0.0, NULL)])
def test_guidance_goes_from_the_null_condition_through_the_condition(prediction_type, scale, expected):
    network = Network(prediction_type)
    made = denoiser(network, guidance_scale=scale)(torch.randn(4, 2, 8, 8), CONDITION, NULL, 0.5, SEEDS)
    assert made.numpy() == pytest.approx(expected.expand(4)[:, None, None, None].expand_as(made).numpy(), abs=1e-4)
    assert [len(x) for x, _ in network.seen] == [4 if scale == 1 else 8] * 5  # one call a step
    assert [t.unique().tolist() for _, t in network.seen] == [[t] for t in timestep_grid(0.5, 10)]


def test_clipping_holds_each_estimate_within_the_range_of_pixels():
    network = Network("epsilon")
    latents = torch.zeros(4, 2, 8, 8)
    assert denoiser(network, guidance_scale=9.0, clip=True)(latents, CONDITION, NULL, 0.5, SEEDS).max() <= 1
    assert denoiser(network, guidance_scale=9.0)(latents, CONDITION, NULL, 0.5, SEEDS).max() > 2


def test_the_network_sees_its_dtype_and_layout_and_the_rest_is_float32():
    network = Network("epsilon")
    options = {"dtype": torch.bfloat16, "memory_format": torch.channels_last, "guidance_scale": 2.0}
    made = denoiser(network, **options)(torch.randn(4, 3, 8, 8), CONDITION, NULL, 0.5, SEEDS)
    assert made.dtype == torch.float32
    for x, _ in network.seen:
        assert x.dtype == torch.bfloat16
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_noise_is_of_the_seed_alone():
    like = torch.zeros(4, 2, 8, 8)
    draw, reordered = seeded_noise(like, SEEDS), seeded_noise(like, SEEDS[::-1])
    for _ in range(3):
        assert torch.equal(draw(), reordered().flip(0))
    network = Network("epsilon")
    denoiser(network)(like, CONDITION, NULL, 0.5, SEEDS)
    assert torch.equal(network.seen[0][0], add_noise(like, BARS[499], seeded_noise(like, SEEDS)()))
