"""Images per second of this engine and of the loop that it replaces, interleaved in one run.

a: the loop that today's projects use: a diffusers image-to-image pipeline called per image, 100 ancestral steps
b: the same, batched
c: this engine with the same solver and steps: reading, encoding, denoising, scoring, PNG, finished shards
d: this engine with its default solver, 25 steps of dpmsolver++

on random-weight models: a small Stable Diffusion and the digits' class-conditional model; `--models sd15 pixel64` are
those of a GPU's size. Also the denoiser's share of the time, its floating point operations a second, and peak memory.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import DDPMScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel, UNet2DModel
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny_models import stable_diffusion

from gdacli.arms import PoolPlan
from gdacli.cli import app
from gdacli.engine import Engine
from gdacli.params import Params, load_params
from gdacli.paths import GENERATOR, PROBE, SOURCE
from gdacli.pool import ShardRequest, shards_of
from gdacli.prepared import Prepared, read_prepared
from gdacli.recipe import Recipe, read_recipe

STRENGTH, GUIDANCE, STEPS = 0.5, 3.0, 100
BASELINE = {"solver": "ddpm", "num_inference_steps": STEPS}
DEFAULT = {"solver": "dpmsolver++", "num_inference_steps": 25}

MODELS: dict[str, dict[str, Any]] = {
    "digits": {"image_size": 8, "channels": [16, 32]},
    "pixels": {"image_size": 64, "channels": [8, 8, 8]},
    "small_sd": {"image_size": 64, "sd": {"size": 64, "unet_channels": (32, 64)}},
    "pixel64": {"image_size": 64, "channels": [128, 256, 256, 512], "layers": 2},
    "sd15": {
        "image_size": 512,
        "sd": {
            "size": 512,
            "unet_channels": (320, 640, 1280, 1280),
            "vae_channels": (128, 256, 512, 512),
            "text_width": 768,
            "layers_per_block": 2,
            "heads": 8,
        },
    },
}


def project(folder: Path, name: str, batch_size: int, threads: int, device: str) -> Path:
    """Prepare the digits, a probe of one epoch and the model with random weights, by the commands."""
    model = MODELS[name]
    generate: dict[str, Any] = {"batch_size": batch_size, "guidance_scale": GUIDANCE}
    if "sd" in model:
        made = stable_diffusion(folder / "model", **model["sd"])
        generate |= {"backend": "text_to_image", "model": str(made)}
    params = {
        "data": {"source": "digits", "image_size": model["image_size"], "test_fraction": 0.5, "shard_size": 400},
        "compute": {"threads": threads, "device": device},
        "probe": {"model": "convnet", "epochs": 1},
        "fit": {"updates": 2, "batch_size": 4, "block_out_channels": model.get("channels", [8])}
        | ({"layers_per_block": model["layers"]} if "layers" in model else {}),
        "generate": generate,
        "train": {"model": "convnet"},
        "compare": {"arms": ["all"], "seeds": [0]},
        "arms": {"all": {"select": "all", "add": "synthetic", "strengths": [STRENGTH], "train": {}}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for command in ("prepare", "probe", "select", "fit"):
        with contextlib.redirect_stdout(sys.stderr):
            app([command, "-C", str(folder)], standalone_mode=False)
    return folder


def read_recipe_of(params: Params, prepared: Prepared, folder: Path) -> Recipe:
    return read_recipe(
        params.image_settings(),
        prepared,
        generators=folder / GENERATOR,
        probe=folder / PROBE,
        work=str(folder / "work"),
        **params.making(),
    )


def engine_of(folder: Path, settings: dict[str, Any]) -> tuple[Recipe, Engine, Callable[[int, int], ShardRequest]]:
    """Return an engine, and a function (number, round) that asks for a shard of images never made before."""
    params = load_params(folder, [f"generate.{key}={value}" for key, value in settings.items()])
    prepared = read_prepared(folder / SOURCE)
    recipe = read_recipe_of(params, prepared, folder)
    index = prepared.train_index()

    def ask(count: int, seed: int) -> ShardRequest:
        first = np.arange(len(index["key"])) < count
        shards = shards_of(
            prepared, PoolPlan({round(1000 * STRENGTH): first.astype(int)}, 0), settings=recipe.identity, seed=seed
        )
        return next(iter(shards))

    return recipe, Engine(recipe), ask


class Baseline:
    """What today's projects run: diffusers as its examples show it, PNG by Pillow."""

    def __init__(self, folder: Path, name: str, recipe: Recipe, device: torch.device) -> None:
        self._folder, self._recipe, self._device = folder, recipe, device
        prepared = read_prepared(folder / SOURCE)
        _, self._labels, arrays = prepared.load("train")
        self._images = [Image.fromarray(array.transpose(1, 2, 0)) for array in arrays[:256]]
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        if "sd" in MODELS[name]:
            self._pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
                recipe.model, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False
            ).to(device)
            self._pipeline.scheduler = DDPMScheduler.from_config(self._pipeline.scheduler.config)
            self._pipeline.set_progress_bar_config(disable=True)
            self._make = self._stable_diffusion
            self._size = MODELS[name]["sd"]["size"]
        else:
            self._unet = UNet2DModel.from_pretrained(
                folder / GENERATOR / "class_conditional" / "unet", torch_dtype=dtype, low_cpu_mem_usage=False
            ).to(device)
            self._make = self._class_conditional

    def __call__(self, count: int, batch_size: int) -> int:
        for start in range(0, count, batch_size):
            rows = range(start, min(start + batch_size, count))
            for row, image in zip(rows, self._make(list(rows)), strict=True):
                image.save(self._folder / f"baseline-{row}.png")
        return count

    def _stable_diffusion(self, rows: list[int]) -> list[Image.Image]:
        images = [self._images[row].resize((self._size, self._size), Image.Resampling.BICUBIC) for row in rows]
        made = self._pipeline(
            prompt=[f"a photo of {self._recipe.class_names[self._labels[row]]}" for row in rows],
            image=images,
            strength=STRENGTH,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(row) for row in rows],
        ).images
        return [image.resize(self._images[0].size, Image.Resampling.BICUBIC) for image in made]

    def _class_conditional(self, rows: list[int]) -> list[Image.Image]:
        """The loop of diffusers' examples for a UNet2DModel: there is no image-to-image pipeline for one."""
        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        scheduler.set_timesteps(STEPS)
        timesteps = scheduler.timesteps[-round(STEPS * STRENGTH) :]
        arrays = np.stack([np.asarray(self._images[row]).transpose(2, 0, 1) for row in rows])
        clean = torch.from_numpy(arrays).float().to(self._device) / 127.5 - 1
        generators = [torch.Generator().manual_seed(row) for row in rows]
        noise = torch.cat([torch.randn(1, *clean.shape[1:], generator=each) for each in generators]).to(self._device)
        x = scheduler.add_noise(clean, noise, timesteps[:1].repeat(len(rows)))
        classes = torch.from_numpy(self._labels[rows]).to(self._device)
        classes = torch.cat([classes, torch.full_like(classes, len(self._recipe.class_names))])
        with torch.inference_mode():
            for t in timesteps:
                both = torch.cat([x, x]).to(self._unet.dtype)
                conditional, unconditional = self._unet(both, t, class_labels=classes).sample.float().chunk(2)
                eps = unconditional + GUIDANCE * (conditional - unconditional)
                x = scheduler.step(eps, t, x, generator=torch.Generator().manual_seed(int(t))).prev_sample
            pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        return [Image.fromarray(array.transpose(1, 2, 0)) for array in pixels]


class DenoiserClock:
    """Adds up the time in the denoiser's forward pass."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0
        for kind in (UNet2DModel, UNet2DConditionModel):
            kind.forward = self._timed(kind.forward)

    def _timed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = now()
            result = forward(*arguments, **keywords)
            self.seconds += now() - start
            self.calls += 1
            return result

        return call

    def reset(self) -> None:
        self.seconds, self.calls = 0.0, 0


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(name: str, batch_size: int, rounds: int, alone: int, threads: int, device: str) -> dict[str, Any]:
    """Run a, b, c, d in turn, `rounds` times; returns images/s (medians), ratios and the denoiser's share."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch), name, batch_size, threads, device)
        recipe, ours, ask_ours = engine_of(folder, BASELINE)
        _, fast, ask_fast = engine_of(folder, DEFAULT)
        kind = ours.device
        baseline = Baseline(folder, name, recipe, kind)
        clock = DenoiserClock()
        count = 3 * batch_size // 2  # a shard is seldom a multiple of the batch

        def run_engine(engine: Engine, shard: ShardRequest) -> int:
            return sum(message[0] for message in engine.make([shard]) if message is not None)

        runs: dict[str, Callable[[int], int]] = {
            "a": lambda number: baseline(alone, 1),
            "b": lambda number: baseline(batch_size, batch_size),
            "c": lambda number: run_engine(ours, ask_ours(count, number)),
            "d": lambda number: run_engine(fast, ask_fast(count, number)),
        }
        rates: dict[str, list[float]] = {label: [] for label in runs}
        shares: dict[str, list[float]] = {label: [] for label in runs}
        for number in range(rounds + 1):  # the first round warms up
            for label, run in runs.items():
                clock.reset()
                start = now()
                made = run(number)
                elapsed = now() - start
                if number:
                    rates[label].append(made / elapsed)
                    shares[label].append(clock.seconds / elapsed)
        ratio = {
            label: statistics.median(x / a for x, a in zip(rates[label], rates["a"], strict=True)) for label in runs
        }
        result = {
            "images_per_second": {label: round(statistics.median(values), 3) for label, values in rates.items()},
            "ratios": {"batched": ratio["b"], "same_solver": ratio["c"], "default_solver": ratio["d"]},
            "denoiser_share": {label: statistics.median(values) for label, values in shares.items()},
            "rounds": rates,
            "batch_size": batch_size,
            "device": ours.environment,
        }
        result |= compute_rate(ours, ask_ours(batch_size, 10**6), batch_size, clock)
        if "sd" not in MODELS[name] or kind.type == "cuda":
            result["whole_run"] = whole_run(folder, clock, fast)
        if kind.type == "cuda":
            result["peak_gpu_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
        return result


def compute_rate(engine: Engine, shard: ShardRequest, batch_size: int, clock: DenoiserClock) -> dict[str, Any]:
    """Return the floating point operations per second in the denoiser, for comparison with the device's peak."""
    from torch.utils.flop_counter import FlopCounterMode

    def make() -> None:
        for _ in engine.make_images(shard.requests[:batch_size]):
            pass

    clock.reset()
    make()
    seconds, calls = clock.seconds, clock.calls
    with FlopCounterMode(display=False) as counter:
        make()
    modules = counter.get_flop_counts()
    operations = sum(sum(modules[name].values()) for name in ("UNet2DModel", "UNet2DConditionModel") if name in modules)
    return {"tflops_in_denoiser": operations / 1e12 / seconds, "denoiser_calls": calls, "denoiser_seconds": seconds}


def whole_run(folder: Path, clock: DenoiserClock, engine: Engine) -> dict[str, float]:
    """Run the stage `generate` with the default solver, publishing and all; returns the denoiser's share of its time.

    Loading the model is not part of it: it is done once for any number of images.
    """
    from gdacli.stages import generate

    here = Path.cwd()
    os.environ["GDACLI_WORK"] = str(folder / "whole")
    os.chdir(folder)
    try:
        params = load_params(Path(), [f"generate.{key}={value}" for key, value in DEFAULT.items()])
        start = now()
        _ = Engine(read_recipe_of(params, read_prepared(SOURCE), folder)).generator
        loading = now() - start
        clock.reset()
        start = now()
        made = generate.run(params)["run"]["made"]
        seconds = now() - start - loading
    finally:
        os.chdir(here)
    return {"images": made, "seconds": seconds, "denoiser_share": clock.seconds / seconds}


CHILD = """
import resource, sys
from gdacli.cli import app
app(["generate", "-C", sys.argv[1], *sys.argv[2:]], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(threads: int) -> dict[str, Any]:
    """Peak memory of `gdacli generate` on n and on 5 n images of 64 x 64 pixels, 12 kB each before encoding."""
    peaks: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = project(Path(scratch), "pixels", 64, threads, "cpu")
        for strengths in ("[0.1]", "[0.1,0.101,0.102,0.103,0.104]"):
            environment = {**os.environ, "GDACLI_WORK": str(folder / f"work{len(peaks)}")}
            overrides = ["-S", f"arms.all.strengths={strengths}", "-S", "generate.num_inference_steps=10"]
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(folder), *overrides],
                capture_output=True, text=True, check=True, env=environment,
            )  # fmt: skip
            *_, said, peak = done.stdout.splitlines()
            peaks.append({"images": int(said.split()[0]), "peak_megabytes": int(peak) / 1024})
    pixels = (peaks[1]["images"] - peaks[0]["images"]) * 3 * MODELS["pixels"]["image_size"] ** 2 / 1e6
    growth = peaks[1]["peak_megabytes"] - peaks[0]["peak_megabytes"]
    return {"runs": peaks, "growth_megabytes": growth, "pixels_of_the_further_images_megabytes": pixels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["digits", "small_sd"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=4, help="images that loop a makes a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak", type=float, help="the device's peak in TFLOP/s, to compare with")
    parser.add_argument("--no-memory", action="store_true", help="leave out the runs that measure peak memory")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    result: dict[str, Any] = {
        name: measure(
            name, arguments.batch_size, arguments.rounds, arguments.alone, arguments.threads, arguments.device
        )
        for name in arguments.models
    }
    result |= {
        "ratios": {
            kind: min(result[name]["ratios"][kind] for name in arguments.models)
            for kind in ("same_solver", "default_solver")
        },
        "denoiser_share": min(result[name]["denoiser_share"]["d"] for name in arguments.models),
    }
    if not arguments.no_memory:
        result["memory"] = memory(arguments.threads)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name in arguments.models:
        row = result[name]
        for label, about in zip("abcd", ("loop", "batched", "engine", "engine, 25 steps"), strict=True):
            print(
                f"{name:10} {label} {about:16} {row['images_per_second'][label]:9.2f} images/s, "
                f"denoiser {100 * row['denoiser_share'][label]:.0f} %"
            )
        print(
            f"{name:10} ratios to a: same solver {row['ratios']['same_solver']:.1f}, default solver "
            f"{row['ratios']['default_solver']:.1f}; {row['tflops_in_denoiser']:.3f} TFLOP/s in the denoiser"
            + (f", {100 * row['tflops_in_denoiser'] / arguments.peak:.0f} % of the peak" if arguments.peak else "")
        )
        if "whole_run" in row:
            print(
                "{:10} the whole stage, {images} images: {seconds:.1f} s, {share:.0f} % of it in the denoiser".format(
                    name, **row["whole_run"], share=100 * row["whole_run"]["denoiser_share"]
                )
            )
    for run in result.get("memory", {}).get("runs", []):
        print("{images:6} images of 64 x 64: peak {peak_megabytes:.0f} MB".format(**run))


if __name__ == "__main__":
    main()
