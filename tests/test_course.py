"""What is seen of a training in a replay: maps of features, and what a search finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_features import write_images
from test_objectives import Halves, generated, make, stored
from test_replays import checkpoint
from test_replays import training as plain_training

from gdacli.course import Course, DistanceRow, Judge, make_judge, map_epochs, training_course
from gdacli.feature_map import feature_map
from gdacli.finder import Finder
from gdacli.histories import collapsed
from gdacli.image_index import References
from gdacli.models import create_model
from gdacli.plots import course_plot, distance_plot
from gdacli.training_store import TrainingStore
from gdacli.trainings import Training

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingStore:
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    return TrainingStore("0" * 64, 30)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> References:
    return write_images(tmp_path_factory.mktemp("course") / "images", 30, size=8)[0]


def judge(train: References, folder: Path) -> Judge:
    model = create_model("convnet", 3, {"width": 4}, 3, image_size=8).eval()
    return make_judge(model, train, 20, device=CPU, cache=folder / "cache", reading={"loading": "memory"})


def training(name: str | None = None, seed: int = 0, **search: Any) -> Training:
    """Return one of 3 epochs with Dropout."""
    made = plain_training(seed)
    made.model.image_size = 8
    return Training(**{**vars(made), "objective": make(name, **search) if name is not None else None})


def course(start: Any, store: TrainingStore, folder: Path, train: References, **options: Any) -> Course:
    given: dict[str, Any] = {
        "num_images": 24, "epochs": None, "method": "pca", "train": train, "stored": None, "judge": None,
        "reading": {"device": CPU, "loading": "memory"},
    }  # fmt: skip
    return training_course("one-0", store, folder, start, **{**given, **options})


def never() -> Training:
    raise AssertionError


@pytest.mark.parametrize("search", [{}, {"finder": None}], ids=["finder", "generator"])
def test_a_replay_sees_what_a_search_finds_and_ends_with_the_weights(search, store, train, tmp_path, capsys):
    folder = checkpoint(tmp_path / "trained", training("mgr", **search))
    judging = judge(train, tmp_path)
    seen = course(lambda: training("mgr", **search), store, folder, train, judge=judging)
    assert "other weights" not in capsys.readouterr().err
    assert [(row.epoch, row.updates) for row in seen.distances] == [(0, 0), (1, 5), (2, 10), (3, 12)]
    before, *after = seen.distances
    assert before.found == before.uniform, "nothing has changed yet"
    assert all(row.found != row.uniform and min(row.found, row.uniform) > 0 for row in after)
    assert [epoch for epoch, _ in seen.maps] == [1, 3]
    assert {(len(each.real_points), len(each.synthetic_points)) for _, each in seen.maps} == {(24, 24)}
    assert not np.array_equal(seen.maps[0][1].real_points, seen.maps[1][1].real_points)
    assert seen.origin == "found"
    again = course(never, store, folder, train, judge=judging)
    assert again.to_json() == seen.to_json()
    with pytest.raises(AssertionError):  # other numbers of images are another measurement
        course(never, store, folder, train, judge=judging, num_images=10)


def test_stored_images_stand_in_where_the_training_makes_none(store, train, tmp_path, capsys):
    folder = checkpoint(tmp_path / "trained", training(seed=1))
    pool = write_images(tmp_path / "pool", 10, size=8, seed=1)[0]
    seen = course(training, store, folder, train, stored=pool, epochs=[2, 9])
    assert (seen.origin, seen.distances, [epoch for epoch, _ in seen.maps]) == ("stored", [], [2])
    assert len(seen.maps[0][1].synthetic_points) == 10
    shown = capsys.readouterr().err
    assert f"note: one-0: replayed for its course it ended with other weights than {folder} holds" in shown
    assert "note: one-0: evaluate.course.epochs: no map after 9: the training has 3 epochs" in shown
    nothing = course(training, store, folder, train, stored=pool, epochs=[9])
    assert (nothing.maps, nothing.distances) == ([], [])
    assert "replay" not in capsys.readouterr().err  # which would show nothing


def test_maps_are_at_shares_of_a_training_or_at_epochs_that_it_has():
    assert map_epochs(None, 200) == [33, 100, 200]
    assert map_epochs(None, 1) == [1]
    assert map_epochs([30, 5, 15], 20) == [5, 15]


def test_samples_are_of_the_same_z_and_disturb_nothing():
    objective = make("mgr", finder=Finder(4, "linear", None, 0))
    state = torch.get_rng_state()
    first, second = (list(objective.samples(30, number)) for number in (1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(batch["found"]) for batch in first] == [12, 12, 6]
    assert not torch.equal(first[0]["uniform"], second[0]["uniform"])
    alone = list(generated().samples(30, 1))
    assert all(torch.equal(one["uniform"], other["uniform"]) for one, other in zip(first, alone, strict=True))
    z, labels = next(generated().latents(30, 1))
    wanted = (Halves()(z, labels) * 255).round().to(torch.uint8)
    assert torch.equal(alone[0]["uniform"], wanted)
    assert not torch.equal(first[0]["found"], wanted)
    shown = torch.cat([batch["stored"] for batch in stored().samples(100, 0)])
    assert len(shown) == len(shown.unique(dim=0)) == 60


def test_the_plots_name_what_they_show():
    rng = np.random.default_rng(0)
    points = feature_map(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)))
    seen = Course([(1, points), (3, points)], "found", [DistanceRow(0, 0, 2.0, 2.0), DistanceRow(1, 5, 2.0, 1.0)])
    maps = course_plot(seen)
    assert [f">after epoch {epoch}<" in maps for epoch in (1, 2, 3)] == [True, False, True]
    assert ">generated, found samples<" in maps
    lines = distance_plot({"one": seen, "two": seen})
    assert all(f">{arm}: {how}<" in lines for arm in ("one", "two") for how in ("found", "uniform"))


@pytest.mark.parametrize(
    ("errors", "losses", "expected"),
    [
        ([90.0, 78.0], [0.5, 0.004], True),
        ([90.0, 60.0], [0.5, 0.004], False),  # it learns
        ([90.0, 88.0], [0.5, 0.4], False),  # it learns nothing, for another reason
        ([90.0], [0.5], False),
        ([90.0, 90.0], [0.0, 0.0], False),
    ],
)
def test_features_that_are_the_same_for_all_images_are_told(errors, losses, expected):
    assert collapsed(errors, losses, 10) is expected
