from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import encoded
from test_duplicates import features, jpeg, moved, tiles

from gdacli.artifacts import sha256_bytes
from gdacli.cleanliness import Cleanliness, Copies, array_names, find_copies
from gdacli.compared_images import ImageSet, compared_side, image_set, read_pixels
from gdacli.errors import GdaError
from gdacli.image_index import References
from gdacli.shards import Sample, write_shard

IMAGES = tiles()
NOISE = np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32)).astype(np.uint8)
NUM_TRAIN = 120


def references(folder: Path, contents: list[bytes], name: str) -> References:
    """Write images as a shard."""
    keys = [f"{name}-{number}" for number in range(len(contents))]
    samples = [Sample(key, 0, content, "png", {}) for key, content in zip(keys, contents, strict=True)]
    write_shard(folder / f"{name}.tar", samples)
    sums = [list(bytes.fromhex(sha256_bytes(content))) for content in contents]
    return References(
        shards=[folder / f"{name}.tar"],
        shard=np.zeros(len(keys), np.int32),
        keys=pa.array(keys),
        sha256=np.array(sums, np.uint8),
        origin="the test",
        command="gdacli prepare",
    )


def read_set(folder: Path, images: np.ndarray, name: str, most: int = 1000) -> ImageSet:
    refs = references(folder, [encoded(image.transpose(1, 2, 0)) for image in images], name)
    return image_set(refs.keys.to_pylist(), features(images), *read_pixels(refs, 32, name), most)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Cleanliness:
    """Plant each kind of copy once or twice."""
    folder = tmp_path_factory.mktemp("copies")
    train, test = IMAGES[:NUM_TRAIN].copy(), np.concatenate([IMAGES[NUM_TRAIN:150], NOISE[:1]])
    train[100], train[101] = train[0], jpeg(train[1], 90)
    test[0], test[1], test[2] = train[5], train[6][:, :, ::-1], moved(train[7], 1, 1)
    synthetic = np.stack(
        [
            train[10],  # an exact copy of its source
            jpeg(train[11], 90),  # nearly its source
            train[12],  # an exact copy of another image than its source
            train[13][:, :, ::-1],  # of another one, mirrored
            jpeg(NOISE[0], 90),  # of a test image
            NOISE[1],  # of none
            train[0],  # of its source, which has a twin
            moved(train[14], 1, 0),  # of a train image, without a source
        ]
    )
    sources = np.array([10, 11, 20, 21, 22, 23, 0, -1])
    planted = {"train": train, "test": test, "synthetic": synthetic}
    sets = {name: read_set(folder, images, name) for name, images in planted.items()}
    return find_copies(sets["train"], sets["test"], sets["synthetic"], sources, near_within_train=True)


def found(copies: Copies | None) -> list[tuple[int, int, bool, bool]]:
    assert copies is not None
    return sorted((pair.row, pair.row_of, pair.exact, pair.mirrored) for pair in copies.pairs)


def test_copies_of_every_kind_are_told_apart(result):
    assert found(result.split_train) == [(0, 5, True, False), (1, 6, False, True), (2, 7, False, False)]
    assert found(result.within_train) == [(0, 100, True, False), (1, 101, False, False)]
    assert found(result.synthetic_split) == [(4, 30, False, False)]
    assert found(result.memorised) == [(2, 12, True, False), (3, 13, False, True), (7, 14, False, False)]
    assert found(result.unchanged) == [(0, 10, True, False), (1, 11, False, False), (6, 0, True, False)]


def test_pairs_have_names_and_exact_ones_stand_first(result):
    first = result.memorised.pairs[0]
    assert (first.key, first.of, first.similarity, first.exact) == ("synthetic-2", "train-12", 1, True)
    for copies in (result.split_train, result.unchanged, result.memorised):
        assert [pair.exact for pair in copies.pairs] == sorted((pair.exact for pair in copies.pairs), reverse=True)
        assert all(result.threshold <= pair.similarity <= 1 for pair in copies.pairs)
    assert result.to_metrics()["split_train"] == {
        "images": 31,
        "exact": 1,
        "near": 2,
        "near_looked_for": 31,
        "near_looked_among": 120,
    }
    unchanged = result.to_metrics()["unchanged"]
    assert (unchanged["images"], unchanged["exact"], unchanged["near"]) == (7, 2, 1)  # one has no source
    assert result.to_metrics()["side"] == 32
    assert not any(copies.is_draw for copies in result.compared().values())


def test_a_draw_hangs_on_the_keys_alone_and_keeps_unit_features():
    keys = [f"image-{number}" for number in range(50)]
    seen = np.random.default_rng(0).standard_normal((50, 3))
    pixels = np.zeros((50, 32), np.uint8), np.arange(50, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    some, turned = image_set(keys, seen, *pixels, 20), image_set(keys[::-1], seen[::-1], *pixels, 20)
    assert {keys[row] for row in some.drawn} == {keys[::-1][row] for row in turned.drawn}
    assert set(some.drawn) <= set(image_set(keys, seen, *pixels, 21).drawn)
    assert (np.diff(some.drawn) > 0).all()
    assert some.drawn.tolist() != list(range(20))
    assert np.allclose(some.features, seen[some.drawn] / np.linalg.norm(seen[some.drawn], axis=1, keepdims=True))
    assert (some.drawn_squares[:, 0, 0] == some.drawn).all()
    everything = image_set(keys, seen, *pixels, 50)
    assert everything.drawn_squares is everything.squares


def test_exact_and_unchanged_ones_are_all_found_and_near_ones_among_the_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("gdacli.cleanliness._ROWS_AT_ONCE", 7)
    train, split = IMAGES[:60], IMAGES[100:120].copy()
    brighter = (train * 0.8 + 40).astype(np.uint8)
    split[:6] = brighter[:6]
    split[6:9] = train[6:9]
    made = np.concatenate([brighter[:10], brighter[20:30]])
    sources = np.concatenate([np.arange(10), np.arange(40, 50)])  # the first ten are unchanged, the others memorised
    of_train, of_split = read_set(tmp_path, train, "train", 40), read_set(tmp_path, split, "split", 10)
    of_pool = read_set(tmp_path, made, "made", 12)
    result = find_copies(of_train, of_split, of_pool, sources, near_within_train=True)
    drawn_train, drawn_split = set(of_train.drawn.tolist()), set(of_split.drawn.tolist())
    exact = [(row, row, True, False) for row in range(6, 9)]
    near = [(row, row, False, False) for row in range(6) if row in drawn_split and row in drawn_train]
    assert 0 < len(near) < 6
    assert found(result.split_train) == near + exact
    assert len(found(result.unchanged)) == 10
    memorised = found(result.memorised)
    assert 0 < len(memorised) < 10
    assert all(row >= 10 and row_of == row + 10 for row, row_of, _, _ in memorised)
    counts = {name: (each.num_drawn, each.num_among, each.num_others) for name, each in result.compared().items()}
    assert counts["split_train"] == (10, 40, 60)
    assert counts["synthetic_split"] == (12, 10, 20)
    assert counts["memorised"] == (12, 40, 60)
    assert counts["within_train"] == (40, 40, 60)
    assert [name for name, each in result.compared().items() if not each.is_draw] == ["unchanged"]
    assert Cleanliness.from_arrays(result.to_arrays(), of_train.keys, of_split.keys, of_pool.keys) == result


def test_without_a_pool_and_without_near_ones_within_train(tmp_path):
    train, test = read_set(tmp_path, IMAGES[[0, 1, 0]], "train"), read_set(tmp_path, IMAGES[2:4], "test")
    result = find_copies(train, test, near_within_train=False)
    assert found(result.within_train) == [(0, 2, True, False)]
    assert found(result.split_train) == []
    assert result.memorised is result.unchanged is result.synthetic_split is None
    assert "memorised" not in result.to_metrics()
    none = image_set([], train.features[:0], train.digests[:0], train.squares[:0], 9)
    empty = find_copies(train, none, none, np.empty(0, np.int64), near_within_train=True)
    assert found(empty.split_train) == found(empty.memorised) == found(empty.unchanged) == []
    with pytest.raises(ValueError, match="source_rows"):
        find_copies(train, test, test, near_within_train=False)


def test_what_was_found_is_made_again_of_its_arrays(tmp_path):
    train, test = read_set(tmp_path, IMAGES[[0, 1, 0, 5]], "train"), read_set(tmp_path, IMAGES[[1, 2]], "test")
    pool = read_set(tmp_path, IMAGES[[5, 2, 0]], "pool")
    with_pool = find_copies(train, test, pool, np.array([3, 1, -1]), near_within_train=True)
    assert with_pool.memorised is not None
    assert len(with_pool.memorised.pairs) == 1
    for split, made in ((test, pool), (test, None), (None, pool), (None, None)):
        result = find_copies(train, split, made, np.array([3, 1, -1]) if made else None, near_within_train=True)
        arrays = result.to_arrays()
        assert arrays.keys() == array_names(with_split=split is not None, with_pool=made is not None)
        keys = [each.keys if each else None for each in (split, made)]
        assert Cleanliness.from_arrays(arrays, train.keys, *keys) == result
        assert (result.split_train is None) == (split is None)
        assert (result.synthetic_split is None) == (split is None or made is None)
        if made:
            assert (result.memorised, result.unchanged) == (with_pool.memorised, with_pool.unchanged)


def test_pixels_are_equal_whatever_the_encoding_and_the_size_varies(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    contents = [encoded(wide), encoded(wide, "BMP"), encoded(wide[:20, :25]), encoded(wide, "WEBP", lossless=True)]
    digests, squares = read_pixels(references(tmp_path, contents, "mixed"), 32, "mixed")
    assert squares.shape == (4, 32, 32)
    equal = (digests[:, None] == digests).all(2)
    assert (equal == np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 1]], bool)).all()


def test_a_damaged_image_is_named(tmp_path):
    with pytest.raises(GdaError, match=r"bad.tar: sample 'bad-1' does not decode"):
        read_pixels(references(tmp_path, [encoded(IMAGES[0].transpose(1, 2, 0)), b"no image"], "bad"), 32, "bad")


def test_images_are_compared_at_their_own_size_up_to_32():
    assert [compared_side(each) for each in (None, (8, 8), (224, 224), (64, 20))] == [32, 8, 32, 20]
