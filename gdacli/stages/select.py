"""`gdacli select`: score every training image by every strategy that the compared arms use, and choose."""

from typing import Any

import numpy as np

from gdacli.arms import selected, take_top
from gdacli.artifacts import new_directory, require, write_json
from gdacli.console import say
from gdacli.params import Params
from gdacli.paths import PROBE, SELECTION, SOURCE
from gdacli.prepared import read_prepared
from gdacli.rng import derive_seed
from gdacli.selection import RANKINGS, STRATEGIES, centroids
from gdacli.tables import write_table

VERSION = 1


def run(params: Params) -> dict[str, Any]:
    """Write `data/selection`; returns the share selected, overall and per class, by strategy and by arm."""
    names = read_prepared(SOURCE).class_names
    with np.load(require(PROBE / "outputs.npz", "gdacli probe"), allow_pickle=False) as outputs:
        keys, labels = outputs["key"], outputs["label"]
        dynamics = outputs["logits"][: int(outputs["separation_epoch"])]
    arms = params.compared_arms()
    everything = params.all_arms()
    needed = [arms[name] for name in arms] + [everything[arm.like] for arm in arms.values() if arm.like]
    used = {arm.select for arm in needed if arm.select is not None}
    results = {}
    for strategy in (name for name in STRATEGIES if name in used | {"cluster"}):
        rng = np.random.default_rng(derive_seed(params.select.seed, "select", strategy))
        score, chosen = STRATEGIES[strategy](dynamics, labels, rng)
        if strategy in RANKINGS and params.select.share is not None:
            chosen = take_top(score, round(params.select.share * len(labels)))
        results[strategy] = (score, chosen)
    late = results["cluster"][1]
    whole = [names[label] for label in np.unique(labels) if len(np.unique(late[labels == label])) == 1]
    if whole:
        say(f"warning: classes that two clusters cannot split are taken or left as a whole: {', '.join(whole)}")
    columns: dict[str, Any] = {"key": keys.tolist(), "label": labels}
    for strategy, (score, chosen) in results.items():
        columns |= {f"{strategy}_score": score, f"{strategy}_chosen": chosen}
    by_arm = {name: selected(arm, everything, results, labels) for name, arm in arms.items() if arm.select}
    for name, chosen in by_arm.items():
        if not chosen.any():
            say(f"warning: arm {name} selects no image, so it is the arm without additions")
    result = {
        "separation_epoch": len(dynamics),
        "num_images": len(labels),
        "strategies": {name: _share(results[name][1], labels, names) for name in sorted(used)},
        "arms": {name: _share(chosen, labels, names) for name, chosen in by_arm.items()},
        "classes_not_split": whole,
    }
    with new_directory(SELECTION) as folder:
        write_table(folder / "selection.parquet", columns)
        centers = centroids(dynamics[-1], labels, late, len(names))
        np.savez(folder / "centroids.npz", centroids=centers)
        write_json(folder / "selection.json", result)
    return result


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per arm."""
    lines = [f"of {result['num_images']} training images, at epoch {result['separation_epoch']} -> {SELECTION}"]
    for name, share in result["arms"].items():
        low, high = min(share["per_class"].values()), max(share["per_class"].values())
        lines.append(
            f"  {name}: {share['count']} selected, {100 * share['share']:.1f} % "
            f"({100 * low:.0f} to {100 * high:.0f} % per class)"
        )
    return "\n".join(lines)


def _share(chosen: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    per_class = {names[label]: float(chosen[labels == label].mean()) for label in np.unique(labels)}
    return {"count": int(chosen.sum()), "share": float(chosen.mean()), "per_class": per_class}
