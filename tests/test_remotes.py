"""A project's artifacts go to a DVC remote and come back in a fresh clone: the page docs/remotes.md."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import TINY
from dvc_projects import Runner, cloned, finished
from test_docs import ROOT, commands

TO_A_FOLDER, FROM_IT = 4, 5
"""How many of the page's commands are of its first two parts."""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Give a finished project that was pushed to a folder with the page's commands; do not change it."""
    made = finished(tmp_path_factory.mktemp("pushed"))
    remote = made.folder.parent / "remote"
    said = []
    for command in commands(ROOT / "docs/remotes.md")[:TO_A_FOLDER]:
        said.append(made(*shlex.split(command.replace("/mnt/team/shoes", str(remote)))))
    assert re.search(r"(\d+) files? pushed", said[-2])
    assert re.search(r"(\d+) files? pushed", said[-1])
    return made


def stored(remote: Path) -> list[Path]:
    return sorted(path for path in remote.rglob("*") if path.is_file())


def test_a_second_push_sends_nothing_and_the_source_folder_is_not_in_the_remote(pushed):
    before = stored(pushed.folder.parent / "remote")
    assert "Everything is up to date" in pushed("dvc", "push")
    assert stored(pushed.folder.parent / "remote") == before
    original = next((pushed.folder.parent / "shapes").rglob("*.png")).read_bytes()
    assert all(original != path.read_bytes() for path in before)


def test_in_a_fresh_clone_the_pages_commands_bring_the_pool_then_the_rest_and_nothing_runs(pushed, tmp_path):
    clone = cloned(pushed, tmp_path)
    pull_pool, verify, pull, status, repro = commands(ROOT / "docs/remotes.md")[TO_A_FOLDER:][:FROM_IT]
    clone(*shlex.split(pull_pool))
    pool = {name: digest for name, digest in pushed.hashes().items() if name.startswith("synthetic/")}
    assert clone.hashes() == pool
    assert "all whole" in clone(*shlex.split(verify))
    clone(*shlex.split(pull))
    assert clone.hashes() == pushed.hashes()
    assert "Data and pipelines are up to date" in clone(*shlex.split(status))
    assert clone.repro(*shlex.split(repro)[2:]) == set()
    assert clone("git", "status", "--short") == ""

    flood = {"add": "sampled", "num_images": 8, "train": {}}  # the pulled images stay, the arm's are made
    clone.edit(arms={**TINY["arms"], "flood": flood}, compare={"arms": ["original", "targeted", "flood"]})
    before = clone.manifest()["num_images"]
    said = clone("dvc", "repro", "generate")
    assert "Running stage 'generate'" in said
    assert clone.made() == 8, said
    assert clone.manifest()["num_images"] == before + 8
    assert not list((clone.folder / "data").glob(".tmp-*"))


def test_what_is_lacking_is_pulled_and_the_original_images_are_not_needed(pushed, tmp_path):
    clone = cloned(pushed, tmp_path)
    assert clone.repro("--pull") == set()
    assert clone.hashes() == pushed.hashes()
    shapes = pushed.folder.parent / "shapes"
    away = shapes.rename(tmp_path / "away")
    try:
        assert clone.repro("--allow-missing") == set()
        code, said = clone.ended("dvc", "repro")
        assert code != 0
        assert "failed to reproduce 'prepare'" in said
        assert not (clone.folder / "data/source").exists()
        clone("dvc", "checkout")
        assert clone.hashes() == pushed.hashes()
    finally:
        away.rename(shapes)
