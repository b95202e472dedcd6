"""The loop that backends share: noise latents to a strength and denoise them with guidance, one evaluation a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gdacli.diffusion import SOLVERS, Estimate, add_noise, denoise
from gdacli.errors import GdaError
from gdacli.schedules import Level, Schedule

PredictionType = Literal["epsilon", "v_prediction", "flow"]

Condition = tuple[torch.Tensor, ...]
"""What a network is told besides x and the time: tensors [B, ...]."""


@dataclass(frozen=True)
class Denoiser:
    """A network with its noise schedule and the settings of a run."""

    predict: Callable[[torch.Tensor, torch.Tensor, Condition], torch.Tensor]
    """(x [B, C, ...] at its own scale, times [B], condition) -> prediction [B, C, ...], [B, 2 C, ...] if it learned its
    variance."""
    schedule: Schedule
    prediction_type: PredictionType
    threshold: Callable[[torch.Tensor], torch.Tensor] | None
    """What each estimate of the clean image goes through: `clip` where it is known to lie in [-1, 1]."""
    learned_variance: bool
    solver: str
    num_inference_steps: int
    dtype: torch.dtype
    """The network's; noise and the solver's arithmetic are float32."""
    memory_format: torch.memory_format

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise GdaError(
                f"generate.solver: found {self.solver}; allowed for this model: {', '.join(SOLVERS)}; native is for "
                "those that text_to_image passes through to their own pipeline"
            )

    def __call__(
        self,
        latents: torch.Tensor,
        conditions: Sequence[Condition],
        guidance: Sequence[float],
        strength: float,
        seeds: Sequence[int],
    ) -> torch.Tensor:
        """Noise latents to a strength and denoise them.

        Args:
            latents: float32 [B, ...].
            conditions: what the network is told, evaluated as one batch; the last one is the base of guidance.
            guidance: a scale for each condition before the last: the prediction is that of the base and, times its
                scale, the difference of each other one from it. No scale: the only condition's own prediction.
            strength: in (0, 1].
            seeds: B seeds in [0, 2**63); a row's noise depends on its own alone.

        Returns:
            float32 [B, ...].

        Source: Ho and Salimans 2022, Eq. 6, on the prediction, in the form u + scale (c - u), so that 1 is none; with
        two scales Brooks et al. 2023, Eq. 3. A learned variance is that of the first condition.
        """
        levels = self.schedule.levels(strength, self.num_inference_steps)
        draw_noise = seeded_noise(latents, seeds)
        with torch.inference_mode():
            x = add_noise(latents, levels[0].alpha_bar, draw_noise())
            return self.run(x, levels, conditions, guidance, draw_noise)

    def run(
        self,
        x: torch.Tensor,
        levels: Sequence[Level],
        conditions: Sequence[Condition],
        guidance: Sequence[float],
        draw_noise: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """Denoise x, float [B, ...], noised to the first of `levels`; differentiable, for the rest see `__call__`."""
        told = tuple(torch.cat(parts) for parts in zip(*conditions, strict=True))
        times = torch.tensor([level.time for level in levels], device=x.device)
        times = times[:, None].repeat(1, len(x) * len(conditions))

        def estimate(x: torch.Tensor, index: int) -> Estimate:
            level = levels[index]
            noisy = (level.scale * x).to(self.dtype).contiguous(memory_format=self.memory_format)
            output = self.predict(torch.cat([noisy] * len(conditions)), times[index], told).to(x.dtype)
            prediction, variance = output.chunk(2, 1) if self.learned_variance else (output, None)
            *others, base = prediction.chunk(len(conditions))
            shifts = [scale * (other - base) for scale, other in zip(guidance, others, strict=True)]
            clean = self._clean(x, sum(shifts, start=base), level)
            if self.threshold is not None:
                clean = self.threshold(clean)
            return clean, None if variance is None else variance[: len(x)]

        return denoise(x, [level.alpha_bar for level in levels], estimate, draw_noise, self.solver)

    def describe(self, strength: float) -> dict[str, Any]:
        """Return what a sample's json says of the loop."""
        levels = self.schedule.levels(strength, self.num_inference_steps)
        return {
            "start_timestep": round(levels[0].time, 3),
            "num_steps": len(levels),
            "alpha_bar": round(levels[0].alpha_bar, 6),
            "solver": self.solver,
        }

    def _clean(self, x: torch.Tensor, prediction: torch.Tensor, level: Level) -> torch.Tensor:
        """Return the x_0 that a prediction means."""
        signal, noise = level.alpha_bar**0.5, (1 - level.alpha_bar) ** 0.5
        if self.prediction_type == "v_prediction":
            return signal * x - noise * prediction  # Salimans and Ho 2022, section 4
        if self.prediction_type == "flow":  # prediction: eps - x_0, along x at its own scale
            return level.scale * (x - noise * prediction)
        return (x - noise * prediction) / signal


def target(
    prediction_type: PredictionType, clean: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    """Return what a network is trained to predict of sqrt(alpha_bar) clean + sqrt(1 - alpha_bar) noise.

    Args:
        prediction_type: see PredictionType.
        clean, noise: float [B, ...], the clean latents or images and standard normal noise.
        alpha_bar: float [B, 1, ...] in [0, 1].

    Returns:
        Float [B, ...].

    Source: Ho et al. 2020, Eq. 14 (epsilon); Salimans and Ho 2022, section 4 (v); Liu et al. 2023, Eq. 1 (flow).
    """
    if prediction_type == "v_prediction":
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    return noise - clean if prediction_type == "flow" else noise


def classifier_free(condition: Condition, null: Condition, scale: float) -> tuple[list[Condition], list[float]]:
    """Return conditions and guidance for a `Denoiser`; scale 1 evaluates no unconditional half."""
    return ([condition], []) if scale == 1 else ([condition, null], [scale])


def clip(clean: torch.Tensor) -> torch.Tensor:
    """Clip an estimate of the clean image to [-1, 1]."""
    return clean.clamp(-1, 1)


def seeded_noise(like: torch.Tensor, seeds: Sequence[int]) -> Callable[[], torch.Tensor]:
    """Return a function that draws standard normal noise, float32 of the shape and on the device of `like`.

    Each row comes from its own generator, on the CPU, so that the noise is the same on every device.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw() -> torch.Tensor:
        noise = torch.empty(like.shape)
        for row, generator in zip(noise, generators, strict=True):
            row.normal_(generator=generator)
        return noise.to(like.device)

    return draw


def compiled(network: Callable[..., Any], field: str = "generate.compile") -> Callable[..., Any]:
    """Compile a network for the one shape that it gets; `field` is the parameter that asks for it.

    Raises:
        GdaError: from the first call on, if there is no working compiler.
    """
    from torch._dynamo.exc import TorchDynamoException

    torch.use_deterministic_algorithms(True, warn_only=True)  # tells the compiler too
    fast = torch.compile(network, dynamic=False)

    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return fast(*arguments, **keywords)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            raise GdaError(f"{field}: torch.compile failed: {reason}; set {field} to false") from error

    return call
