"""`gdacli fit`: train an embedded generator on the train split alone, or pin a pretrained one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdacli.artifacts import new_directory, new_file, require, sha256_file, write_json
from gdacli.console import say
from gdacli.fitted import fit_progress, forward_dtype
from gdacli.gan_section import ALSO_OF_GAN, GAN
from gdacli.generators import EMBEDDED, backend, backend_facts
from gdacli.params import Params
from gdacli.paths import FIT_NEAREST, FIT_SAMPLES, GENERATOR, PLOTS, PROBE, SOURCE
from gdacli.prepared import Prepared, read_prepared
from gdacli.prompts import make_prompts
from gdacli.rng import digest
from gdacli.tables import write_csv
from gdacli.training_store import TrainingStore, copy_files
from gdacli.weights import PIN, locate_pinned, pin_files

if TYPE_CHECKING:
    import torch

    from gdacli.gauge import Gauge
    from gdacli.lora_section import Lora

VERSION = 2

_FIT_VERSION = 1
"""Of what a training does; a higher one trains again."""
_COURSE = "course"
_LORA = "lora"
_SHEETS = (FIT_SAMPLES, FIT_NEAREST)
_SAMPLING = {"solver": "dpmsolver++", "num_inference_steps": 25, "guidance_scale": 1.0, "noise_schedule": "native"}
"""Of the samples that are measured: the model's own distribution, which guidance would narrow."""


def run(params: Params) -> dict[str, Any]:
    """Write `data/generator/<backend>`; returns how good its samples are, or what was pinned."""
    prepared = read_prepared(SOURCE)
    prepared.square_size()
    if params.generate.backend not in EMBEDDED:
        return _pin(params, prepared)
    return _fit(params, prepared)


def _fit(params: Params, prepared: Prepared) -> dict[str, Any]:
    """Train the backend's model, or take a finished one from the work directory, and measure it.

    A training that was killed goes on from its saved state; torch is loaded only where something is missing.
    """
    files = [require(PROBE / name, "gdacli probe") for name in ("model.safetensors", "config.json")]
    probe = [*map(sha256_file, files), version("timm")]
    store = TrainingStore(_identity(params, probe), params.fit.save_seconds)
    measured = f"quality-{digest(VERSION, probe, params.fit.check_images)[:16]}"
    sheets = [store.folder / f"{measured}-{path.name}" for path in _SHEETS]  # kept with the figures that they show
    output = GENERATOR / params.generate.backend
    with store.locked():
        finished, course, quality = store.finished(), store.figures(_COURSE), store.figures(measured)
        gauge = None
        if finished is None or course is None or quality is None:
            from gdacli.compute import set_up

            device = set_up(params.compute.device, params.compute.threads)
            gauge = _gauge(params, prepared, device)
        if finished is not None and course is not None:
            say(f"fit: was finished before, taken from {finished}")
            with new_directory(output) as folder:
                copy_files(finished, folder)
        elif gauge is not None:
            course = _train(params, prepared, store, gauge, device)
            store.keep_figures(_COURSE, course)
            store.finish(output)
        if gauge is not None:
            quality = _measure(params, prepared, gauge, device, sheets)
            store.keep_figures(measured, quality)
        for sheet, path in zip(sheets, _SHEETS, strict=True):
            if sheet.exists():  # else it was said why not
                with new_file(path) as temporary:
                    shutil.copyfile(sheet, temporary)
    write_csv(PLOTS / "fit.csv", ["updates", "loss"], course["losses"])
    write_csv(PLOTS / "fit_quality.csv", ["updates", "frechet_distance"], course["checks"])
    figures = {key: course[key] for key in ("updates", "kept_update")}
    return {
        "backend": params.generate.backend,
        **figures,
        "loss": _last(course["losses"]),
        **quality,
        "run": {"training_seconds": store.seconds()},
    }


def _identity(params: Params, probe: list[str]) -> str:
    """Return the hash of all that determines a fit's weights and its curve, but for the kind of machine."""
    fit, backend_name = params.fit, params.generate.backend
    return digest(
        "fit" if backend_name == EMBEDDED[0] else f"fit {backend_name}",
        _FIT_VERSION,
        sha256_file(require(SOURCE / "dataset.json", "gdacli prepare")),
        fit.of_weights(backend_name),
        probe if fit.check_every is not None else None,  # checks see through its eyes
        params.compute.device,
        params.compute.threads,
        [version(name) for name in ("torch", "diffusers", "pillow")],
    )


def _gauge(params: Params, prepared: Prepared, device: torch.device) -> Gauge:
    """Make what samples are measured with: held-out images and the probe's features."""
    import numpy as np

    from gdacli.features import array_features
    from gdacli.gauge import Gauge
    from gdacli.held_out import hold_out
    from gdacli.models import load_checkpoint

    probe = load_checkpoint(PROBE).to(device).eval()

    def embed(images: np.ndarray) -> np.ndarray:
        return array_features(probe, images)

    fit = params.fit
    train, validation = prepared.load("train")[1:], prepared.load("validation")[1:]
    return Gauge(
        held_out=hold_out(train, validation, embed, num_images=fit.check_images, seed=fit.seed),
        embed=embed,
        train_labels=train[0],
        train_images=train[1],
        class_names=prepared.class_names if fit.conditional else [],
        mirrored=_training(params)["flip"],
        seed=fit.seed,
    )


def _train(
    params: Params, prepared: Prepared, store: TrainingStore, gauge: Gauge, device: torch.device
) -> dict[str, Any]:
    """Train and write the weights; returns how it went."""
    import torch

    model, fit, state, note = backend(params.generate.backend, None), params.fit, store.load(), ""
    options = _training(params)
    if params.generate.backend == GAN:
        also = ", ".join(sorted(ALSO_OF_GAN))
        say(f"fit: a gan takes fit.gan and, of the rest of fit, save_seconds, {also}; nothing else has a say")
    else:
        options["dtype"] = _dtype(params, device)
    if fit.patience is not None and gauge.held_out.split == "train":
        say(
            "note: fit.patience: there is no validation split, so the checks are against train images, which a model "
            "that repeats them passes: set data.validation_fraction (0.1)"
        )
    with (
        new_directory(GENERATOR / params.generate.backend) as folder,
        fit_progress(options["updates"], state) as advance,
    ):

        def check(network: Any, update: int) -> float:
            nonlocal note
            torch.nn.Module.to(network, _dtype(params, device))  # that of diffusers warns
            generator = model.of_network(
                network,
                class_names=prepared.class_names,
                prediction_type=fit.prediction_type,
                **_sampling(device),
                compile=False,
            )
            distance = gauge.check(generator, FIT_SAMPLES)
            note = f", Fréchet distance {distance:.4g} after update {update}"
            return distance

        fitted = model.fit(
            torch.from_numpy(gauge.train_images).to(device),
            torch.from_numpy(gauge.train_labels).to(device),
            num_classes=prepared.num_classes,
            folder=folder,
            on_update=lambda update, loss: advance(update, loss, note),
            check=check,
            state=state,
            keeper=store,
            **options,
        )
        if fitted.updates < options["updates"]:
            say(
                f"fit: stopped after update {fitted.updates}: {fit.patience} checks without a better Fréchet distance; "
                f"kept the weights of update {fitted.kept_update}"
            )
    return {
        "updates": fitted.updates,
        "kept_update": fitted.kept_update,
        "losses": fitted.losses,
        "checks": fitted.checks,
    }


def _measure(
    params: Params, prepared: Prepared, gauge: Gauge, device: torch.device, sheets: Sequence[Path]
) -> dict[str, Any]:
    """Measure what was published, through the door that `generate` takes."""
    generator = backend(params.generate.backend, None).load(
        GENERATOR / params.generate.backend,
        class_names=prepared.class_names,
        image_size=prepared.square_size(),
        device=device,
        dtype=_dtype(params, device),
        compile=False,
        **_sampling(device),
    )
    return gauge.quality(generator, *sheets)


def _sampling(device: torch.device) -> dict[str, Any]:
    import torch

    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return {**_SAMPLING, "memory_format": layout}


def _training(params: Params) -> dict[str, Any]:
    return params.fit.of_training(params.generate.backend)


def _dtype(params: Params, device: torch.device) -> torch.dtype:
    """Return that of the forward pass; a gan has float32."""
    return forward_dtype("float32" if params.generate.backend == GAN else params.fit.dtype, device)


def _pin(params: Params, prepared: Prepared) -> dict[str, Any]:
    """Write down which files the settings name, so that `generate` notices other ones; fine-tune the model if asked."""
    generate = params.generate
    output = GENERATOR / generate.backend
    kind = backend_facts(generate.backend).model
    pins = pin_files(generate.named_files(), generate.revision, generate.variant, generate.checks_safety(), kind)
    figures: dict[str, Any] = {"updates": 0}
    losses: list[list[float]] = []
    if params.fit.lora is None:
        with new_directory(output) as folder:
            write_json(folder / PIN, pins)
    else:
        losses = _fine_tune(params, params.fit.lora, prepared, pins, output)
        figures = {"updates": params.fit.lora.updates, "loss": _last(losses)}
    write_csv(PLOTS / "fit.csv", ["updates", "loss"], losses)
    write_csv(PLOTS / "fit_quality.csv", ["updates", "frechet_distance"], [])
    return {"backend": generate.backend, **figures, "files": pins}


def _fine_tune(params: Params, lora: Lora, prepared: Prepared, pins: dict[str, Any], output: Path) -> list[list[float]]:
    """Train low-rank layers, or take finished ones from the work directory; returns [update, loss] each.

    What was killed goes on from its saved state.
    """
    identity = digest(
        "lora",
        _FIT_VERSION,
        sha256_file(require(SOURCE / "dataset.json", "gdacli prepare")),
        lora.model_dump(mode="json"),
        params.fit.dtype,
        pins["model"]["sha256"],
        params.compute.device,
        params.compute.threads,
        [version(name) for name in ("torch", "diffusers", "transformers", "peft", "pillow")],
    )
    store = TrainingStore(identity, params.fit.save_seconds)
    with store.locked():
        finished, losses = store.finished(), store.figures(_COURSE)
        with new_directory(output) as folder:
            write_json(folder / PIN, pins)
            if finished is not None and losses is not None:
                say(f"fit: was finished before, taken from {finished}")
                copy_files(finished / _LORA, folder / _LORA)
                return losses
            losses = _train_lora(params, lora, prepared, locate_pinned(pins)["model"], store, folder / _LORA)
        store.keep_figures(_COURSE, losses)
        store.finish(output)
    return losses


def _train_lora(
    params: Params, lora: Lora, prepared: Prepared, model: Path, store: TrainingStore, folder: Path
) -> list[list[float]]:
    import torch

    from gdacli.compute import set_up
    from gdacli.generators.text_to_image import fine_tune

    device = set_up(params.compute.device, params.compute.threads)
    _, labels, images = prepared.load("train")
    state = store.load()
    with fit_progress(lora.updates, state) as on_update:
        return fine_tune(
            model,
            torch.from_numpy(images).to(device),
            torch.from_numpy(labels).to(device),
            prompts=make_prompts(prepared.class_names, lora.templates(), {}),
            variant=params.generate.variant,
            dtype=_dtype(params, device),
            folder=folder,
            on_update=on_update,
            keeper=store,
            state=state,
            **lora.of_training(),
        )


def _last(losses: list[list[float]]) -> float:
    """Return the mean over the last tenth of a curve."""
    tail = [loss for _, loss in losses[-max(1, len(losses) // 10) :]]
    return sum(tail) / len(tail)


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    output = GENERATOR / result["backend"]
    if "files" in result:
        named = [
            f"{pin['name']}{' at ' + pin['commit'] if pin['commit'] else ''} ({pin['sha256'][:16]})"
            for pin in result["files"].values()
        ]
        files = ", ".join(named) or "no files"
        if result["updates"]:
            done = f"{result['updates']} updates of low-rank layers beside {files}, last loss {result['loss']:.4f}"
            return f"{result['backend']}: {done} -> {output}"
        return f"{result['backend']}: nothing to fit; takes {files} -> {output}"
    kept = f", kept those of update {result['kept_update']}" if result["kept_update"] != result["updates"] else ""
    return (
        f"{result['backend']}: {result['updates']} updates{kept}, last loss {result['loss']:.4f}, Fréchet distance "
        f"{result['frechet_distance']:.4g} to {result['num_samples']} {result['measured_against']} images (of other "
        f"real images: {result['real_frechet_distance']:.4g}); {_about_memory(result['memorisation'])} -> {output}"
    )


def _about_memory(found: dict[str, Any]) -> str:
    """Say how many samples are nearer to a train image than real images are."""
    shares = " and ".join(f"{100 * each['nearer_share']:.1f} % by {name}" for name, each in found.items())
    suspect = any(each["suspect"] for each in found.values())
    verdict = f"perhaps memorised: see {FIT_NEAREST}" if suspect else "no more than chance"
    return f"nearer to a train image than 99 % of real images are {shares} ({verdict})"
