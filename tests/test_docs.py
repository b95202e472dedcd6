"""The documents say what the code does."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import Project, invoke, write_folder
from test_cli import COMMANDS

from gdacli.arm_section import ArmParams, Compare
from gdacli.objective_sections import OBJECTIVES
from gdacli.params import Params, load_params
from gdacli.scores import CLIP_SCORE, SCORES
from gdacli.sections import Fit, Generate
from gdacli.selection import STRATEGIES
from gdacli.tables import read_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [line[2:].split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_reference_of_parameters_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_params", ROOT / "docs/make_params.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/params.md").read_text() == module.reference(), "run `python docs/make_params.py`"
    assert "|  |" not in module.reference(), "a key has no description"


def test_the_readmes_commands_run_on_a_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "photos" / "shoes")
    ran = []
    for command in commands(ROOT / "README.md"):
        if command.startswith("gdacli init"):
            outcome = invoke(*[word.replace("~", str(tmp_path)) for word in shlex.split(command)[1:]])
            assert outcome.code == 0, outcome.stderr
            monkeypatch.chdir(tmp_path / "shoes")
            ran.append(command)
        elif command.startswith("gdacli verify"):
            assert "found no artifact to verify" in invoke(*shlex.split(command)[1:]).error
            ran.append(command)
        elif command.startswith(("gdacli prepare", "gdacli clean")):
            assert invoke(*shlex.split(command)[1:]).code == 0
            ran.append(command)
        elif command.startswith("gdacli compare"):
            assert "workspace has no data/evaluation/predictions.parquet" in invoke(*shlex.split(command)[1:]).error
            ran.append(command)
        elif command.startswith("gdacli predict"):  # needs no project
            assert "there is no such folder or file" in invoke(*shlex.split(command)[1:]).error
            ran.append(command)
        elif command.startswith("gdacli"):  # heavy ones: the pipeline test runs them; here their words are checked
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                outcome = invoke(*shlex.split(command)[1:])
            assert (outcome.code, "params.yaml does not exist" in outcome.stderr) == (1, True), outcome.stderr
            ran.append(command)
        else:
            set_up = "make install && . .venv/bin/activate && cd .."
            assert command in ("make demo", "make test", set_up, "cd shoes", "dvc repro")
    assert len(ran) == 16


def test_the_readme_lists_every_stage_and_links_to_files_that_exist():
    text = (ROOT / "README.md").read_text()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert all(f"`gdacli {stage}`" in text for stage in stages)
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_arms_page_is_right():
    text = (ROOT / "docs/arms.md").read_text()
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    Compare.model_validate(example["compare"])
    for arm in example["arms"].values():
        ArmParams.model_validate(arm)
    assert all(f"| `{strategy}` |" in text for strategy in STRATEGIES)


def test_the_readme_shows_the_demos_arms():
    assert (ROOT / "docs/report.png").stat().st_size > 10_000
    table = re.findall(r"<!-- demo -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    first = table[table.index("| arm") :].split("\n\n")[0]
    arms = [line.split("|")[1].strip() for line in first.splitlines()][2:]
    assert arms == yaml.safe_load((ROOT / "params.yaml").read_text())["compare"]["arms"]


def test_every_command_is_documented():
    text = "".join(page.read_text() for page in PAGES)
    assert all(f"gdacli {name}" in text for name in COMMANDS)


def test_the_demos_parameters_are_valid():
    params = load_params(ROOT)
    assert params.data.source == "digits"
    assert len(params.compare.seeds) >= 3


def test_the_commands_of_the_generation_page_run(tmp_path, shapes, monkeypatch):
    project = Project(tmp_path / "project")
    project.folder.mkdir()
    project.write(data={"source": str(shapes), "shard_size": 10})
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    project.ok("prepare", "probe", "select", "fit", "generate")
    key = read_table(project.folder / "data/synthetic/index.parquet")["key"][0]
    ran = commands(ROOT / "docs/generation.md")
    assert {command.split()[1] for command in ran} == {"plan", "preview", "verify", "generate", "regenerate"}
    for command in ran:
        arguments = [key if word == "KEY" else word for word in shlex.split(command)[1:]]
        project.ok(shlex.join(arguments))


def test_the_commands_of_the_page_on_sweeps_are_commands(tmp_path):
    ran = commands(ROOT / "docs/sweeps.md")
    assert {command.split()[2] for command in ran} == {"strengths", "k", "selection", "lambda", "sampled", "stability"}
    for command in ran:  # tests/test_sweeps.py runs them; here their words are checked
        outcome = invoke(*shlex.split(command)[1:], "-C", str(tmp_path))
        assert (outcome.code, "params.yaml does not exist" in outcome.stderr) == (1, True), outcome.stderr


def test_the_page_on_objectives_is_right(tmp_path):
    page = ROOT / "docs/objectives.md"
    train: dict = {"model": "convnet"}
    seen = set()
    for example in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
        known = {"data": {"source": "digits"}, "probe": train, "train": train}
        own = known | example
        own.setdefault("compare", {"arms": list(own["arms"]), "seeds": [0]})
        params = Params.model_validate(own)
        seen |= {params.train_of(name).objective for name in params.arms}
    assert seen == set(OBJECTIVES)
    assert all(f"| `{name}` |" in page.read_text() for name in seen - {"cross_entropy"})
    init, sweep = commands(page)
    outcome = invoke(*shlex.split(init.replace("shoes", str(tmp_path / "shoes")))[1:])
    assert outcome.code == 0, outcome.stderr
    made = load_params(tmp_path / "shoes")
    first = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)[0])
    assert made.compare.arms == first["compare"]["arms"]
    error = invoke(*shlex.split(sweep)[1:], "-C", str(tmp_path / "shoes")).error
    assert "run `gdacli prepare` first" in error


def test_the_filter_page_is_right():
    text = (ROOT / "docs/quality.md").read_text()
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    Generate.model_validate(example["generate"])
    assert all(f"`{score}`" in text for score in [*SCORES, CLIP_SCORE])


def test_the_examples_of_the_page_on_generators_are_valid():
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/generators.md").read_text(), re.DOTALL)
    for example in map(yaml.safe_load, examples):
        Generate.model_validate(example["generate"])
        Fit.model_validate(example.get("fit", {}))
        arms = example.get("arms", {})
        assert set(example.get("compare", {"arms": []})["arms"]) <= set(arms)
        for arm in arms.values():
            ArmParams.model_validate(arm)
