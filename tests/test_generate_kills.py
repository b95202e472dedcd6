"""Real processes of `gdacli generate`, killed and interrupted; many more kills, and of diffusion: `make soak`."""

import os
import random
import shutil
import signal
from pathlib import Path

import fork_server
import pytest
import yaml
from conftest import Project, write_grain
from killed import BEGUN, Generation, begun_images, left_over, many_shards, num_finished, pool


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a project that is ready to generate with a backend that starts fast; do not change it."""
    project = many_shards(tmp_path_factory.mktemp("fitted") / "project", per_class=12)
    write_grain(project, seconds=0.1)
    file = project.folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["generate"]["backend"] = "grain"
    file.write_text(yaml.safe_dump(params))
    project.ok("fit")
    return project.folder


@pytest.fixture
def ready(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a copy of it, with a work directory of its own."""
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    return Project(Path(shutil.copytree(fitted, tmp_path / "project")))


def test_killed_at_random_points_it_goes_on_and_loses_a_shard_at_most(ready, tmp_path):
    work, chance = tmp_path / "work", random.Random(0)
    ready.ok("generate")
    whole, num_shards = pool(ready), num_finished(work)
    shutil.rmtree(ready.folder / "data/synthetic")
    shutil.rmtree(work)
    for aim in sorted(chance.sample(range(1, num_shards), 3)):
        run = Generation(ready, program=[fork_server.program(BEGUN)])
        while num_finished(work) < aim:
            assert not run.ends_within(0.005)
        if not run.ends_within(chance.uniform(0, 0.1)):
            os.killpg(run.process.pid, signal.SIGKILL)
            assert run.finish()[0] == -signal.SIGKILL
            assert pool(ready) in (None, whole)
    assert len(begun_images(ready)) - num_finished(work) <= 3
    ready.ok("generate")
    assert pool(ready) == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_with_two_workers_it_says_how_to_go_on_and_leaves_no_process(ready, number, code):
    run = Generation(ready, ["generate.workers=2"])
    while not begun_images(ready):
        assert not run.ends_within(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(run.process.pid, number)  # Ctrl-C goes to the whole group
    ended_with, stderr = run.finish()
    assert ended_with == code
    assert stderr.splitlines()[-1].startswith("error: interrupted: ")
    assert "run it again" in stderr
    assert left_over(run.process.pid) == []
    assert pool(ready) is None
