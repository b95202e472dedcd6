"""`gdacli pull`: a pool that others have shared becomes an arm of this project; nothing is generated."""

from pathlib import Path
from typing import Any

from gdacli.brought_pools import POOL_FILES, brought_in, check_names, is_pool, pool_name, said, take_pool
from gdacli.errors import GdaError
from gdacli.explain import FILE
from gdacli.params import Params
from gdacli.paths import SOURCE
from gdacli.prepared import read_prepared
from gdacli.sharing.hub import download


def run(
    params: Params, repo_id: str, revision: str | None = None, pool: str | None = None, arm: str | None = None
) -> dict[str, Any]:
    """Write `data/pools/<name>` and name an arm that takes it in `params.yaml`; returns what was brought in.

    Args:
        params: of the project.
        repo_id: of a dataset that `gdacli push` made.
        revision: its branch, tag or commit; the newest when None.
        pool: its name; None makes one of the repository's.
        arm: name of the arm; None is the pool's.

    Raises:
        GdaError: the Hub does not give it, it is no pool of gdacli's, or its classes or sources are not this project's.
    """
    prepared = read_prepared(SOURCE)
    name = pool or pool_name(repo_id.rpartition("/")[2])
    check_names(name, arm or name, {"repo_id": repo_id}, Path(FILE))
    folder, commit = download(repo_id, revision, files=POOL_FILES)
    if not is_pool(folder):
        raise GdaError(
            f"{repo_id}: it is no pool that `gdacli push` has shared: download it, and use `gdacli import-pool FOLDER`"
        )
    brought = take_pool(folder, name, prepared, {"repo_id": repo_id, "revision": commit}, repo_id)
    return {**brought_in(brought, Path(FILE), arm or name), "revision": commit}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a few lines."""
    return said(result)
