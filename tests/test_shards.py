import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdacli.errors import GdaError
from gdacli.shards import Sample, image_spans, read_shard, write_shard

keys = st.text("abcXYZ019_-", min_size=1, max_size=60)
metas = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.booleans(), max_size=3)
samples = st.lists(
    st.builds(Sample, keys, st.integers(0, 999), st.binary(max_size=2000), st.sampled_from(["png", "jpg"]), metas),
    max_size=8,
    unique_by=lambda sample: sample.key,
)


@given(samples)
@settings(max_examples=40)
def test_shards_round_trip_and_equal_samples_give_equal_bytes(tmp_path_factory, given_samples):
    folder = tmp_path_factory.mktemp("shards")
    first = write_shard(folder / "a.tar", given_samples)
    second = write_shard(folder / "b.tar", iter(given_samples))
    assert list(read_shard(folder / "a.tar")) == given_samples
    assert first.count == len(given_samples)
    assert first.sha256 == second.sha256
    content = (folder / "a.tar").read_bytes()
    spans = {key: content[offset : offset + length] for key, (offset, length) in image_spans(folder / "a.tar").items()}
    assert spans == {sample.key: sample.image for sample in given_samples}


def test_images_of_other_tars_are_found_under_the_keys_that_reading_gives(tmp_path):
    path = tmp_path / "a.tar"
    long = f"{'x' * 90}/{'y' * 90}"
    names = {"top": "top.JPG", "a/b.c/d": "a/b.c/d.png", long: f"{long}.webp"}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in [*names.values(), "notes.txt"]:
            for member, content in {name: name.encode(), name.rpartition(".")[0] + ".cls": b"1"}.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    tar_bytes = path.read_bytes()
    spans = {key: tar_bytes[offset : offset + length] for key, (offset, length) in image_spans(path).items()}
    assert spans == {key: name.encode() for key, name in names.items()}
    path.write_bytes(tar_bytes[:700] + b"?" + tar_bytes[701:1281] + b"?" * 100 + tar_bytes[1381:])
    with pytest.raises(GdaError, match=r"a.tar: damaged tar file \(a header is not where the one before it says\)"):
        image_spans(path)


def test_members_have_no_time_and_no_owner(tmp_path):
    write_shard(tmp_path / "a.tar", [Sample("k", 1, b"x", "png", {})])
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [(m.name, m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar] == [
            (name, 0, 0, 0, "", 0o644) for name in ("k.png", "k.cls", "k.json")
        ]


def test_the_webdataset_library_reads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")
    import webdataset

    write_shard(tmp_path / "a.tar", [Sample("k_1", 1, b"x", "png", {"a": 2}), Sample("k_2", 0, b"y", "png", {})])
    found = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [(s["__key__"], s["png"], s["cls"], s["json"]) for s in found] == [
        ("k_1", b"x", b"1", b'{"a": 2}'),
        ("k_2", b"y", b"0", b"{}"),
    ]


@pytest.mark.parametrize("key", ["a.b", "a/b"])
def test_keys_that_readers_would_split_are_refused(tmp_path, key):
    with pytest.raises(GdaError, match="a key holds no"):
        write_shard(tmp_path / "a.tar", [Sample(key, 1, b"x", "png", {})])
    assert list(tmp_path.iterdir()) == []


def test_damage_is_one_line(tmp_path):
    with pytest.raises(GdaError, match="does not exist"):
        list(read_shard(tmp_path / "none.tar"))
    (tmp_path / "text.tar").write_bytes(b"hello" * 200)
    with pytest.raises(GdaError, match="damaged tar file"):
        list(read_shard(tmp_path / "text.tar"))


def test_every_cut_is_noticed(tmp_path):
    write_shard(tmp_path / "a.tar", [Sample(f"k{n}", n, b"x" * 900, "png", {}) for n in range(4)])
    content = (tmp_path / "a.tar").read_bytes()
    end = len(content.rstrip(b"\0"))
    for length in [*range(0, end + 1, 37), *range(0, end, 512)]:
        (tmp_path / "cut.tar").write_bytes(content[:length])
        with pytest.raises(GdaError, match="damaged tar file"):
            list(read_shard(tmp_path / "cut.tar"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.cls": b"1"}, "found cls; needs one image"),
        ({"a.png": b"x"}, "found png; needs one image and a .cls"),
        ({"a.png": b"x", "a.jpg": b"y", "a.cls": b"1"}, "found cls, jpg, png; needs one image"),
        ({"a.png": b"x", "a.cls": b"cat"}, "must be an integer"),
    ],
)
def test_odd_samples_are_named(tmp_path, members, message):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(GdaError, match=message):
        list(read_shard(tmp_path / "a.tar"))
