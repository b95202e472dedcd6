from collections.abc import Callable

import pytest
import torch

from gdacli.denoiser import Denoiser, classifier_free, clip, seeded_noise, target
from gdacli.diffusion import add_noise
from gdacli.schedules import Flow, Timesteps, cosine_alpha_bars

BARS = cosine_alpha_bars()
SCHEDULE = Timesteps(BARS, "native")
SEEDS = [3, 1, 2, 7]


class Network:
    """Know the clean image: it is `condition` everywhere. Keeps what it was given."""

    def __init__(self, prediction_type: str) -> None:
        self.prediction_type = prediction_type
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x, t, told):
        (condition,) = told
        self.seen.append((x, t))
        level = torch.tensor(BARS)[t][:, None, None, None]
        clean = condition[:, None, None, None].expand_as(x)
        noise = (x.float() - level.sqrt() * clean) / (1 - level).sqrt()
        v_prediction = level.sqrt() * noise - (1 - level).sqrt() * clean
        prediction = {"epsilon": noise, "v_prediction": v_prediction, "flow": noise - clean}[self.prediction_type]
        return prediction.to(x.dtype)


def denoiser(network: Callable, **options) -> Denoiser:
    settings = {
        "schedule": SCHEDULE,
        "prediction_type": getattr(network, "prediction_type", None),
        "threshold": None,
        "learned_variance": False,
        "solver": "ddim",
        "num_inference_steps": 10,
        "dtype": torch.float32,
        "memory_format": torch.contiguous_format,
        **options,
    }
    return Denoiser(network, **settings)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_what_a_network_is_trained_to_say_leads_back_to_the_image(prediction_type):
    schedule = Flow(lambda u: u, "native") if prediction_type == "flow" else SCHEDULE
    clean, noise = torch.rand(2, 4, 3, 2, 2)
    levels = schedule.levels(0.6, 2)[:1]
    alpha_bar = torch.full((4, 1, 1, 1), levels[0].alpha_bar)
    noisy = add_noise(clean, levels[0].alpha_bar, noise)
    said = target(prediction_type, clean, noise, alpha_bar)
    loop = denoiser(lambda x, t, told: said, schedule=schedule, prediction_type=prediction_type)
    made = loop.run(noisy, levels, [()], [], lambda: noise)
    assert made.numpy() == pytest.approx(clean.numpy(), abs=1e-5)


CONDITION, NULL = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.full((4,), 0.05)


def guided(scale: float) -> tuple[list, list]:
    return classifier_free((CONDITION,), (NULL,), scale)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("scale", "expected"), [(1.0, CONDITION), (3.0, NULL + 3 * (CONDITION - NULL)), (0.0, NULL)])
def test_guidance_goes_from_the_null_condition_through_the_condition(prediction_type, scale, expected):
    network = Network(prediction_type)
    made = denoiser(network)(torch.randn(4, 2, 8, 8), *guided(scale), 0.5, SEEDS)
    assert made.numpy() == pytest.approx(expected[:, None, None, None].expand_as(made).numpy(), abs=1e-4)
    assert [len(x) for x, _ in network.seen] == [4 if scale == 1 else 8] * 5  # one call a step
    assert [t.unique().tolist() for _, t in network.seen] == [[level.time] for level in SCHEDULE.levels(0.5, 10)]


def test_clipping_holds_each_estimate_within_the_range_of_pixels():
    network = Network("epsilon")
    latents = torch.zeros(4, 2, 8, 8)
    assert denoiser(network, threshold=clip)(latents, *guided(9.0), 0.5, SEEDS).max() <= 1
    assert denoiser(network)(latents, *guided(9.0), 0.5, SEEDS).max() > 2


def test_the_network_sees_its_dtype_and_layout_and_the_rest_is_float32():
    network = Network("epsilon")
    options = {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
    made = denoiser(network, **options)(torch.randn(4, 3, 8, 8), *guided(2.0), 0.5, SEEDS)
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
    denoiser(network)(like, *guided(1.0), 0.5, SEEDS)
    assert torch.equal(network.seen[0][0], add_noise(like, BARS[499], seeded_noise(like, SEEDS)()))


def test_two_scales_go_from_the_base_along_both_differences():
    network, base = Network("epsilon"), torch.full((4,), -0.2)
    made = denoiser(network)(torch.randn(4, 2, 8, 8), [(CONDITION,), (NULL,), (base,)], [3.0, 0.5], 0.5, SEEDS)
    expected = base + 3.0 * (CONDITION - base) + 0.5 * (NULL - base)
    assert made.numpy() == pytest.approx(expected[:, None, None, None].expand_as(made).numpy(), abs=1e-4)


def test_a_learned_variance_is_that_of_the_first_condition():
    class Learned(Network):
        def __call__(self, x, t, told):
            (condition,) = told
            prediction = super().__call__(x, t, told)
            return torch.cat([prediction, (condition > 0.06).float()[:, None, None, None].expand_as(x) * 2 - 1], 1)

    class Upper(Network):
        def __call__(self, x, t, told):
            return torch.cat([super().__call__(x, t, told), torch.ones_like(x)], 1)

    latents = torch.randn(4, 2, 8, 8)
    made = [
        denoiser(network, learned_variance=True, solver="ddpm")(latents, *guided(3.0), 0.5, SEEDS)
        for network in (Learned("epsilon"), Upper("epsilon"))
    ]
    assert torch.equal(*made)  # the conditions are above 0.06, the null is not
