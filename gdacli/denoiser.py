"""The loop that backends share: noise latents to a strength and denoise them with guidance, one evaluation a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gdacli.diffusion import add_noise, denoise, start_timestep, timestep_grid
from gdacli.errors import GdaError

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Denoiser:
    """A network with its noise schedule and the settings of a run."""

    network: Callable[..., tuple[torch.Tensor, ...]]
    """(noisy [B, ...], timesteps int64 [B], condition [B, ...], return_dict=False) -> (prediction [B, ...],)."""
    alpha_bars: Sequence[float]
    """Of the timesteps 0 .. T-1."""
    prediction_type: PredictionType
    clip: bool
    """Whether the clean image is known to lie in [-1, 1], so that each estimate of it is clipped there."""
    solver: str
    num_inference_steps: int
    guidance_scale: float
    dtype: torch.dtype
    """The network's; noise and the solver's arithmetic are float32."""
    memory_format: torch.memory_format

    def __call__(
        self, latents: torch.Tensor, condition: torch.Tensor, null: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise latents to a strength and denoise them.

        Args:
            latents: float32 [B, ...].
            condition: [B, ...], what the network is told of each row.
            null: [...], what it is told instead for the unconditional half of guidance.
            strength: in (0, 1].
            seeds: B seeds in [0, 2**63); a row's noise depends on its own alone.

        Returns:
            float32 [B, ...].

        Source: Ho and Salimans 2022, Eq. 6, on the prediction, in the form u + scale (c - u), so that 1 is none.
        """
        grid = timestep_grid(strength, self.num_inference_steps)
        levels = [self.alpha_bars[t] for t in grid]
        guided = self.guidance_scale != 1
        told = torch.cat([condition, null.expand_as(condition)]) if guided else condition
        timesteps = torch.tensor(grid, device=latents.device)[:, None].repeat(1, len(told))
        draw_noise = seeded_noise(latents, seeds)

        def predict_clean(x: torch.Tensor, index: int) -> torch.Tensor:
            noisy = x.to(self.dtype).contiguous(memory_format=self.memory_format)
            noisy = torch.cat([noisy, noisy]) if guided else noisy
            prediction = self.network(noisy, timesteps[index], told, return_dict=False)[0].float()
            if guided:
                conditional, unconditional = prediction.chunk(2)
                prediction = unconditional + self.guidance_scale * (conditional - unconditional)
            signal, noise = levels[index] ** 0.5, (1 - levels[index]) ** 0.5
            if self.prediction_type == "v_prediction":
                clean = signal * x - noise * prediction  # Salimans and Ho 2022, section 4
            else:
                clean = (x - noise * prediction) / signal
            return clean.clamp(-1, 1) if self.clip else clean

        with torch.inference_mode():
            x = add_noise(latents, levels[0], draw_noise())
            return denoise(x, levels, predict_clean, draw_noise, self.solver)

    def describe(self, strength: float) -> dict[str, Any]:
        """Return what a sample's json says of the loop."""
        start = start_timestep(strength)
        return {
            "start_timestep": start,
            "num_steps": len(timestep_grid(strength, self.num_inference_steps)),
            "alpha_bar": round(self.alpha_bars[start], 6),
            "solver": self.solver,
            "guidance_scale": float(self.guidance_scale),
        }


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
