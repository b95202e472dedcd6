"""A picture of some of the newest synthetic images, drawn while more of them are made."""

import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from gdacli.artifacts import new_file
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.grid import Row, contact_sheet
from gdacli.images import decode_array
from gdacli.pool import ShardRequest, tasks_for
from gdacli.recipe import Recipe
from gdacli.shards import read_shard
from gdacli.store import ImageStore

_ROWS = 8
_LOOK_AT = 32
_SECONDS_BETWEEN, _SECONDS_BETWEEN_LOOKS = 20.0, 1.0
_CELL = 96


class Showcase:
    """Draws the first images of the last finished shard, each beside its source; call it after each piece of work.

    Args:
        path: of the PNG.
        recipe: of the images.
        store: where finished shards are.
        shards: those that are being made.
    """

    def __init__(self, path: Path, recipe: Recipe, store: ImageStore, shards: Sequence[ShardRequest]) -> None:
        self._path, self._recipe, self._store = path, recipe, store
        self._unfinished = [shard for task in tasks_for(shards, 2) for shard in task]  # about the order they come in
        self._not_before = 0.0

    def __call__(self) -> None:
        """Draw, if a shard was finished since the last time and that is a while ago; a picture ends no run."""
        start = time.monotonic()
        if start < self._not_before:
            return
        done = [
            each for each in self._unfinished[:_LOOK_AT] if self._store.holds(each.identities, self._recipe.scoring)
        ]
        self._unfinished = [each for each in self._unfinished if each not in done]
        try:
            if done:
                self._draw(done[-1])
        except (GdaError, OSError) as error:
            say(f"note: {self._path} is not drawn ({error})")
        took = time.monotonic() - start
        self._not_before = start + max(_SECONDS_BETWEEN if done else _SECONDS_BETWEEN_LOOKS, 50 * took)

    def _draw(self, wanted: ShardRequest) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / wanted.name
            if self._store.fetch(wanted.identities, self._recipe.scoring, copy) is None:
                return
            samples = list(islice(read_shard(copy), _ROWS))
        keys = {sample.meta["source_key"] for sample in samples}
        sources = {}
        if wanted.source_shard is not None:
            for sample in read_shard(self._recipe.source / wanted.source_shard):
                if sample.key in keys:
                    sources[sample.key] = decode_array(sample.image)
        rows: list[Row] = [
            (sample.meta["class_name"], [sources.get(sample.meta["source_key"]), decode_array(sample.image)])
            for sample in samples
        ]
        with new_file(self._path) as temporary:
            temporary.write_bytes(contact_sheet(rows, ["source", f"{wanted.strength / 1000:g}"], cell=_CELL))
