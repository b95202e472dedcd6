"""`gdacli mix`: an arm written down, the list of samples to train on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gdacli.arms import Arm, arm_keys, selected
from gdacli.artifacts import require, sha256_file
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.params import Params
from gdacli.paths import DROPPED, REJECTS, SELECTION, SOURCE, SYNTHETIC, mix_file
from gdacli.prepared import read_prepared, read_strategies
from gdacli.rejects import read_left_out
from gdacli.tables import read_table, write_table

VERSION = 2


def run(params: Params, arm: str | None = None) -> dict[str, Any]:
    """Write `data/mix/<arm>.parquet`, of every compared arm when none is named; returns the counts per arm."""
    index = read_prepared(SOURCE).train_index()
    strategies = read_strategies(SELECTION, index["key"])
    arms = {name: params.arm(name) for name in ([arm] if arm is not None else params.compare.arms)}
    chosen = {name: selected(each, params.all_arms(), strategies, index["label"]) for name, each in arms.items()}
    added = {name: arm_keys(each, index["key"], chosen[name]) for name, each in arms.items()}
    pool = _read_pool() if any(added.values()) else None
    return {"arms": {name: _write(arms[name], index, chosen[name], added[name], pool) for name in arms}}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per arm."""
    return "\n".join(
        f"{name}: {counts['source']} source + {counts['copies']} copies + {counts['synthetic']} synthetic"
        f"{_left_out(counts)} = {counts['total']} images an epoch -> {mix_file(name)}"
        for name, counts in result["arms"].items()
    )


@dataclass(frozen=True)
class _Pool:
    """The pool's images by key, and the keys that no mix takes."""

    images: dict[str, tuple[int, str, str]]
    """Key -> label, shard, SHA-256."""
    dropped: set[str]
    """By `generate.filter`: they are not in the pool."""
    rejected: set[str]
    """By a person: they may be in the pool."""


def _read_pool() -> _Pool:
    table = read_table(require(SYNTHETIC / "index.parquet", "gdacli generate"))
    cells = zip(table["label"].tolist(), table["shard"], table["sha256"], strict=True)
    pool = _Pool(dict(zip(table["key"], cells, strict=True)), set(read_left_out(DROPPED)), set(read_left_out(REJECTS)))
    if strange := sorted(pool.rejected - pool.images.keys() - pool.dropped):
        counts = f"{len(strange)} of its {len(pool.rejected)} keys"
        say(f"note: {REJECTS}: {SYNTHETIC} has not {counts} (first: {strange[0]})")
    return pool


def _write(
    arm: Arm, index: dict[str, Any], chosen: np.ndarray, wanted: list[str], pool: _Pool | None
) -> dict[str, Any]:
    repeats = np.where(chosen, arm.k, 1) if arm.add == "copies" else np.ones(len(chosen), np.int64)
    mix = {
        "key": list(index["key"]),
        "label": index["label"].tolist(),
        "origin": ["source"] * len(chosen),
        "shard": [str(SOURCE / shard) for shard in index["shard"]],
        "sha256": list(index["sha256"]),
        "repeats": repeats.tolist(),
    }
    added: list[str] = []
    num_dropped = 0
    if pool is not None:
        kept = [key for key in wanted if key not in pool.dropped]
        num_dropped = len(wanted) - len(kept)
        added = [key for key in kept if key not in pool.rejected]
        missing = [key for key in added if key not in pool.images]
        if missing:
            raise GdaError(
                f"{SYNTHETIC} lacks {len(missing)} of the {len(wanted)} images that arm {arm.name} needs (first: "
                f"{missing[0]}): put {arm.name} into compare.arms and run `gdacli generate`"
            )
        images = [pool.images[key] for key in added]
        mix["key"] += added
        mix["label"] += [label for label, _, _ in images]
        mix["origin"] += ["synthetic"] * len(images)
        mix["shard"] += [str(SYNTHETIC / shard) for _, shard, _ in images]
        mix["sha256"] += [sha256 for _, _, sha256 in images]
        mix["repeats"] += [1] * len(images)
    counts = {
        "source": len(chosen),
        "copies": int(repeats.sum()) - len(chosen),
        "synthetic": len(added),
        "dropped": num_dropped,
        "rejected": len(wanted) - num_dropped - len(added),
        "selected": int(chosen.sum()),
        "total": int(sum(mix["repeats"])),
    }
    if wanted and not added:
        say(f"warning: arm {arm.name} has no synthetic image left{_left_out(counts)}: it is the original images alone")
    write_table(mix_file(arm.name), mix)
    return {**counts, "sha256": sha256_file(mix_file(arm.name))}  # which `gdacli verify` compares


def _left_out(counts: dict[str, int]) -> str:
    """Say how many images are left out and why, as a sentence's part; nothing if none is."""
    parts = [f"{counts[why]} {why}" for why in ("dropped", "rejected") if counts[why]]
    return f" (left out: {', '.join(parts)})" if parts else ""
