"""`gdacli evaluate`: compare every arm on the test split, say whether it helped, and write the report."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.appraisal import appraise, load_judge, settings_of
from gdacli.arm_descriptions import describe, main_arm, real_alone
from gdacli.arm_results import (
    Effort,
    Predictions,
    arm_result,
    beside_objective,
    compare_arms,
    errors_without,
    pair_arms,
)
from gdacli.arms import Arm
from gdacli.artifacts import new_directory, read_json, require, write_json
from gdacli.checksums import verify_folder
from gdacli.compute import set_up
from gdacli.console import progress, say
from gdacli.course import Course, make_judge, training_course
from gdacli.errors import GdaError
from gdacli.evidence import judge_pool, look_for_copies, looking, pool_references
from gdacli.feature_map import check_method
from gdacli.features import load_feature_model
from gdacli.galleries import copies_side_by_side, dropped_images, late_learned, nearest_neighbours, suspects
from gdacli.histories import mean_history, read_history
from gdacli.live import LiveGenerator, live_for
from gdacli.loading import ImageSource, open_images
from gdacli.metrics import error_rate
from gdacli.models import Classifier, load_checkpoint
from gdacli.objective_sections import SEARCHING
from gdacli.params import Params
from gdacli.paths import (
    EVALUATION,
    GENERATOR,
    METRICS,
    PLOTS,
    PROBE,
    REJECTS,
    SELECTION,
    SOURCE,
    SYNTHETIC,
    TRAIN,
    mix_file,
    run_name,
)
from gdacli.pools import check_mix, read_pools
from gdacli.prepared import Prepared, read_prepared
from gdacli.provenance import out_of_date, read_provenance, without_folders
from gdacli.rejects import read_left_out
from gdacli.replays import GradientRow, gradient_rows
from gdacli.report import Report
from gdacli.report_pages import render_html, render_markdown
from gdacli.report_tables import write_plots, write_tables
from gdacli.robustness import Robustness, check_size, choose_images, measure_robustness
from gdacli.selection import is_late
from gdacli.tables import read_table, write_table
from gdacli.training import predict
from gdacli.training_store import TrainingStore, training_identity
from gdacli.trainings import Training, added_images, open_training

VERSION = 6

_CORRUPTION_SEED = 0
_SECTIONS_SHOWN = ("compute", "probe", "select", "fit", "generate", "train", "evaluate", "compare")


def run(params: Params) -> dict[str, Any]:
    """Write `data/evaluation`; returns errors per arm over seeds and paired differences to the references."""
    arms, seeds = params.compared_arms(), params.compare.seeds
    rejects = read_left_out(REJECTS)
    for name in arms:
        for seed in seeds:
            require(TRAIN / run_name(name, seed) / "model.safetensors", f"gdacli train --arm {name} --seed {seed}")
        _check_current(params, name, seeds, rejects)
    _name_leftovers(arms, seeds)
    prepared = read_prepared(SOURCE)
    split = params.evaluate.split
    if split == "validation":
        prepared.require_validation("evaluate.split: found validation")
    device = set_up(params.compute.device, params.compute.threads)
    model = _feature_model(params, prepared)
    check_method(params.evaluate.feature_map)
    if params.evaluate.corruption_images:
        for name in arms:
            check_size(prepared.training_size(params.train_of(name).image_size, "train.image_size"))
    keys, labels = prepared.keys(split), prepared.labels(split)

    @cache
    def images(size: int | None) -> ImageSource:
        size = prepared.training_size(size, "train.image_size")
        reading = {**params.train.of_loading(), "random_resized_crop": None}
        return open_images(prepared.references(split), image_size=size, device=device, **reading)

    late = _late_learned(images, labels, device)
    predictions, columns = _predict(params, images, keys, labels, device)
    efforts = {name: _effort(params, name) for name in arms}
    objectives = {name: params.train_of(name).objective for name in arms}
    originals, about = real_alone(arms, objectives), main_arm(arms, objectives)
    pairs = pair_arms({name: beside_objective(effort.settings) for name, effort in efforts.items()}, originals)
    selection = read_json(require(SELECTION / "selection.json", "gdacli select"))
    pool = read_pools(arms.values())
    manifest = read_json(SYNTHETIC / "manifest.json") if SYNTHETIC.exists() else {}
    look, features = looking(params.train.of_loading(), device), (params.evaluate.features, model)
    judge = load_judge(prepared, [run_name(name, seeds[0]) for name in originals])
    cleanliness = look_for_copies(prepared, split, pool, model, **look)
    report = Report(
        class_names=prepared.class_names,
        seeds=seeds,
        split=split,
        num_train=prepared.splits["train"].count,
        num_images=len(labels),
        num_late=int(late.sum()),
        arms=[
            arm_result(
                name,
                describe(arm, selection["arms"].get(name, {}).get("count"), params.arms[name].train),
                predictions[name],
                labels,
                late,
                prepared.num_classes,
                efforts[name],
            )
            for name, arm in arms.items()
        ],
        main_arm=about,
        comparisons=compare_arms(predictions, labels, pairs),
        selection=selection,
        curves={name: mean_history([TRAIN / run_name(name, seed) / "history.csv" for seed in seeds]) for name in arms},
        probe_curve=read_history(PROBE / "curve.csv"),
        gallery=late_learned(arms, prepared, pool, prepared.training_size(params.probe.image_size, "probe.image_size")),
        dropped_images=dropped_images(),
        neighbours=nearest_neighbours(prepared, pool),
        pool=judge_pool(prepared, pool, features, judge[0], method=params.evaluate.feature_map, **look)
        if pool["key"]
        else None,
        cleanliness=cleanliness,
        copies=copies_side_by_side(cleanliness, prepared, split, pool),
        without_copies=errors_without(predictions, labels, cleanliness.compared()["split_train"].rows),
        robustness=_robustness(params, images, keys, labels),
        gradient_variance=_gradient_variance(params, prepared, device),
        courses=_courses(params, prepared, pool, model, device),
        suspects=suspects(prepared),
        pool_size=len(pool["key"]),
        dropped=manifest.get("dropped", {}),
        rejects=rejects,
        num_rejected=len(rejects.keys() & set(pool["key"])),
        provenance=read_provenance(arms, seeds, manifest, sorted({*pool["pool"]} - {""})),
        train=without_folders(params.train.of_weights()),
        settings=_settings(params, arms),
        figures=appraise(
            prepared,
            pool,
            features,
            judge,
            cleanliness,
            settings=settings_of(arms, objectives, params.generate.backend, params.generate.guidance_scale),
            **look,
        ),
        best_epochs=any(params.train_of(name).checkpoint == "best" for name in arms),
        has_pipeline=Path("dvc.yaml").exists(),
    )
    with new_directory(EVALUATION) as folder:
        write_table(folder / "predictions.parquet", columns)
        write_json(folder / "results.json", report.to_json())
        (folder / "report.md").write_text(render_markdown(report), encoding="utf-8")
        (folder / "report.html").write_text(render_html(report), encoding="utf-8")
        write_tables(folder, report)
    write_plots(PLOTS, report)
    run = {"headline": report.headline(), "results": str(EVALUATION / "results.json")}
    return report.to_metrics() | {"run": {**run, "training_seconds": {name: _seconds(name, seeds) for name in arms}}}


def summary(result: dict[str, Any]) -> str:
    """Show the report's tables, what each arm's trainings took here, and where the report is."""
    text = (EVALUATION / "report.md").read_text(encoding="utf-8")
    known = {name: each for name, each in result["run"]["training_seconds"].items() if each is not None}
    took = ", ".join(f"{name} {each:.1f}" for name, each in known.items())
    return text + (f"\nseconds a training: {took}\n" if took else "") + f"\nreport: {EVALUATION / 'report.html'}"


def _check_current(params: Params, arm: str, seeds: list[int], rejects: Iterable[str]) -> None:
    """Refuse to report a training that is damaged, of another mix or of other settings, or a mix of another pool."""
    path = require(mix_file(arm), f"gdacli mix --arm {arm}")
    for seed in seeds:
        folder = TRAIN / run_name(arm, seed)
        again = f"run `gdacli train --arm {arm} --seed {seed}`"
        require(folder / "provenance.json", f"gdacli train --arm {arm} --seed {seed}")
        if damaged := verify_folder(folder):
            raise GdaError(f"{damaged[0].file}: {damaged[0].problem}: {again}, or `dvc checkout --force {folder}`")
        if why := out_of_date(folder, path, params.train_of(arm).of_weights()):
            raise GdaError(f"{folder} {why}: {again}")
    check_mix(path, params.arm(arm).pool, rejects)


def _name_leftovers(arms: dict[str, Arm], seeds: list[int]) -> None:
    listed = {run_name(name, seed) for name in arms for seed in seeds}
    left = sorted(
        path.name for path in TRAIN.iterdir() if path.is_dir() and path.name not in listed and path.name[0] != "."
    )
    if left:
        say(f"note: {', '.join(left)} in {TRAIN} are not in compare and not evaluated; `gdacli clean` removes them")


def _late_learned(images: Callable[[int | None], ImageSource], labels: np.ndarray, device: torch.device) -> np.ndarray:
    probe = load_checkpoint(require(PROBE, "gdacli probe")).to(device)
    with np.load(require(SELECTION / "centroids.npz", "gdacli select"), allow_pickle=False) as file:
        return is_late(predict(probe, images(probe.image_size).in_order()).numpy(), labels, file["centroids"])


def _predict(
    params: Params,
    images: Callable[[int | None], ImageSource],
    keys: list[str],
    labels: np.ndarray,
    device: torch.device,
) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Run every model; returns each arm's predictions, and the columns of `predictions.parquet`."""
    predictions = {}
    arms, seeds = params.compare.arms, params.compare.seeds
    with progress("evaluate", len(arms) * len(seeds), "models") as advance:
        for name in arms:
            classes, confidence = [], []
            for seed in seeds:
                model = load_checkpoint(TRAIN / run_name(name, seed)).to(device)
                probabilities = predict(model, images(model.image_size).in_order()).softmax(1).numpy()
                guess = probabilities.argmax(1)
                classes.append(guess)
                confidence.append(probabilities.max(1))
                advance(note=f"{run_name(name, seed)}: {error_rate(guess, labels):.2f} %")
            predictions[name] = Predictions(np.stack(classes), np.stack(confidence))
    runs = len(arms) * len(seeds)
    columns = {
        "key": keys * runs,
        "label": np.tile(labels, runs),
        "arm": [name for name in arms for _ in range(len(seeds) * len(keys))],
        "seed": np.tile(np.repeat(seeds, len(keys)), len(arms)),
        "prediction": np.concatenate([each.classes.ravel() for each in predictions.values()]),
        "confidence": np.concatenate([each.confidence.ravel() for each in predictions.values()]),
    }
    return predictions, columns


def _feature_model(params: Params, prepared: Prepared) -> Classifier:
    model = load_feature_model(params.evaluate.features, params.evaluate.features_weights, PROBE)
    model.image_size = prepared.training_size(model.image_size, "probe.image_size")
    return model


def _robustness(
    params: Params,
    images: Callable[[int | None], ImageSource],
    keys: list[str],
    labels: np.ndarray,
) -> list[Robustness]:
    """Test every model on corrupted images; nothing if that is off."""
    if not params.evaluate.corruption_images:
        return []
    runs = [(name, seed) for name in params.compare.arms for seed in params.compare.seeds]
    models = {run: load_checkpoint(TRAIN / run_name(*run)) for run in runs}
    rows = choose_images(keys, labels, params.evaluate.corruption_images, _CORRUPTION_SEED)
    return measure_robustness(models, images, keys, labels, rows=rows, seed=_CORRUPTION_SEED)


def _gradient_variance(params: Params, prepared: Prepared, device: torch.device) -> dict[str, list[GradientRow]]:
    """Measure it along each arm's training with the first seed; nothing if it is off."""
    num_batches, found = params.evaluate.gradient_variance, {}
    if num_batches is None:
        return {}
    for name in params.compare.arms:
        _, store, folder, start = _first_training(params, prepared, name, device)
        found[name] = gradient_rows(folder.name, store, folder, num_batches, start)
    return found


def _courses(
    params: Params, prepared: Prepared, pool: dict[str, Any], model: Classifier, device: torch.device
) -> dict[str, Course]:
    """See what happens in each arm's training with the first seed, where synthetic images are at hand, or if asked."""
    asked = params.evaluate.course
    if asked is None:
        return {}
    look, train = looking(params.train.of_loading(), device), prepared.references("train")
    synthetic = pool_references(pool) if pool["key"] else None
    found = {}
    for name in params.compare.arms:
        live, store, folder, start = _first_training(params, prepared, name, device)
        objective, stored = params.train_of(name).objective, None
        if objective in ("cross_entropy", "real_consistency"):
            stored = added_images(mix_file(name), name) or synthetic
            if stored is None:
                continue
        searches = objective in SEARCHING and live is not None
        found[name] = training_course(
            folder.name,
            store,
            folder,
            start,
            **asked.model_dump(),
            method=params.evaluate.feature_map,
            train=train,
            stored=stored,
            judge=make_judge(model, train, asked.num_images, **look) if searches else None,
            reading={"device": device, **look["reading"]},
        )
    return found


def _first_training(
    params: Params, prepared: Prepared, arm: str, device: torch.device
) -> tuple[LiveGenerator | None, TrainingStore, Path, Callable[[], Training]]:
    """Return an arm's training with the first seed: its generator, its store, its folder, and what starts it again."""
    train, mix, seed = params.train_of(arm), mix_file(arm), params.compare.seeds[0]
    live = live_for(train.objective, mix, params.image_settings(), GENERATOR, prepared)
    identity = training_identity(
        SOURCE / "dataset.json",
        mix,
        train.of_weights(),
        seed,
        live.identity if live is not None else None,
        device=params.compute.device,
        threads=params.compute.threads,
    )
    settings = train.of_weights(), train.of_loading(), train.of_loop()
    start = partial(open_training, prepared, arm, mix, seed, device, *settings, live=live)
    return live, TrainingStore(identity, train.save_seconds), TRAIN / run_name(arm, seed), start


def _effort(params: Params, arm: str) -> Effort:
    history = read_history(TRAIN / run_name(arm, params.compare.seeds[0]) / "history.csv")
    usual = params.train.of_weights()
    own = {key: value for key, value in params.train_of(arm).of_weights().items() if value != usual.get(key)}
    mix_size = int(read_table(mix_file(arm))["repeats"].sum())
    return Effort(int(history["updates"][-1]), int(history["images"][-1]), mix_size, own)


def _seconds(arm: str, seeds: list[int]) -> float | None:
    """Return the mean of what its trainings took, for those that ran on this machine; None if none did."""
    files = [METRICS / "runs" / TRAIN.name / f"{run_name(arm, seed)}.json" for seed in seeds]
    known = [read_json(file)["seconds"] for file in files if file.exists()]
    took = [each for each in known if each is not None]
    return float(np.mean(took)) if took else None


def _settings(params: Params, arms: dict[str, Arm]) -> dict[str, Any]:
    shown: Any = {
        "data": {"image_size", "resize", "train_fraction", "validation_fraction", "test_fraction", "seed"},
        **dict.fromkeys(_SECTIONS_SHOWN, True),
    }
    settings = params.model_dump(include=shown)
    settings["arms"] = {name: params.arms[name].model_dump(exclude_defaults=True) for name in arms}
    return without_folders(settings)
