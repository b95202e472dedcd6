"""What the Ray executor decides without Ray; real clusters: tests/soak/test_ray.py."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from gdacli.errors import GdaError
from gdacli.executors.ray_cluster import _actors, _cluster, _connect, _Job, _Task
from gdacli.generators import Facts
from gdacli.pool import Request, ShardRequest
from gdacli.recipe import Recipe


def recipe(device: str = "auto", threads: int = 2) -> Recipe:
    return Recipe(
        settings={"threads": threads},
        weights="",
        model="",
        facts=Facts("1", (), None, None),
        folder=Path(),
        pins={},
        class_names=(),
        image_size=8,
        source=Path(),
        probe=Path(),
        scoring="",
        clip_model=None,
        device=device,
        work="",
        reuse=(),
    )


def ray_of(*resources: dict[str, float]) -> ModuleType:
    """Stand for Ray with nodes of some CPUs and GPUs."""
    ray = ModuleType("ray")
    vars(ray)["nodes"] = lambda: [{"Alive": True, "Resources": each} for each in resources]
    return ray


def test_a_missing_ray_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GdaError, match=r"generate.executor: ray needs Ray .*: pip install 'gdacli\[ray\]'"), _cluster():
        pass


@pytest.mark.parametrize(
    ("device", "nodes", "workers", "expected"),
    [
        ("auto", [{"CPU": 4.0}, {"CPU": 4.0}], None, (1, {"num_cpus": 2, "num_gpus": 0})),
        ("cpu", [{"CPU": 4.0, "GPU": 1.0}], 2, (2, {"num_cpus": 2, "num_gpus": 0})),
        ("auto", [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}], None, (8, {"num_cpus": 2, "num_gpus": 1})),
        ("cuda", [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 64.0}], 3, (3, {"num_cpus": 2, "num_gpus": 1})),
    ],
)
def test_an_actor_for_each_gpu_or_as_many_as_asked_for(capsys, device, nodes, workers, expected):
    assert _actors(ray_of(*nodes), recipe(device), workers) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("nodes", "workers", "count"),
    [([{"CPU": 3.0}, {"CPU": 3.0}], 3, 2), ([{"CPU": 5.0, "GPU": 4.0}], None, 2), ([{"CPU": 8.0, "GPU": 2.0}], 3, 2)],
)
def test_fewer_actors_than_wanted_are_said(capsys, nodes, workers, count):
    assert _actors(ray_of(*nodes), recipe(), workers)[0] == count
    assert capsys.readouterr().err.startswith(f"note: {count} workers, not {workers or 4}: each takes 2 CPUs")


@pytest.mark.parametrize(
    ("device", "nodes", "message"),
    [
        ("cpu", [{"CPU": 1.0}, {"CPU": 1.0}], "the nodes have 1 CPUs and 0 GPUs, 1 CPUs and 0 GPUs"),
        ("cuda:0", [{"CPU": 8.0}], "compute.device: found cuda:0, but the Ray cluster has no GPU"),
    ],
)
def test_what_no_node_can_hold_is_an_error(device, nodes, message):
    with pytest.raises(GdaError, match=message):
        _actors(ray_of(*nodes), recipe(device), None)


def test_images_that_a_lost_actor_reported_count_once():
    requests = [Request(str(number), 0, 0, "", 500, 0, "", "", "") for number in range(5)]
    task = _Task([ShardRequest(name, None, 500, requests) for name in ("a", "b")])
    told: list[tuple[int, int]] = []

    def advance(made: int, taken: int) -> None:
        told.append((made, taken))

    lost = _Job(None, task=task)
    for message in ((0, 2), (3, 0), None, (0, 0), (4, 0)):
        lost.read(message, advance)
    assert [shard.name for shard in task.shards] == ["b"]
    other = _Job(None, task=_Task(task.shards, task.told))
    for message in ((0, 1), (2, 0), (2, 0), None):
        other.read(message, advance)
    assert told == [(0, 2), (3, 0), (0, 0), (4, 0), (0, 0), (0, 0), (1, 0)]
    assert task.shards == []


def test_an_address_where_nothing_answers_is_named_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(GdaError, match=r"RAY_ADDRESS: no Ray cluster answers at 127.0.0.1:1 \(.*\): correct or unset"):
        _connect(ModuleType("ray"))
