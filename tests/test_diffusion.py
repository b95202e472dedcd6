import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from gdacli.diffusion import (
    NUM_TRAIN_TIMESTEPS,
    SOLVERS,
    add_noise,
    cosine_alpha_bars,
    denoise,
    num_denoising_steps,
    start_timestep,
    timestep_grid,
)

BARS = cosine_alpha_bars()


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_grid_starts_exactly_at_the_strength_and_falls(thousandths, steps):
    strength = thousandths / 1000
    expected = num_denoising_steps(strength, steps)
    if expected == 0:
        with pytest.raises(ValueError, match="is no denoising step"):
            timestep_grid(strength, steps)
        return
    grid = timestep_grid(strength, steps)
    assert len(grid) == expected
    assert grid[0] == start_timestep(strength) == thousandths - 1
    assert all(a > b for a, b in zip(grid, grid[1:], strict=False))
    assert grid[-1] >= 0


def test_a_strength_is_the_same_noise_for_any_number_of_steps():
    assert {timestep_grid(0.7, steps)[0] for steps in (1, 5, 25, 100, 1000)} == {699}


def test_the_cosine_schedule_is_the_published_one():
    scheduler = DDPMScheduler(NUM_TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    assert torch.tensor(BARS) == pytest.approx(scheduler.alphas_cumprod, rel=1e-4, abs=1e-8)
    # METHODS: alpha_bar of GLIDE at N of 100 respaced steps, index N - 1 of linspace(0, 999, 100)
    for steps, alpha_bar in ((10, 0.976), (40, 0.655), (50, 0.502), (70, 0.207), (80, 0.096)):
        assert BARS[round((steps - 1) * 999 / 99)] == pytest.approx(alpha_bar, abs=6e-4)


def test_noise_keeps_unit_variance():
    x, noise = torch.ones(2, 3), torch.zeros(2, 3)
    assert torch.equal(add_noise(x, 0.25, noise), torch.full((2, 3), 0.5))
    assert torch.equal(add_noise(0 * x, 0.75, noise + 1), torch.full((2, 3), 0.5))


def predict_clean(x: torch.Tensor, alpha_bar: float) -> torch.Tensor:
    """Stand for a model: the best guess of data that is N(0.3, 0.2^2)."""
    mean, variance = 0.3, 0.04
    gain = math.sqrt(alpha_bar) * variance / (alpha_bar * variance + 1 - alpha_bar)
    return mean + gain * (x - math.sqrt(alpha_bar) * mean)


SCHEDULES: dict[str, dict] = {
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "stable_diffusion": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}


def reference(
    solver: str, schedule: dict, bars: list[float], steps: int, x: torch.Tensor, grid: list[int]
) -> torch.Tensor:
    """Run diffusers' own scheduler over the same grid with the same model and noise."""
    options = {**schedule, "prediction_type": "sample"}
    if solver == "ddpm":
        scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small", **options)
        scheduler.set_timesteps(timesteps=grid)
    elif solver == "ddim":
        scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **options)
        scheduler.set_timesteps(steps)
        scheduler.timesteps = torch.tensor(grid)
    else:
        scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **options)
        scheduler.set_timesteps(timesteps=grid)
    generator = torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        model = predict_clean(x, bars[int(t)])
        x = scheduler.step(model, t, x, **({"generator": generator} if solver == "ddpm" else {})).prev_sample
    return x


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("strength", "steps"), [(1.0, 20), (0.5, 20), (0.8, 50), (0.5, 4)])
def test_solvers_equal_diffusers_on_the_same_grid(solver, strength, steps, schedule):
    options = SCHEDULES[schedule]
    bars = BARS if schedule == "cosine" else DDPMScheduler(**options).alphas_cumprod.tolist()
    grid = timestep_grid(strength, steps)
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    ours = denoise(
        x,
        [bars[t] for t in grid],
        lambda x, index: predict_clean(x, bars[grid[index]]),
        lambda: torch.randn(x.shape, generator=generator, dtype=torch.float64),
        solver,
    )
    assert ours == pytest.approx(reference(solver, options, bars, steps, x, grid), abs=2e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_reach_the_data_distribution(solver):
    grid = timestep_grid(1.0, 250)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20000, generator=generator, dtype=torch.float64)
    made = denoise(
        x,
        [BARS[t] for t in grid],
        lambda x, index: predict_clean(x, BARS[grid[index]]),
        lambda: torch.randn(x.shape, generator=generator, dtype=torch.float64),
        solver,
    )
    assert made.mean().item() == pytest.approx(0.3, abs=0.01)
    assert made.std().item() == pytest.approx(0.2, rel=0.05)
