"""Exported arms and pools, read by the libraries that they are for."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from conftest import CLASSES, Project, encoded, invoke, shape
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from gdacli.artifacts import sha256_bytes
from gdacli.checksums import verify_folder
from gdacli.exports.card import write_card
from gdacli.exports.contents import mix_contents
from gdacli.exports.image_folder import folder_names
from gdacli.exports.parquet import write_parquet
from gdacli.images import decode_array
from gdacli.pool import class_label
from gdacli.prepared import read_prepared
from gdacli.shards import Sample, read_shard, write_shard
from gdacli.tables import read_table, write_table

FORMATS = ("imagefolder", "parquet", "webdataset")
NAMES = ("disc", "Ring: shape", "square")
"""Not to be had as folders everywhere, nor sorted."""


def write_pool(project: Project, folder: str) -> dict[str, Any]:
    """Write a pool of two PNGs a class as `gdacli generate` lays it out, one of them the first class's alone."""
    rng = np.random.default_rng(1)
    rows: dict[str, list] = {"key": [], "label": [], "shard": [], "sha256": []}
    for number, labels in enumerate(([0, 1, 0], [1, 0])):
        name = f"train-s0500-{number:06d}.tar"
        made = [
            Sample(f"made-{number}-{row}", label, encoded(shape(label, rng)), "png", {"strength": 0.5})
            for row, label in enumerate(labels)
        ]
        write_shard(project.folder / folder / name, made)
        for sample in made:
            cells = (sample.key, sample.label, f"{folder}/{name}", sha256_bytes(sample.image))
            for column, cell in zip(rows.values(), cells, strict=True):
                column.append(cell)
    index = {**rows, "shard": [Path(name).name for name in rows["shard"]]}
    write_table(project.folder / folder / "index.parquet", index)
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project with JPEG originals, a pool of PNGs, another pool, and the mix of arm `upsample` with both."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(NAMES):
            (root / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                content = encoded(shape(label, rng), "JPEG")
                (root / "photos" / split / name / f"{number}.jpg").write_bytes(content)
    project = Project(root / "project")
    project.folder.mkdir()
    project.write(data={"source": str(root / "photos"), "validation_fraction": 0.3, "shard_size": 5})
    project.ok("prepare")
    pools = write_pool(project, "data/synthetic"), write_pool(project, "data/pools/theirs")
    index = read_prepared(project.folder / "data/source").train_index()
    count = len(index["key"])
    mix = {
        "key": [*index["key"], *pools[0]["key"], *(f"their-{key}" for key in pools[1]["key"])],
        "label": [*index["label"].tolist(), *pools[0]["label"], *pools[1]["label"]],
        "origin": ["source"] * count + ["synthetic"] * 10,
        "shard": [f"data/source/{name}" for name in index["shard"]] + pools[0]["shard"] + pools[1]["shard"],
        "sha256": [*index["sha256"], *pools[0]["sha256"], *pools[1]["sha256"]],
        "repeats": [3, *[1] * (count - 2), 2] + [1] * 10,
    }
    mix["key"][-5:] = pools[1]["key"] = [f"their-{key}" for key in pools[1]["key"]]
    shards = project.folder / "data/pools/theirs"
    for path in shards.glob("*.tar"):
        write_shard(path, [Sample(f"their-{s.key}", s.label, s.image, "png", s.meta) for s in list(read_shard(path))])
    write_table(project.folder / "data/mix/upsample.parquet", mix)
    return project.folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    """Give a copy of it."""
    return Project(Path(shutil.copytree(made, tmp_path / "project")))


def export(folder: Path, kind: str, output: Path, *options: str) -> Any:
    outcome = invoke("export", "--format", kind, "-o", str(output), "--json", *options, "-C", str(folder))
    assert outcome.code == 0, outcome.stderr
    return {**json.loads(outcome.stdout), "stderr": outcome.stderr}


@pytest.fixture(scope="module")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the arm in every format."""
    root = tmp_path_factory.mktemp("exported")
    for kind in FORMATS:
        export(made, kind, root / kind, "--arm", "upsample")
    return {kind: root / kind for kind in FORMATS}


def expected(made: Path) -> dict[str, Counter]:
    """Return per split how often each image (its SHA-256) stands for a label."""
    mix = read_table(made / "data/mix/upsample.parquet")
    rows = zip(mix["sha256"], mix["label"].tolist(), mix["repeats"].tolist(), strict=True)
    counts: dict[str, Counter] = {"train": Counter()}
    for sha256, label, repeats in rows:
        counts["train"][sha256, label] += repeats
    prepared = read_prepared(made / "data/source")
    for split in ("validation", "test"):
        index = prepared.index(split)
        counts[split] = Counter(zip(index["sha256"], index["label"].tolist(), strict=True))
    assert counts["validation"]
    return counts


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_torchvision_reads_the_arm(made, exported):
    for split, images in expected(made).items():
        folder = ImageFolder(str(exported["imagefolder"] / split))
        assert Counter((sha256(Path(path).read_bytes()), label) for path, label in folder.samples) == images
        assert folder.classes == ["0_Ring_ shape", "1_disc", "2_square"]
    assert (exported["imagefolder"] / "classes.txt").read_text() == "Ring: shape\ndisc\nsquare\n"
    copies = (path.stem.rpartition("_")[2] for path in exported["imagefolder"].rglob("*_copy*"))
    assert sorted(copies) == ["copy1", "copy1", "copy2"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_datasets_reads_the_arm_with_class_names(made, exported, kind, streaming, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    import datasets as hf

    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", str(tmp_path))
    loaded: Any = hf.load_dataset(str(exported[kind]), streaming=streaming)
    assert sorted(loaded) == ["test", "train", "validation"]
    for split, images in expected(made).items():
        data, found = loaded[split], Counter[tuple[str, int]]()
        columns = [name for name in data.features if isinstance(data.features[name], hf.Image)]
        assert columns == (["jpg", "png"] if kind == "webdataset" else ["image"])
        label = "cls" if kind == "webdataset" else "label"
        names = ["0_Ring_ shape", "1_disc", "2_square"] if kind == "imagefolder" else ["Ring: shape", "disc", "square"]
        assert data.features[label].names == names
        assert next(image for row in data for image in [row[columns[0]]] if image is not None).size == (16, 16)
        for name in columns:
            data = data.cast_column(name, hf.Image(decode=False))
        for row in data:
            image = next(row[name] for name in columns if row[name] is not None)
            content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            found[sha256(content), row[label]] += 1
        assert found == images


def test_webdataset_and_timm_read_the_shards(made, exported, monkeypatch):
    import webdataset
    from timm.data import create_dataset

    monkeypatch.setattr("webdataset.utils.enforce_security", False)  # with it timm cannot open its own _info.json

    folder = exported["webdataset"]
    for split, images in expected(made).items():
        urls = sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
        assert len(urls) == -(-images.total() // 5)
        samples = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("jpg;png", "cls", "__key__")
        rows = [(sha256(image), int(label), key) for image, label, key in samples]
        assert Counter(row[:2] for row in rows) == images
        assert len({row[2] for row in rows}) == len(rows)
        theirs: Any = create_dataset("wds/", str(folder), split=split, input_key="jpg;png")
        found = [(np.asarray(image), label) for image, label in theirs]
        assert len(theirs) == images.total()
        assert Counter(label for _, label in found) == Counter(label for _, label in images.elements())


def test_the_shards_of_a_train_split_mix_origins_and_classes(exported):
    samples = [sample for path in sorted(exported["webdataset"].glob("train-*.tar")) for sample in read_shard(path)]
    origins = "".join("s" if sample.meta["synthetic"] else "o" for sample in samples)
    assert {"so", "os"} <= {a + b for a, b in zip(origins, origins[1:])}
    assert len({sample.label for sample in samples[:5]}) > 1
    assert all(sample.meta["class_name"] == ["Ring: shape", "disc", "square"][sample.label] for sample in samples)


def test_timm_reads_the_folders(made, exported):
    from timm.data import create_dataset

    for split, images in expected(made).items():
        root = exported["imagefolder"]
        options: Any
        for options in ({}, {"class_map": str(root / "class_map.txt")}):
            folder: Any = create_dataset("folder", str(root), split=split, **options)
            found = Counter((sha256(Path(path).read_bytes()), label) for path, label in folder.reader.samples)
            assert found == images


def test_the_pool_alone_leaves_out_what_a_person_rejects(project, tmp_path, monkeypatch):
    (project.folder / "rejects.csv").write_text("key\nmade-0-0\nmade-0-2\nmade-1-1\n")
    for kind in FORMATS:
        result = export(project.folder, kind, tmp_path / kind)
        assert result["images"] == {"train": 2}
        note = "note: train has no image of 2 of 3 classes (first: 0_Ring_ shape)"
        assert (note in result["stderr"]) == (kind == "imagefolder")
    root = tmp_path / "imagefolder"
    with pytest.raises(FileNotFoundError, match="0_Ring_ shape"):  # and numbers no class wrongly
        ImageFolder(str(root / "train"))
    theirs = ImageFolder(str(root / "train"), allow_empty=True)
    assert [(Path(path).stem, label) for path, label in theirs.samples] == [("made-0-1", 1), ("made-1-0", 1)]
    import datasets as hf
    from timm.data import create_dataset

    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for kind in FORMATS:
        loaded: Any = hf.load_dataset(str(tmp_path / kind), split="train")
        assert list(loaded["cls" if kind == "webdataset" else "label"]) == [1, 1], kind
    class_map: Any = str(root / "class_map.txt")
    folder: Any = create_dataset("folder", str(root), split="train", class_map=class_map)
    assert [label for _, label in folder.reader.samples] == [1, 1]


def test_the_same_bytes_again_and_sums_that_hold(project, exported, tmp_path):
    for kind in FORMATS:
        export(project.folder, kind, tmp_path / kind, "--arm", "upsample")
        assert (tmp_path / kind / "SHA256SUMS").read_text() == (exported[kind] / "SHA256SUMS").read_text()
        assert verify_folder(tmp_path / kind) == []


def refused(project: Project, *arguments: str) -> str:
    outcome = project("export", *arguments)
    assert outcome.code == 1
    return outcome.error


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_image_is_one_line_and_nothing_is_left(project, kind, tmp_path):
    path = project.folder / "data/pools/theirs/train-s0500-000001.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    path.write_bytes(content)
    (tmp_path / "out").mkdir()
    arguments = ("--format", kind, "--arm", "upsample", "-o", str(tmp_path / "out" / "a"))
    error = refused(project, *arguments)
    assert "data/pools/theirs/train-s0500-000001.tar: sample 'their-made-1-0' is not the image that the mix" in error
    path.unlink()
    assert "train-s0500-000001.tar does not exist: run `dvc pull data/pools/theirs`" in refused(project, *arguments)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_exported_is_one_line(project, tmp_path):
    out = ("--format", "parquet", "-o", str(tmp_path / "out"))
    assert "run `gdacli mix --arm targeted` first" in refused(project, *out, "--arm", "targeted")
    assert "there is no arm 'best'" in refused(project, *out, "--arm", "best")
    (project.folder / "rejects.csv").write_text("key\nmade-1-0\n")
    error = refused(project, *out, "--arm", "upsample")
    assert "lists 1 images that rejects.csv rejects (first: made-1-0): run `gdacli mix --arm upsample`" in error
    (project.folder / "rejects.csv").write_text("key\n" + "".join(f"made-{a}-{b}\n" for a in (0, 1) for b in range(3)))
    assert "has no image to export (5 made, 5 rejected)" in refused(project, *out)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("")
    assert "the folder is not empty" in refused(project, *out)
    assert "found a file" in refused(project, "--format", "parquet", "-o", str(tmp_path / "out/mine.txt"))
    assert project("export", *out, "--model", "x").code == 2
    assert project("export", "--format", "onnx", "-o", "m.onnx").code == 2
    assert project("export", "--format", "onnx", "--model", "x", "--arm", "upsample", "-o", "m.onnx").code == 2


def test_two_images_of_one_name_are_not_written_over_each_other(project, tmp_path):
    mix = read_table(project.folder / "data/mix/upsample.parquet")
    mix["key"][1] = f"{mix['key'][0]}_copy1"
    write_table(project.folder / "data/mix/upsample.parquet", mix)
    error = refused(project, "--format", "imagefolder", "--arm", "upsample", "-o", str(tmp_path / "out"))
    assert "lacks 1 of the" in error  # the mix names no such image: keys of a shard are what they are
    path = project.folder / mix["shard"][0]
    renamed = [
        Sample(mix["key"][1] if row == 1 else sample.key, sample.label, sample.image, "jpg", sample.meta)
        for row, sample in enumerate(list(read_shard(path)))
    ]
    write_shard(path, renamed)
    error = refused(project, "--format", "imagefolder", "--arm", "upsample", "-o", str(tmp_path / "out"))
    assert f"train: 1 names stand for two images each (first: {mix['key'][1]})" in error


def test_large_tables_are_cut_into_files(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    monkeypatch.setattr("gdacli.exports.parquet._GROUP_ROWS", 4)
    contents = mix_contents(Path("data/mix/upsample.parquet"), ())
    done: list[int] = []
    write_parquet(tmp_path, CLASSES, [contents], lambda: done.append(1), file_bytes=5000)
    files = sorted(tmp_path.glob("*.parquet"))
    assert len(files) > 2
    assert [file.name for file in files] == [f"train-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))]
    tables = [pa.parquet.ParquetFile(file) for file in files]
    assert all(4 * table.num_row_groups >= table.metadata.num_rows for table in tables)
    images = [cell["bytes"] for table in tables for cell in table.read()["image"].to_pylist()]
    assert len(images) == contents.num_images == len(done)
    assert all(decode_array(image).shape == (3, 16, 16) for image in images)


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=12, unique=True))
def test_folder_names_are_legal_and_in_the_order_of_the_labels(names):
    from timm.utils.misc import natural_key

    folders = folder_names(names)
    assert len(set(folders)) == len(names)
    assert sorted(folders) == sorted(folders, key=natural_key) == folders
    assert all(len(name.encode()) < 256 and not set(name) & set('/\\\0:*?"<>|') for name in folders)
    assert all(name[0] not in "._" and name[-1] not in ". " for name in folders)
    assert len({name.lower() for name in folders}) == len(names)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (["1", "10", "2"], ["0_1", "1_10", "2_2"]),
        (["Zebra", "ant"], ["0_Zebra", "1_ant"]),
        ([".git", "aux", "a."], ["0_.git", "1_aux_", "2_a"]),
    ],
)
def test_folder_names_are_the_classes_where_every_reader_sorts_them_so(names, folders):
    assert folder_names(names) == folders


def test_the_names_of_classes_are_read_back_as_they_are(tmp_path):
    names = ["a\u2028b", "1.0", "no", "x: y", "\x85"]
    write_card(tmp_path, [{"name": "label", "dtype": class_label(names)}], {"train": "train/**"}, [], "")
    front = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert list(front["dataset_info"]["features"][0]["dtype"]["class_label"]["names"].values()) == names
