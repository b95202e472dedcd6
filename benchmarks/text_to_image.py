"""Images per second and peak memory of text-to-image models with random weights: `--models sd15 sdxl` on a GPU.

One batch of each model and size with the default solver at strength 0.5, without scoring and files; the first batch,
which chooses kernels, is not counted.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny_models import stable_diffusion
from tiny_pipelines import FAMILIES, SIZE, sdxl

from gdacli.compute import set_up
from gdacli.generators import backend
from gdacli.prompts import make_prompts

VAE = (128, 256, 512, 512)


def sd15(folder: Path) -> Path:
    """Stable Diffusion 1.5 in its sizes, but for the text encoder's depth."""
    return stable_diffusion(
        folder,
        size=512,
        unet_channels=(320, 640, 1280, 1280),
        vae_channels=VAE,
        text_width=768,
        layers_per_block=2,
        heads=8,
    )


def full_sdxl(folder: Path) -> Path:
    """Stable Diffusion XL in its sizes, but for the text encoders' depths."""
    return sdxl(
        folder,
        size=1024,
        unet_channels=(320, 640, 1280),
        vae_channels=VAE,
        widths=(768, 1280),
        projection=1280,
        layers_per_block=2,
        depths=(1, 2, 10),
        heads=(5, 10, 20),
        time_width=256,
    )


MODELS: dict[str, Callable[[Path], Path]] = {
    "tiny_sd": stable_diffusion,
    **{f"tiny_{name}": write for name, write in FAMILIES.items()},
    "sd15": sd15,
    "sdxl": full_sdxl,
}


def measure(model: Path, size: int, batch_size: int, device: torch.device, compile: bool) -> dict[str, Any]:
    gpu = device.type == "cuda"
    generator = backend("text_to_image", None).load(
        model,
        model=model,
        variant=None,
        lora=None,
        lora_scale=1.0,
        negative_prompt=None,
        native_size=size,
        safety_checker=False,
        cpu_offload=False,
        class_names=("disc",),
        image_size=size,
        solver="dpmsolver++",
        num_inference_steps=25,
        guidance_scale=3.0,
        noise_schedule="native",
        device=device,
        dtype=torch.bfloat16 if gpu else torch.float32,
        memory_format=torch.channels_last if gpu else torch.contiguous_format,
        compile=compile,
        prompts=make_prompts(("disc",), ["a photo of a {class_name}"], {}),
    )
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    labels, seeds = torch.zeros(batch_size, dtype=torch.int64), range(batch_size)
    seconds: dict[str, float] = {}
    for _ in range(2):  # the second counts
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        latents = generator.encode(images)
        latents.flatten()[0].item()
        encoded = time.perf_counter()
        generator.generate(latents, labels, 0.5, seeds).cpu()
        seconds = {"encode": encoded - start, "generate": time.perf_counter() - encoded}
    return {
        "size": size,
        "batch_size": batch_size,
        "num_steps": generator.describe(0, 0.5, 0)["num_steps"],
        "images_per_second": batch_size / sum(seconds.values()),
        "seconds": seconds,
        "peak_gpu_megabytes": torch.cuda.max_memory_allocated() / 1e6 if gpu else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[name for name in MODELS if "tiny" in name])
    parser.add_argument("--sizes", nargs="+", type=int, help="pixels of a side; 512 1024 for the models of full size")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    device, results = set_up(arguments.device, arguments.threads), {}
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as scratch:
            model = MODELS[name](Path(scratch) / "model")
            small = [16] if name == "tiny_if" else [SIZE]
            sizes = arguments.sizes or (small if name.startswith("tiny") else [512, 1024])
            results[name] = [
                measure(model, size, batch_size, device, arguments.compile)
                for size in sizes
                for batch_size in arguments.batch_sizes
            ]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for name, rows in results.items():
        for row in rows:
            peak = row["peak_gpu_megabytes"]
            print(
                f"{name:13} {row['size']:5} pixels, batches of {row['batch_size']:3}, {row['num_steps']} steps: "
                f"{row['images_per_second']:8.2f} images/s" + (f", peak {peak:.0f} MB" if peak else "")
            )


if __name__ == "__main__":
    main()
