"""A small class-conditional diffusion model in pixel space, trained on the train split alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from gdacli.denoiser import Condition, Denoiser, classifier_free, clip, compiled
from gdacli.errors import GdaError
from gdacli.prompts import readable
from gdacli.schedules import NUM_TRAIN_TIMESTEPS, NoiseSchedule, Timesteps, cosine_alpha_bars

VERSION = 1
OPTIONS = ()


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
    image_size: int,
    solver: str,
    num_inference_steps: int,
    guidance_scale: float,
    noise_schedule: NoiseSchedule,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    compile: bool,
) -> "ClassConditional":
    """Load what `fit` saved; see `gdacli.generators` for the arguments.

    Raises:
        GdaError: the model was trained on another number of classes or another image size.
    """
    unet = UNet2DModel.from_pretrained(
        folder / "unet", torch_dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False
    )
    unet.to(device=device, memory_format=memory_format).eval()
    known, size = unet.config.num_class_embeds - 1, unet.config.sample_size
    if known != len(class_names):
        raise GdaError(f"{folder}: the model knows {known} classes, the data has {len(class_names)}: run `gdacli fit`")
    if size != image_size:
        raise GdaError(f"{folder}: the model makes {size} pixels, the data has {image_size}: run `gdacli fit`")
    network = compiled(unet) if compile else unet

    def predict(noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        return network(noisy, times, *told, return_dict=False)[0]

    denoiser = Denoiser(
        predict=predict,
        schedule=Timesteps(cosine_alpha_bars(), noise_schedule),
        prediction_type="epsilon",
        threshold=clip,
        learned_variance=False,
        solver=solver,
        num_inference_steps=num_inference_steps,
        dtype=dtype,
        memory_format=memory_format,
    )
    return ClassConditional(denoiser, class_names, image_size, guidance_scale, device)


class ClassConditional:
    """The backend's `Generator`; pixels are their own latents, in [-1, 1]."""

    def __init__(
        self,
        denoiser: Denoiser,
        class_names: Sequence[str],
        image_size: int,
        guidance_scale: float,
        device: torch.device,
    ) -> None:
        self._denoiser, self._class_names = denoiser, class_names
        self._image_size, self._guidance_scale, self._device = image_size, guidance_scale, device

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Uint8 [B, 3, H, W] => float32 [B, 3, H, W] in [-1, 1]."""
        return _to_model(images.to(self._device))

    def generate(
        self, latents: torch.Tensor, labels: torch.Tensor, strength: float, seeds: Sequence[int]
    ) -> torch.Tensor:
        """Noise the images to `strength`, denoise with guidance; see `Generator.generate`.

        Source: targeted-augmentation paper, section 4.4 and Algorithm 1; classifier-free guidance on epsilon, x_0
        clipped to [-1, 1] (as in GLIDE's sampler).
        """
        labels = labels.to(self._device)
        null = torch.full_like(labels, len(self._class_names))
        guided = classifier_free((labels,), (null,), self._guidance_scale)
        made = self._denoiser(latents, *guided, strength, seeds)
        return ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def sample(self, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        """Make images from noise alone: strength 1 of a grey image, of which alpha_bar leaves nothing."""
        grey = torch.zeros(len(labels), 3, self._image_size, self._image_size, device=self._device)
        return self.generate(grey, labels, 1.0, seeds)

    def describe(self, label: int, strength: float, seed: int) -> dict[str, Any]:
        """See `Generator.describe`; the prompt is the class in words, which the class embedding stands for."""
        return {
            "prompt": readable(self._class_names[label]),
            "guidance_scale": float(self._guidance_scale),
            **self._denoiser.describe(strength),
        }


def _to_model(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1
