"""Random-weight models in the real on-disk layout: tiny for tests, larger for benchmarks."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, LCMScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel

from gdacli.generators.glide.checkpoint import checkpoint_shapes
from gdacli.generators.glide.network import Configuration

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WORDS = ("a", "photo", "of", "disc", "ring", "shape", "square")


def stable_diffusion(
    folder: Path,
    *,
    size: int = 64,
    unet_channels: Sequence[int] = (16, 32),
    vae_channels: Sequence[int] = (8, 8, 8, 8),
    text_width: int = 32,
    layers_per_block: int = 1,
    heads: int = 4,
    unet_in_channels: int = 4,
    prediction_type: str = "epsilon",
    guidance_width: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a Stable Diffusion 1.x with random weights, the same for the same seed, and return its folder.

    Args:
        folder: gets the layout that diffusers' pipelines save and read.
        size: pixels of a side; latents are smaller by 2 for each of the `vae_channels` after the first.
        unet_channels: per level; every level but the last has cross attention. Multiples of 8.
        vae_channels: per level, multiples of 4.
        text_width: of the text encoder; a multiple of 4.
        layers_per_block: of the UNet and the VAE.
        heads: of the UNet's attention (which diffusers calls attention_head_dim); divides the `unet_channels`.
        unet_in_channels: 4, or 8 for a model that also sees an image.
        prediction_type: epsilon or v_prediction.
        guidance_width: of the guidance that a consistency model (LCM) is told; None is no such model.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    levels = len(unet_channels)
    unet = UNet2DConditionModel(
        sample_size=size // 2 ** (len(vae_channels) - 1),
        in_channels=unet_in_channels,
        block_out_channels=tuple(unet_channels),
        layers_per_block=layers_per_block,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        cross_attention_dim=text_width,
        attention_head_dim=heads,
        norm_num_groups=8,
        time_cond_proj_dim=guidance_width,
    )
    vae = tiny_vae(size, vae_channels, layers_per_block=layers_per_block)
    vocabulary = write_tokenizer(folder / "tokenizer")
    text_encoder = CLIPTextModel(text_config(vocabulary, text_width))
    scheduler = PNDMScheduler(prediction_type=prediction_type, skip_prk_steps=True, steps_offset=1, **BETAS)
    if guidance_width is not None:
        scheduler = LCMScheduler(prediction_type=prediction_type, **BETAS)
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder, "scheduler": scheduler}
    name = "StableDiffusionPipeline" if guidance_width is None else "LatentConsistencyModelPipeline"
    return write_pipeline(folder, name, parts, tokenizer="CLIPTokenizer", safety_checker=None, feature_extractor=None)


def tiny_vae(size: int, channels: Sequence[int], *, layers_per_block: int = 1, **config: Any) -> AutoencoderKL:
    """Return a VAE of random weights; see `stable_diffusion`."""
    return AutoencoderKL(
        sample_size=size,
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=layers_per_block,
        norm_num_groups=4,
        **{"latent_channels": 4, **config},
    )


def text_config(vocabulary: dict[str, int], width: int, **config: Any) -> CLIPTextConfig:
    """Return the config of a small CLIP text encoder; real ones have two numbers for padding and the end of a text."""
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=len(vocabulary) - 2,
        eos_token_id=len(vocabulary) - 1,
        pad_token_id=1,
        **config,
    )


def write_pipeline(folder: Path, kind: str, parts: dict[str, Any], **others: Any) -> Path:
    """Write the parts and the index of a pipeline, as diffusers lays them out.

    Args:
        folder: in which the tokenizers are already.
        kind: the pipeline's class.
        parts: by name, to be saved.
        others: of the index: the tokenizers' classes, None for a part that is left out, or values.
    """
    index: dict[str, Any] = {"_class_name": kind}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        library = type(part).__module__.split(".")
        home = library[2] if library[1] == "pipelines" else library[0]
        index[name] = [home, type(part).__name__]
    for name, value in others.items():
        plain = isinstance(value, bool)
        index[name] = value if plain else [None if value is None else "transformers", value]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def instruct_pix2pix(folder: Path, *, size: int = 16, seed: int = 0) -> Path:
    """Write an InstructPix2Pix with random weights and return its folder.

    Args:
        folder: as for `stable_diffusion`, of which it is one whose UNet also takes the latents of an image.
        size: pixels of a side, a multiple of 8.
        seed: of the weights.
    """
    stable_diffusion(folder, size=size, vae_channels=(8, 8, 8), unet_in_channels=8, seed=seed)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionInstructPix2PixPipeline", "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP model of images and texts with random weights, in transformers' layout, and return its folder."""
    torch.manual_seed(seed)
    vocabulary = write_tokenizer(folder, exist_ok=True)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={"vocab_size": len(vocabulary), **sizes, **ends},
        vision_config={"image_size": 32, "patch_size": 8, **sizes},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def glide(folder: Path, *, name: str = "base.pt", dtype: torch.dtype = torch.float32) -> Path:
    """Write a checkpoint of GLIDE with made-up weights, laid out as the released one, and return the file.

    Args:
        folder: gets the file.
        name: of the file; one that ends in .safetensors is written as such.
        dtype: of the weights; the released ones are float32 or float16.
    """
    sizes = Configuration(
        channels=(32, 32, 64),
        attention=(False, False, True),
        blocks_per_level=1,
        text_length=16,
        text_width=64,
        text_layers=1,
    )
    weights = {key: tensor.to(dtype) for key, tensor in made_up_weights(checkpoint_shapes(sizes)).items()}
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(weights, folder / name)
    else:
        torch.save(weights, folder / name)
    return folder / name


def made_up_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return weights that depend on their names and shapes alone; the golden numbers of GLIDE were made with these."""
    weights = {}
    for name, shape in shapes.items():
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        values = rng.standard_normal(tuple(shape)).astype(np.float32) * np.float32(0.08)
        is_scale = name.endswith("weight") and len(shape) == 1
        weights[name] = torch.from_numpy(1 + values if is_scale else values)
    return weights


def write_tokenizer(folder: Path, exist_ok: bool = False) -> dict[str, int]:
    """Write CLIP's byte-level BPE with the merges that spell WORDS; the files are named and laid out as CLIP's."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [256 + number for number in range(256 - len(printable))]  # GPT-2's stand-ins for the other bytes
    characters = [chr(code) for code in printable + others]
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = None
            pieces[:2] = ["".join(pieces[:2])]
    tokens = characters + [character + "</w>" for character in characters] + ["".join(pair) for pair in merges]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=exist_ok)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>") | {"bos_token": "<|startoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"add_prefix_space": False, "errors": "replace", **config})
    )
    return vocabulary
