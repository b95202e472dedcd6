"""The whole pipeline under DVC in a project made by `gdacli init`, as a user runs it."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY, invoke, write_folder

ARTIFACTS = ("source", "probe", "selection", "generator", "synthetic", "mix", "train", "evaluation")


class Runner:
    """A project and the commands in it, with a clean environment of its own."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "project"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GDACLI_WORK": str(root / "work"),
            "GIT_CONFIG_GLOBAL": str(root / "gitconfig"),
            "HF_DATASETS_CACHE": str(root / "hf"),
        }
        (root / "gitconfig").write_text("[user]\n  name = test\n  email = test@example.org\n")

    def __call__(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def output(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro`; returns the names of the stages that ran."""
        return set(re.findall(r"^Running stage '(.*)':", self("dvc", "repro", *arguments), re.MULTILINE))

    def edit(self, **sections: dict) -> None:
        path = self.folder / "params.yaml"
        values = yaml.safe_load(path.read_text())
        for name, section in sections.items():
            values[name] |= section
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def hashes(self) -> dict[str, str]:
        data = self.folder / "data"
        files = (file for name in ARTIFACTS for file in sorted((data / name).rglob("*")) if file.is_file())
        return {str(file.relative_to(data)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def manifest(self) -> dict:
        return json.loads((self.folder / "data/synthetic/manifest.json").read_text())

    def made(self) -> int:
        return json.loads((self.folder / "data/metrics/runs/generate.json").read_text())["made"]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Give a project over 36 shapes, run once from clean."""
    root = tmp_path_factory.mktemp("pipeline")
    source = write_folder(root / "shapes")
    made = Runner(root)
    assert invoke("init", str(made.folder), "--source", str(source)).code == 0
    made.edit(**{name: TINY[name] for name in ("probe", "fit", "generate", "train", "compare")})
    made.edit(data={"test_fraction": 0.3}, arms=TINY["arms"], compute={"device": "cpu", "threads": 1})
    made.edit(compare={"seeds": [0]})
    made("git", "add", "--all")
    made("git", "commit", "--quiet", "-m", "Start")
    ran = made.repro()
    assert ran == {
        "prepare", "probe", "select", "fit", "generate", "mix@original", "mix@targeted",
        "train@original-0", "train@targeted-0", "evaluate",
    }  # fmt: skip
    return made


def test_a_second_run_runs_nothing(runner):
    assert runner.repro() == set()


def test_from_clean_and_by_hand_every_byte_is_the_same_and_dvc_has_nothing_to_do(runner, monkeypatch):
    first = runner.hashes()
    assert len(first) > 20
    for name in ARTIFACTS:
        shutil.rmtree(runner.folder / "data" / name)
    shutil.rmtree(Path(runner.environment["GDACLI_WORK"]))
    monkeypatch.setenv("GDACLI_WORK", runner.environment["GDACLI_WORK"])
    for command in ("prepare", "probe", "select", "fit", "generate", "mix", "train", "evaluate"):
        outcome = invoke(command, "-C", str(runner.folder))
        assert outcome.code == 0, outcome.stderr
    assert runner.hashes() == first
    assert runner.repro() == set()


def test_the_results_are_shown_by_dvc(runner):
    assert "failed" not in runner("dvc", "metrics", "show")
    metrics = json.loads(runner("dvc", "metrics", "show", "--json"))
    figures = metrics[""]["data"]["data/metrics/evaluate.json"]["data"]
    assert set(figures["arms"]) == {"original", "targeted"}
    assert 0 <= figures["arms"]["targeted"]["test_error"] <= 100
    assert set(metrics[""]["data"]) == {"data/metrics/evaluate.json"}
    assert "index.html" in runner("dvc", "plots", "show")
    assert "arms.targeted.test_error" in runner("dvc", "exp", "show", "--csv")


def test_the_pool_loads_with_class_names(runner):
    code = (
        "import datasets, json, sys\n"
        "pool = datasets.load_dataset('data/synthetic', split='train')\n"
        "print(json.dumps([pool.features['cls'].names, len(pool), pool[0]['json']]))"
    )
    names, count, meta = json.loads(runner.output(sys.executable, "-c", code))
    manifest = json.loads((runner.folder / "data/synthetic/manifest.json").read_text())
    assert names == ["disc", "ring_shape", "square"]
    assert count == manifest["num_images"] > 0
    assert (meta["synthetic"], meta["strength"], meta["start_timestep"]) == (True, 0.5, 499)
    assert meta["prompt"] in ("disc", "ring shape", "square")


def test_another_guidance_reruns_generate_and_after(runner):
    runner.edit(generate={"guidance_scale": 1.5})
    ran = runner.repro("--dry")
    assert "generate" in ran
    assert not ran & {"prepare", "probe", "select", "fit"}
    runner.edit(generate={"guidance_scale": 3.0})


def test_an_arm_over_the_pools_images_makes_none_and_trains_only_itself(runner):
    runner.edit(compare={"arms": ["original", "targeted", "upsample"]})
    ran = runner.repro()
    assert runner.made() == 0
    assert {name for name in ran if name.startswith("train")} == {"train@upsample-0"}


def test_an_arm_that_needs_more_images_makes_only_those_and_retrains_no_other(runner):
    before = json.loads((runner.folder / "data/synthetic/manifest.json").read_text())["num_images"]
    runner.edit(compare={"arms": ["original", "targeted", "flood"]})
    ran = runner.repro()
    assert runner.made() == 5
    assert json.loads((runner.folder / "data/synthetic/manifest.json").read_text())["num_images"] == before + 5
    assert {name for name in ran if name.startswith("train")} == {"train@flood-0"}
    assert "evaluate" in ran


def test_a_fresh_clone_takes_the_images_that_dvc_pulled_and_makes_only_new_ones(runner, tmp_path):
    runner("git", "add", "--all")
    runner("git", "commit", "--quiet", "-m", "Flood")
    runner("dvc", "remote", "add", "--force", "--default", "store", str(tmp_path / "remote"))
    runner("git", "commit", "--quiet", "-am", "Add a remote")
    runner("dvc", "push")
    before = json.loads((runner.folder / "data/synthetic/manifest.json").read_text())["num_images"]
    clone = Runner(tmp_path)
    runner("git", "clone", "--quiet", str(runner.folder), str(clone.folder))
    clone("dvc", "pull")
    flood = {"add": "sampled", "num_images": 8, "train": {}}
    clone.edit(arms={**TINY["arms"], "flood": flood}, compare={"arms": ["original", "targeted", "flood"]})
    said = clone("dvc", "repro", "generate")
    assert "Running stage 'generate'" in said
    assert clone.made() == clone.manifest()["num_images"] - before <= 8, said
    assert not list((clone.folder / "data").glob(".tmp-*"))


def test_a_rejected_image_retrains_the_arms_that_had_it_and_makes_none(runner):
    page = (runner.folder / "data/evaluation/report.html").read_text()
    key = re.findall(r'class="reject" value="([^"]+)"', page)[0]
    (runner.folder / "rejects.csv").write_text(f"key\n{key}\n")
    ran = runner.repro()
    assert {"mix@original", "mix@targeted", "train@targeted-0", "evaluate"} <= ran
    assert not ran & {"prepare", "probe", "select", "fit", "generate", "train@original-0"}
    assert "a person rejected 1 of the pool" in (runner.folder / "data/evaluation/report.md").read_text()


def test_leftovers_are_named_and_cleaned(runner):
    (runner.folder / "rejects.csv").write_text("key\n")
    runner.edit(compare={"arms": ["original", "targeted"]})
    said = runner("dvc", "repro")
    assert "note: flood-0, upsample-0 in data/train are not in compare" in said
    removed = json.loads(runner("gdacli", "clean", "--json"))["removed"]
    assert "data/train/flood-0" in removed
    assert "data/mix/upsample.parquet" in removed
    assert "data/metrics/train/flood-0.json" in removed
    assert not [path for path in removed if "original" in path or "targeted" in path]


def test_an_experiment_runs_with_another_value(runner):
    runner("git", "add", "--all")
    runner("git", "commit", "--quiet", "-m", "Run")
    runner("dvc", "exp", "run", "--name", "trial", "-S", "train.lr=0.01", "-S", "compare.arms=[original]")
    shown = runner("dvc", "exp", "show", "--csv")
    header, *rows = csv.reader(shown.splitlines())
    trial = next(dict(zip(header, row, strict=True)) for row in rows if "trial" in row)
    assert trial["train.lr"] == "0.01"
    runner("git", "checkout", "--quiet", "--", ".")
    runner("dvc", "checkout", "--quiet")


def test_a_changed_or_missing_pool_is_noticed_by_training(runner):
    shard = next((runner.folder / "data/synthetic").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(content)
    outcome = invoke("train", "--arm", "targeted", "--seed", "0", "-C", str(runner.folder))
    assert (
        "is not the image that the mix was made of: run `gdacli mix --arm targeted`, or `dvc checkout --force data/syn"
        in outcome.error
    )
    other_pool = invoke("generate", "-S", "generate.seed=3", "-C", str(runner.folder))
    assert other_pool.code == 0, other_pool.stderr
    outcome = invoke("evaluate", "-C", str(runner.folder))
    assert "data/mix/targeted.parquet lists images that data/synthetic does not hold" in outcome.error
    assert invoke("mix", "-C", str(runner.folder)).code == 0
    outcome = invoke("evaluate", "-C", str(runner.folder))
    assert "data/train/targeted-0 was trained on another mix than data/mix/targeted.parquet" in outcome.error
    shutil.rmtree(runner.folder / "data/synthetic")
    outcome = invoke("train", "--arm", "targeted", "--seed", "0", "-C", str(runner.folder))
    assert "data/synthetic" in outcome.error
    assert "run `dvc pull data/synthetic`" in outcome.error
