"""`gdacli select`: score every training image by every strategy that the compared arms use, and choose."""

from pathlib import Path
from typing import Any

import numpy as np

from gdacli.arms import selected
from gdacli.artifacts import new_directory, require, write_json
from gdacli.console import say
from gdacli.dynamics import read_probe
from gdacli.errors import GdaError
from gdacli.explain import FILE, one_of
from gdacli.label_errors import Suspects, find_suspects
from gdacli.params import Params
from gdacli.paths import PROBE, SELECTION, SOURCE
from gdacli.prepared import read_prepared
from gdacli.row_files import RowFile
from gdacli.selection import STRATEGIES, centroids, select
from gdacli.tables import write_csv, write_table

VERSION = 2

OUT_OF_FOLD = PROBE / "out_of_fold.npy"


def run(params: Params) -> dict[str, Any]:
    """Write `data/selection`; returns the share selected, overall and per class, by strategy and by arm."""
    names = read_prepared(SOURCE).class_names
    quotas = _by_label(params.select.quotas, names)
    keys, labels, dynamics = read_probe(PROBE)
    suspects = None
    if params.select.exclude_suspects or OUT_OF_FOLD.exists():
        suspects = find_suspects(labels, RowFile(require(OUT_OF_FOLD, "gdacli probe -S probe.folds=5")))
    candidates = np.ones(len(labels), bool)
    if suspects and params.select.exclude_suspects:
        candidates = ~suspects.flagged
    arms = params.compared_arms()
    everything = params.all_arms()
    needed = [arms[name] for name in arms] + [everything[arm.like] for arm in arms.values() if arm.like]
    used = {arm.select for arm in needed if arm.select is not None}
    results = {}
    for strategy in (name for name in STRATEGIES if name in used | {"cluster"}):
        found = select(
            strategy,
            dynamics,
            labels,
            seed=params.select.seed,
            candidates=candidates,
            share=params.select.share,
            per_class=params.select.per_class,
            quotas=quotas,
        )
        if strategy == "cluster":
            late = found.natural
        results[strategy] = (found.score, found.chosen)
    counts, late_counts = np.bincount(labels, minlength=len(names)), np.bincount(labels[late], minlength=len(names))
    whole = [names[label] for label in np.flatnonzero((late_counts % np.maximum(counts, 1) == 0) & (counts > 0))]
    if whole:
        say(f"warning: classes that two clusters cannot split are taken or left as a whole: {', '.join(whole)}")
    columns: dict[str, Any] = {"key": keys, "label": labels}
    for strategy, (score, chosen) in results.items():
        columns |= {f"{strategy}_score": score, f"{strategy}_chosen": chosen}
    if suspects:
        columns |= {"suspect": suspects.flagged, "label_quality": suspects.quality}
    by_arm = {name: selected(arm, everything, results, labels) for name, arm in arms.items() if arm.select}
    for name, chosen in by_arm.items():
        if not chosen.any():
            say(f"warning: arm {name} selects no image, so it is the arm without additions")
    result = {
        "separation_epoch": len(dynamics.loss),
        "num_images": len(labels),
        "num_suspects": int(suspects.flagged.sum()) if suspects else None,
        "suspects_excluded": params.select.exclude_suspects,
        "strategies": {name: _share(results[name][1], labels, names) for name in sorted(used)},
        "arms": {name: _share(chosen, labels, names) for name, chosen in by_arm.items()},
        "classes_not_split": whole,
    }
    with new_directory(SELECTION) as folder:
        write_table(folder / "selection.parquet", columns)
        np.savez(folder / "centroids.npz", centroids=centroids(dynamics.logits, labels, late, len(names)))
        if suspects:
            _write_suspects(folder / "suspects.csv", suspects, keys, labels, names)
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
    if result["num_suspects"] is not None:
        excluded = ", which no arm selects" if result["suspects_excluded"] else ""
        lines.append(f"  {result['num_suspects']} images are probably mislabelled{excluded}: {SELECTION}/suspects.csv")
    return "\n".join(lines)


def _by_label(quotas: dict[str, float], names: list[str]) -> dict[int, float]:
    try:
        return {names.index(one_of(name, names)): share for name, share in quotas.items()}
    except ValueError as error:
        raise GdaError(f"{FILE}: select.quotas: no such class: {error}") from error


def _write_suspects(path: Path, suspects: Suspects, keys: list[str], labels: np.ndarray, names: list[str]) -> None:
    """List the flagged images, the most certain first."""
    rows = np.flatnonzero(suspects.flagged)
    rows = rows[np.argsort(suspects.quality[rows], kind="stable")]
    write_csv(
        path,
        ["key", "label", "suggested_label", "quality"],
        [[keys[row], names[labels[row]], names[suspects.suggested[row]], float(suspects.quality[row])] for row in rows],
    )


def _share(chosen: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    counts, of_chosen = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    per_class = {names[label]: float(of_chosen[label] / counts[label]) for label in np.flatnonzero(counts)}
    return {"count": int(chosen.sum()), "share": float(chosen.mean()), "per_class": per_class}
