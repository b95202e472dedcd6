"""The page that a study's results are written up as."""

import importlib.util
from pathlib import Path

import pytest

from gdacli.artifacts import write_json
from gdacli.errors import GdaError

STUDY = Path(__file__).parents[1] / "studies/cifar10"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("page", STUDY / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(rows: list[list[str]]) -> dict[str, list[str]]:
    return {name: rest for name, *rest in rows}


def test_shares_are_those_of_all_and_of_each_class(page):
    arms = {"targeted": {"count": 5, "share": 0.25, "per_class": {"cat": 0.5, "dog": 0.125}}}
    assert page.selected(arms, ["cat", "dog"]) == [
        ["arm", "images", "all", "cat", "dog"],
        ["targeted", "5", "25.0 %", "50.0 %", "12.5 %"],
    ]


def test_times_are_those_of_the_pieces_where_there_are_some(page, tmp_path):
    runs = tmp_path / "data/metrics/runs"
    write_json(runs / "probe.json", {"seconds": 7.4})
    write_json(runs / "evaluate.json", {"seconds": 2.0})
    for name, seconds in (("targeted-0", 10.0), ("targeted-1", 20.0), ("targeted-2", 99.0), ("targeted_k2-0", 99.0)):
        write_json(runs / f"train/{name}.json", {"seconds": seconds})
    assert cells(page.times(tmp_path, ["targeted"], [0, 1])) == {
        "stage": ["wall seconds", "GPU Wh"],
        "prepare": ["-", "-"],
        "probe": ["7", "-"],
        "select": ["-", "-"],
        "fit": ["-", "-"],
        "generate": ["-", "-"],
        "train targeted, mean of 2": ["15", "-"],
        "evaluate": ["2", "-"],
    }
    pieces = {
        "fit": {"seconds": 600.0, "watt_hours": 41.25, "pieces": 2},
        "train@targeted-0": {"seconds": 40.0, "watt_hours": 2.5, "pieces": 1},
        "evaluate@0": {"seconds": 50.0, "watt_hours": 1.5, "pieces": 1},
        "evaluate@0,1": {"seconds": 70.0, "watt_hours": 3.5, "pieces": 2},
    }
    write_json(tmp_path / "data/logs/timings.json", pieces)
    found = cells(page.times(tmp_path, ["targeted"], [0, 1]))
    assert found["fit"] == ["600", "41.25"]
    assert found["train targeted, mean of 2"] == ["30", "2.50"]
    assert found["probe"] == ["7", "-"]
    assert found["evaluate"] == ["70", "3.50"]


def test_a_mean_is_of_those_trainings_that_are_known(page, tmp_path):
    write_json(tmp_path / "data/metrics/runs/train/targeted-1.json", {"seconds": 20.0})
    assert cells(page.times(tmp_path, ["targeted"], [0, 1]))["train targeted, mean of 1"] == ["20", "-"]


def test_a_project_without_results_is_one_line(page, tmp_path):
    with pytest.raises(GdaError, match=r"selection.json: is not there: run all stages"):
        page.page(tmp_path)
