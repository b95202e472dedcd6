"""The work directory: finished shards kept outside the project and DVC, so that no image is made twice.

DVC deletes a stage's outputs before it runs; what lies here survives that, kills and other branches.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from gdacli.artifacts import new_file, read_json, sha256_file, write_json
from gdacli.console import say
from gdacli.rng import combine
from gdacli.shards import Sample, Shard, read_shard, write_shard

ENVIRONMENT_VARIABLE = "GDACLI_WORK"


def work_directory() -> Path:
    """Return `$GDACLI_WORK`, or `gdacli` in the user's cache directory."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or user_cache_path("gdacli"))


@dataclass(frozen=True)
class Stored:
    """A finished shard of the store."""

    path: Path
    shard: Shard
    environments: list[dict[str, str]]
    """Where its images were made: device kind, library versions."""


class ImageStore:
    """Finished shards of images made with the same settings, found by what they hold.

    An image's identity is the hash of all that determines it. Each shard lies under the hash of its identities, in
    order, with a JSON file beside it, written after it: a shard without one is unfinished and is never read.
    """

    def __init__(self, settings: str) -> None:
        self._folder = work_directory() / "images" / settings[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._holder: dict[str, Path] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator["ImageStore"]:
        """Hold the store for this process, after another one that holds it, and see what it has."""
        with (self._folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another gdacli generates with these settings ({self._folder}); waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            for listing in sorted(self._folder.glob("*.json")):
                self._holder |= dict.fromkeys(read_json(listing)["identities"], listing)
            yield self

    def find(self, identities: Sequence[str]) -> Stored | None:
        """Return the finished shard of exactly these images in this order, None if there is none or it is damaged."""
        listing = self._listing(identities)
        return self._read(listing) if listing.exists() else None

    def take(self, identities: Iterable[str]) -> tuple[dict[str, Sample], list[dict[str, str]]]:
        """Return the samples, by identity, of all the images that some shard holds, and where those were made."""
        wanted: dict[Path, set[str]] = {}
        for identity in identities:
            if identity in self._holder:
                wanted.setdefault(self._holder[identity], set()).add(identity)
        found: dict[str, Sample] = {}
        environments: list[dict[str, str]] = []
        for listing, held in wanted.items():
            stored = self._read(listing)
            if stored is None:
                continue
            for identity, sample in zip(read_json(listing)["identities"], read_shard(stored.path), strict=True):
                if identity in held:
                    found[identity] = sample
            environments += stored.environments
        return found, environments

    def put(
        self, identities: Sequence[str], samples: Iterable[Sample], environments: Sequence[dict[str, str]]
    ) -> Stored:
        """Keep a finished shard; shards whose images it all holds are dropped."""
        listing = self._listing(identities)
        path = listing.with_suffix(".tar")
        shard = write_shard(path, samples)
        unique = [dict(items) for items in sorted({tuple(sorted(each.items())) for each in environments})]
        content: dict[str, Any] = {"sha256": shard.sha256, "count": shard.count, "environments": unique}
        write_json(listing, {**content, "identities": list(identities)})
        replaced = {self._holder[identity] for identity in identities if identity in self._holder} - {listing}
        self._holder |= dict.fromkeys(identities, listing)
        for old in replaced:
            if all(self._holder.get(identity) == listing for identity in read_json(old)["identities"]):
                self._drop(old)
        return Stored(path, shard, unique)

    def _listing(self, identities: Sequence[str]) -> Path:
        return self._folder / f"{combine(identities)[:32]}.json"

    def _read(self, listing: Path) -> Stored | None:
        content = read_json(listing)
        path = listing.with_suffix(".tar")
        if not path.exists() or sha256_file(path) != content["sha256"]:
            say(f"warning: {path} is damaged; its images are made again")
            self._drop(listing)
            return None
        return Stored(path, Shard(path.name, content["sha256"], content["count"]), content["environments"])

    def _drop(self, listing: Path) -> None:
        self._holder = {identity: path for identity, path in self._holder.items() if path != listing}
        listing.unlink(missing_ok=True)
        listing.with_suffix(".tar").unlink(missing_ok=True)


def publish(stored: Stored, path: Path) -> Shard:
    """Copy a finished shard to `path`; never a hard link, which DVC's cache would make read-only in both places."""
    with new_file(path) as temporary:
        shutil.copyfile(stored.path, temporary)
    return Shard(path.name, stored.shard.sha256, stored.shard.count)
