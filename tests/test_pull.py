"""`gdacli pull`: what one project pushes, another one trains on; against a server on the loopback."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import Project
from hub_server import connect, serve
from test_push import PUSH
from tiny_project import write_finished

from gdacli.selection import STRATEGIES
from gdacli.tables import read_table, write_table

REPO = "user/Shapes.v2"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve() as server:
        connect(monkeypatch, server, tmp_path / "hf")
        yield server


@pytest.fixture
def second(project: Project, shapes: Path, hub, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Push from one project, and give another one over the same images, prepared and selected."""
    monkeypatch.chdir(project.folder)
    write_finished(project, shapes)
    project.write(data={"source": str(shapes), "validation_fraction": 0.2}, push=PUSH)
    project.ok(f"push --repo-id {REPO} --include-source")
    other = Project(tmp_path / "second")
    other.folder.mkdir()
    other.write(
        data={"source": str(shapes), "validation_fraction": 0.2},
        generate={"backend": "none"},
        compare={"arms": ["original"], "seeds": [0]},
    )
    monkeypatch.chdir(other.folder)
    other.ok("prepare")
    index = read_table(other.folder / "data/source/index.parquet")
    keys = [key for key, split in zip(index["key"], index["split"], strict=True) if split == "train"]
    columns = {"key": keys}
    for name in STRATEGIES:
        columns |= {f"{name}_score": [0.5] * len(keys), f"{name}_chosen": [row % 2 == 0 for row in range(len(keys))]}
    write_table(other.folder / "data/selection/selection.parquet", columns)
    return other


def test_a_shared_pool_is_trained_on_without_generating(second, hub, project):
    before = len(hub.requests)
    outcome = second("pull", REPO, "--json")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    commit = hub.repo(REPO).commits[-1]
    assert (result["name"], result["arm"], result["revision"]) == ("shapes_v2", "shapes_v2", commit.oid)
    fetched = {request.path.rsplit("/", 1)[-1] for request in hub.requests[before:] if "/resolve/" in request.path}
    assert "manifest.json" in fetched
    assert not {"gallery.png", "README.md"} & fetched, "what is no part of the pool stays there"
    assert not any("source" in request.path for request in hub.requests[before:])
    pool = second.folder / "data/pools/shapes_v2"
    theirs = project.folder / "data/synthetic"
    for shard in theirs.glob("*.tar"):
        assert (pool / shard.name).read_bytes() == shard.read_bytes()
    manifest = json.loads((pool / "manifest.json").read_text())
    assert manifest["imported_from"] == {"repo_id": REPO, "revision": commit.oid}
    second.ok("verify data/pools", "mix --arm shapes_v2", "train --arm shapes_v2 --seed 0")
    mix = read_table(second.folder / "data/mix/shapes_v2.parquet")
    assert mix["origin"].count("synthetic") == result["num_images"] == manifest["num_images"]
    asked = len(hub.requests)
    assert "as it stands in params.yaml" in second("pull", REPO).stdout
    assert not [request for request in hub.requests[asked:] if request.method == "GET" and "/resolve/" in request.path]


def test_an_older_revision_is_had_by_its_tag(second, hub, project, monkeypatch):
    (tag,) = hub.repo(REPO).tags
    first = hub.repo(REPO).commits[-1].oid
    monkeypatch.chdir(project.folder)
    (project.folder / "rejects.csv").write_text("key\nsampled_00000000\n")
    project.ok(f"push --repo-id {REPO}")
    monkeypatch.chdir(second.folder)
    newest = json.loads(second("pull", REPO, "--json").stdout)
    older = json.loads(second("pull", REPO, "--json", "--revision", tag, "--name", "old", "--arm", "b").stdout)
    assert older["revision"] == first
    assert older["num_images"] == newest["num_images"] + 1
    assert yaml.safe_load((second.folder / "params.yaml").read_text())["compare"]["arms"][-2:] == ["shapes_v2", "b"]
    assert "downloading user/Shapes.v2 at gone" in second("pull", REPO, "--revision", "gone").error


def test_a_pool_of_other_images_is_one_line_and_nothing_is_written(second, hub, shapes, tmp_path):
    params = (second.folder / "params.yaml").read_bytes()
    second.ok("prepare -S data.validation_fraction=0 -S data.test_fraction=0.5")
    assert "sources are test images here" in second("pull", REPO).error
    renamed = tmp_path / "renamed"
    shutil.copytree(shapes, renamed)
    first = min(path for path in renamed.iterdir())
    first.rename(renamed / "aaa")
    second.ok(f"prepare -S data.source={renamed}")
    assert f"class 0 is {first.name!r} there and 'aaa' here" in second("pull", REPO).error
    (renamed / "aaa").rename(first)
    for image in first.glob("*.png"):
        image.rename(image.with_name(f"new-{image.name}"))
    second.ok(f"prepare -S data.source={renamed}")
    assert "are no train images here (first: " in second("pull", REPO).error
    assert not (second.folder / "data/pools").exists()
    assert (second.folder / "params.yaml").read_bytes() == params
    assert "user/nothing" in second("pull", "user/nothing").error
    assert "repository no-name: expected user/name" in second("pull", "no-name").error


def test_damage_on_the_way_is_named(second, hub):
    commit = hub.repo(REPO).commits[-1]
    name = next(name for name in commit.files if name.endswith(".tar") and "/" not in name)
    content = bytearray(commit.files[name])
    content[700] ^= 1
    commit.files[name] = bytes(content)
    assert f"{name}: changed or cut short" in second("pull", REPO).error
    assert not (second.folder / "data/pools").exists()
