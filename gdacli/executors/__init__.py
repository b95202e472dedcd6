"""Executors: who makes the missing shards. Each gives the same bytes.

To add one: write a module with `run(recipe, tasks, workers, advance)` and its line in EXECUTORS.
"""

from collections.abc import Callable, Sequence
from importlib import import_module

from gdacli.pool import ShardRequest
from gdacli.recipe import Recipe

EXECUTORS: dict[str, str] = {"local": "gdacli.executors.local", "ray": "gdacli.executors.ray_cluster"}
"""Name -> module."""

Advance = Callable[[int, int], None]
"""`advance(made, taken)`: so many images are done."""


def make_shards(
    executor: str, recipe: Recipe, shards: Sequence[ShardRequest], workers: int | None, advance: Advance
) -> None:
    """Put shards into the store.

    Args:
        executor: a key of EXECUTORS.
        recipe: how to make images.
        shards: the missing ones.
        workers: how many at once; None leaves it to the executor: one per GPU, one on a CPU.
        advance: called after each batch.

    Raises:
        GdaError: what a worker could not do, or that it died; finished shards are kept.
    """
    if shards:
        import_module(EXECUTORS[executor]).run(recipe, shards, workers, advance)
