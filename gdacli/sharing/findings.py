"""What `gdacli evaluate` found, as far as it is of what is shared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gdacli.artifacts import read_json, sha256_file
from gdacli.cleanliness import LEAST_TELLING_SIDE
from gdacli.metrics import Estimate
from gdacli.paths import EVALUATION, SYNTHETIC
from gdacli.sharing.shared_pool import SAMPLED, VARIED
from gdacli.wording import points, spread

Found = tuple[dict[str, Any] | None, str | None]
"""The results, or why there are none."""

OF_OLDER = "The evaluation at hand is of an older gdacli; its figures are left out."

_LOCK = Path("dvc.lock")
_LIKE = {
    "memorised": "a train image other than their source",
    "unchanged": "their own source",
    "synthetic_split": "a {split} image",
}


def findings_of_pool(folder: Path) -> Found:
    """Return what was found of the pool in a folder, with the quality of no other, and of the arms that train on it."""
    results, why = _results()
    if results is None:
        return None, why
    name = "" if folder == SYNTHETIC else folder.name
    evaluated = {"": results["provenance"]["pool"], **results["provenance"]["imported"]}
    if evaluated.get(name) != sha256_file(folder / "manifest.json"):
        return None, "The evaluation at hand is of another version of the images; its figures are left out."
    return {**results, "quality": [each for each in results["quality"] if each["pool"] == name]}, None


def findings_of_training(name: str, weights: Path) -> Found:
    """Return what was found of a training, `<arm>-<seed>`, with these weights, and of those it was compared with."""
    results, why = _results()
    if results is None:
        return None, why
    if results["provenance"]["trainings"].get(name) != sha256_file(weights):
        return None, "The evaluation at hand is of other weights; its figures are left out."
    return results, None


def _results() -> Found:
    path = EVALUATION / "results.json"
    if not path.exists():
        return None, "It was not evaluated."
    results = read_json(path)
    if "imported" not in results["provenance"]:
        return None, OF_OLDER
    return results, None


def dvc_md5(path: Path) -> str | None:
    """Return the hash by which DVC knows an output; None without a `dvc.lock` that has it."""
    if not _LOCK.exists():
        return None
    stages = (yaml.safe_load(_LOCK.read_text(encoding="utf-8")) or {}).get("stages", {})
    outs = (out for stage in stages.values() for out in stage.get("outs", []))
    return next((out.get("md5") for out in outs if out["path"] == str(path)), None)


def about_copies(results: Mapping[str, Any]) -> list[str]:
    """Say how many synthetic images look like real ones, a sentence for each comparison."""
    copies, split = results["copies"], results["split"]
    said = []
    for name, like in _LIKE.items():
        found = copies.get(name)
        if not found or not found["images"]:
            continue
        of = f" of {found['near_looked_for']} that were compared" if found["near_looked_for"] < found["images"] else ""
        said.append(
            f"{found['exact']} of {found['images']} images equal {like.format(split=split)} in every pixel; "
            f"{found['near']} more{of} look like one."
        )
    if said and results["provenance"]["imported"]:
        said.append("These numbers are of all pools that were evaluated together.")
    if said and copies["side"] < LEAST_TELLING_SIDE:
        said.append(
            f"They were compared at {copies['side']} x {copies['side']} pixels: there unrelated images look alike too."
        )
    return said


def arm_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a table of the compared arms, its header first."""
    rows = [["arm", "images", f"{results['split']} error %", "on late-learned ones %", "updates"]]
    for name, arm in sorted(results["arms"].items(), key=lambda item: item[0] != "original"):
        error, late = (spread(_estimate(arm[column])) for column in ("error", "late_error"))
        rows.append([name, arm["description"], error, late, str(arm["effort"]["updates"])])
    return rows


def about_arms(results: Mapping[str, Any]) -> str:
    """Say what the table of arms holds."""
    number = len(results["seeds"])
    return (
        f"Mean ± standard deviation over {number} {'seed' if number == 1 else 'seeds'}, on {results['num_images']} "
        f"{results['split']} images; {results['num_train']} training images. Late-learned: the {results['num_late']} "
        f"{results['split']} images that a model learns last."
    )


def quality_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a table of how good the images are, its header first; no row if that was not measured."""
    rows = [["strength", "images", "Fréchet", "KID", "precision", "recall", "density", "coverage", "label found %"]]
    for each in results["quality"]:
        near, kernel = each["neighbours"] or {}, each["kernel"] or {}
        rows.append(
            [
                f"{each['strength']:g}" if each["strength"] is not None else VARIED if each["diversity"] else SAMPLED,
                str(each["num_images"]),
                points(each["frechet"], 3),
                points(kernel.get("mean"), 4),
                *(points(near.get(name)) for name in ("precision", "recall", "density", "coverage")),
                points(each["faithfulness"], 1),
            ]
        )
    return rows


def _estimate(values: Mapping[str, Any]) -> Estimate:
    mean = float("nan") if values["mean"] is None else values["mean"]
    return Estimate(mean, values["sd"], values["low"], values["high"], values["num"])
