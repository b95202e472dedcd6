"""Read the released weights of GLIDE's base model, which name their parameters as the reference implementation does."""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from gdacli.errors import GdaError
from gdacli.generators.glide.network import HEAD_WIDTH, Configuration, make_text_transformer, make_unet
from gdacli.generators.glide.text_transformer import TextTransformer

_ALLOWED = "allowed: the weights of GLIDE's base model (base.pt, or the same as .safetensors)"

_PLAIN = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {
    "group_norm": ("norm", 0, 1),
    "to_q": ("qkv", 0, 3),
    "to_k": ("qkv", 1, 3),
    "to_v": ("qkv", 2, 3),
    "add_k_proj": ("encoder_kv", 0, 2),
    "add_v_proj": ("encoder_kv", 1, 2),
    "to_out.0": ("proj_out", 0, 1),
}
"""Ours -> theirs, which part of it, of how many: theirs has the parts of a head side by side."""
_TEXT = {
    "attention_norm": "ln_1",
    "qkv": "attn.c_qkv",
    "attention_out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp_in": "mlp.c_fc",
    "mlp_out": "mlp.c_proj",
}

Part = tuple[str, int, int]
"""A parameter of the checkpoint, which of its parts, of how many."""


def read_checkpoint(
    path: Path, dtype: torch.dtype, head_width: int = HEAD_WIDTH
) -> tuple[UNet2DConditionModel, TextTransformer]:
    """Read the networks from a .pt file (never running its code) or a .safetensors file.

    Args:
        path: the file; float16 and float32 are alike.
        dtype: that the UNet gets; the text transformer has float32.
        head_width: of the attention, which the weights do not say; that of the released model.

    Raises:
        GdaError: it is no checkpoint, or one of another model.
    """
    return build(_read_tensors(path), path, dtype, head_width)


def build(
    weights: Mapping[str, torch.Tensor], path: Path, dtype: torch.dtype, head_width: int = HEAD_WIDTH
) -> tuple[UNet2DConditionModel, TextTransformer]:
    """Make the networks of the weights of a checkpoint; see `read_checkpoint`, `path` is for messages."""
    sizes = infer_sizes(weights, path, head_width)
    unet, text = _make(sizes)
    _check({name: tensor.shape for name, tensor in weights.items()}, checkpoint_shapes(sizes), path)
    for network, parts, kind in ((unet, _unet_parts(unet, sizes), dtype), (text, _text_parts(text), torch.float32)):
        state = {}
        for ours, like in network.state_dict().items():
            name, index, count = parts[ours]
            state[ours] = _take(weights[name].to(kind), index, count, head_width).reshape(like.shape)
        network.load_state_dict(state, assign=True)
        network.eval()
    return unet, text


def checkpoint_shapes(sizes: Configuration) -> dict[str, torch.Size]:
    """Return the names and shapes of the parameters of a checkpoint of these sizes."""
    unet, text = _make(sizes)
    shapes = {}
    for network, parts in ((unet, _unet_parts(unet, sizes)), (text, _text_parts(text))):
        for ours, like in network.state_dict().items():
            name, _, count = parts[ours]
            convolution = re.search(r"\.(qkv|encoder_kv|proj_out)\.weight$", name)  # of width 1; linear here
            shapes[name] = torch.Size([count * like.shape[0], *like.shape[1:], *([1] if convolution else [])])
    return shapes


def infer_sizes(weights: Mapping[str, torch.Tensor], path: Path, head_width: int = HEAD_WIDTH) -> Configuration:
    """Tell the sizes of a model from the shapes of its weights; `path` is for messages.

    Raises:
        GdaError: it is another kind of model.
    """
    outputs = _count(r"output_blocks\.(\d+)\.0\.in_layers", weights)
    levels = 1 + len({name for name in weights if re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.0\.bias", name)})
    each = outputs // levels
    try:
        firsts = [f"output_blocks.{each * level}" for level in reversed(range(levels))]
        channels = [len(weights[f"{first}.0.out_layers.3.bias"]) for first in firsts]
        attention = [f"{first}.1.qkv.bias" in weights for first in firsts]
        text_length, text_width = weights["positional_embedding"].shape
    except KeyError as error:
        raise GdaError(f"{path}: {len(weights)} parameters, none of them {error}; {_ALLOWED}") from error
    except (TypeError, ValueError) as error:
        raise GdaError(f"{path}: parameters of another form ({error}); {_ALLOWED}") from error
    attending = [text_width, channels[-1], *(width for width, has in zip(channels, attention, strict=True) if has)]
    if each < 2 or any(width % 32 for width in channels) or any(width % head_width for width in attending):
        raise GdaError(
            f"{path}: found levels of {channels} channels, attention at {attention}, a text width of {text_width}; "
            f"allowed: multiples of 32, of {head_width} where there is attention"
        )
    text_layers = _count(r"transformer\.resblocks\.(\d+)\.", weights)
    return Configuration(channels, attention, each - 1, text_length, text_width, text_layers, head_width)


def _unet_parts(unet: nn.Module, sizes: Configuration) -> dict[str, Part]:
    """Say for each parameter of `make_unet`'s network where a checkpoint holds it."""
    blocks = dict(_blocks(sizes))
    parts: dict[str, Part] = {}
    for ours in unet.state_dict():
        module, _, kind = ours.rpartition(".")  # weight or bias
        if module in _PLAIN:
            parts[ours] = f"{_PLAIN[module]}.{kind}", 0, 1
            continue
        block = next(block for block in blocks if module.startswith(f"{block}."))
        inner = module.removeprefix(f"{block}.")
        theirs, index, count = _ATTENTION[inner] if ".attentions." in block else (_RESNET[inner], 0, 1)
        parts[ours] = f"{blocks[block]}.{theirs}.{kind}", index, count
    return parts


def _text_parts(text: nn.Module) -> dict[str, Part]:
    """Say for each parameter of `make_text_transformer`'s network where a checkpoint holds it."""
    parts: dict[str, Part] = {}
    for ours in text.state_dict():
        match = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(\w+)", ours)
        theirs = f"transformer.resblocks.{match[1]}.{_TEXT[match[2]]}.{match[3]}" if match else ours
        theirs = theirs.replace("final_norm", "final_ln").replace("projection", "transformer_proj")
        parts[ours] = theirs, 0, 1
    return parts


def _blocks(sizes: Configuration) -> Iterator[tuple[str, str]]:
    """Pair diffusers' residual and attention blocks with those of a checkpoint, which numbers them through.

    Blocks that the model has not are named too; nothing asks for them.
    """
    levels, each = len(sizes.channels), sizes.blocks_per_level
    number = 1
    for level in range(levels):
        for block in range(each):
            yield f"down_blocks.{level}.resnets.{block}", f"input_blocks.{number}.0"
            yield f"down_blocks.{level}.attentions.{block}", f"input_blocks.{number}.1"
            number += 1
        yield f"down_blocks.{level}.downsamplers.0", f"input_blocks.{number}.0"
        number += 1
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
    number = 0
    for up, attends in enumerate(reversed(sizes.attention)):
        for block in range(each + 1):
            yield f"up_blocks.{up}.resnets.{block}", f"output_blocks.{number}.0"
            yield f"up_blocks.{up}.attentions.{block}", f"output_blocks.{number}.1"
            number += 1
        yield f"up_blocks.{up}.upsamplers.0", f"output_blocks.{number - 1}.{1 + attends}"


def _take(tensor: torch.Tensor, index: int, count: int, head_width: int) -> torch.Tensor:
    """Take one of `count` parts of a projection, from each head's rows."""
    return tensor if count == 1 else tensor.unflatten(0, (-1, count, head_width))[:, index].flatten(0, 1)


def _count(pattern: str, names: Mapping[str, torch.Tensor]) -> int:
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)


def _check(found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size], path: Path) -> None:
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shaped = [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = [
        f"{len(names)} parameters {problem} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, problem in ((missing, "missing"), (unexpected, "too many"), (shaped, "of another shape"))
        if names
    ]
    if problems:
        raise GdaError(f"{path}: {' and '.join(problems)}; {_ALLOWED}")


def _make(sizes: Configuration) -> tuple[UNet2DConditionModel, TextTransformer]:
    with torch.device("meta"):
        return make_unet(sizes), make_text_transformer(sizes)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"  # after the length of its header
        if is_safetensors:
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the protocol: what cannot be read is an error
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # How torch.load, with weights_only, refuses what is no plain tensor: nothing here unpickles. Its own text is
        # left out, because that tells how to run the code in the file.
        raise GdaError(f"{path}: damaged, or more than a mapping of names to tensors; {_ALLOWED}") from error
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GdaError(f"{path}: cannot be read ({type(error).__name__}: {reason}); {_ALLOWED}") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise GdaError(f"{path}: found no mapping of names to tensors; {_ALLOWED}")
    return dict(weights)
