import subprocess

import pytest
import yaml
from conftest import invoke, write_folder

from gdacli.params import load_params
from gdacli.stages.init import STAGES, stage_versions

pytestmark = pytest.mark.usefixtures("forked_dvc")


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
    assert (tmp_path / "mine/rejects.csv").read_text() == "key\n"
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


def test_it_can_be_told_where_to_go_first(tmp_path):
    write_folder(tmp_path / "images", 2)
    assert invoke("init", "mine", "--source", "images", "-C", str(tmp_path)).code == 0
    assert load_params(tmp_path / "mine").data.source == "../images"


def test_digits_and_odd_paths(tmp_path):
    assert invoke("init", str(tmp_path / "digits")).code == 0
    assert yaml.safe_load((tmp_path / "digits/dvc.yaml").read_text())["stages"]["prepare"]["deps"] == []
    odd = write_folder(tmp_path / "it's: odd #1", 2)
    assert invoke("init", str(tmp_path / "odd"), "--source", str(odd)).code == 0
    assert load_params(tmp_path / "odd").data.source == str(odd)


def test_names_that_yaml_would_take_for_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "2024", 2)
    assert invoke("init", "year", "--source", "2024").code == 0
    assert load_params(tmp_path / "year").data.source == "../2024"
    assert invoke("init", "home", "--source=~/2024").code == 0
    assert load_params(tmp_path / "home").data.source == str(tmp_path / "2024")


def test_an_older_project_gets_the_list_of_rejects_and_is_told_of_its_pipeline(tmp_path):
    assert invoke("init", str(tmp_path)).code == 0
    (tmp_path / "rejects.csv").write_text("key\na_s0500_v0\n")
    assert invoke("init", str(tmp_path), "--update").stderr == ""
    assert (tmp_path / "rejects.csv").read_text() == "key\na_s0500_v0\n"
    (tmp_path / "rejects.csv").unlink()
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace(", rejects.csv]", "]"))
    outcome = invoke("init", str(tmp_path), "--update")
    assert "add rejects.csv to the deps of mix and evaluate" in outcome.stderr
    assert (tmp_path / "rejects.csv").read_text() == "key\n"


def test_an_older_project_is_told_all_that_its_pipeline_lacks(tmp_path):
    assert invoke("init", str(tmp_path)).code == 0
    pipeline, params = tmp_path / "dvc.yaml", tmp_path / "params.yaml"
    older = pipeline.read_text().replace("params: [evaluate, compare,", "params: [compare,")
    older = "".join(line for line in older.splitlines(keepends=True) if "reliability.csv" not in line)
    pipeline.write_text(older)
    text = params.read_text()
    params.write_text(text[: text.index("evaluate:\n")] + text[text.index("# Which arms to run") :])
    assert invoke("init", str(tmp_path), "--update").stderr.strip() == (
        f"note: {pipeline}: add data/plots/reliability.csv to the outs of evaluate; evaluate to the params of "
        "evaluate; data/plots/reliability.csv to plots; `evaluate: {}` to params.yaml; until then `dvc repro` does not "
        "see them change"
    )


@pytest.mark.parametrize(("size", "expected"), [(8, None), (30, 32), (32, None), (50, 64), (64, None), (224, 64)])
def test_images_that_the_generator_cannot_take_as_they_are_get_a_size(tmp_path, size, expected):
    write_folder(tmp_path / "in", 1, size=size)
    assert invoke("init", str(tmp_path / "out"), "--source", str(tmp_path / "in")).code == 0
    assert load_params(tmp_path / "out").data.image_size == expected


def test_a_failed_set_up_leaves_nothing(tmp_path, shapes):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("ignored/\n")
    outcome = invoke("init", str(tmp_path / "ignored"), "--source", str(shapes))
    assert outcome.code == 1
    assert "`dvc init --subdir` in" in outcome.error
    assert outcome.error.count("ignored") >= 2
    assert not (tmp_path / "ignored").exists()


def test_mistakes_are_one_line_and_make_nothing(tmp_path, shapes):
    assert "name the new project's folder" in invoke("init").error
    (tmp_path / "wrap").mkdir()
    (tmp_path / "wrap/photos").symlink_to(shapes)
    assert (
        "a folder too many above the classes?"
        in invoke("init", str(tmp_path / "x"), "--source", str(tmp_path / "wrap")).error
    )
    assert "there is no" in invoke("init", str(tmp_path / "x"), "--source", "./nowhere").error
    assert not (tmp_path / "x").exists()
    assert invoke("init", str(tmp_path / "y"), "--source", str(shapes)).code == 0
    assert "exists: choose another folder" in invoke("init", str(tmp_path / "y"), "--source", str(shapes)).error
    assert "does not exist: name a project's folder" in invoke("init", str(tmp_path / "x"), "--update").error
