"""`gdacli mix`: an arm written down, the list of samples to train on."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gdacli.arms import Arm, arm_keys, selected
from gdacli.artifacts import sha256_file
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.params import Params
from gdacli.paths import DROPPED, REJECTS, SELECTION, SOURCE, SYNTHETIC, mix_file
from gdacli.pools import imported_rows, read_pool
from gdacli.prepared import read_prepared, read_strategies
from gdacli.rejects import read_left_out
from gdacli.tables import write_table

VERSION = 2


def run(params: Params, arm: str | None = None) -> dict[str, Any]:
    """Write `data/mix/<arm>.parquet`, of every compared arm when none is named; returns the counts per arm."""
    index = read_prepared(SOURCE).train_index()
    source = _Source(index, read_strategies(SELECTION, index["key"]), params.all_arms())
    names = [arm] if arm is not None else params.compare.arms
    return {"arms": {name: _write(params.arm(name), source, _added(params.arm(name), source)) for name in names}}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per arm."""
    return "\n".join(
        f"{name}: {counts['source']} source + {counts['copies']} copies + {counts['synthetic']} synthetic"
        f"{_left_out(counts)} = {counts['total']} images an epoch -> {mix_file(name)}"
        for name, counts in result["arms"].items()
    )


@dataclass(frozen=True)
class _Source:
    """What arms choose from."""

    index: dict[str, Any]
    """Of the train images."""
    strategies: dict[str, tuple[np.ndarray, np.ndarray]]
    arms: dict[str, Arm]
    """All of them, to look up `like`."""
    rejected: set[str] = field(default_factory=lambda: set(read_left_out(REJECTS)))
    """Keys that no mix takes, because a person says so; they may be in a pool."""

    def chosen(self, arm: Arm) -> np.ndarray:
        """Return which train images an arm augments, bool [N]."""
        return selected(arm, self.arms, self.strategies, self.index["label"])

    @cached_property
    def pool(self) -> dict[str, Any]:
        """The generated pool."""
        pool = read_pool(None)
        known = {*pool["key"], *self.dropped}
        if strange := sorted(key for key in self.rejected - known if ":" not in key):
            counts = f"{len(strange)} of its {len(self.rejected)} keys"
            say(f"note: {REJECTS}: {SYNTHETIC} has not {counts} (first: {strange[0]})")
        return pool

    @cached_property
    def dropped(self) -> set[str]:
        """Keys that `generate.filter` left out of the generated pool."""
        return set(read_left_out(DROPPED))


@dataclass(frozen=True)
class _Added:
    """The synthetic images that an arm adds: rows of a pool, and how many are left out of it."""

    pool: dict[str, Any]
    rows: list[int]
    num_dropped: int = 0
    num_rejected: int = 0


def _added(arm: Arm, source: _Source) -> _Added | None:
    """Return what an arm adds; None if that is nothing."""
    if arm.add == "imported":
        return _imported(arm, source)
    wanted = arm_keys(arm, source.index["key"], source.chosen(arm))
    if not wanted:
        return None
    kept = [key for key in wanted if key not in source.dropped]
    added = [key for key in kept if key not in source.rejected]
    row_of = {key: row for row, key in enumerate(source.pool["key"])}
    missing = [key for key in added if key not in row_of]
    if missing:
        raise GdaError(
            f"{SYNTHETIC} lacks {len(missing)} of the {len(wanted)} images that arm {arm.name} needs (first: "
            f"{missing[0]}): put {arm.name} into compare.arms and run `gdacli generate`"
        )
    rows = [row_of[key] for key in added]
    return _Added(source.pool, rows, len(wanted) - len(kept), len(kept) - len(added))


def _imported(arm: Arm, source: _Source) -> _Added:
    """Return the images of an imported pool that an arm adds; `like` counts what the other arm's mix holds."""
    pool = read_pool(arm.pool)
    keys = [source.index["key"][row] for row in np.flatnonzero(source.chosen(arm))]
    number = arm.num_images or None
    if arm.like is not None:
        other = _added(source.arms[arm.like], source)
        number = len(other.rows) if other is not None else 0
    rows = imported_rows(arm, pool, keys, source.rejected, number)
    num_rejected = sum(pool["key"][row] in source.rejected for row in imported_rows(arm, pool, keys, (), None))
    return _Added(pool, rows, num_rejected=num_rejected)


def _write(arm: Arm, source: _Source, added: _Added | None) -> dict[str, Any]:
    index, chosen = source.index, source.chosen(arm)
    repeats = np.where(chosen, arm.k, 1) if arm.add == "copies" else np.ones(len(chosen), np.int64)
    mix = {
        "key": list(index["key"]),
        "label": index["label"].tolist(),
        "origin": ["source"] * len(chosen),
        "shard": [str(SOURCE / shard) for shard in index["shard"]],
        "sha256": list(index["sha256"]),
        "repeats": repeats.tolist(),
    }
    rows = added.rows if added is not None else []
    if added is not None:
        for column, of_pool in (("key", "member"), ("label", "label"), ("shard", "shard"), ("sha256", "sha256")):
            mix[column] += [added.pool[of_pool][row] for row in rows]
        mix["origin"] += ["synthetic"] * len(rows)
        mix["repeats"] += [1] * len(rows)
    counts = {
        "source": len(chosen),
        "copies": int(repeats.sum()) - len(chosen),
        "synthetic": len(rows),
        "dropped": added.num_dropped if added is not None else 0,
        "rejected": added.num_rejected if added is not None else 0,
        "selected": int(chosen.sum()),
        "total": int(sum(mix["repeats"])),
    }
    if added is not None and not rows:
        say(f"warning: arm {arm.name} has no synthetic image left{_left_out(counts)}: it is the original images alone")
    write_table(mix_file(arm.name), mix)
    return {**counts, "sha256": sha256_file(mix_file(arm.name))}  # which `gdacli verify` compares


def _left_out(counts: dict[str, int]) -> str:
    """Say how many images are left out and why, as a sentence's part; nothing if none is."""
    parts = [f"{counts[why]} {why}" for why in ("dropped", "rejected") if counts[why]]
    return f" (left out: {', '.join(parts)})" if parts else ""
