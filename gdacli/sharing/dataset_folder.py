"""The folder that is shared as a dataset: shards, index, manifest, card, picture, and what other tools read."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gdacli.artifacts import new_directory, write_json, write_text
from gdacli.console import progress
from gdacli.paths import DROPPED, SOURCE
from gdacli.prepared import Prepared, read_prepared
from gdacli.published import INDEX, MANIFEST
from gdacli.records import SPLITS
from gdacli.shards import Shard, read_shard
from gdacli.sharing.croissant import croissant
from gdacli.sharing.dataset_card import Config, DatasetFacts, dataset_card
from gdacli.sharing.findings import dvc_md5, findings_of_pool
from gdacli.sharing.licenses import check_stated
from gdacli.sharing.origin import hub_id, source_title, write_project_files
from gdacli.sharing.pictures import GALLERY, gallery
from gdacli.sharing.shared_pool import SharedPool, link_file, manifest_of, read_shared, write_shards
from gdacli.tables import write_csv, write_table
from gdacli.timm_info import TIMM_INFO, timm_info

SOURCE_CONFIG = "source"
"""The configuration, and the folder, of the originals."""


def write_dataset(
    folder: Path,
    *,
    repo_id: str,
    revision: str,
    arm: str | None,
    include_source: bool,
    share: Mapping[str, Any],
    arms: Mapping[str, str],
    data_source: str,
    features: str,
) -> dict[str, Any]:
    """Write the folder that is shared as a dataset; returns what it holds.

    The same project gives the same bytes.

    Args:
        folder: `data/share/dataset`.
        repo_id: of the repository on the Hub.
        revision: the tag under which it is shared there.
        arm: share what this arm adds; None shares the whole pool without what `rejects.csv` vetoes.
        include_source: share the originals too, as the configuration `source`.
        share: the section `push`, of `Push.of_cards`.
        arms: what each compared arm that has synthetic images adds, in words.
        data_source: `data.source`.
        features: `evaluate.features`.

    Raises:
        GdaError: a licence is not stated, a stage has not run, or a file is missing or damaged.
    """
    shared = read_shared(arm)
    check_licenses(share, shared.manifest, include_source=include_source)
    prepared = read_prepared(SOURCE)
    original = [shard for split in prepared.splits.values() for shard in split.shards] if include_source else []
    total = shared.index.num_rows + sum(shard.count for shard in original)
    with new_directory(folder) as temporary, progress("share", total, "images") as advance:
        shards = write_shards(shared, temporary, advance)
        configs = [_config("default", temporary, "", {"train": shards})]
        if include_source:
            configs.append(_write_source(prepared, temporary, advance))
        manifest = manifest_of(shared, shards)
        write_json(temporary / MANIFEST, manifest)
        _write_index(shared, temporary)
        write_json(temporary / TIMM_INFO, timm_info(_timm_splits(configs)))
        (temporary / GALLERY).write_bytes(gallery(shared, prepared if include_source else None))
        write_project_files(temporary)
        original_id = hub_id(data_source)
        facts = DatasetFacts(
            repo_id=repo_id,
            revision=revision,
            md5=dvc_md5(shared.folder),
            arm=arm,
            manifest=manifest,
            counts=shared.counts(),
            num_pool=shared.num_pool,
            configs=configs,
            num_train=prepared.splits["train"].count,
            data_source=source_title(data_source),
            source_datasets=share["source_datasets"] or [original_id or "original"],
            arms=dict(arms),
            share=share,
            features=features,
            found=findings_of_pool(shared.folder),
        )
        write_json(temporary / "croissant.json", croissant(facts, temporary))
        write_text(temporary / "README.md", dataset_card(facts))
    return {
        "folder": str(folder),
        "images": manifest["num_images"],
        "left_out": shared.num_pool - manifest["num_images"],
        "source_images": sum(shard.count for shard in original),
        "shards": len(shards) + len(original),
        "megabytes": round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 3),
    }


def check_licenses(share: Mapping[str, Any], manifest: Mapping[str, Any], *, include_source: bool) -> None:
    """Check that the licences are stated that a card of this pool needs.

    Args:
        share: the section `push`.
        manifest: of the pool; it names the files of a pretrained generator.
        include_source: whether the originals are shared.

    Raises:
        GdaError: one is not.
    """
    check_stated(share, needed_licenses(manifest, include_source=include_source))


def needed_licenses(manifest: Mapping[str, Any], *, include_source: bool) -> dict[str, str]:
    """Return the keys of the section `push` that a card of this pool needs, with what each is the licence of."""
    needed = {"license": "the synthetic images"}
    if "model" not in manifest:
        needed["generator_license"] = "what the tool makes that made the imported images"
    elif manifest["model"].get("files"):
        needed["generator_license"] = f"what {manifest['model']['name']} makes"
    if include_source:
        needed["source_license"] = "the originals"
    return needed


def _timm_splits(configs: Sequence[Config]) -> dict[str, list[tuple[str, int]]]:
    """Return the splits that timm finds, with the paths and sizes of their shards.

    Beside the splits of the synthetic images there are, where the originals are shared, `source` (their train split),
    `augmented` (both), `validation` and `test`.
    """
    synthetic, *others = configs
    files = {"train": [(shard.name, shard.count) for shard in synthetic.splits["train"]]}
    for other in others:
        own = {
            name: [(other.folder + shard.name, shard.count) for shard in other.splits[name]] for name in other.splits
        }
        files["source"] = own.pop("train")
        files["augmented"] = files["source"] + files["train"]
        files |= own
    return files


def _config(name: str, root: Path, folder: str, splits: Mapping[str, list[Shard]]) -> Config:
    filled = {split: shards for split, shards in splits.items() if shards}
    first = next(islice(read_shard(root / folder / next(iter(filled.values()))[0].name), 1))
    return Config(
        name=name,
        folder=folder,
        extension=first.extension,
        meta=first.meta,
        splits=filled,
        num_bytes={
            split: sum((root / folder / shard.name).stat().st_size for shard in shards)
            for split, shards in filled.items()
        },
    )


def _write_source(prepared: Prepared, temporary: Path, advance: Any) -> Config:
    target = temporary / SOURCE_CONFIG
    target.mkdir()
    for split in prepared.splits.values():
        for shard in split.shards:
            link_file(prepared.folder / shard.name, target / shard.name, shard.sha256)
            advance(shard.count)
    shutil.copyfile(prepared.folder / INDEX, target / INDEX)
    splits = {name: [shard for shard in prepared.splits[name].shards if shard.count] for name in SPLITS}
    return _config(SOURCE_CONFIG, temporary, f"{SOURCE_CONFIG}/", splits)


def _write_index(shared: SharedPool, temporary: Path) -> None:
    """Write the rows that are shared, and that nothing lies apart as dropped."""
    if shared.index.num_rows == shared.num_pool:
        shutil.copyfile(shared.folder / INDEX, temporary / INDEX)
    else:
        write_table(temporary / INDEX, dict(zip(shared.index.column_names, shared.index.columns, strict=True)))
    scores = [name for name in shared.index.column_names if name not in ("key", "label", "shard", "sha256", "identity")]
    write_csv(temporary / DROPPED.name, ["key", "reason", "shard", "identity", *scores], [])
