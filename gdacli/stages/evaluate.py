"""`gdacli evaluate`: compare every arm on the test split, say whether it helped, and write the report."""

import csv
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gdacli.arms import Arm, milli, synthetic_key
from gdacli.artifacts import new_directory, read_json, require, sha256_file, write_json
from gdacli.checksums import verify_folder
from gdacli.compute import set_up
from gdacli.console import progress, say
from gdacli.errors import GdaError
from gdacli.images import decode_array
from gdacli.loading import ImageSource, open_images
from gdacli.metrics import balanced_error, class_errors, error_rate, estimate, macro_f1, paired_difference
from gdacli.models import load_checkpoint
from gdacli.params import Params
from gdacli.paths import (
    DROPPED,
    EVALUATION,
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
from gdacli.prepared import Prepared, read_prepared, read_strategies
from gdacli.rejects import read_left_out
from gdacli.report import (
    ArmResult,
    Gallery,
    GalleryRow,
    Report,
    Suspect,
    Variant,
    render_html,
    render_markdown,
    rows_per_class,
)
from gdacli.selection import is_late
from gdacli.shards import read_shard
from gdacli.tables import read_table, write_csv, write_table
from gdacli.training import predict

VERSION = 4

REFERENCES = ("original", "upsample")
_GALLERY_CLASSES = 10
_SECTIONS_SHOWN = ("compute", "probe", "select", "fit", "generate", "train", "evaluate", "compare")
_SUSPECTS_SHOWN = 24


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
    keys, labels = prepared.keys(split), prepared.labels(split)

    @cache
    def images(size: int | None) -> ImageSource:
        size = prepared.training_size(size, "train.image_size")
        reading = {**params.train.of_loading(), "random_resized_crop": None}
        return open_images(prepared.references(split), image_size=size, device=device, **reading)

    late = _late_learned(images, labels, device)
    predictions: dict[tuple[str, int], np.ndarray] = {}
    columns: dict[str, list[Any]] = {name: [] for name in ("key", "label", "arm", "seed", "prediction", "confidence")}
    with progress("evaluate", len(arms) * len(seeds), "models") as advance:
        for name in arms:
            for seed in seeds:
                model = load_checkpoint(TRAIN / run_name(name, seed)).to(device)
                probabilities = predict(model, images(model.image_size).in_order()).softmax(1).numpy()
                guess = predictions[name, seed] = probabilities.argmax(1)
                cells = (keys, labels, [name] * len(keys), [seed] * len(keys), guess, probabilities.max(1))
                for column, values in zip(columns.values(), cells, strict=True):
                    column += list(values)
                advance(note=f"{run_name(name, seed)}: {error_rate(guess, labels):.2f} %")
    selection = read_json(require(SELECTION / "selection.json", "gdacli select"))
    results = [_arm_result(name, seeds, predictions, labels, late, prepared, params, selection) for name in arms]
    by_name = {result.name: result for result in results}
    differences = {
        reference: {
            result.name: paired_difference(result.errors, by_name[reference].errors)
            for result in results
            if result.name != reference
        }
        for reference in REFERENCES
        if reference in by_name
    }
    pool, manifest = _pool()
    report = Report(
        class_names=prepared.class_names,
        seeds=seeds,
        split=split,
        num_train=prepared.splits["train"].count,
        num_images=len(labels),
        num_late=int(late.sum()),
        arms=results,
        differences=differences,
        selection=selection,
        curves={name: _curves(name, seeds) for name in arms},
        probe_curve=_read_csv(PROBE / "curve.csv"),
        gallery=_gallery(arms, prepared, pool, prepared.training_size(params.probe.image_size, "probe.image_size")),
        suspects=_suspects(prepared),
        pool_size=len(pool["key"]),
        dropped=manifest.get("dropped", {}),
        rejects=rejects,
        num_rejected=len(rejects.keys() & set(pool["key"])),
        settings=params.model_dump(
            include={
                "data": {"image_size", "resize", "train_fraction", "validation_fraction", "test_fraction", "seed"},
                **dict.fromkeys(
                    ("compute", "probe", "select", "fit", "generate", "train", "evaluate", "compare"), True
                ),
            }
        )
        | {"arms": {name: params.arms[name].model_dump(exclude_defaults=True) for name in arms}},
    )
    with new_directory(EVALUATION) as folder:
        write_table(folder / "predictions.parquet", columns)
        write_json(folder / "results.json", report.to_json())
        (folder / "report.md").write_text(render_markdown(report), encoding="utf-8")
        (folder / "report.html").write_text(render_html(report), encoding="utf-8")
    _write_plots(report)
    return report.to_metrics()


def summary(result: dict[str, Any]) -> str:
    """Show the table of arms and say where the report is."""
    text = (EVALUATION / "report.md").read_text(encoding="utf-8")
    return f"{text}\nreport: {EVALUATION / 'report.html'}"


def _check_current(params: Params, arm: str, seeds: list[int], rejects: Iterable[str]) -> None:
    """Refuse to report a training that is damaged, of another mix or of other settings, or a mix of another pool."""
    path = require(mix_file(arm), f"gdacli mix --arm {arm}")
    for seed in seeds:
        folder = TRAIN / run_name(arm, seed)
        again = f"run `gdacli train --arm {arm} --seed {seed}`"
        provenance = read_json(require(folder / "provenance.json", f"gdacli train --arm {arm} --seed {seed}"))
        if damaged := verify_folder(folder):
            raise GdaError(f"{damaged[0].file}: {damaged[0].problem}: {again}, or `dvc checkout --force {folder}`")
        if provenance["mix_sha256"] != sha256_file(path):
            raise GdaError(f"{folder} was trained on another mix than {path}: {again}")
        wanted, found = params.train_of(arm).of_weights(), provenance.get("train", {})
        if others := [key for key in wanted if found.get(key) != wanted[key]]:
            raise GdaError(
                f"{folder} was trained with other settings than params.yaml has for it ({', '.join(others)}): {again}"
            )
    mix = read_table(path)
    made = {
        (key, sha256)
        for key, sha256, origin in zip(mix["key"], mix["sha256"], mix["origin"], strict=True)
        if origin == "synthetic"
    }
    if made:
        pool = read_table(require(SYNTHETIC / "index.parquet", "gdacli generate"))
        if not made <= set(zip(pool["key"], pool["sha256"], strict=True)):
            raise GdaError(
                f"{path} lists images that {SYNTHETIC} does not hold: run `gdacli generate` and `gdacli mix`"
            )

        if vetoed := sorted({key for key, _ in made} & set(rejects)):
            raise GdaError(
                f"{path} lists {len(vetoed)} images that {REJECTS} rejects (first: {vetoed[0]}): run `gdacli mix` and "
                "`gdacli train`, or `dvc repro`"
            )


def _pool() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pool's index and manifest, without images if there is no pool."""
    if not SYNTHETIC.exists():
        return {"key": [], "shard": []}, {}
    return read_table(SYNTHETIC / "index.parquet"), read_json(SYNTHETIC / "manifest.json")


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


def _arm_result(
    name: str,
    seeds: list[int],
    predictions: dict[tuple[str, int], np.ndarray],
    labels: np.ndarray,
    late: np.ndarray,
    prepared: Prepared,
    params: Params,
    selection: dict[str, Any],
) -> ArmResult:
    guesses = [predictions[name, seed] for seed in seeds]
    histories = [_read_csv(TRAIN / run_name(name, seed) / "history.csv") for seed in seeds]
    return ArmResult(
        name=name,
        description=_describe(params.arm(name), selection),
        errors=[error_rate(guess, labels) for guess in guesses],
        error=estimate([error_rate(guess, labels) for guess in guesses]),
        balanced_error=estimate([balanced_error(guess, labels) for guess in guesses]),
        macro_f1=estimate([macro_f1(guess, labels) for guess in guesses]),
        late_error=estimate([error_rate(guess[late], labels[late]) for guess in guesses]),
        early_error=estimate([error_rate(guess[~late], labels[~late]) for guess in guesses]),
        class_errors=np.mean([class_errors(guess, labels, prepared.num_classes) for guess in guesses], axis=0).tolist(),
        updates=int(histories[0]["updates"][-1]),
        images_seen=int(histories[0]["images"][-1]),
        mix_size=_mix_size(name),
    )


def _describe(arm: Arm, selection: dict[str, Any]) -> str:
    if arm.select is not None and selection["arms"].get(arm.name, {}).get("count") == 0:
        return "the original images: nothing was selected"
    if arm.add is None:
        return "the original images"
    if arm.add == "sampled":
        return f"+ {arm.num_images} sampled images, no source"
    which = {"all": "all images", "cluster": "late-learned images"}.get(arm.select or "", f"{arm.select} images")
    if arm.add == "copies":
        return f"{which} shown {arm.k} times"
    strengths = ", ".join(f"{strength:g}" for strength in arm.strengths)
    variants = f", {arm.variants} each" if arm.variants > 1 else ""
    return f"+ variants of {which} at {strengths}{variants}"


def _mix_size(arm: str) -> int:
    return int(read_table(require(mix_file(arm), f"gdacli mix --arm {arm}"))["repeats"].sum())


def _curves(arm: str, seeds: list[int]) -> dict[str, list[float]]:
    histories = [_read_csv(TRAIN / run_name(arm, seed) / "history.csv") for seed in seeds]
    return {name: np.mean([history[name] for history in histories], axis=0).tolist() for name in histories[0]}


def _read_csv(path: Path) -> dict[str, list[float]]:
    rows = _csv_rows(require(path, "gdacli train"))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _gallery(arms: dict[str, Arm], prepared: Prepared, pool: dict[str, Any], size: int) -> Gallery:
    """Take of each class the latest-learned images that have variants, and the earliest-learned one for contrast."""
    index = prepared.train_index()
    score, chosen = read_strategies(SELECTION, index["key"])["cluster"]
    dropped = read_left_out(DROPPED)
    shard_of = dict(zip(pool["key"], pool["shard"], strict=True))
    strengths = sorted({milli(strength) for arm in arms.values() for strength in arm.strengths})

    def variants(row: int) -> list[str]:
        return [synthetic_key(index["key"][row], strength, 0) for strength in strengths]

    late_rows, early_rows = [], []
    num_classes = min(prepared.num_classes, _GALLERY_CLASSES)
    room = rows_per_class(num_classes, len(strengths), size)
    for label in range(num_classes):
        members = np.flatnonzero(index["label"] == label)
        ranked = members[np.argsort(-score[members], kind="stable")]
        late = [row for row in ranked if chosen[row]]
        with_variants = [row for row in late if any(key in shard_of or key in dropped for key in variants(row))]
        late_rows += (with_variants or late)[:room]
        early_rows += [row for row in ranked[::-1] if not chosen[row] and np.isfinite(score[row])][:1]
    wanted = {SOURCE / index["shard"][row]: set[str]() for row in late_rows + early_rows}
    for row in late_rows + early_rows:
        wanted[SOURCE / index["shard"][row]].add(index["key"][row])
    for row in late_rows:
        for key in variants(row):
            if key in shard_of:
                wanted.setdefault(SYNTHETIC / shard_of[key], set()).add(key)
    images = {
        sample.key: decode_array(sample.image)
        for shard, keys in wanted.items()
        for sample in read_shard(shard)
        if sample.key in keys
    }

    def gallery_row(row: int, names: list[str]) -> GalleryRow:
        key = index["key"][row]
        made = [Variant(name, images.get(name), dropped.get(name, {}).get("reason")) for name in names]
        return GalleryRow(key, prepared.class_names[index["label"][row]], images[key], made)

    return Gallery(
        strengths=[strength / 1000 for strength in strengths],
        late=[gallery_row(row, variants(row)) for row in late_rows],
        early=[gallery_row(row, []) for row in early_rows],
    )


def _suspects(prepared: Prepared) -> list[Suspect]:
    """Read the first of the images that `gdacli select` suspects to be mislabelled."""
    path = SELECTION / "suspects.csv"
    rows = _csv_rows(path)[:_SUSPECTS_SHOWN] if path.exists() else []
    if not rows:
        return []
    index = prepared.train_index()
    shard_of = dict(zip(index["key"], index["shard"], strict=True))
    keys = {row["key"] for row in rows}
    images = {
        sample.key: decode_array(sample.image)
        for shard in sorted({shard_of[key] for key in keys})
        for sample in read_shard(SOURCE / shard)
        if sample.key in keys
    }
    return [
        Suspect(row["key"], row["label"], row["suggested_label"], float(row["quality"]), images[row["key"]])
        for row in rows
    ]


def _write_plots(report: Report) -> None:
    write_csv(
        PLOTS / "arms.csv",
        ["arm", "seed", "error", "updates"],
        [
            [arm.name, seed, error, arm.updates]
            for arm in report.arms
            for seed, error in zip(report.seeds, arm.errors, strict=True)
        ],
    )
    write_csv(
        PLOTS / "training.csv",
        ["arm", "updates", "loss", "error"],
        [
            [name, int(updates), loss, error]
            for name, curve in report.curves.items()
            for updates, loss, error in zip(curve["updates"], curve["loss"], curve["error"], strict=True)
        ],
    )
