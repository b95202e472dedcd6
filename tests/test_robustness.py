from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from conftest import shape
from hypothesis import given, settings
from hypothesis import strategies as st

from gdacli import robustness
from gdacli.corruptions import CORRUPTIONS, SEVERITIES, corrupt_batch
from gdacli.errors import GdaError
from gdacli.loading import ImageSource, InMemory
from gdacli.models import Classifier, create_model
from gdacli.rng import derive_seed
from gdacli.robustness import check_size, choose_images, measure_robustness
from gdacli.training import predict

NUM = 10
KEYS = [f"image-{number}" for number in range(NUM)]
LABELS = np.arange(NUM) % 3


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupt one image."""
    return corrupt_batch(image[None], name, severity, [rng])[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let no threads wait for each other over convolutions as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pixels(size: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([shape(label, rng, size) for label in LABELS.tolist()]).transpose(0, 3, 1, 2)


def sources(opened: list[int | None] | None = None) -> Callable[[int | None], ImageSource]:
    def images(size: int | None) -> ImageSource:
        if opened is not None:
            opened.append(size)
        return InMemory(torch.from_numpy(pixels(size or 8).copy()))

    return images


def model(seed: int, size: int | None = None) -> Classifier:
    """Return one that knows the images by heart, so that its predictions hang on the pixels."""
    net = create_model("convnet", 3, {"width": 4}, seed, image_size=size)
    x, truths = torch.from_numpy(pixels(size or 8).copy()).float() / 255, torch.from_numpy(LABELS)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), truths).backward()
        optimizer.step()
    return net


def test_errors_are_those_of_each_image_corrupted_alone(monkeypatch):
    made = []

    def counted(*arguments):
        made.append(arguments[1:3])
        return corrupt_batch(*arguments)

    corrupt_batch = robustness.corrupt_batch
    monkeypatch.setattr(robustness, "corrupt_batch", counted)
    models = {("original", 0): model(0), ("targeted", 1): model(1)}
    rows = np.array([1, 2, 3, 5, 8])
    found = measure_robustness(models, sources(), KEYS, LABELS, rows=rows, seed=7)
    assert len(made) == 75, "a batch is made once for all models"
    assert [(each.arm, each.seed, each.num_images) for each in found] == [(*run, 5) for run in models]
    images = pixels(8)
    for (run, net), each in zip(models.items(), found, strict=True):
        clean = predict(net, [torch.from_numpy(images[rows].copy())]).argmax(1).numpy()
        assert each.clean == pytest.approx(100 * (clean != LABELS[rows]).mean())
        for name in ("fog", "glass_blur", "jpeg_compression", "shot_noise"):
            for severity in SEVERITIES:
                seeds = {row: derive_seed("corrupt", 7, KEYS[row], name, severity) for row in rows.tolist()}
                alone = [corrupt(images[row], name, severity, np.random.default_rng(at)) for row, at in seeds.items()]
                guess = predict(net, [torch.from_numpy(np.stack(alone))]).argmax(1).numpy()
                error = each.errors[CORRUPTIONS.index(name), severity - 1]
                assert error == pytest.approx(100 * (guess != LABELS[rows]).mean()), (run, name, severity)
    assert found[0].mean == pytest.approx(np.mean(list(found[0].to_json()["errors"].values())))
    assert all(each.clean < 50 and each.errors.std() > 0 for each in found), "corruptions change nothing"


def test_large_images_are_corrupted_a_few_at_a_time(monkeypatch):
    sizes = []

    def counted(batch, *arguments):
        sizes.append(len(batch))
        return corrupt_batch(batch, *arguments)

    corrupt_batch = robustness.corrupt_batch
    models, rows = {("original", 0): model(0)}, np.array([1, 2, 3, 5, 8])
    (whole,) = measure_robustness(models, sources(), KEYS, LABELS, rows=rows, seed=7)
    monkeypatch.setattr(robustness, "corrupt_batch", counted)
    monkeypatch.setattr(robustness, "_BYTES_AT_ONCE", 2 * 75 * 3 * 8 * 8)
    (parts,) = measure_robustness(models, sources(), KEYS, LABELS, rows=rows, seed=7)
    assert sizes == [2] * 150 + [1] * 75
    assert parts.clean == whole.clean
    assert (parts.errors == whole.errors).all()


def test_the_batch_size_changes_nothing_and_each_model_gets_its_size():
    models = {("a", 0): model(0), ("b", 0): model(1, 12)}
    opened: list[int | None] = []
    rows = np.arange(6)
    whole = measure_robustness(models, sources(opened), KEYS, LABELS, rows=rows, seed=0)
    assert opened == [None, 12]
    parts = measure_robustness(models, sources(), KEYS, LABELS, rows=rows, seed=0, batch_size=4)
    for one, other in zip(whole, parts, strict=True):
        assert (one.arm, one.seed, one.clean) == (other.arm, other.seed, other.clean)
        assert (one.errors == other.errors).all()
        assert one.errors.shape == (15, 5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 50), st.integers(0, 9))
def test_chosen_images_are_balanced_and_stay_when_more_are_chosen(labels, num, seed):
    truths, keys = np.array(labels), [f"key-{number}" for number in range(len(labels))]
    rows = choose_images(keys, truths, num, seed)
    assert len(rows) == len(set(rows.tolist())) == min(num, len(keys))
    assert (np.diff(rows) > 0).all()
    have, chosen = np.bincount(truths, minlength=5), np.bincount(truths[rows], minlength=5)
    fewest = min((chosen[label] for label in range(5) if chosen[label] < have[label]), default=chosen.max())
    assert chosen.max() - fewest <= 1, "a class has more than another that has images left"
    assert set(rows) <= set(choose_images(keys, truths, num + 1, seed))
    turned = choose_images(keys[::-1], truths[::-1], num, seed)
    assert {keys[row] for row in rows} == {keys[::-1][row] for row in turned}, "the order of the images matters"


def test_another_seed_chooses_other_images():
    assert choose_images(KEYS, LABELS, 3, 0).tolist() != choose_images(KEYS, LABELS, 3, 1).tolist()


def test_refused():
    check_size(8)
    with pytest.raises(GdaError, match="found images of 7 x 7 pixels; allowed: from 8 x 8"):
        check_size(7)
    with pytest.raises(GdaError, match="found images of 4 x 4 pixels; allowed: from 8 x 8"):
        measure_robustness(
            {("a", 0): create_model("convnet", 3, {}, 0, image_size=4)},
            sources(),
            KEYS,
            LABELS,
            rows=np.arange(2),
            seed=0,
        )
    with pytest.raises(GdaError, match="found no test images"):
        measure_robustness({("a", 0): model(0)}, sources(), KEYS, LABELS, rows=np.arange(0), seed=0)
