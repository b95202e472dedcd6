import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Project, files_of_at_most, invoke
from fork_server import commands

from gdacli import __version__
from gdacli.invocation import show

GDACLI = [sys.executable, "-m", "gdacli"]
COMMANDS = (
    "prepare", "probe", "select", "fit", "plan", "preview", "generate", "regenerate", "mix", "train", "evaluate",
    "compare", "sweep", "clean", "verify", "init", "push", "pull", "import-pool", "export", "predict", "advise",
    "theory gmm", "theory two-layer", "theory mixup", "theory selection",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    outcome = invoke(*command.split(), "--help")
    assert outcome.code == 0
    assert f"Example: gdacli {command}" in outcome.stdout
    assert "--json" in outcome.stdout
    assert "--debug" in outcome.stdout
    assert "--directory" in outcome.stdout


def test_usage_errors_exit_2(project):
    assert project("train", "--sead", "1").code == 2
    assert invoke("trian").code == 2


@pytest.mark.parametrize(
    ("command", "missing", "remedy"),
    [
        ("probe", "data/source/dataset.json", "gdacli prepare"),
        ("select", "data/source/dataset.json", "gdacli prepare"),
        ("fit", "data/source/dataset.json", "gdacli prepare"),
        ("generate", "data/source/dataset.json", "gdacli prepare"),
        ("mix", "data/source/dataset.json", "gdacli prepare"),
        ("train", "data/source/dataset.json", "gdacli prepare"),
        ("evaluate", "data/train/original-0/model.safetensors", "gdacli train --arm original --seed 0"),
    ],
)
def test_a_stage_run_too_early_names_the_command_to_run(project, command, missing, remedy):
    outcome = project(command)
    assert outcome.code == 1
    assert outcome.error.startswith(f"{missing} does not exist: run `{remedy}` first")
    assert not (project.folder / "data").exists()


def test_later_stages_name_what_they_lack(project):
    project.ok("prepare")
    assert "run `gdacli probe` first" in project("select").error
    assert "run `gdacli fit` first" in project("generate").error
    assert "run `gdacli select` first" in project("mix").error
    assert "run `gdacli mix --arm targeted` first" in project("train", "--arm", "targeted").error
    assert "there is no arm 'best'; the arms are flood, original" in project("train", "--arm", "best").error
    assert sorted(path.name for path in (project.folder / "data").iterdir()) == ["metrics", "source"]


def test_stdout_is_the_result_and_json_on_request(project):
    outcome = project("prepare", "--json")
    result = json.loads(outcome.stdout)
    assert result["images"]["train"] + result["images"]["test"] == 36
    figures = json.loads((project.folder / "data/metrics/prepare.json").read_text())
    assert figures == result
    assert json.loads((project.folder / "data/metrics/runs/prepare.json").read_text())["seconds"] > 0
    assert "prepare: images: 36/36 images" in outcome.stderr


def test_overrides_reach_the_stage(project):
    assert json.loads(project("prepare", "--json", "-S", "data.image_size=8").stdout)["image_size"] == [8, 8]
    assert "-S oops: expected section.key=value" in project("prepare", "-S", "oops").error


def test_the_version():
    assert invoke("--version").stdout.strip() == __version__


def test_a_folder_that_is_not_there(tmp_path):
    outcome = invoke("prepare", "-C", str(tmp_path / "nowhere"))
    assert outcome.code == 1
    assert "there is no such folder" in outcome.error


def test_debug_shows_the_traceback(project):
    project.write(data={"source": "./nowhere"})
    assert "Traceback" not in project("prepare").stderr
    assert "Traceback" in project("prepare", "--debug").stderr


def start(project: Project, *arguments: str) -> subprocess.Popen:
    command = [str(commands() / "gdacli"), *arguments, "-C", str(project.folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def leftovers(project: Project) -> list[str]:
    return [str(path) for path in (project.folder / "data").rglob(".tmp-*")]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_kill_leave_nothing_half_written(project, sent, code):
    project.ok("prepare", "probe")
    settings = ("generate.backend=gan", "fit.gan={updates: 1000000, batch_size: 16}", "compare.arms=[original, flood]")
    process = start(project, "fit", *(word for setting in settings for word in ("-S", setting)))  # without diffusers
    deadline = time.monotonic() + 60
    while not leftovers(project) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers(project), "the stage did not start"
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert "error: interrupted" in stderr.splitlines()[-1]
    assert leftovers(project) == []
    assert list((project.folder / "data/generator").iterdir()) == []


@pytest.mark.parametrize("command", ["prepare", "probe"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(project, command):
    """A limit on the size of files stands for a disk that fills up in the middle of one."""
    if command == "probe":
        project.ok("prepare")
    before = sorted(path.name for path in (project.folder / "data").glob("*"))
    with files_of_at_most(4096):
        outcome = project(command)
    assert outcome.code == 1
    assert outcome.error.startswith("the disk is full (")
    assert outcome.stderr.splitlines()[-1].startswith("error: ")
    assert leftovers(project) == []
    assert sorted(path.name for path in (project.folder / "data").glob("*")) == before


def test_versions_of_a_project_are_checked_and_taken_over(project):
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text + "# mine\nversions:\n  prepare: 0\n  probe: 1\n")
    assert "versions.prepare: found 0, this gdacli's prepare is version 2" in project("prepare").error
    outcome = invoke("init", str(project.folder), "--update")
    assert outcome.code == 0
    assert outcome.stdout.startswith("updated: prepare, probe, select")
    assert "# mine\nversions:\n  prepare: 2\n" in (project.folder / "params.yaml").read_text()
    assert project("prepare").code == 0
    assert "nothing" in invoke("init", str(project.folder), "--update").stdout


def test_it_runs_as_a_module_and_installs_a_command():
    assert subprocess.run([*GDACLI, "--help"], capture_output=True, check=True).stdout
    assert (Path(sys.executable).parent / "gdacli").exists()


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        show({"long": "x" * 10**6}, str, as_json=True)
        monkeypatch.undo()
