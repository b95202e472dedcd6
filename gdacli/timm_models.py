"""What timm needs to know of our architectures, and what its own need to take images of another size.

Importing this module registers our architectures with timm, so that `timm.create_model("local-dir:<checkpoint>",
pretrained=True)` loads them too.
"""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention, PatchEmbed
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

from gdacli.architectures import ARCHITECTURES
from gdacli.errors import GdaError

OURS = (*ARCHITECTURES, "vit_patch4_768_d8")
"""The names of our architectures."""

_SMALL: dict[str, Any] = {
    "input_size": (3, 32, 32),
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "crop_pct": 1.0,
    "num_classes": 10,
}

_CONFIGS: dict[str, dict[str, Any] | PretrainedCfg] = {
    **{name: {**_SMALL, **architecture.pretrained_cfg} for name, architecture in ARCHITECTURES.items()},
    OURS[-1]: {**_SMALL, "fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head"},
}

default_cfgs = generate_default_cfgs(_CONFIGS)
"""In timm's form and under the name that timm looks for."""


@register_model
def convnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Make our `convnet`."""
    return _ours("convnet", pretrained, **kwargs)


@register_model
def preact_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Make our `preact_resnet18`."""
    return _ours("preact_resnet18", pretrained, **kwargs)


def _ours(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    if kwargs.get("in_chans", 3) != 3:
        raise TypeError(f"{name} takes images of 3 channels, found in_chans {kwargs['in_chans']}")
    return build_model_with_cfg(ARCHITECTURES[name], name, pretrained, kwargs_filter=("in_chans",), **kwargs)


@register_model
def vit_patch4_768_d8(pretrained: bool = False, head_width: int = 64, **kwargs: Any) -> VisionTransformer:
    """Make the ViT of the targeted-augmentation paper: hidden 768, depth 8, 8 heads, MLP 2304, patches of 4 pixels.

    Args:
        pretrained: as in timm.
        head_width: of each attention head; 64 is the cited code's, an inner width of 512; timm's own rule gives 96.
        kwargs: of timm's VisionTransformer.

    Source: targeted-augmentation paper, appendix F.1, and the code that it cites, lucidrains/vit-pytorch: no bias on
    queries, keys and values, each patch normalised before and after its embedding, weights as PyTorch makes them and
    positions from N(0, 1). Deviation: timm's names and layout of the tensors.
    """

    class WideHeads(Attention):
        def __init__(self, dim: int, **options: Any) -> None:
            super().__init__(dim, attn_head_dim=head_width, **options)

    args: dict[str, Any] = {
        "img_size": 32, "patch_size": 4, "embed_dim": 768, "depth": 8, "num_heads": 8, "mlp_ratio": 3.0,
        "qkv_bias": False, "norm_layer": nn.LayerNorm, "embed_layer": NormalisedPatchEmbed,
        "embed_norm_layer": nn.LayerNorm, "attn_layer": WideHeads,
        "weight_init": "reset",
    }  # fmt: skip
    name = "vit_patch4_768_d8"
    return build_model_with_cfg(
        _PaperViT, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, **{**args, **kwargs}
    )


class _PaperViT(VisionTransformer):
    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        super().init_weights(mode, needs_reset)
        for parameter in (self.pos_embed, self.cls_token):
            if parameter is not None:
                nn.init.normal_(parameter)


class NormalisedPatchEmbed(PatchEmbed):
    """timm's embedding of patches, with a layer norm over each patch's pixels in front."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pixel_norm = nn.LayerNorm(self.proj.weight[0].numel(), device=self.proj.weight.device)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] => [N, patches, D]."""
        pixels_NLP = F.unfold(x_NCHW, self.patch_size, stride=self.patch_size).transpose(1, 2)
        return self.norm(F.linear(self.pixel_norm(pixels_NLP), self.proj.weight.flatten(1), self.proj.bias))


def fitted_args(name: str, model_args: dict[str, Any], image_size: int) -> dict[str, Any]:
    """Return the arguments with which a timm model takes images of a size; those that are given stay as they are.

    - A model whose size is fixed when it is made (timm says `fixed_input_size`: ViT, Swin, Mixer...) gets `img_size`.
    - Swin gets `window_size`: the largest, up to that of its first stage, that divides the feature grid of every stage
      that is larger. If that is less than half of its own, it keeps its own, and timm pads the grid.
    - All else is the architecture's own: patches, stems, strides.

    Args:
        name: of a timm model.
        model_args: of the user.
        image_size: side in pixels.

    Raises:
        TypeError, ValueError, AssertionError: the architecture does not take an argument.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return dict(model_args)
    args = {"img_size": image_size, **model_args}
    if "window_size" in args:
        return args
    with torch.device("meta"):
        net: Any = timm.create_model(name, **{key: value for key, value in args.items() if key != "img_size"})
    windowed = isinstance(net, SwinTransformer | SwinTransformerV2)
    if not windowed or args["img_size"] == config.input_size[-1]:
        return args
    own = net.layers[0].blocks[0].window_size[0]
    grid = args["img_size"] // net.patch_embed.patch_size[0]
    window = dividing_window([grid >> stage for stage in range(len(net.layers))], own)
    return args if window is None or window == own else {**args, "window_size": window}


def dividing_window(grids: list[int], largest: int) -> int | None:
    """Return the largest window that divides every larger grid; None if it is less than half of `largest`.

    >>> dividing_window([8, 4, 2, 1], 7), dividing_window([56, 28, 14, 7], 7), dividing_window([11, 5, 2, 1], 7)
    (4, 7, None)
    """
    windows = range(largest, (largest - 1) // 2, -1)
    return next((w for w in windows if all(grid <= w or grid % w == 0 for grid in grids)), None)


def check_fit(net: nn.Module, name: str, image_size: int) -> None:
    """Check that a network takes images of a size, by showing it one.

    Raises:
        GdaError: it does not; the line says what to set.
    """
    patches = getattr(net, "patch_embed", None)
    patch = max(getattr(patches, "patch_size", None) or (1,))
    if image_size % patch and not getattr(patches, "dynamic_img_pad", False):
        raise GdaError(
            f"model: {name} cuts images into patches of {patch} x {patch} pixels, which does not go into "
            f"{image_size} x {image_size}: set model_args: {{patch_size: {_divisor(image_size, patch)}}}, or "
            f"image_size to a multiple of {patch}"
        )
    training = net.training
    try:
        with torch.no_grad():  # not inference_mode: some networks keep tensors of their first pass
            net.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GdaError(
            f"model: {name} does not fit images of {image_size} x {image_size} pixels ({reason[:200]}): "
            "set a larger image_size, other model_args, or name another model"
        ) from error
    net.train(training)


def _divisor(image_size: int, patch: int) -> int:
    return max(
        size for size in range(1, patch + 1) if image_size % size == 0 and (size <= image_size // 4 or size == 1)
    )
