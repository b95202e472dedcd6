"""GLIDE's base model: diffusers' `UNet2DConditionModel` as it is, and a text transformer."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffusers import UNet2DConditionModel

from gdacli.generators.glide.text_transformer import TextTransformer

SIZE = 64
"""Pixels of a side; the weights do not say it."""

HEAD_WIDTH = 64
"""Channels of an attention head of the released model, in the UNet and in the text transformer; not in the weights."""


@dataclass(frozen=True)
class Configuration:
    """The sizes of a model."""

    channels: Sequence[int]
    """Of the levels, each of half the pixels; multiples of 32."""
    attention: Sequence[bool]
    """Whether the blocks of a level have it; the middle has it always."""
    blocks_per_level: int
    text_length: int
    text_width: int
    text_layers: int
    head_width: int = HEAD_WIDTH


def make_unet(sizes: Configuration) -> UNet2DConditionModel:
    """Return the UNet, [B, 3, H, W] => [B, 6, H, W]: epsilon, then the channels of the learned variance.

    It is called with `encoder_hidden_states` [B, L, D] and `class_labels` [B, E] of the text transformer.

    Source: Nichol et al. 2021 (GLIDE); Dhariwal and Nichol 2021 (ADM), section 3. Text keys and values are put beside
    those of the pixels, scale and shift of the norm come from the time, residual blocks scale the image: in diffusers'
    terms the same blocks as DeepFloyd IF's.
    """
    down = ["SimpleCrossAttnDownBlock2D" if attends else "ResnetDownsampleBlock2D" for attends in sizes.attention]
    up = ["SimpleCrossAttnUpBlock2D" if attends else "ResnetUpsampleBlock2D" for attends in sizes.attention]
    return UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=6,
        down_block_types=tuple(down),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=tuple(reversed(up)),
        block_out_channels=tuple(sizes.channels),
        layers_per_block=sizes.blocks_per_level,
        attention_head_dim=sizes.head_width,
        cross_attention_dim=sizes.text_width,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    )


def make_text_transformer(sizes: Configuration) -> TextTransformer:
    """Return the transformer whose states and vector `make_unet`'s network takes."""
    return TextTransformer(
        sizes.text_length, sizes.text_width, sizes.text_layers, sizes.head_width, 4 * sizes.channels[0]
    )
