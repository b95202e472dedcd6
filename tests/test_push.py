"""`gdacli push`: the real command and the real client, against a server on the loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project
from hub_server import READER, TOKEN, connect, serve
from tiny_project import SHARE, write_finished

from gdacli.artifacts import write_json
from gdacli.invocation import enter

PUSH = {name: value and {k: v for k, v in value.items() if v} for name, value in SHARE.items()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve() as server:
        server.waits = connect(monkeypatch, server, tmp_path / "hf")
        yield server


@pytest.fixture
def finished(project: Project, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.folder)
    write_finished(project, shapes)
    project.write(data={"source": str(shapes), "validation_fraction": 0.2}, push=PUSH)
    return project


def shared(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_needs_no_token_and_no_network(finished, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    outcome = finished("push", "--repo-id", "user/digits", "--what", "both", "--dry-run")
    assert outcome.code == 0, outcome.stderr
    dataset, model = outcome.stdout.splitlines()
    assert dataset.startswith("dataset: data/share/dataset: ")
    assert "would be shared as content-" in dataset
    assert model.startswith("model: data/share/model: 4 files, ")
    assert not hub.requests


def test_a_push_is_what_the_folder_holds_and_a_second_one_sends_nothing(finished, hub):
    write_json(finished.folder / "data/selection/selection.json", {"arms": {"targeted": {"count": 9, "share": 0.4}}})
    first = finished("push", "--repo-id", "user/digits", "--what", "both", "--private")
    assert first.code == 0, first.stderr
    for kind, prefix in (("dataset", "datasets/"), ("model", "")):
        assert hub.files("user/digits", kind) == shared(finished.folder / "data/share" / kind)
        assert hub.repo("user/digits", kind).private
        assert f"{kind}: {hub.url}/{prefix}user/digits: " in first.stdout
        words = (finished.folder / "data/share" / kind / "README.md").read_text()
        assert "; it selects 9 train images, 40 %" in words
    commits = {kind: hub.repo("user/digits", kind).commits[-1] for kind in ("dataset", "model")}
    tags = {kind: hub.repo("user/digits", kind).tags for kind in commits}
    assert tags == {kind: {commit.message: commit.oid} for kind, commit in commits.items()}
    before = len(hub.requests)
    second = finished("push", "--repo-id", "user/digits", "--what", "both", "--json")
    result = json.loads(second.stdout)
    for kind in commits:
        assert (result[kind]["changed"], result[kind]["files_sent"], result[kind]["megabytes_sent"]) == (False, 0, 0)
        assert (result[kind]["commit"], result[kind]["tag"]) == (commits[kind].oid, commits[kind].message)
    asked = {request.path.split("/")[-1] for request in hub.requests[before:] if request.method in ("POST", "PUT")}
    assert asked == {"create"}
    said = finished("push", "--repo-id", "user/digits").stdout
    assert "unchanged" in said
    assert "nothing was sent" in said


def test_the_tag_is_of_the_git_revision(finished, hub, monkeypatch):
    def git(*arguments: str) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *options, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("add", "params.yaml")
    git("commit", "--quiet", "-m", "Start")
    head = git("rev-parse", "HEAD")[:12]
    push = ("push", "--repo-id", "user/digits", "--json")
    tag = json.loads(finished(*push).stdout)["dataset"]["tag"]
    assert tag == f"git-{head}"
    assert f"git-{head}" in hub.files("user/digits")["README.md"].decode()
    wider = json.loads(finished(*push, "--include-source").stdout)["dataset"]["tag"]
    assert wider.startswith(f"git-{head}-")
    assert f'"user/digits", "source", revision="{wider}"' in hub.files("user/digits")["README.md"].decode()
    index = finished.folder / "data/synthetic/index.parquet"
    finished.write(push=PUSH | {"limits": "Drawn by a machine."})
    dirty = json.loads(finished(*push).stdout)["dataset"]["tag"]
    assert dirty.startswith(f"git-{head}-dirty-")
    assert index.exists()
    assert set(hub.repo("user/digits").tags) == {tag, wider, dirty}
    git("checkout", "--quiet", "params.yaml")
    again = json.loads(finished(*push).stdout)["dataset"]["tag"]
    assert again.startswith(f"git-{head}-"), "another commit has the tag: the content tells them apart"


def test_licences_are_asked_for_first_then_the_token_then_the_folder_is_written(finished, hub, monkeypatch, shapes):
    monkeypatch.setenv("HF_TOKEN", READER)
    data = {"source": str(shapes), "validation_fraction": 0.2}
    finished.write(data=data, push=PUSH | {"license": None, "model_license": None})
    for what, field in (("dataset", "license"), ("both", "license"), ("model", "model_license")):
        error = finished("push", "--repo-id", "user/digits", "--what", what).error
        assert error.startswith(f"params.yaml: push.{field}")
        assert "missing: say under which licence" in error
        assert ("push.license and push.model_license" in error) == (what == "both")
    assert not hub.requests
    finished.write(data=data, push=PUSH)
    assert "may only read" in finished("push", "--repo-id", "user/digits").error
    assert not (finished.folder / "data/share").exists()
    assert "expected user/name" in finished("push", "--repo-id", "digits").error
    error = finished("push", "--repo-id", "user/digits", "--what", "model", "--include-source").error
    assert "--include-source: the originals go with the dataset" in error
    assert "there is no arm 'nope'" in finished("push", "--repo-id", "user/digits", "--arm", "nope").error
    assert not hub.repos


def test_a_killed_push_goes_on_with_what_is_missing(finished, hub, tmp_path):
    enter(finished.folder)
    finished("push", "--repo-id", "user/digits", "--dry-run")
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "gdacli", "push", "--repo-id", "user/digits"]
    killed: list[subprocess.Popen] = []

    def kill() -> None:
        if len(hub.objects) >= 2:
            killed[0].kill()

    hub.before["PUT /lfs/"] = kill
    killed.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    said = killed[0].communicate(timeout=60)[1]
    assert killed[0].returncode == -signal.SIGKILL, said
    assert TOKEN not in said
    assert len(hub.repo("user/digits").commits) == 1, "nothing is published by halves"
    arrived, before = set(hub.objects), len(hub.requests)
    assert len(arrived) >= 2
    hub.before.clear()
    outcome = finished("push", "--repo-id", "user/digits", "--json")
    assert outcome.code == 0, outcome.stderr
    put = {request.path.split("/")[-1] for request in hub.requests[before:] if request.method == "PUT"}
    assert not put & arrived
    assert hub.files("user/digits") == shared(finished.folder / "data/share/dataset")
    result = json.loads(outcome.stdout)["dataset"]
    assert result["files_sent"] == result["files"] - len(arrived)
