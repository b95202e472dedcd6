"""A project that looks finished: its source is prepared, all else is written in the form in which the stages write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from conftest import CLASSES, Project, write_folder

from gdacli.arms import sampled_key, synthetic_key
from gdacli.artifacts import new_directory, sha256_bytes, sha256_file, write_json, write_text
from gdacli.images import encode_png
from gdacli.models import create_model, save_weights, timm_config
from gdacli.paths import MIX, SOURCE, SYNTHETIC, mix_file, run_name
from gdacli.pool import dataset_card
from gdacli.prepared import Prepared, read_prepared
from gdacli.shards import Sample, write_shard
from gdacli.tables import write_csv, write_table

STRENGTHS = (300, 500)
SIZE = 16
SHARE: dict[str, Any] = {
    "license": {"id": "cc-by-4.0", "stated_in": "https://example.org/terms", "name": None, "link": None},
    "source_license": {"id": "mit", "stated_in": "LICENSE", "name": None, "link": None},
    "generator_license": None,
    "model_license": {"id": "apache-2.0", "stated_in": "LICENSE", "name": None, "link": None},
    "source_datasets": None,
    "pretty_name": None,
    "limits": None,
}


def write_finished(project: Project, source: Path, *, model: str = "data/generator/class_conditional") -> None:
    """Fill the working directory, that of the project: a pool of two strengths and sampled images, mixes, a training.

    Args:
        project: gets params.yaml; the others are written where the process is.
        source: folder of images.
        model: the generator that the images are said to be of.
    """
    project.write(data={"source": str(source), "validation_fraction": 0.2})
    project.ok("prepare")
    prepared = read_prepared(SOURCE)
    rows = _write_pool(prepared, model)
    _write_mixes(prepared, rows)
    _write_training(prepared, "targeted", 0)
    write_text(
        Path("dvc.lock"),
        yaml.safe_dump({"stages": {"generate": {"outs": [{"path": str(SYNTHETIC), "md5": "0123.dir"}]}}}),
    )


def _write_pool(prepared: Prepared, model: str) -> list[tuple[Any, ...]]:
    index, rng = prepared.train_index(), np.random.default_rng(0)
    names = prepared.class_names
    wanted: dict[str, list[tuple[str, int, float, str]]] = {}
    for shard, key, label in zip(index["shard"], index["key"], index["label"].tolist(), strict=True):
        for strength in STRENGTHS:
            name = shard.replace("train-", f"train-s{strength:04d}-")
            wanted.setdefault(name, []).append((synthetic_key(key, strength, 0), label, strength / 1000, key))
    sampled = [(sampled_key(number), number % len(names), 1.0, "") for number in range(4)]
    wanted["train-sampled-000000.tar"] = sampled
    rows: list[tuple[Any, ...]] = []
    shards, meta = [], dict[str, Any]()
    with new_directory(SYNTHETIC) as folder:
        for name, images in sorted(wanted.items()):
            samples = []
            for key, label, noise, source_key in images:
                png = encode_png(rng.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8))
                meta = {"source_key": source_key, "class_name": names[label], "strength": noise, "prompt": "a thing",
                        "model": model, "seed": 7, "synthetic": True, "constant": False}  # fmt: skip
                samples.append(Sample(key, label, png, "png", meta))
                rows.append((key, label, name, sha256_bytes(png), f"identity of {key}", 0.5))
            shards.append(vars(write_shard(folder / name, samples)))
        columns = ("key", "label", "shard", "sha256", "identity", "confidence")
        write_table(folder / "index.parquet", dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
        manifest = {
            "images": {"s0300": len(index["key"]), "s0500": len(index["key"]), "sampled": 4},
            "num_images": len(rows),
            "dropped": {"constant": 2},
            "filter": {"constant": True, "min_confidence": None},
            "settings": {"backend": "class_conditional", "solver": "ddpm", "num_inference_steps": 25, "prompt": None},
            "backend_version": "1",
            "model": {"name": model, "files": {}, "sha256": "ab" * 32},
            "class_names": names,
            "scoring": "c" * 64,
            "environments": [{"device": "cpu", "torch": "2.15.0"}],
            "shards": shards,
        }
        write_json(folder / "manifest.json", manifest)
        write_csv(
            folder / "dropped.csv",
            ["key", "reason", "shard", "identity", "confidence"],
            [["x_s0300_v0", "constant", shards[0]["name"], "identity of x", 0.5]],
        )
        write_text(folder / "README.md", dataset_card(names, "png", meta))
    return rows


def _write_mixes(prepared: Prepared, rows: list[tuple[Any, ...]]) -> None:
    index = prepared.train_index()
    MIX.mkdir(parents=True)
    added = {"original": [], "targeted": [row for row in rows if row[1] != 0 and "_s0500" in row[0]]}
    for arm, images in added.items():
        write_table(
            mix_file(arm),
            {
                "key": [*index["key"], *(row[0] for row in images)],
                "label": [*index["label"].tolist(), *(row[1] for row in images)],
                "origin": ["source"] * len(index["key"]) + ["synthetic"] * len(images),
                "shard": [
                    *(str(SOURCE / shard) for shard in index["shard"]),
                    *(f"data/synthetic/{r[2]}" for r in images),
                ],
                "sha256": [*index["sha256"], *(row[3] for row in images)],
                "repeats": [1] * (len(index["key"]) + len(images)),
            },
        )


def _write_training(prepared: Prepared, arm: str, seed: int) -> None:
    model = create_model("convnet", prepared.num_classes, {"width": 4}, seed, image_size=SIZE)
    train = {"model": "convnet", "pretrained": False, "lr": 0.05, "augment": {"crop": {"padding": 1}, "flip": None}}
    with new_directory(Path("data/train") / run_name(arm, seed)) as folder:
        write_json(folder / "config.json", timm_config("convnet", model, prepared.class_names))
        save_weights(model, folder / "model.safetensors")
        write_json(
            folder / "provenance.json", {"device": "cpu", "mix_sha256": sha256_file(mix_file(arm)), "train": train}
        )
        (folder / "history.csv").write_text("epoch,updates,images,lr,loss,error\n1,9,72,0.05,1.0,50\n")


def write_results(**changes: Any) -> dict[str, Any]:
    """Write `data/evaluation/results.json` of the pool and the training that are there, and return it."""
    from test_report import report

    results = json.loads(json.dumps(report({"original": [4.0, 5.0], "targeted": [3.0, 3.5]}).to_json()))
    weights = Path("data/train") / run_name("targeted", 0) / "model.safetensors"
    results["provenance"] |= {
        "pool": sha256_file(SYNTHETIC / "manifest.json"),
        "trainings": {"targeted-0": sha256_file(weights)},
    }
    results |= changes
    write_json(Path("data/evaluation/results.json"), results)
    return results


ODD_CLASSES = ("1.0", "a|b <i>*é", "no")
"""Names of folders, in their order, of which YAML, HTML and tables make something else."""


def write_odd_source(folder: Path, kind: str = "PNG", per_class: int = 12) -> Path:
    """Write an image folder whose classes are ODD_CLASSES."""
    write_folder(folder, per_class=per_class, kind=kind)
    for name, odd in zip(CLASSES, ODD_CLASSES, strict=True):
        (folder / name).rename(folder / odd)
    return folder
