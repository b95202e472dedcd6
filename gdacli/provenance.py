"""Where the figures of a report come from, and how to get them again."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gdacli import __version__
from gdacli.artifacts import read_json, sha256_file
from gdacli.paths import POOLS, PROBE, SOURCE, SYNTHETIC, TRAIN, run_name

_MADE_BY = ("backend_version", "model", "environments", "settings")
_PACKAGES = ("torch", "torchvision", "timm", "diffusers", "numpy", "scipy", "pillow")


def out_of_date(folder: Path, mix: Path, wanted: Mapping[str, Any]) -> str | None:
    """Say what a training was made of, if not of a mix as it is and of settings; None if it was.

    Args:
        folder: of the training, with its `provenance.json`.
        mix: the file.
        wanted: `train.of_weights()` of its arm.
    """
    found = read_json(folder / "provenance.json")
    if found["mix_sha256"] != sha256_file(mix):
        return f"was trained on another mix than {mix}"
    own = found.get("train", {})
    others = [key for key in wanted if own.get(key) != wanted[key]]
    return f"was trained with other settings than params.yaml has for it ({', '.join(others)})" if others else None


@dataclass(frozen=True)
class Provenance:
    """What made the figures; hashes are SHA-256."""

    versions: dict[str, str]
    """Of gdacli, Python and the packages that decide bits, where `evaluate` ran."""
    dataset: str
    """Hash of `data/source/dataset.json`, which names every shard by its hash."""
    probe: str
    """Hash of the probe's weights."""
    pool: str | None
    """Hash of the pool's manifest, which names its shards; None without a pool."""
    imported: dict[str, str]
    """The same of imported pools, by name."""
    generator: dict[str, Any]
    """Backend and weights, and the environments that made the images; empty without a pool."""
    trainings: dict[str, str]
    """Hash of each training's weights."""
    devices: list[str]
    """On which they were trained."""


def read_provenance(
    arms: Iterable[str], seeds: Iterable[int], manifest: Mapping[str, Any], imported: Iterable[str]
) -> Provenance:
    """Read what the artifacts say of themselves.

    Args:
        arms, seeds: of the trainings.
        manifest: of the pool; empty without one.
        imported: names of imported pools.
    """
    folders = {run_name(arm, seed): TRAIN / run_name(arm, seed) for arm in arms for seed in seeds}
    return Provenance(
        versions={"gdacli": __version__, "python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        dataset=sha256_file(SOURCE / "dataset.json"),
        probe=sha256_file(PROBE / "model.safetensors"),
        pool=sha256_file(SYNTHETIC / "manifest.json") if manifest else None,
        imported={name: sha256_file(POOLS / name / "manifest.json") for name in imported},
        generator={name: manifest[name] for name in _MADE_BY if name in manifest},
        trainings={name: sha256_file(folder / "model.safetensors") for name, folder in folders.items()},
        devices=sorted({read_json(folder / "provenance.json")["device"] for folder in folders.values()}),
    )


def without_folders(value: Any) -> Any:
    """Leave of local paths the last part: a report is shared, and where a file lies says who works where."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    is_path = isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~"))
    return f".../{Path(value).name}" if is_path else value
