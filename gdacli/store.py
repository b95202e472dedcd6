"""The work directory: finished shards kept outside the project and DVC, so that no image is made twice.

DVC deletes a stage's outputs before it runs; what lies here survives that, kills and other branches.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from gdacli.artifacts import TEMPORARY_PREFIX, new_file, sha256_bytes
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.rng import combine
from gdacli.shards import Sample, Shard, read_shard, write_shard

ENVIRONMENT_VARIABLE = "GDACLI_WORK"

_SECONDS_OF_A_WRITE = 24 * 3600.0
"""A file that another part of a run is writing now is not older than this."""

Environment = dict[str, str]
"""Where images were made: device, machine, library versions."""


def work_location() -> str:
    """Return `$GDACLI_WORK`, a folder or an fsspec URL (`s3://bucket/work`), or `gdacli` in the user's cache."""
    return os.environ.get(ENVIRONMENT_VARIABLE) or str(user_cache_path("gdacli"))


def local_work_folder() -> Path:
    """Return the work directory for what is kept on this machine alone; of a URL, the user's cache."""
    location = work_location()
    return user_cache_path("gdacli") if "://" in location else open_location(location)


def open_location(location: str) -> Path:
    """Return a local folder as an absolute `Path`, an fsspec URL as a `UPath`, which reads like one.

    Raises:
        GdaError: the protocol is unknown or needs a package that is not installed.
    """
    if "://" not in location:
        return Path(location).expanduser().absolute()
    from upath import UPath

    try:
        path: Any = UPath(location)
        _ = path.fs
    except (ImportError, ValueError) as error:
        raise GdaError(f"{location}: cannot be opened ({error}): install what it names, or use a folder") from error
    return path


@dataclass(frozen=True)
class Taken:
    """A sample that was made before, and what scored it."""

    sample: Sample
    scoring: str


class ImageStore:
    """Finished shards of images made with the same settings, found by what they hold.

    An image's identity is the hash of all that determines it; `scoring` is the hash of what scored it. Each shard lies
    under the hash of its identities, in order, and the scoring, with a listing beside it that is written after it: a
    shard without one is unfinished and is never read. A listing begins with the hash of the rest.
    """

    def __init__(self, location: str, settings: str) -> None:
        self.folder = open_location(location) / "images" / settings[:32]
        self._listings: dict[Path, dict[str, Any]] | None = None

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Hold the store for this process, after another one that holds it.

        Args:
            shared: with others that share it: the parts of one run. Places that are no local folder have no locks;
                there two runs may make an image twice, with the same bytes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not _is_local(self.folder):
            yield
            return
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another gdacli generates with these settings ({self.folder}); waiting for it")
                fcntl.flock(file, kind)
            for left in self.folder.glob(f"{TEMPORARY_PREFIX}*"):  # of a process that was killed
                with contextlib.suppress(FileNotFoundError):
                    if not shared or time.time() - left.stat().st_mtime > _SECONDS_OF_A_WRITE:
                        left.unlink()
            yield

    def holds(self, identities: Sequence[str], scoring: str) -> bool:
        """Say if a finished shard of exactly these images in this order is there; its bytes are not read."""
        listing = self._path(identities, scoring)
        if self._read(listing) is None:
            if listing.exists():
                _say_damaged(listing)
            return False
        return listing.with_suffix(".tar").exists()

    def known(self) -> set[str]:
        """Return the identities of all images that finished shards list."""
        return {identity for content in self._all().values() for identity in content["identities"]}

    def fetch(self, identities: Sequence[str], scoring: str, path: Path) -> tuple[Shard, list[Environment]] | None:
        """Copy a finished shard to `path`; never a hard link, which DVC's cache would make read-only in both places.

        Returns:
            the shard and where its images were made; None if it is missing or damaged, which is said.
        """
        listing = self._path(identities, scoring)
        content = self._read(listing)
        if content is None:
            return None
        try:
            with new_file(path) as temporary:
                _copy(listing, content, temporary)
        except (_DamagedError, FileNotFoundError):
            _say_damaged(listing)
            self._drop(listing)
            return None
        return Shard(path.name, content["sha256"], content["count"]), content["environments"]

    def take(self, identities: Iterable[str]) -> tuple[dict[str, Taken], list[Environment]]:
        """Return the samples, by identity, of all the images that some shard holds, and where those were made."""
        holder = {each: path for path, content in self._all().items() for each in content["identities"]}
        wanted: dict[Path, set[str]] = {}
        for identity in identities:
            if identity in holder:
                wanted.setdefault(holder[identity], set()).add(identity)
        found: dict[str, Taken] = {}
        environments: list[Environment] = []
        for listing, held in wanted.items():
            content = self._all()[listing]
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / "shard.tar"
                try:
                    _copy(listing, content, copy)
                except (_DamagedError, FileNotFoundError):
                    _say_damaged(listing)
                    self._drop(listing)
                    continue
                for identity, sample in zip(content["identities"], read_shard(copy), strict=True):
                    if identity in held:
                        found[identity] = Taken(sample, content["scoring"])
            environments += content["environments"]
        return found, environments

    def put(
        self,
        identities: Sequence[str],
        scoring: str,
        samples: Iterable[Sample],
        environments: Iterable[Environment],
    ) -> None:
        """Keep a finished shard; shards whose images it all holds are dropped."""
        listing = self._path(identities, scoring)
        path = listing.with_suffix(".tar")
        self.folder.mkdir(parents=True, exist_ok=True)
        if _is_local(path):
            shard = write_shard(path, samples)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                shard = write_shard(Path(scratch) / path.name, samples)
                _upload(Path(scratch) / path.name, path)
        content = {
            "sha256": shard.sha256,
            "count": shard.count,
            "scoring": scoring,
            "environments": [dict(items) for items in sorted({tuple(sorted(each.items())) for each in environments})],
            "identities": list(identities),
        }
        text = json.dumps(content)
        _write(listing, f"{sha256_bytes(text.encode())}\n{text}")
        for old, held in list(self._all().items()):
            if old != listing and set(held["identities"]) <= set(identities):
                self._drop(old)
        self._all()[listing] = content

    def _path(self, identities: Sequence[str], scoring: str) -> Path:
        return self.folder / f"{combine([*identities, scoring])[:32]}.listing"

    def _all(self) -> dict[Path, dict[str, Any]]:
        if self._listings is None:
            read = {path: self._read(path) for path in sorted(self.folder.glob("*.listing"))}
            self._listings = {path: content for path, content in read.items() if content is not None}
        return self._listings

    def _read(self, listing: Path) -> dict[str, Any] | None:
        try:
            digest, _, text = listing.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        # One that is half-written, as another worker's may be where renaming is not at hand, is not there yet.
        return json.loads(text) if sha256_bytes(text).encode() == digest else None

    def _drop(self, listing: Path) -> None:
        if self._listings is not None:
            self._listings.pop(listing, None)
        listing.unlink(missing_ok=True)
        listing.with_suffix(".tar").unlink(missing_ok=True)


def _say_damaged(listing: Path) -> None:
    tar = listing.with_suffix(".tar")
    say(f"warning: {tar} or its listing is damaged; its images are made again or taken elsewhere")


class _DamagedError(Exception):
    """A shard has other bytes than its listing says."""


def _copy(listing: Path, content: dict[str, Any], target: Path) -> None:
    digest = hashlib.sha256()
    with listing.with_suffix(".tar").open("rb") as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != content["sha256"]:
        raise _DamagedError


def _is_local(path: Path) -> bool:
    return type(path) in (type(Path()), Path)


def _upload(file: Path, target: Path) -> None:
    with file.open("rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


def _write(path: Path, text: str) -> None:
    if _is_local(path):
        with new_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    else:
        path.write_text(text, encoding="utf-8")
