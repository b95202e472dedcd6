import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, Project, encoded, shape, write_folder
from PIL import Image

from gdacli.images import decode_array
from gdacli.prepared import read_prepared
from gdacli.records import legal_key
from gdacli.shards import Sample, read_shard, write_shard
from gdacli.tables import read_table


def prepare(project: Project, source: Path, **data: Any) -> dict:
    project.write(data={"source": str(source), **data})
    outcome = project("prepare", "--json")
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def refuse(project: Project, source: Path, **data: Any) -> str:
    project.write(data={"source": str(source), **data})
    outcome = project("prepare")
    assert outcome.code == 1
    folder = project.folder / "data"
    assert not folder.exists() or list(folder.iterdir()) == [], "something half-written is left"
    return outcome.error


def stored(project: Project) -> dict[str, bytes]:
    folder = project.folder / "data/source"
    return {sample.key: sample.image for shard in sorted(folder.glob("*.tar")) for sample in read_shard(shard)}


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_the_sources_own_bytes_are_kept(project, tmp_path, kind, extension):
    source = write_folder(tmp_path / "in", 4, kind=kind)
    result = prepare(project, source)
    assert (result["bytes_kept"], result["extension"], result["image_size"]) == (True, extension, [16, 16])
    assert sorted(stored(project).values()) == sorted(file.read_bytes() for file in source.rglob("*.*"))


def test_a_mix_of_formats_becomes_png(project, tmp_path):
    source = write_folder(tmp_path / "in", 4)
    odd = source / "disc" / "odd.jpg"
    odd.write_bytes(encoded(shape(0, np.random.default_rng(0)), "JPEG"))
    result = prepare(project, source)
    assert (result["bytes_kept"], result["extension"]) == (False, "png")
    image = next(image for key, image in stored(project).items() if "odd" in key)
    assert (decode_array(image) == decode_array(odd.read_bytes())).all()


def test_images_are_resized_to_squares(project, tmp_path):
    source = write_folder(tmp_path / "in", 4)
    Image.new("RGB", (40, 20), "red").save(source / "disc" / "wide.png")
    assert prepare(project, source)["image_size"] is None
    assert "probe.image_size: found null, but the images in data/source vary in size: set" in project("probe").error
    assert "vary in size, and this step needs square ones" in project("fit").error
    for how in ("crop", "squash", "pad"):
        assert prepare(project, source, image_size=8, resize=how)["image_size"] == [8, 8]
        assert {decode_array(image).shape for image in stored(project).values()} == {(3, 8, 8)}


def test_class_names_and_counts_are_written_down(project, shapes):
    result = prepare(project, shapes, shard_size=10, validation_fraction=0.2)
    prepared = read_prepared(project.folder / "data/source")
    assert prepared.class_names == list(CLASSES)
    assert sum(split.count for split in prepared.splits.values()) == 36
    index = read_table(project.folder / "data/source/index.parquet")
    for name, split in prepared.splits.items():
        found = [sample for shard in split.shards for sample in read_shard(prepared.folder / shard.name)]
        assert [sample.key for sample in found] == [
            key for key, at in zip(index["key"], index["split"], strict=True) if at == name
        ]
        assert np.bincount([sample.label for sample in found], minlength=3).tolist() == split.class_counts
        assert all(shard.count <= 10 for shard in split.shards)
        assert split.count == result["images"][name]
    keys, labels, images = prepared.load("train")
    assert (len(keys), labels.dtype, images.shape) == (prepared.splits["train"].count, np.int64, (len(keys), 3, 16, 16))


def test_twice_gives_the_same_bytes_and_an_added_image_moves_no_other(project, tmp_path):
    source = write_folder(tmp_path / "in", 20)

    def splits() -> dict[str, str]:
        index = read_table(project.folder / "data/source/index.parquet")
        return dict(zip(index["key"], index["split"], strict=True))

    prepare(project, source)
    first, files = splits(), {path.name: path.read_bytes() for path in (project.folder / "data/source").iterdir()}
    prepare(project, source)
    assert {path.name: path.read_bytes() for path in (project.folder / "data/source").iterdir()} == files
    shutil.copy(source / "disc" / "000.png", source / "disc" / "0000_new.png")
    prepare(project, source)
    assert {key: split for key, split in splits().items() if key in first} == first


def test_the_small_data_setting_is_stratified_and_leaves_the_test_split_alone(project, tmp_path):
    source = write_folder(tmp_path / "in", 20)
    full = prepare(project, source)["class_counts"]
    half = prepare(project, source, train_fraction=0.5)["class_counts"]
    assert half["train"] == [round(count / 2) for count in full["train"]]
    assert half["test"] == full["test"]


@pytest.mark.parametrize("content", [b"hello", b"", "cut"])
def test_an_image_that_does_not_decode_is_named_or_skipped(project, tmp_path, content):
    source = write_folder(tmp_path / "in", 6)
    bad = source / "square" / "bad.png"
    whole = (source / "disc" / "000.png").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    message = refuse(project, source)
    assert message.startswith(str(bad))
    assert message.endswith("remove or replace it, or set data.on_bad_image: skip")
    result = prepare(project, source, on_bad_image="skip")
    assert str(bad) in project("prepare").stderr
    assert (result["skipped"], sum(result["images"].values())) == (1, 18)
    info = json.loads((project.folder / "data/source/dataset.json").read_text())
    assert info["skipped"] == [legal_key("square/bad.png")]


def test_one_class_or_a_class_without_images_is_refused(project, tmp_path):
    source = write_folder(tmp_path / "in", 3)
    (source / "empty").mkdir()
    assert "class 'empty' has no image" in refuse(project, source)
    for name in ("empty", "square", "ring_shape"):
        shutil.rmtree(source / name)
    assert "found one class (disc); a classifier needs two or more" in refuse(project, source)


def test_a_class_missing_from_one_split_is_said(project, tmp_path):
    source = tmp_path / "in"
    for split in ("train", "validation", "test"):
        write_folder(source / split, 4)
    for split in ("validation", "test"):
        shutil.rmtree(source / split / "disc")
    project.write(data={"source": str(source)})
    outcome = project("prepare")
    assert outcome.code == 0, outcome.stderr
    assert "warning: no validation image of 1 of 3 classes: disc" in outcome.stderr
    assert "warning: no test image of 1 of 3 classes: disc" in outcome.stderr


def test_a_class_whose_only_images_are_bad_is_refused(project, tmp_path):
    source = write_folder(tmp_path / "in", 3)
    for file in (source / "disc").iterdir():
        file.write_bytes(b"no image")
    assert "class 'disc' has no train image" in refuse(project, source, on_bad_image="skip")


def test_class_names_that_stand_twice_are_refused(project, tmp_path):
    image = encoded(shape(0, np.random.default_rng(0)))
    write_shard(tmp_path / "in" / "train-0.tar", [Sample(f"k{n}", n % 2, image, "png", {}) for n in range(8)])
    (tmp_path / "in" / "classes.txt").write_text("crane\ncrane\n")
    assert "class name 'crane' is empty or stands twice" in refuse(project, tmp_path / "in")


def test_samples_of_one_name_are_refused(project, tmp_path):
    image = encoded(shape(0, np.random.default_rng(0)))
    for number in range(2):
        write_shard(tmp_path / f"in/train-{number}.tar", [Sample(f"k{n}", n % 2, image, "png", {}) for n in range(4)])
    assert re.search(
        r"train-0\.tar, sample k0 and .*train-1\.tar, sample k0 have the same key", refuse(project, tmp_path / "in")
    )


def test_two_validation_splits_are_refused(project, tmp_path):
    write_folder(tmp_path / "in" / "train", 3)
    write_folder(tmp_path / "in" / "val", 2)
    assert "the source has a validation split of its own" in refuse(project, tmp_path / "in", validation_fraction=0.1)


def test_a_probe_that_diverges_is_refused(project, shapes):
    prepare(project, shapes)
    outcome = project("probe", "-S", "probe.lr=1e9", "-S", "probe.epochs=1")
    assert outcome.code == 1
    assert "no longer numbers after epoch 1" in outcome.error
    assert not (project.folder / "data/probe").exists()


def test_test_images_that_are_also_in_train_are_counted(project, tmp_path):
    write_folder(tmp_path / "in" / "train", 3, seed=0)
    write_folder(tmp_path / "in" / "test", 3, seed=1)
    assert prepare(project, tmp_path / "in")["test_images_in_train"] == 0
    shutil.copy(tmp_path / "in/train/disc/000.png", tmp_path / "in/test/disc/copy.png")
    assert prepare(project, tmp_path / "in")["test_images_in_train"] == 1


def test_the_digits_are_prepared(project):
    result = prepare(project, Path("digits"))
    assert sum(result["images"].values()) == 1797
    assert result["image_size"] == [8, 8]


def test_a_failed_second_run_leaves_the_first_result(project, tmp_path):
    source = write_folder(tmp_path / "in", 6)
    prepare(project, source)
    before = stored(project)
    (source / "disc" / "bad.png").write_bytes(b"hello")
    assert project("prepare").code == 1
    assert stored(project) == before
