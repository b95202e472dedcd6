"""`gdacli import-pool`: synthetic images of any other tool become an arm, to compare rivals on equal terms."""

from pathlib import Path
from typing import Any

from gdacli.brought_pools import brought_in, check_names, is_pool, pool_name, said, take_pool
from gdacli.errors import GdaError
from gdacli.explain import FILE
from gdacli.imported_images import import_images
from gdacli.params import Params
from gdacli.paths import SOURCE
from gdacli.prepared import read_prepared
from gdacli.redaction import find_secret


def run(
    params: Params, folder: Path, pool: str | None = None, arm: str | None = None, source_keys: Path | None = None
) -> dict[str, Any]:
    """Write `data/pools/<name>` and name an arm that takes it in `params.yaml`; returns what was brought in.

    Args:
        params: of the project.
        folder: of images, tables or shards, or a pool of gdacli's.
        pool: its name; None makes one of the folder's.
        arm: name of the arm; None is the pool's.
        source_keys: CSV that says which image each varies.

    Raises:
        GdaError: there is no such folder, or its images do not fit the project.
    """
    folder = folder.expanduser()
    if not folder.exists():
        raise GdaError(f"{folder}: there is no such folder: name one with images, tables or shards")
    if kind := find_secret(folder.resolve().name):
        raise GdaError(f"FOLDER: its name holds {kind}, and would stand in the manifest: rename it")
    prepared = read_prepared(SOURCE)
    name = pool or pool_name(folder.resolve().name)
    check_names(name, arm or name, {"folder": folder.resolve().name}, Path(FILE))
    if is_pool(folder):
        if source_keys is not None:
            raise GdaError(f"--source-keys: {folder} is a pool of gdacli's, which names its sources: leave it out")
        brought = take_pool(folder, name, prepared, {"folder": folder.resolve().name}, str(folder))
    else:
        data = params.data
        brought = import_images(
            folder,
            name,
            prepared,
            resize=data.resize,
            shard_size=data.shard_size,
            skip_bad=data.on_bad_image == "skip",
            source_keys=source_keys,
        )
    return brought_in(brought, Path(FILE), arm or name)


def summary(result: dict[str, Any]) -> str:
    """Say the result in a few lines."""
    return said(result)
