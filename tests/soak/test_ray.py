"""A real Ray cluster of two nodes, on this machine, and what is lost with one of them: `make soak`."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from killed import Generation, many_shards, num_finished, pool


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Give the folder of a project that is ready to generate, and the pool that `executor: local` makes of it."""
    project = many_shards(tmp_path_factory.mktemp("fitted") / "project", per_class=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(project.folder.parent / "work"))
        project.ok("generate")
    made = pool(project)
    assert made is not None
    shutil.rmtree(project.folder / "data/synthetic")
    return project.folder, made


@pytest.fixture
def ready(local: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a copy of it, with a work directory of its own."""
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    return Project(Path(shutil.copytree(local[0], tmp_path / "project")))


@contextlib.contextmanager
def two_nodes(cpus: tuple[int, int]) -> Iterator[tuple[dict[str, str], Any, Any]]:
    """Start a cluster; yields the environment of those who use it, the cluster and its second node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0]})
    try:
        node = cluster.add_node(num_cpus=cpus[1])
        cluster.wait_for_nodes()
        yield {"RAY_ADDRESS": cluster.address}, cluster, node
    finally:
        cluster.shutdown()


def actors(work: Path) -> list[int]:
    """Return the ids of the actors' processes that make images for a work directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            named = (path / "cmdline").read_bytes().startswith(b"ray::_Actor")
            if named and f"GDACLI_WORK={work}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_actors_makes_the_bytes_of_the_local_executor(ready, local, workers):
    with two_nodes((2, 1)) as (environment, _, _):
        run = Generation(ready, ["generate.executor=ray", f"generate.workers={workers}"], environment)
        code, stderr = run.finish()
    assert code == 0, stderr
    assert "workers, not" not in stderr
    assert pool(ready) == local[1]


def test_the_shards_of_a_lost_node_are_made_by_the_other_one(ready, local, tmp_path):
    with two_nodes((1, 1)) as (environment, cluster, node):
        run = Generation(ready, ["generate.executor=ray", "generate.workers=2"], environment)
        while num_finished(tmp_path / "work") < 10:
            assert not run.ends_within(0.01)
        cluster.remove_node(node, allow_graceful=False)
        before = num_finished(tmp_path / "work")
        code, stderr = run.finish()
    print(f"node killed after {before} of {len(local[1]) - 5} shards\n{stderr}")
    assert code == 0, stderr
    assert "is lost" in stderr
    assert pool(ready) == local[1]
    counts = [int(line.split()[1].partition("/")[0]) for line in stderr.splitlines() if line.startswith("generate: ")]
    assert counts == sorted(counts)
    assert stderr.count(f"generate: {counts[-1]}/{counts[-1]} images") == 1


def test_when_all_actors_are_lost_it_says_so_and_the_next_run_goes_on(ready, local, tmp_path):
    work = tmp_path / "work"
    run = Generation(ready, ["generate.executor=ray", "generate.workers=1"])
    while num_finished(work) < 10:
        assert not run.ends_within(0.01)
    (actor,) = actors(work)
    os.kill(actor, signal.SIGKILL)
    code, stderr = run.finish()
    assert code == 1
    assert "error: all Ray workers are lost: finished shards are kept" in stderr
    assert num_finished(work) >= 10
    ready.ok("generate")
    assert pool(ready) == local[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_ends_its_actors(ready, tmp_path, number, code):
    run = Generation(ready, ["generate.executor=ray", "generate.workers=2"])
    while not num_finished(tmp_path / "work"):
        assert not run.ends_within(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(run.process.pid, number)
    ended_with, stderr = run.finish()
    assert ended_with == code, stderr
    assert "error: interrupted: " in stderr
    assert actors(tmp_path / "work") == []


def test_a_work_directory_that_the_nodes_do_not_see_is_named(ready, monkeypatch):
    monkeypatch.setenv("GDACLI_WORK", "memory://shards")  # every process has a memory of its own
    code, stderr = Generation(ready, ["generate.executor=ray"]).finish()
    assert code == 1
    assert "does not see memory://shards/images" in stderr


def test_more_than_the_cluster_holds_is_not_waited_for(ready):
    with two_nodes((1, 1)) as (environment, _, _):
        asked = ["generate.executor=ray", "compute.threads=2", "generate.batch_size=32"]
        code, stderr = Generation(ready, asked, environment).finish()
        assert code == 1
        assert "a worker needs a Ray node with 2 CPUs (compute.threads); the nodes have 1 CPUs" in stderr
        code, stderr = Generation(ready, ["generate.executor=ray", "generate.workers=5"], environment).finish()
        assert code == 0, stderr
        assert "note: 2 workers, not 5: each takes 1 CPUs" in stderr
