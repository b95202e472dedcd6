import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, LCMScheduler

from gdacli.diffusion import SOLVERS, add_noise, denoise
from gdacli.schedules import Timesteps, cosine_alpha_bars

BARS = cosine_alpha_bars()


def timestep_grid(strength: float, steps: int) -> list[int]:
    return [int(level.time) for level in Timesteps(BARS, "native").levels(strength, steps)]


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
    elif solver == "lcm":
        scheduler = LCMScheduler(clip_sample=False, **options)
        scheduler.set_timesteps(timesteps=grid)
    else:
        scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **options)
        scheduler.set_timesteps(timesteps=grid)
    generator = torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        model = predict_clean(x, bars[int(t)])
        x = scheduler.step(model, t, x, **({"generator": generator} if solver in ("ddpm", "lcm") else {})).prev_sample
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
        lambda x, index: (predict_clean(x, bars[grid[index]]), None),
        lambda: torch.randn(x.shape, generator=generator, dtype=torch.float64),
        solver,
    )
    assert ours == pytest.approx(reference(solver, options, bars, steps, x, grid), abs=2e-3)


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++"])  # lcm is for models that jump to the image
def test_solvers_reach_the_data_distribution(solver):
    grid = timestep_grid(1.0, 250)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20000, generator=generator, dtype=torch.float64)
    made = denoise(
        x,
        [BARS[t] for t in grid],
        lambda x, index: (predict_clean(x, BARS[grid[index]]), None),
        lambda: torch.randn(x.shape, generator=generator, dtype=torch.float64),
        solver,
    )
    assert made.mean().item() == pytest.approx(0.3, abs=0.01)
    assert made.std().item() == pytest.approx(0.2, rel=0.05)


def test_a_learned_variance_lies_between_the_posteriors_and_beta():
    """Nichol and Dhariwal 2021, Eq. 15: -1 is the posterior's variance, 1 is beta."""
    bars, x = [0.3, 0.6], torch.zeros(200_000)

    def spread(variance: float) -> float:
        generator = torch.Generator().manual_seed(0)
        seen: list[torch.Tensor] = []

        def estimate(now: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(now)
            return torch.zeros_like(now), torch.full_like(now, variance)

        denoise(x, bars, estimate, lambda: torch.randn(x.shape, generator=generator), "ddpm")
        return seen[1].var().item()

    posterior, beta = (1 - 0.5) * (1 - 0.6) / (1 - 0.3), 1 - 0.3 / 0.6
    assert spread(-1) == pytest.approx(posterior, rel=0.02)
    assert spread(1) == pytest.approx(beta, rel=0.02)
    assert spread(0) == pytest.approx(math.sqrt(posterior * beta), rel=0.02)
