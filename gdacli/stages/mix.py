"""`gdacli mix`: an arm written down, the list of samples to train on."""

from typing import Any

import numpy as np

from gdacli.arms import Arm, arm_keys, selected
from gdacli.artifacts import require, sha256_file
from gdacli.errors import GdaError
from gdacli.params import Params
from gdacli.paths import SELECTION, SOURCE, SYNTHETIC, mix_file
from gdacli.prepared import read_prepared, read_strategies
from gdacli.tables import read_table, write_table

VERSION = 1


def run(params: Params, arm: str | None = None) -> dict[str, Any]:
    """Write `data/mix/<arm>.parquet`, of every compared arm when none is named; returns the counts per arm."""
    index = read_prepared(SOURCE).train_index()
    strategies = read_strategies(SELECTION, index["key"])
    names = [arm] if arm is not None else params.compare.arms
    return {"arms": {name: _write(params.arm(name), params.all_arms(), index, strategies) for name in names}}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per arm."""
    return "\n".join(
        f"{name}: {counts['source']} source + {counts['copies']} copies + {counts['synthetic']} synthetic = "
        f"{counts['total']} images an epoch -> {mix_file(name)}"
        for name, counts in result["arms"].items()
    )


def _write(
    arm: Arm, arms: dict[str, Arm], index: dict[str, Any], strategies: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    labels = index["label"]
    chosen = selected(arm, arms, strategies, labels)
    repeats = np.where(chosen, arm.k, 1) if arm.add == "copies" else np.ones(len(labels), np.int64)
    mix = {
        "key": list(index["key"]),
        "label": labels.tolist(),
        "origin": ["source"] * len(labels),
        "shard": [str(SOURCE / shard) for shard in index["shard"]],
        "sha256": list(index["sha256"]),
        "repeats": repeats.tolist(),
    }
    added = arm_keys(arm, index["key"], chosen)
    if added:
        pool = read_table(require(SYNTHETIC / "index.parquet", "gdacli generate"))
        row_of = {key: row for row, key in enumerate(pool["key"])}
        missing = [key for key in added if key not in row_of]
        if missing:
            raise GdaError(
                f"{SYNTHETIC} lacks {len(missing)} of the {len(added)} images that arm {arm.name} needs (first: "
                f"{missing[0]}): put {arm.name} into compare.arms and run `gdacli generate`"
            )
        rows = [row_of[key] for key in added]
        mix["key"] += added
        mix["label"] += [int(pool["label"][row]) for row in rows]
        mix["origin"] += ["synthetic"] * len(rows)
        mix["shard"] += [str(SYNTHETIC / pool["shard"][row]) for row in rows]
        mix["sha256"] += [pool["sha256"][row] for row in rows]
        mix["repeats"] += [1] * len(rows)
    write_table(mix_file(arm.name), mix)
    return {
        "source": len(labels),
        "copies": int(repeats.sum()) - len(labels),
        "synthetic": len(added),
        "selected": int(chosen.sum()),
        "total": int(sum(mix["repeats"])),
        "sha256": sha256_file(mix_file(arm.name)),  # `gdacli verify` compares
    }
