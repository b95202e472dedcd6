"""Which images of a pool are shared, and their shards."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gdacli.artifacts import read_json, require, sha256_bytes, sha256_file
from gdacli.errors import GdaError
from gdacli.paths import REJECTS, SYNTHETIC, mix_file
from gdacli.pools import UNKNOWN, check_vetoes, read_pool
from gdacli.provenance import without_folders
from gdacli.published import INDEX, MANIFEST
from gdacli.rejects import read_left_out
from gdacli.shards import Shard, read_shard, write_shard
from gdacli.tables import read_columns, read_table

SAMPLED = "sampled"
"""The kind of images without a source; the others' is their strength, `s0500`."""

VARIED = "variants"
"""The kind of images with a source whose strength is not known, as other tools make them."""


@dataclass(frozen=True)
class SharedPool:
    """A pool, and the images of it that are shared."""

    folder: Path
    manifest: dict[str, Any]
    """Of the whole pool."""
    index: pa.Table
    """The rows of `index.parquet` that are shared, in its order."""
    sources: list[str]
    """Key of the source of each shared image; empty without one."""
    kinds: list[str]
    """What sort of image each is: see `SAMPLED`."""
    num_pool: int
    """Images in the whole pool."""

    @property
    def keys(self) -> list[str]:
        """The keys of the shared images."""
        return self.index["key"].to_pylist()

    def counts(self) -> dict[str, np.ndarray]:
        """Count the shared images: kind -> number per class, int64 [C], by rising strength, unknown and none last."""
        labels = self.index["label"].to_numpy()
        kinds = np.array(self.kinds)
        num_classes = len(self.manifest["class_names"])
        return {kind: np.bincount(labels[kinds == kind], minlength=num_classes) for kind in _ordered(self.kinds)}


def _ordered(kinds: Iterable[str]) -> list[str]:
    return sorted(set(kinds), key=lambda kind: (kind == SAMPLED, kind == VARIED, kind))


def kind_of(source: str, strength: int) -> str:
    """Return what sort of image one of a source, empty for none, and of a strength in thousandths is.

    >>> kind_of("cat-1", 500), kind_of("cat-1", UNKNOWN), kind_of("", 1000)
    ('s0500', 'variants', 'sampled')
    """
    if not source:
        return SAMPLED
    return VARIED if strength == UNKNOWN else f"s{strength:04d}"


def kind_title(kind: str) -> str:
    """Return what a table or a picture calls a kind.

    >>> kind_title("s0500"), kind_title("sampled")
    ('0.5', 'sampled')
    """
    return kind if kind in (SAMPLED, VARIED) else f"{int(kind[1:]) / 1000:g}"


def read_shared(arm: str | None) -> SharedPool:
    """Read which images are shared.

    Args:
        arm: whose added images; None takes the whole pool without those that `rejects.csv` vetoes.

    Raises:
        GdaError: there is no pool, no mix of the arm, the mix lists other images than the pool holds, or vetoed ones,
            or none is left.
    """
    folder, wanted = (SYNTHETIC, None) if arm is None else _added(arm)
    how = "gdacli generate" if folder == SYNTHETIC else "gdacli pull` or `gdacli import-pool"
    manifest = read_json(require(folder / MANIFEST, how))
    index = read_columns(require(folder / INDEX, how))
    keys = index["key"].to_pylist()
    if wanted is None:
        vetoed = read_left_out(REJECTS)
        kept = [key not in vetoed for key in keys]
    else:
        kept = [wanted.get(key) == sha256 for key, sha256 in zip(keys, index["sha256"].to_pylist(), strict=True)]
        if sum(kept) < len(wanted):
            raise GdaError(
                f"{mix_file(str(arm))} lists {len(wanted) - sum(kept)} images that {folder} does not hold: run "
                f"`gdacli mix --arm {arm}`, or `dvc checkout`"
            )
    pool = read_pool(None if folder == SYNTHETIC else folder.name)
    kinds = map(kind_of, pool["source_key"], pool["strength"].tolist())
    shared = SharedPool(
        folder,
        manifest,
        index.filter(pa.array(kept, pa.bool_())),
        sources=list(compress(pool["source_key"], kept)),
        kinds=list(compress(kinds, kept)),
        num_pool=len(keys),
    )
    if not shared.index.num_rows:
        why = f"{REJECTS} vetoes all of its {len(keys)} images" if keys else "nothing was generated"
        raise GdaError(
            f"{folder} has no image to share: {why}: leave it out with --what model, or give --arm for an arm of "
            "another pool"
        )
    return shared


def pool_of(arm: str | None) -> Path:
    """Return the folder of the pool whose images are shared; `arm` as of `read_shared`.

    Raises:
        GdaError: there is no mix of the arm, or it adds no image, or images of several pools.
    """
    return SYNTHETIC if arm is None else _added(arm)[0]


def _added(arm: str) -> tuple[Path, dict[str, str]]:
    """Return the pool of an arm's added images, and their SHA-256 by key."""
    mix = read_table(require(mix_file(arm), f"gdacli mix --arm {arm}"))
    columns = list(zip(mix["key"], mix["sha256"], mix["shard"], mix["origin"], strict=True))
    added = {key: (sha256, Path(shard).parent) for key, sha256, shard, origin in columns if origin != "source"}
    images = ((key, shard) for key, _, shard, origin in columns if origin != "source")
    check_vetoes(mix_file(arm), images, read_left_out(REJECTS), f"`gdacli mix --arm {arm}`")
    folders = {folder for _, folder in added.values()}
    if len(folders) != 1:
        found = "no image" if not folders else f"images of {len(folders)} pools"
        raise GdaError(
            f"--arm {arm}: found {found} in its mix; allowed is an arm that adds images of one pool: name another, or "
            f"leave --arm out to share all of {SYNTHETIC}"
        )
    return folders.pop(), {key: sha256 for key, (sha256, _) in added.items()}


def write_shards(shared: SharedPool, folder: Path, advance: Callable[[int], object]) -> list[Shard]:
    """Put the shards of the shared images into a folder.

    A shard of which nothing is left out is a relative link: pools are large, and its bytes are the pool's own. Others
    are written anew, and all of them are if they name a model by where it lies on somebody's disk.

    Args:
        shared: the images.
        folder: to fill.
        advance: called with the number of images after each shard.

    Raises:
        GdaError: a shard is missing or damaged.
    """
    left = Counter(shared.index["shard"].to_pylist())
    sha256_of = dict(zip(shared.keys, shared.index["sha256"].to_pylist(), strict=True))
    told = without_places(shared.manifest) != shared.manifest
    written = []
    for shard in (Shard(**each) for each in shared.manifest["shards"]):
        if not left[shard.name]:
            continue
        path = shared.folder / shard.name
        if left[shard.name] == shard.count and not told:
            link_file(path, folder / shard.name, shard.sha256)
            written.append(shard)
        else:
            kept = (
                replace(sample, meta=without_places(sample.meta))
                for sample in read_shard(path)
                if sha256_of.get(sample.key) == sha256_bytes(sample.image)
            )
            written.append(write_shard(folder / shard.name, kept))
            if written[-1].count != left[shard.name]:
                raise _damaged(path)
        advance(left[shard.name])
    return written


def without_places(value: Any) -> Any:
    """Leave of local paths the last part, also of those in a list that is joined by ` + `, as names of models are.

    >>> without_places({"model": "user/sd + /home/me/lora"})
    {'model': 'user/sd + .../lora'}
    """
    if isinstance(value, dict):
        return {key: without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    return " + ".join(map(without_folders, value.split(" + "))) if isinstance(value, str) else value


def link_file(path: Path, link: Path, sha256: str) -> None:
    """Link to a file of the project, by a path relative to the link, after its content was checked.

    Raises:
        GdaError: it is missing, or has another SHA-256.
    """
    if not path.exists() or sha256_file(path) != sha256:
        raise _damaged(path)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(path.resolve(), link.parent.resolve()))


def _damaged(path: Path) -> GdaError:
    return GdaError(f"{path} is missing or damaged: run `dvc checkout --force {path.parent}`, or make it again")


def manifest_of(shared: SharedPool, shards: list[Shard]) -> dict[str, Any]:
    """Return the manifest of what is shared: the pool's, with the numbers and the shards that are there."""
    images = {kind: int(counts.sum()) for kind, counts in shared.counts().items()}
    return {
        **without_places(shared.manifest),
        "images": images,
        "num_images": sum(images.values()),
        "shards": [vars(shard) for shard in shards],
    }
