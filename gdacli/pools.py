"""The pools of synthetic images that a project has: the one that it generated, and those that were brought in."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.arms import Arm, milli, source_of
from gdacli.artifacts import require
from gdacli.errors import GdaError
from gdacli.paths import POOLS, REJECTS, SYNTHETIC
from gdacli.rng import derive_seed
from gdacli.tables import read_table

UNKNOWN = -1
"""The strength of an image of which none is known."""

NO_SOURCE = -1
"""The source row of an image without one."""

_COLUMNS = ("key", "member", "label", "shard", "sha256", "pool", "source_key", "strength")
_NEAREST = {"nearest_key": "", "nearest_distance": np.inf}


def read_pool(name: str | None) -> dict[str, Any]:
    """Read the index of a pool.

    Args:
        name: of an imported one; None is the generated one.

    Returns:
        columns of M images: `key`, as mixes, reports and `rejects.csv` name it (of an imported one `<pool>:<member>`);
        `member`, its key in the shard; `label`, int [M]; `shard`, its path in the project; `sha256`; `pool`, empty for
        the generated one; `source_key`, empty without a source; `strength`, int [M] in thousandths, UNKNOWN where none
        is known; and of the nearest train image other than the source `nearest_key` and `nearest_distance`, empty and
        infinite where that was not measured.

    Raises:
        GdaError: there is no such pool, or it is damaged.
    """
    folder = SYNTHETIC if name is None else POOLS / name
    how = "gdacli generate" if name is None else "gdacli pull` or `gdacli import-pool"
    found = read_table(require(folder / "index.parquet", how))
    members = found["key"]
    variants = [source_of(key) for key in members]
    sources = found.get("source_key", [variant[0] if variant else "" for variant in variants])
    strengths = found.get("strength", np.array([variant[1] if variant else 1000 for variant in variants], np.int64))
    return {
        "key": members if name is None else [imported_key(name, key) for key in members],
        "member": members,
        "label": found["label"],
        "shard": [str(folder / shard) for shard in found["shard"]],
        "sha256": found["sha256"],
        "pool": [name or ""] * len(members),
        "source_key": sources,
        "strength": strengths,
        **{column: found.get(column, [empty] * len(members)) for column, empty in _NEAREST.items()},
    }


def imported_key(pool: str, member: str) -> str:
    """Return how an image of an imported pool is named beside others, which may have the same key.

    >>> imported_key("rival", "cat-1_s0500_v0")
    'rival:cat-1_s0500_v0'
    """
    return f"{pool}:{member}"


def read_pools(arms: Iterable[Arm]) -> dict[str, Any]:
    """Read the generated pool, if there is one, and the imported ones of some arms: the columns of `read_pool`."""
    names = sorted({arm.pool for arm in arms if arm.pool is not None})
    tables = [read_pool(None)] if SYNTHETIC.exists() else []
    tables += [read_pool(name) for name in names]
    return {
        column: [value for table in tables for value in table[column]]
        if column not in ("label", "strength")
        else np.concatenate([np.zeros(0, np.int64), *(table[column] for table in tables)])
        for column in (*_COLUMNS, *_NEAREST)
    }


def imported_rows(
    arm: Arm, pool: Mapping[str, Any], chosen_keys: Iterable[str], left_out: Iterable[str], num_images: int | None
) -> list[int]:
    """Return which rows of an imported pool an arm adds, in their order.

    Args:
        arm: one that adds imported images.
        pool: of `read_pool`.
        chosen_keys: the sources that its strategy selects; of no matter without one.
        left_out: keys that a person rejects.
        num_images: how many to draw at random, by the arm's name; None takes all.

    Raises:
        GdaError: the pool has fewer.
    """
    rejected, sources = set(left_out), set(chosen_keys)
    strengths = {milli(strength) for strength in arm.strengths}
    rows = [
        row
        for row, (key, source, strength) in enumerate(
            zip(pool["key"], pool["source_key"], pool["strength"].tolist(), strict=True)
        )
        if key not in rejected
        and (arm.select is None or source in sources)
        and (not strengths or strength in strengths)
    ]
    if num_images is None:
        return rows
    if num_images > len(rows):
        wanted = f"as many as arm {arm.like} adds" if arm.like else "num_images"
        raise GdaError(
            f"arms.{arm.name}: {wanted} is {num_images}, but the pool {POOLS / str(arm.pool)} has {len(rows)} images "
            "for it: lower the number, or bring in more images"
        )
    return sorted(sorted(rows, key=lambda row: derive_seed("imported", arm.name, pool["member"][row]))[:num_images])


def sources_in(pool: Mapping[str, Any], train_keys: Sequence[str]) -> np.ndarray:
    """Return of each image of pools the row of its source among the train images, NO_SOURCE without one.

    Args:
        pool: of `read_pools`, M images.
        train_keys: of the train images.

    Returns:
        int64 [M].

    Raises:
        GdaError: a source is no train image.
    """
    row_of = {key: row for row, key in enumerate(train_keys)}
    rows = np.full(len(pool["key"]), NO_SOURCE)
    for number, source in enumerate(pool["source_key"]):
        if not source:
            continue
        if source not in row_of:
            folder = Path(pool["shard"][number]).parent
            again = "run `gdacli generate` again" if folder == SYNTHETIC else "bring it in again"
            raise GdaError(
                f"{folder}: the source of {pool['member'][number]} is none of the {len(train_keys)} train images: "
                f"{again}"
            )
        rows[number] = row_of[source]
    return rows


def check_mix(mix: Path, name: str | None, rejects: Iterable[str]) -> None:
    """Check that a mix takes its synthetic images from a pool as it is now.

    Args:
        mix: the file.
        name: of the pool; None is the generated one.
        rejects: keys that a person vetoes.

    Raises:
        GdaError: the pool lacks an image of the mix, or one is vetoed.
    """
    table = read_table(mix)
    rows = zip(table["key"], table["shard"], table["sha256"], table["origin"], strict=True)
    added = [(key, shard, sha256) for key, shard, sha256, origin in rows if origin == "synthetic"]
    made = {(key, sha256) for key, _, sha256 in added}
    if not made:
        return
    pool = read_pool(name)
    if not made <= set(zip(pool["member"], pool["sha256"], strict=True)):
        where, again = (SYNTHETIC, "`gdacli generate` and ") if name is None else (POOLS / name, "")
        raise GdaError(f"{mix} lists images that {where} does not hold: run {again}`gdacli mix`")
    again = "`gdacli mix` and `gdacli train`, or `dvc repro`"
    check_vetoes(mix, ((key, shard) for key, shard, _ in added), rejects, again)


def check_vetoes(mix: Path, images: Iterable[tuple[str, str]], rejects: Iterable[str], again: str) -> None:
    """Check that a mix takes no image that a person vetoes.

    Args:
        mix: the file, for the message.
        images: its synthetic ones: key and shard, as they stand there.
        rejects: keys as of `read_pool`.
        again: what to run, for the message.

    Raises:
        GdaError: it does.
    """
    vetoed = set(rejects)
    if vetoed and (found := sorted(vetoed.intersection(_as_rejected(*image) for image in images))):
        raise GdaError(f"{mix} lists {len(found)} images that {REJECTS} rejects (first: {found[0]}): run {again}")


def _as_rejected(key: str, shard: str) -> str:
    """Return how `rejects.csv` names an image of a mix."""
    above, _, folder = shard.rpartition("/")[0].rpartition("/")
    return imported_key(folder, key) if above == POOLS.as_posix() else key
