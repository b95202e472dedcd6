"""Bring a pool that gdacli made elsewhere into a project, and what every pool from elsewhere must fulfil."""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.arms import POOL_NAME, source_of
from gdacli.artifacts import CHECKSUMS, new_directory, read_json, sha256_bytes, write_json, write_text
from gdacli.checksums import verify_folder
from gdacli.console import progress, say
from gdacli.errors import GdaError
from gdacli.params_file import add_arm, with_arm
from gdacli.paths import POOLS
from gdacli.pool import dataset_card
from gdacli.prepared import Prepared
from gdacli.published import INDEX, MANIFEST
from gdacli.records import SPLITS
from gdacli.shards import read_shard
from gdacli.tables import read_table

_SHARED = (CHECKSUMS, MANIFEST, INDEX)

_SHARD = r"train-[A-Za-z0-9_-]+\.tar"

POOL_FILES = (*_SHARED, "train-*.tar")
"""Which files of a shared data set are the pool; the others are for its readers."""


@dataclass(frozen=True)
class Brought:
    """What was brought in."""

    name: str
    num_images: int
    num_with_source: int
    num_skipped: int = 0
    """Images that do not decode."""
    num_other_sources: int = 0
    """Sources that have other bytes here than where the images were made."""


def is_pool(folder: Path) -> bool:
    """Return whether a folder is a pool of gdacli's: one that was generated, shared or brought in."""
    return all((folder / name).is_file() for name in _SHARED)


def pool_name(text: str) -> str:
    """Make the name of an imported pool of the name of a folder or a repository.

    >>> pool_name("Shoes-Variants.v2")
    'shoes_variants_v2'
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "pool"


def check_names(name: str, arm: str, origin: Mapping[str, str], params_file: Path) -> None:
    """Check that a pool and its arm may take their names, before the work begins.

    Args:
        name: of the pool.
        arm: of the arm.
        origin: where the pool comes from: `repo_id` or `folder`.
        params_file: that gets the arm.

    Raises:
        GdaError: one is no name, or a pool of another origin or another arm has it.
    """
    for option, found in (("--name", name), ("--arm", arm)):
        if not re.fullmatch(POOL_NAME, found):
            raise GdaError(f"{option}: found {found!r}, allowed: letters a to z, digits and _")
    with_arm(params_file, arm, _entry(name))
    present = POOLS / name / MANIFEST
    if not present.exists():
        return
    found = read_json(present).get("imported_from", {})
    if any(found.get(key) != origin[key] for key in ("repo_id", "folder") if key in origin):
        raise GdaError(
            f"{POOLS / name} holds a pool from elsewhere ({_said(found)}): choose another --name, or delete it"
        )


def _entry(pool: str) -> dict[str, Any]:
    return {"add": "imported", "pool": pool, "train": {}}


def _said(origin: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(origin.items())) or "of unknown origin"


def take_pool(folder: Path, name: str, prepared: Prepared, origin: Mapping[str, str], where: str) -> Brought:
    """Copy a pool of gdacli's into `data/pools/<name>`, once it is known to be whole and made of the prepared images.

    Its files may be anybody's: what they name is looked up in the pool alone, and must fit each other.

    Args:
        folder: of the pool; further files in it, such as shared originals, stay there.
        name: of the pool in the project.
        prepared: the real images.
        origin: where it comes from, for the manifest.
        where: what the user calls it, for messages.

    Raises:
        GdaError: it is damaged, of other classes, of other sources, or holds an image that the arms are tested on.
    """
    manifest = read_json(folder / MANIFEST)
    names = _shard_names(folder, manifest)
    wanted = {*_SHARED, *names}
    damaged = [damage for damage in verify_folder(folder) if damage.file.relative_to(folder).as_posix() in wanted]
    if damaged:
        raise GdaError(f"{damaged[0].file}: {damaged[0].problem}: bring it here again")
    if manifest["class_names"] != prepared.class_names:
        raise GdaError(_other_classes(where, manifest["class_names"], prepared.class_names))
    index = read_table(folder / INDEX)
    if lacking := [column for column in ("key", "label", "shard", "sha256") if column not in index]:
        raise GdaError(f"{folder / INDEX}: has no column {lacking[0]}: it is no pool of gdacli's; bring it here again")
    variants = [source_of(key) for key in index["key"]]
    sources = index.get("source_key", [variant[0] if variant else "" for variant in variants])
    check_sources(sources, prepared, where)
    tested = held_out_images(prepared)
    if leaks := [(key, tested[sha]) for key, sha in zip(index["key"], index["sha256"], strict=True) if sha in tested]:
        raise GdaError(
            f"{where}: {len(leaks)} of its images are {leaks[0][1]} images themselves (first: {leaks[0][0]}): no arm "
            "may train on them"
        )
    with new_directory(POOLS / name) as target, progress(f"pool {name}", len(names), "shards") as advance:
        others, listed, ours = set[str](), _listed(index, sources), _source_sums(prepared)
        for shard in names:
            shutil.copyfile(folder / shard, target / shard)
            others |= _other_sources(target / shard, listed, ours, prepared.num_classes)
            advance()
        if listed:
            raise GdaError(f"{folder / INDEX}: lists {next(iter(listed))}, which is in no shard: bring it here again")
        shutil.copyfile(folder / INDEX, target / INDEX)
        write_json(target / MANIFEST, {**manifest, "imported_from": dict(origin)})
        example = next((sample for shard in names for sample in read_shard(target / shard)), None)
        if example is not None:
            write_text(target / "README.md", dataset_card(prepared.class_names, example.extension, example.meta))
    return Brought(name, len(sources), sum(map(bool, sources)), num_other_sources=len(others))


def _shard_names(folder: Path, manifest: Any) -> list[str]:
    """Return the names of a pool's shards, each a file of its folder."""
    try:
        names = [shard["name"] for shard in manifest["shards"]]
        whole = isinstance(manifest["class_names"], list)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise GdaError(f"{folder / MANIFEST}: names no shards or no classes: it is no pool of gdacli's")
    if odd := [name for name in names if not re.fullmatch(_SHARD, str(name)) or not (folder / name).is_file()]:
        raise GdaError(f"{folder / MANIFEST}: found the shard {odd[0]!r}, allowed: train-*.tar that lie beside it")
    if len(set(names)) < len(names):
        raise GdaError(f"{folder / MANIFEST}: names a shard twice: bring it here again")
    return names


def _listed(index: Mapping[str, Any], sources: Sequence[str]) -> dict[str, tuple[str, int, str, str]]:
    """Return what an index says of each image, by key: shard, label, SHA-256 and source."""
    columns = (index["key"], index["shard"], map(int, index["label"]), index["sha256"], sources)
    return {key: (shard, label, sha256, source) for key, shard, label, sha256, source in zip(*columns, strict=True)}


def brought_in(brought: Brought, params_file: Path, arm: str) -> dict[str, Any]:
    """Name an arm that takes a pool in `params.yaml`; returns what was brought in, as a command's result."""
    added = add_arm(params_file, arm, _entry(brought.name))
    if brought.num_other_sources:
        say(
            f"warning: {brought.num_other_sources} sources have other bytes here than where the images were made: "
            "another data.image_size or another version of Pillow; their variants are of a slightly different image"
        )
    return {**vars(brought), "folder": str(POOLS / brought.name), "arm": arm, "params_changed": added}


def said(result: Mapping[str, Any]) -> str:
    """Say a result of `brought_in` in a few lines."""
    sources = f"{result['num_with_source']} with a source" if result["num_with_source"] else "none with a source"
    skipped = f", {result['num_skipped']} undecodable skipped" if result["num_skipped"] else ""
    where = (
        "added to arms and compare.arms of params.yaml" if result["params_changed"] else "as it stands in params.yaml"
    )
    return (
        f"{result['num_images']} images ({sources}{skipped}) -> {result['folder']}\n"
        f"arm {result['arm']}: {where}; `dvc repro` trains it\n"
        f"keep the images with the project: dvc add {result['folder']}"
    )


def held_out_images(prepared: Prepared) -> dict[str, str]:
    """Return the hashes of images that no arm may train on, with their split."""
    return {sha256: split for split in SPLITS if split != "train" for sha256 in prepared.index(split)["sha256"]}


def check_sources(sources: Iterable[str], prepared: Prepared, where: str) -> None:
    """Check that every source, empty for none, is a train image of the project.

    Raises:
        GdaError: one is none, or an image that the arms are tested on.
    """
    found = {source for source in sources if source}
    train = set(prepared.keys("train"))
    for split in SPLITS:
        if split != "train" and (leaks := sorted(found & set(prepared.keys(split)))):
            raise GdaError(
                f"{where}: {len(leaks)} of its {len(found)} sources are {split} images here (first: {leaks[0]}): it "
                "was made with another split, and would leak them into training: use its maker's data settings"
            )
    if strangers := sorted(found - train):
        raise GdaError(
            f"{where}: {len(strangers)} of its {len(found)} sources are no train images here (first: {strangers[0]}): "
            f"it was made of other images than those in {prepared.folder}"
        )


def _other_classes(where: str, found: list[str], ours: list[str]) -> str:
    pairs = enumerate(zip([*found, None], [*ours, None], strict=False))
    place, (theirs, own) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    return (
        f"{where}: it has {len(found)} classes, the project {len(ours)}, and class {place} is {theirs!r} there and "
        f"{own!r} here: class names must be the same, in the same order"
    )


def _source_sums(prepared: Prepared) -> dict[str, str]:
    index = prepared.train_index()
    return dict(zip(index["key"], index["sha256"], strict=True))


def _other_sources(
    shard: Path, listed: dict[str, tuple[str, int, str, str]], ours: Mapping[str, str], num_classes: int
) -> set[str]:
    """Return the sources whose bytes are others here, so that a variant is one of a slightly different image.

    Args:
        shard: to read.
        listed: what the index says of each image; those of the shard are taken out of it.
        ours: SHA-256 of the train images, by key.
        num_classes: C.

    Raises:
        GdaError: an image is not what the index says.
    """
    others = set[str]()
    for sample in read_shard(shard):
        source = str(sample.meta.get("source_key", ""))
        held = (shard.name, sample.label, sha256_bytes(sample.image), source)
        if listed.pop(sample.key, None) != held or not 0 <= sample.label < num_classes:
            raise GdaError(f"{shard.name}: its image {sample.key} is not as {INDEX} says: have the pool made again")
        if source and sample.meta.get("source_sha256", ours[source]) != ours[source]:
            others.add(source)
    return others
