"""A published pool: the folder that `gdacli generate` writes, here or where others have put it."""

import csv
import hashlib
import json
import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from gdacli.artifacts import CHECKSUMS, sha256_bytes
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.paths import DROPPED
from gdacli.shards import read_shard
from gdacli.store import Environment, Taken, open_location
from gdacli.tables import read_table

MANIFEST, INDEX = "manifest.json", "index.parquet"


def previous_pool(folder: Path) -> list[str]:
    """Return the location of the pool that a folder holds, or nothing; one that cannot be used is said."""
    if not folder.exists():
        return []
    pool = PublishedPool(str(folder.absolute()))
    try:
        _ = pool.manifest["scoring"], pool.identities()
    except (GdaError, KeyError) as error:
        say(f"note: the images of the present pool are not reused: {error}")
        return []
    return [pool.location]


class PublishedPool:
    """Images of a pool by identity, each checked before it is taken.

    Args:
        location: a folder or an fsspec URL.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._folder = open_location(location)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Return `manifest.json`.

        Raises:
            GdaError: it is missing or damaged.
        """
        return json.loads(self._read(MANIFEST))

    @cached_property
    def index(self) -> dict[str, Any]:
        """Return the columns of `index.parquet`.

        Raises:
            GdaError: it is missing or damaged.
        """
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / INDEX
            copy.write_bytes(self._read(INDEX))
            return read_table(copy)

    @cached_property
    def dropped(self) -> list[dict[str, str]]:
        """Return the rows of `dropped.csv`: images that a filter left out, which lie in a folder of their own.

        Raises:
            GdaError: it is missing or damaged.
        """
        return list(csv.DictReader(self._read(DROPPED.name).decode().splitlines()))

    def identities(self) -> set[str]:
        """Return the identities of all its images."""
        return {*self.index["identity"], *(row["identity"] for row in self.dropped)}

    def take(self, identities: Iterable[str]) -> tuple[dict[str, Taken], list[Environment]]:
        """Return the samples, by identity, of those images that the pool has, and where they were made.

        A damaged shard is said, and its images are left out.

        Raises:
            GdaError: the pool, its manifest or its index is missing or damaged.
        """
        columns = (self.index[name] for name in ("identity", "key", "shard"))
        held = {identity: (key, shard) for identity, key, shard in zip(*columns, strict=True)}
        for row in self.dropped:
            held[row["identity"]] = row["key"], f"{DROPPED.stem}/{row['shard']}"
        wanted: dict[str, dict[str, str]] = {}
        for identity in identities:
            if identity in held:
                key, shard = held[identity]
                wanted.setdefault(shard, {})[key] = identity
        found: dict[str, Taken] = {}
        for shard, identity_of in wanted.items():
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / "shard.tar"
                if self._copy(shard, copy):
                    for sample in read_shard(copy):
                        if sample.key in identity_of:
                            found[identity_of[sample.key]] = Taken(sample, self.manifest["scoring"])
        return found, list(self.manifest["environments"]) if found else []

    @cached_property
    def _checksums(self) -> dict[str, str]:
        try:
            lines = (self._folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            raise GdaError(
                f"{self.location}: no pool of images ({CHECKSUMS} is missing): give a folder that `gdacli generate` "
                "wrote, or pull it first"
            ) from None
        except UnicodeDecodeError:
            return {}  # nothing has the hash that it should have then
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        content = path.read_bytes() if path.exists() else b""
        if sha256_bytes(content) != self._checksums.get(name):
            raise GdaError(f"{self.location}/{name} is missing or damaged: pull or make the pool again")
        return content

    def _copy(self, shard: str, target: Path) -> bool:
        digest = hashlib.sha256()
        path = self._folder / shard
        if path.exists():
            with path.open("rb") as source, target.open("wb") as file:
                while block := source.read(1 << 20):
                    digest.update(block)
                    file.write(block)
        if digest.hexdigest() == self._checksums.get(shard):
            return True
        say(f"warning: {self.location}/{shard} is missing or damaged; its images are not taken from there")
        return False
