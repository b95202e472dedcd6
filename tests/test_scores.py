import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdacli.models import create_model
from gdacli.scores import NO_SOURCE, Scorer, is_constant, reason_to_drop

OFF = {
    "constant": False,
    "min_confidence": None,
    "min_source_distance": None,
    "max_source_distance": None,
    "min_nearest_distance": None,
    "min_clip_score": None,
}


@pytest.fixture(scope="module")
def seen() -> tuple[torch.nn.Module, torch.Tensor, np.ndarray]:
    torch.set_num_threads(1)
    model = create_model("convnet", 3, {"width": 8}, seed=0).eval()
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model.unit_features(images.float() / 255).numpy()
    return model, images, features


def scorer(seen) -> Scorer:
    model, _, features = seen
    return Scorer(model, [f"k{row}" for row in range(40)], features.astype(np.float16), torch.device("cpu"))


def test_a_copy_of_its_source_is_at_distance_0_and_a_memorised_one_is_named(seen):
    _, images, features = seen
    batch = images[:32].numpy()
    scores = scorer(seen)(batch, [0] * 32, [f"k{(row + 1) % 32}" for row in range(32)], [""] * 32)
    assert [each["nearest_key"] for each in scores] == [f"k{row}" for row in range(32)]
    assert max(each["nearest_distance"] for each in scores) < 1e-4
    expected = 1 - (features[:32] * np.roll(features[:32], -1, axis=0)).sum(1)
    assert [each["source_distance"] for each in scores] == pytest.approx(expected.tolist(), abs=1e-3)
    own = scorer(seen)(batch, [0] * 32, [f"k{row}" for row in range(32)], [""] * 32)
    assert max(each["source_distance"] for each in own) < 1e-4
    assert all(each["nearest_key"] != f"k{row}" for row, each in enumerate(own))
    similarity = features[:32] @ features.T
    similarity[np.arange(32), np.arange(32)] = -2
    assert [each["nearest_distance"] for each in own] == pytest.approx((1 - similarity.max(1)).tolist(), abs=1e-3)


def test_confidence_is_the_probability_of_the_label(seen):
    model, images, _ = seen
    with torch.inference_mode():
        expected = model(images[:32].float() / 255).softmax(1)[:, 1]
    scores = scorer(seen)(images[:32].numpy(), [1] * 32, [""] * 32, [""] * 32)
    assert [each["confidence"] for each in scores] == pytest.approx(expected.tolist(), abs=1e-5)
    assert {each["source_distance"] for each in scores} == {NO_SOURCE}


def test_scores_do_not_depend_on_place_or_neighbours(seen):
    _, images, _ = seen
    batch, sources = images[:32].numpy(), [f"k{row + 3}" for row in range(32)]
    forward = scorer(seen)(batch, list(range(3)) * 10 + [0, 1], sources, [""] * 32)
    backward = scorer(seen)(batch[::-1].copy(), ([*(list(range(3)) * 10), 0, 1])[::-1], sources[::-1], [""] * 32)
    assert forward == backward[::-1]


def test_images_of_one_colour_are_constant():
    images = np.zeros((4, 3, 8, 8), np.uint8)
    images[1] = np.array([200, 10, 90])[:, None, None]
    images[2, 1, 3, 3] = 2
    images[3, 1, 3, 3] = 3
    assert is_constant(images).tolist() == [True, True, True, False]


SCORES = {"confidence": 0.4, "source_distance": 0.2, "nearest_distance": 0.1, "constant": False, "clip_score": 0.3}


@pytest.mark.parametrize(
    ("threshold", "keeps", "drops"),
    [
        ("min_confidence", 0.4, 0.41),
        ("min_source_distance", 0.2, 0.21),
        ("max_source_distance", 0.2, 0.19),
        ("min_nearest_distance", 0.1, 0.11),
        ("min_clip_score", 0.3, 0.31),
    ],
)
def test_each_threshold_drops_what_is_beyond_it(threshold, keeps, drops):
    assert reason_to_drop(SCORES, OFF) is None
    assert reason_to_drop(SCORES, {**OFF, threshold: keeps}) is None
    assert reason_to_drop(SCORES, {**OFF, threshold: drops}) == threshold


@given(st.floats(0, 2), st.floats(0, 2))
def test_an_image_without_a_source_has_no_distance_to_fail(low, high):
    scores = {**SCORES, "source_distance": NO_SOURCE}
    assert reason_to_drop(scores, {**OFF, "min_source_distance": low, "max_source_distance": high}) is None


def test_constant_images_are_dropped_when_asked():
    assert reason_to_drop({**SCORES, "constant": True}, {**OFF, "constant": True}) == "constant"
    assert reason_to_drop({**SCORES, "constant": True}, OFF) is None
