"""The denoiser's architecture: a U-Net in pixel space, with self-attention at the resolutions that are named."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel

from gdacli.denoiser import Condition, Denoiser, PredictionType, clip
from gdacli.diffusers_layout import read_timesteps
from gdacli.errors import GdaError
from gdacli.schedules import NoiseSchedule, Timesteps, cosine_alpha_bars

_GROUPS = 8  # of group normalisation


def make_network(
    size: int,
    num_classes: int | None,
    *,
    block_out_channels: Sequence[int],
    layers_per_block: int,
    attention_resolutions: Sequence[int],
    attention_head_dim: int,
    dropout: float,
) -> UNet2DModel:
    """Make the network with random weights, of torch's global generator.

    Args:
        size: pixels of a side; divisible by 2 per level after the first.
        num_classes: of the data, to which the null class is added; None makes an unconditional network.
        block_out_channels: per level, from the finest; each a multiple of 8.
        layers_per_block: residual layers per level.
        attention_resolutions: sides in pixels at which a level has self-attention; the middle block always has.
        attention_head_dim: channels of an attention head.
        dropout: within the residual layers.

    Raises:
        GdaError: the levels do not fit the size, or attention does not fit the levels.

    Source: Ho et al. 2020, appendix B (residual layers, attention at 16 x 16, dropout); attention at 16 and 8 and heads
    of 64 channels: Nichol and Dhariwal 2021, section 2; Dhariwal and Nichol 2021, section 3.
    """
    levels = len(block_out_channels)
    if size % 2 ** (levels - 1):
        raise GdaError(
            f"fit.block_out_channels: {levels} levels halve {size} pixels {levels - 1} times, which leaves a fraction: "
            "use fewer levels or another data.image_size"
        )
    sides = [size // 2**level for level in range(levels)]
    for resolution in attention_resolutions:
        if resolution not in sides:
            raise GdaError(
                f"fit.attention_resolutions: found {resolution}; {levels} levels of {size} pixels have the sides "
                f"{', '.join(map(str, sides))}: name some of these"
            )
    attended = [
        channels for side, channels in zip(sides, block_out_channels, strict=True) if side in attention_resolutions
    ]
    for channels in {*attended, block_out_channels[-1]}:
        if channels % attention_head_dim:
            raise GdaError(
                f"fit.attention_head_dim: found {attention_head_dim}, which does not divide the {channels} channels of "
                "a level with attention (the last level always has it): name a divisor (8, 32, 64)"
            )
    kinds = ["Attn" if side in attention_resolutions else "" for side in sides]
    return UNet2DModel(
        sample_size=size,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        num_class_embeds=None if num_classes is None else num_classes + 1,
        norm_num_groups=_GROUPS,
        attention_head_dim=attention_head_dim,
        dropout=dropout,
    )


def load_network(
    folder: Path, *, class_names: Sequence[str], image_size: int, dtype: torch.dtype
) -> tuple[UNet2DModel, PredictionType]:
    """Load what `fit` saved: the network in eval mode, and what it predicts.

    Raises:
        GdaError: the model was trained on another number of classes or another image size.
    """
    unet = UNet2DModel.from_pretrained(
        folder / "unet", torch_dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False
    )
    embedded, size = unet.config.num_class_embeds, unet.config.sample_size
    if embedded is not None and embedded - 1 != len(class_names):
        raise GdaError(
            f"{folder}: the model knows {embedded - 1} classes, the data has {len(class_names)}: run `gdacli fit`"
        )
    if size != image_size:
        raise GdaError(f"{folder}: the model makes {size} pixels, the data has {image_size}: run `gdacli fit`")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    return unet.eval(), read_timesteps(scheduler, f"{folder}/scheduler")[1]


def make_denoiser(
    unet: UNet2DModel,
    evaluate: Callable[..., Any],
    *,
    prediction_type: PredictionType,
    noise_schedule: NoiseSchedule,
    **settings: Any,
) -> Denoiser:
    """Return the loop over a network; each estimate of the clean image is clipped to [-1, 1].

    Args:
        unet: in its dtype.
        evaluate: how it is called: the network itself, or something that calls it.
        prediction_type: what it predicts.
        noise_schedule: what a strength means.
        settings: as of `Denoiser`.
    """
    conditional = unet.config.num_class_embeds is not None

    def predict(noisy: torch.Tensor, times: torch.Tensor, told: Condition) -> torch.Tensor:
        return evaluate(noisy, times, *(told if conditional else (None,)), return_dict=False)[0]

    return Denoiser(
        predict=predict,
        schedule=Timesteps(cosine_alpha_bars(), noise_schedule),
        prediction_type=prediction_type,
        threshold=clip,
        learned_variance=False,
        dtype=unet.dtype,
        **settings,
    )
