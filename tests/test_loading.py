import io
import math
import multiprocessing
import os
import pickle
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, encoded, invoke, shape
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from gdacli import loading
from gdacli.artifacts import sha256_bytes
from gdacli.augment_sections import Augment
from gdacli.errors import GdaError
from gdacli.image_index import ImageIndex, References, read_references
from gdacli.images import decode_array, load_shrunk, open_upright
from gdacli.loading import ImageSource, InMemory, Streaming, open_images
from gdacli.memory import free_bytes
from gdacli.prepared import Prepared, read_prepared
from gdacli.random_crops import DRAWS, centre_box, random_box, resized_part, uniforms
from gdacli.shards import Sample, write_shard
from gdacli.tables import write_table

CROP = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
CPU = torch.device("cpu")


def photo(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw something smooth with some grain, as a photo is."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8))


def prepare(folder: Path, kind: str, draw: Callable[[np.random.Generator, int], Any]) -> Prepared:
    rng = np.random.default_rng(0)
    for number in range(40):
        file = folder / "images" / f"class{number % 2}" / f"{number:02d}.{kind.lower()}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(draw(rng, number), kind))
    data = {"source": str(folder / "images"), "test_fraction": 0.2, "validation_fraction": 0.2, "shard_size": 10}
    (folder / "params.yaml").write_text(yaml.safe_dump({**TINY, "data": data}))
    outcome = invoke("prepare", "-C", str(folder))
    assert outcome.code == 0, outcome.stderr
    return read_prepared(folder / "data" / "source")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Give JPEGs of varying sizes."""
    return prepare(
        tmp_path_factory.mktemp("photos"), "JPEG", lambda rng, number: photo(rng, 40 + number, 80 - 3 * (number % 10))
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Give PNGs of one size."""
    return prepare(tmp_path_factory.mktemp("small"), "PNG", lambda rng, number: shape(number % 3, rng))


def stream(prepared: Prepared, workers: int = 0, crop: Any = CROP, seed: int = 0, size: int = 16) -> Streaming:
    return Streaming(
        ImageIndex(prepared.references("train")),
        image_size=size, device=CPU, workers=workers, random_resized_crop=crop, seed=seed,
    )  # fmt: skip


def epoch_of(source: ImageSource, epoch: int = 1, bounds: Any = None) -> list[torch.Tensor]:
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).repeat(2)
    cuts = bounds or [(0, 7), (7, 20), (20, 21), (21, len(order))]
    return [batch.clone() for batch in source.batches(epoch, order, cuts)]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [16, 12])
def test_memory_and_stream_give_the_same_batches(small, photos, workers, size):
    for prepared in (small, photos):
        references = prepared.references("train")
        memory = open_images(references, image_size=size, device=CPU, loading="memory")
        streamed = open_images(references, image_size=size, device=CPU, loading="stream", workers=workers)
        assert isinstance(memory, InMemory)
        assert isinstance(streamed, Streaming)
        assert len(memory) == len(streamed) == prepared.splits["train"].count
        assert equal(epoch_of(memory), epoch_of(streamed))
        assert equal(list(memory.in_order(10)), list(streamed.in_order(10)))


def test_images_of_the_wanted_size_keep_every_bit(small):
    for split in ("train", "validation", "test"):
        source = open_images(small.references(split), image_size=16, device=CPU)
        assert torch.equal(torch.cat(list(source.in_order())), torch.from_numpy(small.load(split)[2]))
        assert small.labels(split).tolist() == small.index(split)["label"].tolist() == small.load(split)[1].tolist()
    assert small.index("test")["key"] == small.load("test")[0]


def test_crops_depend_on_seed_epoch_and_place_alone(photos):
    state = torch.get_rng_state()
    whole = epoch_of(stream(photos))
    for workers in (1, 2):
        source = stream(photos, workers)
        assert equal(epoch_of(source), whole)
        assert equal(list(source.in_order(9)), list(stream(photos, crop=None).in_order(9)))
        assert equal(epoch_of(source), whole)  # by the same workers
    assert torch.equal(torch.get_rng_state(), state)  # else a dropout would draw other numbers than over memory
    assert equal(epoch_of(stream(photos), bounds=[(20, 21), (21, 40)]), [whole[2], whole[3][:19]])  # taken up again
    assert equal(epoch_of(stream(photos), bounds=[(3, 7), (8, 20)]), [whole[0][3:], whole[1][1:]])  # another process
    assert not equal(epoch_of(stream(photos), epoch=2), whole)
    assert not equal(epoch_of(stream(photos, seed=1)), whole)
    count = photos.splits["train"].count
    one, again = torch.cat(whole)[:count], torch.cat(whole)[count:]
    assert not torch.equal(one, again)  # a row that comes twice is cut twice


def test_crops_end_after_their_epoch(photos):
    ending = open_images(
        photos.references("train"), image_size=16, device=CPU, random_resized_crop={**CROP, "end_epoch": 1}
    )
    order, bounds = torch.arange(len(ending)), [(0, len(ending))]
    plain = torch.cat(list(ending.in_order()))
    first, second = (next(iter(ending.batches(epoch, order, bounds))) for epoch in (1, 2))
    assert not torch.equal(first, plain)
    assert torch.equal(second, plain)


@given(st.lists(st.integers(0, 23), min_size=1, max_size=30), st.data())
def test_an_epoch_shows_every_place_of_the_order_once(numbered, order, data):
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, len(order) - 1)) if len(order) > 1 else st.just(set()))), 0]
    cuts[-1] = len(order)
    bounds = list(zip(cuts[:-1], cuts[1:], strict=True))
    skipped = data.draw(st.integers(0, len(bounds) - 1))
    batches = list(numbered.batches(1, torch.tensor(order), bounds[skipped:]))
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [order[a:b] for a, b in bounds[skipped:]]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Streaming:
    """Give images whose grey level is their row, in shards of one image."""
    images = [encoded(np.full((4, 4, 3), row, np.uint8)) for row in range(24)]
    index = ImageIndex(references_to(tmp_path_factory.mktemp("numbered"), images))
    return Streaming(index, image_size=4, device=CPU, workers=0)


def references_to(folder: Path, images: list[bytes], **columns: list[str]) -> References:
    """Write a shard per image and a mix that lists them."""
    for row, image in enumerate(images):
        write_shard(
            folder / f"{row:03d}.tar", [Sample("beside", 0, b"x" * row, "png", {}), Sample("k", 0, image, "png", {})]
        )
    mix = {
        "key": ["k"] * len(images),
        "shard": [str(folder / f"{row:03d}.tar") for row in range(len(images))],
        "sha256": [sha256_bytes(image) for image in images],
    } | columns  # fmt: skip
    write_table(folder / "mix.parquet", mix)
    return read_references(folder / "mix.parquet", origin="the mix", command="gdacli mix")


def test_an_index_reads_more_shards_than_it_holds_open_and_travels_to_another_process(tmp_path):
    images = [os.urandom(row) for row in range(1, 90)]
    index = ImageIndex(references_to(tmp_path, images))
    for each in (index, pickle.loads(pickle.dumps(index))):  # noqa: S301
        assert [each.encoded(row) for row in [*range(89), *range(89)]] == images * 2
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    del index, each
    assert before - len(os.listdir("/proc/self/fd")) == 128  # noqa: PTH208


@pytest.mark.parametrize("workers", [0, 2])
def test_other_bytes_stop_with_one_line_and_leave_no_process(photos, tmp_path, workers):
    references = references_to(tmp_path, [encoded(np.zeros((4, 4, 3), np.uint8))] * 3, sha256=["0" * 64] * 3)
    source = Streaming(ImageIndex(references), image_size=4, device=CPU, workers=workers)
    with pytest.raises(GdaError) as caught:
        list(source.in_order(2))
    assert str(caught.value) == (
        f"{tmp_path}/000.tar: sample 'k' is not the image that the mix was made of: run `gdacli mix`, or "
        f"`dvc checkout --force {tmp_path}`"
    )
    assert not multiprocessing.active_children()


def test_images_that_are_not_there_or_do_not_decode_are_named(tmp_path):
    image = encoded(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(GdaError, match=r"000.tar lacks 1 of the 1 images that the mix names in it \(first: other\)"):
        ImageIndex(references_to(tmp_path, [image], key=["other"]))
    index = ImageIndex(references_to(tmp_path, [image, b"no image"]))
    with pytest.raises(GdaError, match=r"001.tar: sample 'k' does not decode \(not an image"):
        list(Streaming(index, image_size=4, device=CPU, workers=0).in_order())
    with pytest.raises(GdaError, match=r"mix.parquet: a sha256 is not 64 hexadecimal digits: run `gdacli mix`"):
        references_to(tmp_path, [image], sha256=["0g" * 32])
    index = ImageIndex(references_to(tmp_path, [image]))
    (tmp_path / "000.tar").unlink()
    with pytest.raises(GdaError, match=r"000.tar can no longer be read \(No such file or directory\): run `dvc"):
        index.encoded(0)
    with pytest.raises(GdaError, match=rf"000.tar does not exist: run `dvc pull {tmp_path}`"):
        ImageIndex(read_references(tmp_path / "mix.parquet", origin="the mix", command="gdacli mix"))
    (tmp_path / "000.tar").write_bytes(b"no tar" * 100)
    with pytest.raises(GdaError, match=r"000.tar: damaged tar file \(a header is not where"):
        ImageIndex(read_references(tmp_path / "mix.parquet", origin="the mix", command="gdacli mix"))


def interrupt(batches: Iterator[torch.Tensor]) -> None:
    for _ in batches:
        os.kill(os.getpid(), signal.SIGINT)


def test_workers_outlive_ctrl_c_but_not_their_stream(photos):
    source = stream(photos, workers=2)
    batches = source.in_order(2)
    first = next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGINT)  # a terminal sends it to all; the main process ends them in order
    assert torch.equal(torch.cat([first, *batches]), torch.cat(list(stream(photos).in_order())))
    half_read = source.in_order(2)
    next(half_read)
    with pytest.raises(KeyboardInterrupt):
        interrupt(half_read)
    del half_read, batches, source
    assert not multiprocessing.active_children()


def test_two_streams_of_one_source_at_once_do_not_meet(photos):
    source = stream(photos, workers=1)
    one, two = source.in_order(5), source.in_order(5)
    pairs = list(zip(one, two, strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len(torch.cat([a for a, _ in pairs])) == len(source)


def test_a_worker_that_dies_is_one_line(photos):
    batches = stream(photos, workers=1).in_order(1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(GdaError, match=r"a process that decodes images died \(.+\): lower") as caught:
        list(batches)
    assert "\n" not in str(caught.value)


def test_the_choice_is_by_size_and_said(small, photos, capsys):
    references = small.references("train")
    assert isinstance(open_images(references, image_size=16, device=CPU), InMemory)
    assert capsys.readouterr().err == ""
    huge = 500_000
    assert isinstance(open_images(references, image_size=huge, device=CPU), Streaming)
    assert "MB, stream from 4 shards with 0 workers: more than 25 % of the " in capsys.readouterr().err
    assert isinstance(
        open_images(photos.references("train"), image_size=16, device=CPU, random_resized_crop=CROP), Streaming
    )
    assert capsys.readouterr().err.endswith("random_resized_crop cuts from each as it is stored\n")
    with pytest.raises(GdaError, match=r"loading: found memory, but \d+ images of .* MB, do not fit into the \d+ MB"):
        open_images(references, image_size=huge, device=CPU, loading="memory")
    with pytest.raises(GdaError, match="loading: found memory, but random_resized_crop needs .* allowed with it are"):
        open_images(references, image_size=16, device=CPU, loading="memory", random_resized_crop=CROP)


def test_many_images_are_read_by_workers_with_progress(small, monkeypatch, capsys):
    few = open_images(small.references("train"), image_size=16, device=CPU)
    monkeypatch.setattr(loading, "_MANY_IMAGES", 10)
    monkeypatch.setattr(loading, "_MANY_BYTES", 10)
    many = open_images(small.references("train"), image_size=16, device=CPU, workers=2)
    assert equal(list(few.in_order()), list(many.in_order()))
    said = capsys.readouterr().err
    assert re.search(r"^loading: \d+ images of 16 x 16 pixels, 0 MB, are read into memory: at most 25 % of the", said)
    assert re.search(rf"loading: {len(few)}/{len(few)} images, ", said)
    assert not multiprocessing.active_children()


def test_free_memory_is_within_the_machines():
    assert 0 < free_bytes(CPU) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_numbers_are_those_of_splitmix64_wherever_one_starts():
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert uniforms(1234567, [0], 5)[0].tolist() == [(number >> 11) / 2**53 for number in known]
    assert np.array_equal(uniforms(5, range(10))[[7, 2]], uniforms(5, [7, 2]))
    assert uniforms(2**64 - 1, [2**40]).min() >= 0


@pytest.mark.parametrize("size", [(171, 128), (60, 200)])
def test_boxes_are_distributed_as_torchvisions(size):
    width, height = size
    ours = np.array([random_box(width, height, **CROP, numbers=row) for row in uniforms(0, range(4000)).tolist()])
    torch.manual_seed(0)
    blank = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(blank, [*CROP["scale"]], [*CROP["ratio"]]) for _ in range(4000)])
    top, left, h, w = theirs.T
    for mine, other in zip(ours.T, (left, top, left + w, top + h), strict=True):
        assert ks_2samp(mine, other).pvalue > 1e-3
    assert ks_2samp((ours[:, 2] - ours[:, 0]) / (ours[:, 3] - ours[:, 1]), w / h).pvalue > 1e-3


@pytest.mark.parametrize("size", [(500, 20), (20, 500), (100, 101)])
def test_without_a_fitting_box_it_is_torchvisions_centre(size):
    scale, ratio = (1.0, 1.0), (0.9, 1.1) if max(size) == 500 else (0.2, 0.3)
    width, height = size
    top, left, h, w = RandomResizedCrop.get_params(torch.empty(1, height, width), [*scale], [*ratio])
    assert random_box(width, height, scale, ratio, [0.5] * DRAWS) == (left, top, left + w, top + h)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_boxes_lie_in_the_image(width, height, seed):
    left, top, right, bottom = random_box(width, height, **CROP, numbers=uniforms(seed, [0])[0].tolist())
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_resizing_is_pillows():
    rng = np.random.default_rng(1)
    image = photo(rng, 90, 61)
    box = (3, 2, 71, 60)
    for size in (16, 100):
        part = resized_part(encoded(image), size, lambda width, height: box)
        expected = np.asarray(image.crop(box).resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(part.numpy().astype(int) - expected).max() <= 1
    assert centre_box(90, 61) == (14, 0, 75, 61)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    rng = np.random.default_rng(2)
    content = encoded(photo(rng, 803, 602), "JPEG", quality=90)
    assert load_shrunk(open_upright(content), 4).size == (201, 151)
    assert load_shrunk(open_upright(content), 1).size == (803, 602)
    box = (101, 50, 701, 599)
    for size in (64, 128):  # a quarter, a half
        shrunk = resized_part(content, size, lambda width, height: box).numpy().astype(int)
        lossless = encoded(Image.fromarray(decode_array(content).transpose(1, 2, 0)))
        exact = resized_part(lossless, size, lambda width, height: box).numpy().astype(int)
        assert 0 < np.abs(shrunk - exact).mean() < 1
        assert np.abs(shrunk - exact).max() <= 12
    assert not math.isclose(exact.std(), 0)


def test_a_photo_that_lies_on_its_side_is_cut_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo(np.random.default_rng(3), 40, 20)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    part = resized_part(buffer.getvalue(), 20, lambda width, height: (0, height - 20, width, height))
    assert np.array_equal(part.numpy(), decode_array(buffer.getvalue())[:, 20:])


def test_a_set_of_varying_sizes_needs_a_size_to_train_at(small, photos):
    assert small.training_size(None, "train.image_size") == 16
    assert photos.training_size(48, "train.image_size") == 48
    with pytest.raises(GdaError, match=r"train.image_size: found null, but the images in .* vary in size: set train"):
        photos.training_size(None, "train.image_size")


@pytest.mark.parametrize("wrong", [{"scale": [0.5, 0.1]}, {"scale": [0.5, 1.5]}, {"ratio": [2, 1]}, {"ratio": [1]}])
def test_ranges_of_crops_are_checked(wrong):
    with pytest.raises(ValidationError):
        Augment.model_validate({"random_resized_crop": wrong})
    default = Augment.model_validate({"random_resized_crop": {}}).model_dump(exclude_none=True)["random_resized_crop"]
    assert random_box(100, 80, **default, numbers=[0.5] * DRAWS) == (17, 7, 83, 73)  # 54 % of the area, in the centre
