import io
import shutil
import tarfile

import numpy as np
import pytest
from conftest import CLASSES, encoded, shape, write_folder
from hypothesis import given
from hypothesis import strategies as st

from gdacli.datasets import open_source
from gdacli.errors import GdaError
from gdacli.images import decode_array
from gdacli.records import legal_key
from gdacli.shards import Sample, write_shard
from gdacli.splits import key_uniform, split_off, subsample


def test_digits_are_bundled():
    source = open_source("digits")
    count, records = source.splits["train"]
    first = next(records())
    assert (count, source.class_names) == (1797, [str(digit) for digit in range(10)])
    image = decode_array(first.load())
    assert image.shape == (3, 8, 8)
    assert (image.min(), image.max()) == (0, 239)


def test_a_folder_without_splits(shapes):
    source = open_source(str(shapes))
    count, records = source.splits["train"]
    found = list(records())
    assert source.class_names == list(CLASSES)
    assert count == len(found) == 36
    assert len({record.key for record in found}) == 36
    assert [record.label for record in found] == sorted(record.label for record in found)


def test_a_folder_with_splits_under_their_many_names(tmp_path):
    for name, per_class in (("training", 3), ("val", 2), ("test", 1)):
        write_folder(tmp_path / name, per_class)
    source = open_source(str(tmp_path))
    assert {split: count for split, (count, _) in source.splits.items()} == {"test": 3, "train": 9, "validation": 6}


def test_keys_come_from_the_path_and_stay_when_images_are_added(tmp_path):
    write_folder(tmp_path, 3)
    before = {record.name: record.key for record in open_source(str(tmp_path)).splits["train"][1]()}
    (tmp_path / "disc" / "0005.png").write_bytes((tmp_path / "disc" / "000.png").read_bytes())
    after = {record.name: record.key for record in open_source(str(tmp_path)).splits["train"][1]()}
    assert len(after) == len(before) + 1
    assert all(after[name] == key for name, key in before.items())


@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_are_legal_and_different_names_stay_apart(one, other):
    import unicodedata

    for name in (one, other):
        assert not set(legal_key(name)) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
        assert len(legal_key(name)) <= 69
    if unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", other):
        assert legal_key(one) != legal_key(other)


@given(st.lists(st.integers(0, 4), min_size=20, max_size=200), st.floats(0.05, 0.95))
def test_a_further_image_moves_no_other_to_another_split(labels, fraction):
    uniforms = np.array([key_uniform(f"image-{row}", 0, "test") for row in range(len(labels))])
    chosen = split_off(uniforms, np.array(labels), fraction)
    more = split_off(uniforms[:-1], np.array(labels[:-1]), fraction)
    for label in set(labels[:-1]):
        members = np.flatnonzero(np.array(labels[:-1]) == label)
        by_hash = uniforms[members] < fraction
        if by_hash.any() and not by_hash.all():  # else the class is too small to go by the hash alone
            assert (more[members] == chosen[members]).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=100), st.floats(0.01, 0.99))
def test_both_sides_of_a_split_keep_an_image_of_each_class(labels, fraction):
    labels = np.array(labels)
    uniforms = np.array([key_uniform(f"image-{row}", 1, "test") for row in range(len(labels))])
    chosen = split_off(uniforms, labels, fraction)
    for label in np.unique(labels):
        assert (~chosen[labels == label]).sum() > 0
        assert (labels == label).sum() == 1 or chosen[labels == label].any()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=100), st.floats(0.01, 1), st.floats(0.01, 1))
def test_subsamples_are_stratified_and_nested(labels, one, other):
    labels = np.array(labels)
    uniforms = np.array([key_uniform(f"image-{row}", 0, "train") for row in range(len(labels))])
    small, large = (subsample(uniforms, labels, fraction) for fraction in sorted((one, other)))
    assert not (small & ~large).any()
    for label in np.unique(labels):
        size = (labels == label).sum()
        assert large[labels == label].sum() == max(1, round(max(one, other) * size))


def table(images: list[bytes]):
    import datasets as hf

    return hf.Dataset.from_dict(
        {"img": [{"bytes": image, "path": None} for image in images], "fine_label": [0, 2, 1, 0]},
        features=hf.Features({"img": hf.Image(), "fine_label": hf.ClassLabel(names=list(CLASSES))}),
    )


@pytest.fixture(scope="module")
def four() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [encoded(shape(label, rng), "JPEG") for label in (0, 2, 1, 0)]


@pytest.mark.parametrize("kind", ["parquet folder", "parquet file", "arrow folder", "arrow dict"])
def test_tables_are_read_by_feature_type(tmp_path, four, kind):
    import datasets as hf

    if kind == "parquet folder":
        (tmp_path / "data").mkdir()
        table(four).to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
        table(four).to_parquet(tmp_path / "data/test-00000-of-00001.parquet")
    elif kind == "parquet file":
        tmp_path = tmp_path / "a.parquet"
        table(four).to_parquet(tmp_path)
    elif kind == "arrow folder":
        table(four).save_to_disk(tmp_path)
    else:
        hf.DatasetDict({"train": table(four), "test": table(four)}).save_to_disk(tmp_path)
    source = open_source(str(tmp_path))
    assert source.class_names == list(CLASSES)
    assert set(source.splits) == ({"train"} if kind in ("parquet file", "arrow folder") else {"train", "test"})
    found = list(source.splits["train"][1]())
    assert [record.load() for record in found] == four
    assert [(record.key, record.label) for record in found][:2] == [("train-00000000", 0), ("train-00000001", 2)]


@pytest.mark.parametrize(
    ("labels", "names"), [(["cat", "ant", "cat"], ["ant", "cat"]), ([3, 1, 3], ["1", "3"]), ([0, 1, 0], ["0", "1"])]
)
def test_labels_without_class_names(tmp_path, four, labels, names):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": image, "path": "a.jpg"} for image in four[:3]]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train.parquet")
    source = open_source(str(tmp_path))
    assert source.class_names == names
    found = list(source.splits["train"][1]())
    assert [names[record.label] for record in found] == [str(label) for label in labels]
    assert [record.load() for record in found] == four[:3]


def test_columns_can_be_named_and_misnamed(tmp_path, four):
    import datasets as hf

    double = (
        table(four).add_column("coarse_label", [0, 1, 1, 0]).cast_column("coarse_label", hf.ClassLabel(num_classes=2))
    )
    double.to_parquet(tmp_path / "train.parquet")
    assert open_source(str(tmp_path)).class_names == list(CLASSES)
    assert open_source(str(tmp_path), label_column="coarse_label").class_names == ["0", "1"]
    with pytest.raises(
        GdaError, match="data.label_column: there is no column 'lable'; the columns are img, fine_label"
    ):
        open_source(str(tmp_path), label_column="lable")
    double.remove_columns(["img"]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(GdaError, match="data.image_column: no image column among fine_label, coarse_label"):
        open_source(str(tmp_path))


def test_labels_out_of_range_are_named(tmp_path, four):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": image, "path": None} for image in four]
    pq.write_table(pa.table({"image": images, "label": [0, 1, -1, 0]}), tmp_path / "train.parquet")
    with pytest.raises(GdaError, match="column 'label' holds -1"):
        open_source(str(tmp_path))
    hidden = table(four).to_dict() | {"fine_label": [0, 1, -1, 0]}
    import datasets as hf

    hf.Dataset.from_dict(hidden, features=table(four).features).save_to_disk(tmp_path / "arrow")
    source = open_source(str(tmp_path / "arrow"))
    with pytest.raises(GdaError, match="train split, row 2: label -1 is not one of the train classes"):
        list(source.splits["train"][1]())


def test_shards_of_another_tool(tmp_path, four):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for number, image in enumerate(four):
            for name, content in (
                (f"./dir/{number:04d}.JPEG", image),
                (f"./dir/{number:04d}.cls", b"2"),
                (f"./dir/{number:04d}.txt", b"a caption"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    source = open_source(str(tmp_path))
    assert source.class_names == ["0", "1", "2"]
    assert [(record.label, record.load()) for record in source.splits["train"][1]()] == [(2, image) for image in four]
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert open_source(str(tmp_path)).class_names == ["a", "b", "c"]


def test_shards_keep_legal_keys_and_find_class_names_in_the_card(tmp_path, four):
    write_shard(tmp_path / "train-0.tar", [Sample(f"train-{n}", 0, image, "jpg", {}) for n, image in enumerate(four)])
    write_shard(tmp_path / "test-0.tar", [Sample("0", 1, four[0], "jpg", {})])
    names = "  - name: cls\n    dtype:\n      class_label:\n        names:\n          '0': cat\n          '1': dog\n"
    (tmp_path / "README.md").write_text(f"---\ndataset_info:\n  features:\n{names}---\ntext\n")
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert [record.key for record in source.splits["train"][1]()] == [f"train-{n}" for n in range(4)]
    assert [record.key for record in source.splits["test"][1]()] == ["test_0"]


def test_what_is_missing_or_empty_is_one_line(tmp_path):
    with pytest.raises(GdaError, match="data.source: there is no '.*nowhere': give 'digits', an existing folder"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(GdaError, match="has no class folders: expected <class>/<image>"):
        open_source(str(tmp_path))
    write_folder(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GdaError, match="class 'empty' has no image"):
        open_source(str(tmp_path))
    write_folder(tmp_path / "s" / "train", 1)
    (tmp_path / "s" / "test" / "dics").mkdir(parents=True)
    with pytest.raises(GdaError, match="class 'dics' of .* is not in"):
        open_source(str(tmp_path / "s"))


def test_a_split_folder_that_would_be_passed_over_is_said(tmp_path):
    write_folder(tmp_path / "train", 2)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "flat.png").write_bytes(encoded(shape(0, np.random.default_rng(0))))
    with pytest.raises(GdaError, match="test has no class folders, unlike .*train: sort its images"):
        open_source(str(tmp_path))
    shutil.rmtree(tmp_path / "test")
    write_folder(tmp_path / "val", 1)
    write_folder(tmp_path / "validation", 1)
    with pytest.raises(GdaError, match="has both 'val' and 'validation', which mean validation: keep one"):
        open_source(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path):
    write_folder(tmp_path, 2)
    (tmp_path / "square").rename(tmp_path / "train")
    source = open_source(str(tmp_path))
    assert (source.class_names, source.splits["train"][0]) == (["disc", "ring_shape", "train"], 6)


def test_stray_files_do_not_change_what_a_folder_is(tmp_path):
    write_folder(tmp_path, 2)
    (tmp_path / "backup.tar").write_bytes(b"")
    (tmp_path / "meta.parquet").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    assert open_source(str(tmp_path)).splits["train"][0] == 6


@pytest.mark.parametrize(
    "names",
    [
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-0000.tar"),
        ("train/00.tar", "val/00.tar"),
        ("train-0.tar", "valid_0.tar"),
    ],
)
def test_shards_name_their_split_anywhere_in_their_path(tmp_path, four, names):
    for row, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / name, [Sample(f"k{row}{n}", n % 2, image, "jpg", {}) for n, image in enumerate(four)])
    assert {split: count for split, (count, _) in open_source(str(tmp_path)).splits.items()} == {
        "train": 4,
        "validation": 4,
    }
    write_shard(tmp_path / "more.tar", [])
    with pytest.raises(GdaError, match=r"more\.tar names no split, while others do"):
        open_source(str(tmp_path))


def test_columns_of_bytes_and_of_other_things(tmp_path, four):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": four, "label": [0, 1, 1, 0]}), tmp_path / "train.parquet")
    assert [record.load() for record in open_source(str(tmp_path)).splits["train"][1]()] == four
    with pytest.raises(GdaError, match="data.image_column: column 'label' holds .*; needs images or their bytes"):
        open_source(str(tmp_path), image_column="label")
    pq.write_table(pa.table({"image": four, "label": [[0], [1], [1], [0]]}), tmp_path / "train.parquet")
    with pytest.raises(
        GdaError, match="data.label_column: column 'label' holds .*; needs classes, whole numbers or text"
    ):
        open_source(str(tmp_path), label_column="label")


def test_a_hub_dataset_that_cannot_be_reached_is_one_line():
    with pytest.raises(GdaError, match="data.source: nobody/nothing: cannot be read as a dataset: .*no local folder"):
        open_source("nobody/nothing")
