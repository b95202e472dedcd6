"""Images per second of every backend and family of models, on tiny models with random weights.

Each row: 16 images of 16 x 16 pixels at strength 0.5, with 10 steps of dpmsolver++ at strength 1, guidance 3, in
float32 on the CPU; rounds interleaved. The models are those of the tests, each at its own tiny native size: rows say
that each runs and what the code around the networks costs, not which model is faster.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny_models import glide, instruct_pix2pix, stable_diffusion
from tiny_pipelines import FAMILIES, SIZE, stable_diffusion_3

from gdacli.generators import Generator, backend
from gdacli.prompts import make_prompts

CLASSES = ("disc", "ring", "square")
BATCH, STRENGTH = 16, 0.5
COMMON: dict[str, Any] = {
    "class_names": CLASSES,
    "image_size": 16,
    "solver": "dpmsolver++",
    "num_inference_steps": 10,
    "guidance_scale": 3.0,
    "noise_schedule": "native",
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "memory_format": torch.contiguous_format,
    "compile": False,
}
PROMPTS = {"prompts": make_prompts(CLASSES, ["a photo of {class_name}"], {})}
TEXT_TO_IMAGE: dict[str, Any] = {
    **PROMPTS,
    "variant": None,
    "lora": None,
    "lora_scale": 1.0,
    "negative_prompt": None,
    "native_size": None,
    "safety_checker": True,
    "cpu_offload": False,
}


def class_conditional(folder: Path) -> Generator:
    from gdacli.generators.class_conditional import fit, load

    images, labels = torch.randint(0, 256, (BATCH, 3, 16, 16), dtype=torch.uint8), torch.arange(BATCH) % 3
    fit(
        images,
        labels,
        num_classes=3,
        updates=1,
        batch_size=4,
        lr=1e-3,
        ema_decay=0.9,
        class_dropout=0.1,
        block_out_channels=[16, 16],
        layers_per_block=1,
        flip=False,
        seed=0,
        folder=folder,
        on_update=lambda updates, loss: None,
    )
    return load(folder, **COMMON)


def text_to_image(write: Callable[[Path], Path], **options: Any) -> Callable[[Path], Generator]:
    def make(folder: Path) -> Generator:
        model = write(folder / "model")
        return backend("text_to_image", None).load(folder, model=model, **COMMON | TEXT_TO_IMAGE | options)

    return make


def glide_base(folder: Path) -> Generator:
    return backend("glide", None).load(folder, model=glide(folder), native_size=None, **COMMON, **PROMPTS)


def diffusemix(folder: Path) -> Generator:
    options = {"native_size": None, "image_guidance_scale": 1.5, "fractals": None, "fractal_weight": 0.2}
    model = instruct_pix2pix(folder / "model")
    return backend("diffusemix", None).load(folder, model=model, **options, **COMMON, **PROMPTS)


MAKERS: dict[str, Callable[[Path], Generator]] = {
    "class_conditional": class_conditional,
    "glide": glide_base,
    "diffusemix": diffusemix,
    "text_to_image: sd": text_to_image(stable_diffusion),
    **{
        f"text_to_image: {name}": text_to_image(write, **({"native_size": SIZE} if name.startswith("flux") else {}))
        for name, write in FAMILIES.items()
    },
    "text_to_image: sd3, passed through": text_to_image(stable_diffusion_3, solver="native"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, labels = torch.randint(0, 256, (BATCH, 3, 16, 16), dtype=torch.uint8), torch.arange(BATCH) % 3
    seconds: dict[str, list[float]] = {name: [] for name in MAKERS}
    with tempfile.TemporaryDirectory() as folder:
        generators = {name: make(Path(folder) / str(number)) for number, (name, make) in enumerate(MAKERS.items())}
        for round_number in range(-1, arguments.rounds):  # the first one warms up
            for name, generator in generators.items():
                begun = time.perf_counter()
                generator.generate(generator.encode(images), labels, STRENGTH, range(BATCH))
                if round_number >= 0:
                    seconds[name].append(time.perf_counter() - begun)
        rows = [
            {
                "backend": name,
                "images_per_second": round(BATCH / statistics.median(seconds[name]), 1),
                **generators[name].describe(0, STRENGTH, 0),
            }
            for name in MAKERS
        ]
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{'backend':36}{'images/s':>10}{'native':>8}{'steps':>7}{'start':>8}{'alpha_bar':>11}")
    for row in rows:
        native, start = row.get("native_size", COMMON["image_size"]), row["start_timestep"]
        print(
            f"{row['backend']:36}{row['images_per_second']:>10}{native:>8}{row['num_steps']:>7}"
            f"{start:>8.0f}{row['alpha_bar']:>11.3f}"
        )


if __name__ == "__main__":
    main()
