"""A small class-conditional diffusion model in pixel space, trained on the train split alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from gdacli.diffusion import (
    NUM_TRAIN_TIMESTEPS,
    add_noise,
    cosine_alpha_bars,
    denoise,
    start_timestep,
    timestep_grid,
)
from gdacli.errors import GdaError
from gdacli.prompts import readable


def fit(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_classes: int,
    updates: int,
    batch_size: int,
    lr: float,
    ema_decay: float,
    class_dropout: float,
    block_out_channels: Sequence[int],
    layers_per_block: int,
    flip: bool,
    seed: int,
    folder: Path,
    on_update: Callable[[int, float], None],
) -> None:
    """Train the denoiser and save its averaged weights in diffusers' layout.

    Args:
        images: uint8 [N, 3, H, W] on the device to train on; H is divisible by 2 per level after the first.
        labels: int64 [N].
        class_dropout: share of each batch that gets the null class, so that guidance has its unconditional half.
        folder: gets `unet/` and `scheduler/`.
        on_update: called with the number of updates done and the loss (mean squared error of the noise).

    Raises:
        GdaError: the image size does not fit the levels, or the loss is not a number.

    Source: Ho et al. 2020 (loss), Nichol and Dhariwal 2021 (cosine schedule), Ho and Salimans 2022 (null class).
    """
    size, levels = images.shape[2], len(block_out_channels)
    if size % 2 ** (levels - 1):
        raise GdaError(
            f"fit.block_out_channels: {levels} levels halve {size} pixels {levels - 1} times, which leaves a fraction: "
            "use fewer levels or another data.image_size"
        )
    torch.manual_seed(seed)
    unet = UNet2DModel(
        sample_size=size,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        num_class_embeds=num_classes + 1,
        norm_num_groups=8,
        attention_head_dim=8,
    ).to(images.device)
    unet.train()
    ema = EMAModel(unet.parameters(), decay=ema_decay, use_ema_warmup=True, power=3 / 4)
    optimizer = torch.optim.AdamW(unet.parameters(), lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    alpha_bars = torch.tensor(cosine_alpha_bars(), dtype=torch.float32)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (update + 1) / 100, (updates - update) / (0.2 * updates))
        batch = torch.randint(len(images), (batch_size,), generator=generator)
        t = torch.randint(NUM_TRAIN_TIMESTEPS, (batch_size,), generator=generator)
        noise = torch.randn(batch_size, *images.shape[1:], generator=generator).to(images.device)
        dropped = torch.rand(batch_size, generator=generator) < class_dropout
        mirrored = (torch.rand(batch_size, generator=generator) < 0.5 * flip).to(images.device)
        classes = labels[batch.to(images.device)].masked_fill(dropped.to(images.device), num_classes)
        clean = _to_model(images[batch.to(images.device)])
        clean = torch.where(mirrored[:, None, None, None], clean.flip(3), clean)
        level = alpha_bars[t].to(images.device)[:, None, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        loss = F.mse_loss(unet(noisy, t.to(images.device), class_labels=classes).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        ema.step(unet.parameters())
        if (update + 1) % 50 == 0 or update + 1 == updates:
            if not torch.isfinite(loss):
                raise GdaError(f"fit: the loss is no longer a number after update {update + 1}: lower fit.lr")
            on_update(update + 1, loss.item())
    ema.copy_to(unet.parameters())
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(NUM_TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "scheduler")


def load(
    folder: Path,
    *,
    class_names: Sequence[str],
    solver: str,
    num_inference_steps: int,
    guidance_scale: float,
    device: torch.device,
) -> "ClassConditional":
    """Load what `fit` saved.

    Raises:
        GdaError: the model was trained on another number of classes.
    """
    unet = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, low_cpu_mem_usage=False).to(device).eval()
    known = unet.config.num_class_embeds - 1
    if known != len(class_names):
        raise GdaError(f"{folder}: the model knows {known} classes, the data has {len(class_names)}: run `gdacli fit`")
    return ClassConditional(unet, class_names, solver, num_inference_steps, guidance_scale)


class ClassConditional:
    """The backend's `Generator`; pixels are their own latents, in [-1, 1]."""

    def __init__(
        self,
        unet: UNet2DModel,
        class_names: Sequence[str],
        solver: str,
        num_inference_steps: int,
        guidance_scale: float,
    ) -> None:
        self._unet, self._class_names = unet, class_names
        self._solver, self._num_inference_steps, self._guidance_scale = solver, num_inference_steps, guidance_scale
        self._alpha_bars = cosine_alpha_bars()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, 3, H, W] in [-1, 1]."""
        return _to_model(images.to(self._unet.device))

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise the images to `strength`, denoise with guidance; see `Generator.generate`.

        Source: targeted-augmentation paper, section 4.4 and Algorithm 1; classifier-free guidance on epsilon, x_0
        clipped to [-1, 1] (as in GLIDE's sampler).
        """
        grid = timestep_grid(strength, self._num_inference_steps)
        levels = [self._alpha_bars[t] for t in grid]
        draw_noise = self._noise(latents, seeds)
        x = add_noise(latents, levels[0], draw_noise())
        classes = labels.to(latents.device)
        null = torch.full_like(classes, len(self._class_names))

        def predict_clean(x: torch.Tensor, index: int) -> torch.Tensor:
            t = torch.full((len(x),), grid[index], device=x.device)
            eps = self._unet(x, t, class_labels=classes).sample
            if self._guidance_scale != 1:
                unconditional = self._unet(x, t, class_labels=null).sample
                eps = unconditional + self._guidance_scale * (eps - unconditional)
            return ((x - (1 - levels[index]) ** 0.5 * eps) / levels[index] ** 0.5).clamp(-1, 1)

        with torch.inference_mode():
            x = denoise(x, levels, predict_clean, draw_noise, self._solver)
            return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of a grey image, of which alpha_bar leaves nothing."""
        size = self._unet.config.sample_size
        grey = torch.zeros(len(labels), 3, size, size, device=self._unet.device)
        return self.generate(grey, labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`; the prompt is the class in words, which the class embedding stands for."""
        start = start_timestep(strength)
        return {
            "prompt": readable(self._class_names[label]),
            "start_timestep": start,
            "num_steps": len(timestep_grid(strength, self._num_inference_steps)),
            "alpha_bar": round(self._alpha_bars[start], 6),
            "solver": self._solver,
            "guidance_scale": float(self._guidance_scale),
        }

    def _noise(self, latents: torch.Tensor, seeds: Sequence[int]) -> Callable[[], torch.Tensor]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = latents.shape[1:]

        def draw() -> torch.Tensor:
            return torch.stack([torch.randn(shape, generator=each) for each in generators]).to(latents.device)

        return draw


def _to_model(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1
