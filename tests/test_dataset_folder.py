import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Project
from PIL import Image
from tiny_project import ODD_CLASSES, SHARE, SIZE, write_finished, write_odd_source

from gdacli.artifacts import CHECKSUMS, artifact_files, read_json, write_json
from gdacli.checksums import verify_folder
from gdacli.errors import GdaError
from gdacli.images import decode_array
from gdacli.prepared import read_prepared
from gdacli.published import PublishedPool
from gdacli.shards import read_shard, write_shard
from gdacli.sharing.dataset_folder import check_licenses, needed_licenses, write_dataset
from gdacli.sharing.shared_pool import read_shared
from gdacli.tables import read_table, write_table

SHARED = Path("data/share/dataset")


def write(folder: Path = SHARED, **changes: Any) -> dict[str, Any]:
    """Share the pool of the project in the working directory."""
    arguments: dict[str, Any] = {
        "repo_id": "me/shapes",
        "revision": "git-0123456789ab",
        "arm": None,
        "include_source": False,
    }
    arguments |= {"share": SHARE, "arms": {"targeted": "+ variants"}, "data_source": "photos", "features": "probe"}
    return write_dataset(folder, **{**arguments, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a finished project whose pool and originals are shared; do not change it."""
    root = tmp_path_factory.mktemp("finished")
    source = write_odd_source(root / "photos", kind="JPEG")
    with pytest.MonkeyPatch.context() as patch:
        (root / "project").mkdir()
        patch.chdir(root / "project")
        patch.setenv("GDACLI_WORK", str(root / "work"))
        write_finished(Project(root / "project"), source)
        write(include_source=True)
    return root / "project"


@pytest.fixture
def here(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the finished project as working directory; do not change it."""
    monkeypatch.chdir(finished)
    return finished


@pytest.fixture
def copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the finished project as working directory."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_whole_shards_are_the_pools_own_and_the_same_project_gives_the_same_bytes(copy):
    first = {name: (SHARED / name).read_bytes() for name in [*artifact_files(SHARED), CHECKSUMS]}
    link = SHARED / "train-s0300-000000.tar"
    assert link.readlink() == Path("../../synthetic/train-s0300-000000.tar")
    assert not verify_folder(SHARED)
    assert write(include_source=True)["left_out"] == 0
    assert {name: (SHARED / name).read_bytes() for name in [*artifact_files(SHARED), CHECKSUMS]} == first
    text = b"".join(content for name, content in first.items() if not name.endswith(("tar", "png", "parquet")))
    assert str(copy.parent).encode() not in text


def test_the_folder_is_a_pool(here):
    pool = PublishedPool(str(SHARED))
    assert pool.dropped == []
    found, environments = pool.take(["identity of sampled_00000001"])
    assert found["identity of sampled_00000001"].sample.label == 1
    assert environments == [{"device": "cpu", "torch": "2.15.0"}]
    assert not (SHARED / "dropped").exists()


def test_vetoed_images_are_left_out(copy):
    (copy / "rejects.csv").write_text("key\nsampled_00000001\nnot-there\n")
    counts = write()
    assert (counts["left_out"], counts["source_images"]) == (1, 0)
    keys = [sample.key for sample in read_shard(SHARED / "train-sampled-000000.tar")]
    assert keys == ["sampled_00000000", "sampled_00000002", "sampled_00000003"]
    assert not (SHARED / "train-sampled-000000.tar").is_symlink()
    assert (SHARED / "train-s0300-000000.tar").is_symlink()
    manifest = read_json(SHARED / "manifest.json")
    assert manifest["images"]["sampled"] == 3
    assert manifest["num_images"] == counts["images"] == len(read_table(SHARED / "index.parquet")["key"])
    assert "1 of the" in (SHARED / "README.md").read_text()
    assert not verify_folder(SHARED)


def test_an_arm_shares_the_images_that_its_mix_adds(copy):
    counts = write(arm="targeted")
    mix = read_table(Path("data/mix/targeted.parquet"))
    added = [key for key, origin in zip(mix["key"], mix["origin"], strict=True) if origin == "synthetic"]
    shared = [sample.key for path in sorted(SHARED.glob("train-*.tar")) for sample in read_shard(path)]
    assert shared == added == read_table(SHARED / "index.parquet")["key"]
    assert counts["images"] == len(added)
    assert read_json(SHARED / "manifest.json")["images"] == {"s0500": len(added)}
    assert "source" not in {path.name for path in SHARED.iterdir()}
    with pytest.raises(GdaError, match="--arm original: found no image in its mix"):
        read_shared("original")
    with pytest.raises(GdaError, match="run `gdacli mix --arm flood` first"):
        read_shared("flood")


def test_an_arm_of_an_imported_pool_shares_that_pool(copy):
    shutil.copytree("data/synthetic", "data/pools/rivals")
    mix = read_table(Path("data/mix/targeted.parquet"))
    mix["shard"] = [name.replace("data/synthetic", "data/pools/rivals") for name in mix["shard"]]
    write_table(Path("data/mix/rivals.parquet"), mix)
    assert read_shared("rivals").folder == Path("data/pools/rivals")
    manifest = read_json(Path("data/pools/rivals/manifest.json"))
    made_elsewhere = {key: manifest[key] for key in ("class_names", "num_images", "shards")}
    assert set(needed_licenses(manifest, include_source=False)) == {"license"}
    assert set(needed_licenses(made_elsewhere, include_source=False)) == {"license", "generator_license"}
    (copy / "data/mix/targeted.parquet").unlink()
    write_table(Path("data/mix/targeted.parquet"), {**mix, "sha256": ["f" * 64] * len(mix["key"])})
    with pytest.raises(GdaError, match=r"images that data/pools/rivals does not hold: run `gdacli mix --arm targeted`"):
        read_shared("targeted")


def test_damage_stops_and_leaves_what_was_there(copy):
    before = (SHARED / "README.md").read_bytes()
    path = copy / "data/synthetic/train-s0300-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(GdaError, match=r"train-s0300-000000.tar is missing or damaged: run `dvc checkout --force"):
        write()
    assert (SHARED / "README.md").read_bytes() == before


def test_nothing_says_where_files_lay(copy):
    place = "/home/me/secret-place/sd15"
    for path in Path("data/synthetic").glob("*.tar"):
        write_shard(
            path, [replace(each, meta={**each.meta, "model": f"user/sd + {place}"}) for each in read_shard(path)]
        )
    manifest = read_json(Path("data/synthetic/manifest.json"))
    manifest["model"] = {"name": f"user/sd + {place}", "files": {}, "sha256": "ab"}
    write_json(Path("data/synthetic/manifest.json"), manifest)
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({**params, "generate": {"model": place}}))
    write()
    for path in SHARED.rglob("*"):
        assert path.is_dir() or b"secret-place" not in path.read_bytes(), path
    assert next(read_shard(SHARED / "train-s0300-000000.tar")).meta["model"] == "user/sd + .../sd15"


@pytest.mark.parametrize(
    ("missing", "include_source", "files"),
    [
        ("license", False, {}),
        ("source_license", True, {}),
        ("generator_license", False, {"model": {"name": "user/sd"}}),
    ],
    ids=["images", "originals", "generator"],
)
def test_licences_are_asked_for(missing, include_source, files):
    share = {**SHARE, "generator_license": SHARE["license"]}
    manifest = {"model": {"name": "user/sd", "files": files}}
    check_licenses(share, manifest, include_source=include_source)
    with pytest.raises(GdaError, match=f"push.{missing}: missing: say under which licence"):
        check_licenses({**share, missing: None}, manifest, include_source=include_source)


def test_datasets_loads_it_with_the_names_of_the_classes(here, tmp_path):
    import datasets

    pool = datasets.load_dataset(str(SHARED), split="train", cache_dir=str(tmp_path))
    assert pool.features["cls"].names == list(ODD_CLASSES)
    index = read_table(SHARED / "index.parquet")
    assert sorted(zip(pool["__key__"], pool["cls"], strict=True)) == sorted(
        zip(index["key"], index["label"].tolist(), strict=True)
    )
    assert pool[0]["png"].size == (SIZE, SIZE)
    assert pool[0]["json"]["prompt"] == "a thing"
    originals = datasets.load_dataset(str(SHARED), "source", cache_dir=str(tmp_path))
    counts = {split: part["count"] for split, part in read_json(Path("data/source/dataset.json"))["splits"].items()}
    assert {split: len(originals[split]) for split in originals} == counts
    assert min(counts.values()) > 0
    assert originals["test"].features["cls"].names == list(ODD_CLASSES)
    assert originals["test"][0]["jpg"].size == (SIZE, SIZE)


@pytest.mark.parametrize("config", ["default", "source"])
def test_datasets_streams_it(here, tmp_path, config):
    import datasets

    stream = datasets.load_dataset(str(SHARED), config, split="train", streaming=True, cache_dir=str(tmp_path))
    labels = [sample["cls"] for sample in stream]
    index = read_table(SHARED / ("" if config == "default" else "source") / "index.parquet")
    assert Counter(labels) == Counter(index["label"].tolist()[: len(labels)])
    assert stream.features["cls"].names == list(ODD_CLASSES)


def test_webdataset_reads_it(here):
    import webdataset

    files = sorted(map(str, SHARED.glob("train-*.tar")))
    pool = webdataset.WebDataset(files, shardshuffle=False).decode("pil").to_tuple("__key__", "png", "cls")
    index = read_table(SHARED / "index.parquet")
    assert {(key, label) for key, _, label in pool} == set(zip(index["key"], index["label"].tolist(), strict=True))
    assert {image.size for _, image, _ in pool} == {(SIZE, SIZE)}


@pytest.mark.parametrize(
    ("name", "split", "options"),
    [
        ("wds/pool", "train", {}),
        ("wds/pool", "augmented", {}),
        ("wds/pool", "test", {}),
        ("hfds", "train", {"input_key": "png", "target_key": "cls"}),
    ],
    ids=["pool", "augmented", "test", "hfds"],
)
def test_timm_makes_batches_of_it(here, tmp_path, name, split, options):
    from timm.data import create_dataset, create_loader

    folder = str(SHARED)
    if name == "hfds":
        name, folder = f"hfds/{SHARED.absolute()}", str(tmp_path)
    training = split != "test"
    dataset = create_dataset(name, folder, split=split, is_training=training, batch_size=8, **options)
    sizes = {split: part["count"] for split, part in read_json(Path("data/source/dataset.json"))["splits"].items()}
    num_pool = read_json(SHARED / "manifest.json")["num_images"]
    expected = {"train": num_pool, "augmented": num_pool + sizes["train"], "test": sizes["test"]}[split]
    assert expected <= len(dataset) < expected + (8 if training else 1)
    loader = create_loader(
        dataset, (3, SIZE, SIZE), 8, is_training=training, use_prefetcher=False, num_workers=0, persistent_workers=False
    )
    images, labels = next(iter(loader))
    assert images.shape == (8, 3, SIZE, SIZE)
    assert set(labels.tolist()) <= {0, 1, 2}


def test_the_gallery_shows_originals_only_where_they_are_shared(copy):
    def shows(key: str, shard: Path) -> bool:
        """Say if the picture holds an image: each of its pixels is a square of 4 x 4 there."""
        with Image.open(SHARED / "gallery.png") as picture:
            drawn = np.asarray(picture.convert("RGB"))
        [encoded] = [sample.image for sample in read_shard(shard) if sample.key == key]
        image = decode_array(encoded).transpose(1, 2, 0).repeat(4, axis=0).repeat(4, axis=1)
        side, row = len(image), image[0]
        for y, x in np.argwhere((drawn[: -side + 1, : -side + 1] == row[0]).all(-1)).tolist():
            if (drawn[y : y + side, x : x + side] == image).all():
                return True
        return False

    index = read_prepared(Path("data/source")).train_index()
    key, shard = index["key"][0], Path("data/source") / index["shard"][0]
    variant = f"{key}_s0300_v0", Path("data/synthetic/train-s0300-000000.tar")
    assert (shows(key, shard), shows(*variant)) == (True, True)
    assert "Originals stand beside their variants." in (SHARED / "README.md").read_text()
    write()
    assert (shows(key, shard), shows(*variant)) == (False, True)
    assert "Originals" not in (SHARED / "README.md").read_text()
