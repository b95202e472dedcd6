import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from gdacli.denoiser import Denoiser
from gdacli.schedules import (
    NUM_TRAIN_TIMESTEPS,
    Flow,
    GlideTimesteps,
    Schedule,
    Timesteps,
    cosine_alpha_bars,
    glide_alpha_bar,
    num_denoising_steps,
    start_timestep,
)

BARS = cosine_alpha_bars()
STABLE_DIFFUSION = DDPMScheduler(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
).alphas_cumprod.tolist()


def shift(u: float) -> float:
    """Stand for Stable Diffusion 3's shift of 3."""
    return 3 * u / (1 + 2 * u)


SCHEDULES: dict[str, Schedule] = {
    "native": Timesteps(STABLE_DIFFUSION, "native"),
    "as GLIDE": Timesteps(STABLE_DIFFUSION, "glide"),
    "GLIDE": GlideTimesteps(),
    "flow": Flow(shift, "native"),
    "flow as GLIDE": Flow(shift, "glide"),
}


@pytest.mark.parametrize("name", SCHEDULES)
@given(thousandths=st.integers(1, 1000), steps=st.integers(1, 1000))
def test_a_grid_starts_at_the_strength_whatever_the_steps_and_falls(name, thousandths, steps):
    strength, schedule = thousandths / 1000, SCHEDULES[name]
    if num_denoising_steps(strength, steps) == 0:
        with pytest.raises(ValueError, match="is no denoising step"):
            schedule.levels(strength, steps)
        return
    levels = schedule.levels(strength, steps)
    (start,) = schedule.levels(strength, math.ceil(0.5 / strength))  # one step
    assert levels[0] == start
    assert 1 <= len(levels) <= num_denoising_steps(strength, steps)
    assert all(a.time > b.time and a.alpha_bar < b.alpha_bar for a, b in zip(levels, levels[1:], strict=False))
    assert all(0 <= level.alpha_bar < 1 for level in levels)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_native_grid_has_every_step_and_starts_at_its_timestep(thousandths, steps):
    strength = thousandths / 1000
    expected = num_denoising_steps(strength, steps)
    if expected:
        levels = SCHEDULES["native"].levels(strength, steps)
        assert len(levels) == expected
        assert levels[0].time == start_timestep(strength) == thousandths - 1
        assert all(type(level.time) is int for level in levels)


def test_the_cosine_schedule_is_the_published_one():
    scheduler = DDPMScheduler(NUM_TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    assert torch.tensor(BARS) == pytest.approx(scheduler.alphas_cumprod, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    ("strength", "alpha_bar", "stable_diffusion"),
    [(0.1, 0.976, 0.03), (0.4, 0.655, 0.26), (0.5, 0.502, 0.35), (0.7, 0.207, 0.56), (0.8, 0.096, 0.68)],
)
def test_as_in_glide_a_strength_is_the_same_noise_on_every_model(strength, alpha_bar, stable_diffusion):
    """The table of METHODS: GLIDE's alpha_bar at N of 100, and Stable Diffusion's strength of equal alpha_bar."""
    assert glide_alpha_bar(strength) == pytest.approx(alpha_bar, abs=6e-4)
    start = SCHEDULES["as GLIDE"].levels(strength, 100)[0]
    assert (start.time + 1) / 1000 == pytest.approx(stable_diffusion, abs=0.005)
    assert start.alpha_bar == pytest.approx(alpha_bar, abs=2e-3)
    assert SCHEDULES["flow as GLIDE"].levels(strength, 25)[0].alpha_bar == pytest.approx(alpha_bar, abs=6e-4)
    assert SCHEDULES["GLIDE"].levels(strength, 25)[0].alpha_bar == pytest.approx(alpha_bar, abs=6e-4)


def test_with_100_steps_the_grid_of_glide_is_that_of_its_respacing():
    """OpenAI's space_timesteps adds up a fractional stride and rounds."""
    expected = [round(i * 999 / 99) for i in range(100)]
    assert [level.time for level in GlideTimesteps().levels(1.0, 100)] == expected[::-1]
    assert [level.time for level in GlideTimesteps().levels(0.4, 100)] == expected[39::-1]


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_flow_model_takes_the_steps_of_diffusers_scheduler(strength):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    steps = num_denoising_steps(strength, 10)
    scheduler.set_timesteps(sigmas=np.linspace(strength, strength / steps, steps))
    latents, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)

    def predict(x: torch.Tensor, times: torch.Tensor, told: tuple) -> torch.Tensor:
        return torch.sin(3 * x) + times[:, None, None, None] / 1000

    sigma = float(scheduler.sigmas[0])
    x = (1 - sigma) * latents + sigma * noise
    for t in scheduler.timesteps:
        x = scheduler.step(predict(x, t.repeat(2), ()), t, x).prev_sample
    denoiser = Denoiser(
        predict=predict,
        schedule=Flow(shift, "native"),
        prediction_type="flow",
        threshold=None,
        learned_variance=False,
        solver="ddim",
        num_inference_steps=10,
        dtype=torch.float32,
        memory_format=torch.contiguous_format,
    )
    seeds = [1, 2]
    for row, seed in zip(noise, seeds, strict=True):  # what the denoiser draws
        row.copy_(torch.empty(4, 2, 2).normal_(generator=torch.Generator().manual_seed(seed)))
    x = (1 - sigma) * latents + sigma * noise
    for t in scheduler.timesteps:
        scheduler._step_index = None
        x = scheduler.step(predict(x, t.repeat(2), ()), t, x).prev_sample
    made = denoiser(latents, [(torch.zeros(2),)], [], strength, seeds)
    assert made.numpy() == pytest.approx(x.numpy(), abs=1e-5)
    assert denoiser.describe(strength)["start_timestep"] == pytest.approx(1000 * sigma)
