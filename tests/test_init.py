import subprocess

import yaml
from conftest import invoke, write_folder

from gdacli.params import load_params
from gdacli.stages.init import STAGES, stage_versions


def test_a_project_is_complete_and_says_the_next_steps(tmp_path, shapes):
    outcome = invoke("init", str(tmp_path / "mine"), "--source", str(shapes))
    assert outcome.code == 0, outcome.stderr
    assert "36 train images of 3 classes" in outcome.stdout
    assert f"cd {tmp_path / 'mine'}" in outcome.stdout
    assert "dvc repro" in outcome.stdout
    params = load_params(tmp_path / "mine")
    assert (params.data.source, params.data.image_size) == (str(shapes), None)
    assert params.versions == stage_versions()
    assert set(params.versions) == set(STAGES)
    pipeline = yaml.safe_load((tmp_path / "mine/dvc.yaml").read_text())["stages"]
    assert pipeline["prepare"]["deps"] == ["${data.source}"]
    status = subprocess.run(["git", "status", "--short"], cwd=tmp_path / "mine", capture_output=True, text=True)
    assert "params.yaml" in status.stdout
    assert (tmp_path / "mine/.dvc/config").read_text() == "[core]\n    analytics = false\n"


def test_a_relative_source_stays_relative_and_varying_sizes_get_one(tmp_path, monkeypatch):
    write_folder(tmp_path / "a" / "images", 2)
    write_folder(tmp_path / "a" / "images", 1, size=20, seed=1)
    monkeypatch.chdir(tmp_path)
    assert invoke("init", "b/project", "--source", "a/images").code == 0
    params = load_params(tmp_path / "b/project")
    assert (params.data.source, params.data.image_size) == ("../../a/images", 64)
    assert invoke("prepare", "-C", "b/project").code == 0


def test_digits_and_odd_paths(tmp_path):
    assert invoke("init", str(tmp_path / "digits")).code == 0
    assert yaml.safe_load((tmp_path / "digits/dvc.yaml").read_text())["stages"]["prepare"]["deps"] == []
    odd = write_folder(tmp_path / "it's: odd #1", 2)
    assert invoke("init", str(tmp_path / "odd"), "--source", str(odd)).code == 0
    assert load_params(tmp_path / "odd").data.source == str(odd)


def test_mistakes_are_one_line_and_make_nothing(tmp_path, shapes):
    assert "name the new project's folder" in invoke("init").error
    assert "there is no" in invoke("init", str(tmp_path / "x"), "--source", "./nowhere").error
    assert not (tmp_path / "x").exists()
    assert invoke("init", str(tmp_path / "y"), "--source", str(shapes)).code == 0
    assert "exists: choose another folder" in invoke("init", str(tmp_path / "y"), "--source", str(shapes)).error
    assert "does not exist: name a project's folder" in invoke("init", str(tmp_path / "x"), "--update").error
