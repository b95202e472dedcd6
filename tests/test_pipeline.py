"""The whole pipeline under DVC in a project made by `gdacli init`, as a user runs it."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from dvc_projects import ARTIFACTS, Runner, started


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Give a project over 36 shapes, run once from clean."""
    made = started(tmp_path_factory.mktemp("pipeline"))
    ran = made.repro()
    assert ran == {
        "prepare", "probe", "select", "fit", "generate", "mix@original", "mix@targeted",
        "train@original-0", "train@targeted-0", "evaluate",
    }  # fmt: skip
    return made


def test_a_second_run_runs_nothing(runner):
    assert runner.repro() == set()


def test_the_installed_programs_run_stages_and_give_the_same_bytes(runner):
    """All else runs forks of them; see fork_server.py."""
    first = runner.hashes()
    said = runner.installed("dvc", "repro", "--force", "probe")
    assert re.findall(r"^Running stage '(.*)':", said, re.MULTILINE) == ["prepare", "probe"]
    assert runner.hashes() == first
    assert runner.repro() == set()


def test_from_clean_and_by_hand_every_byte_is_the_same_and_dvc_has_nothing_to_do(runner):
    first = runner.hashes()
    assert len(first) > 20
    for name in ARTIFACTS:
        shutil.rmtree(runner.folder / "data" / name)
    shutil.rmtree(Path(runner.environment["GDACLI_WORK"]))
    runner.by_hand()
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


def test_new_arms_make_only_the_images_that_are_not_there_and_retrain_no_other(runner):
    """Of the two, `upsample` needs no image and `flood` five."""
    before = runner.manifest()["num_images"]
    runner.edit(compare={"arms": ["original", "targeted", "upsample", "flood"]})
    ran = runner.repro()
    assert runner.made() == 5
    assert runner.manifest()["num_images"] == before + 5
    assert {name for name in ran if name.startswith("train")} == {"train@upsample-0", "train@flood-0"}
    assert "evaluate" in ran


def test_a_rejected_image_retrains_the_arms_that_had_it_and_makes_none(runner):
    page = (runner.folder / "data/evaluation/report.html").read_text()
    key = re.findall(r'class="reject" value="([^"]+)"', page)[0]
    (runner.folder / "rejects.csv").write_text(f"key\n{key}\n")
    ran = runner.repro()
    assert {"mix@original", "mix@targeted", "train@targeted-0", "evaluate"} <= ran
    assert not ran & {"prepare", "probe", "select", "fit", "generate", "train@original-0"}
    assert "a person rejected 1 of the pool" in (runner.folder / "data/evaluation/report.md").read_text()


def test_leftovers_are_named_and_cleaned(runner):
    runner.edit(compare={"arms": ["original", "targeted"]})
    evaluated = runner.here("evaluate")
    assert evaluated.code == 0, evaluated.stderr
    assert "note: flood-0, upsample-0 in data/train are not in compare" in evaluated.stderr
    removed = json.loads(runner.here("clean", "--json").stdout)["removed"]
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


def test_a_changed_or_missing_pool_is_noticed_by_training(runner, tmp_path, monkeypatch):
    monkeypatch.setitem(runner.environment, "GDACLI_WORK", str(tmp_path))  # else the finished training is taken
    shard = next((runner.folder / "data/synthetic").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(content)
    outcome = runner.here("train", "--arm", "targeted", "--seed", "0")
    assert (
        "is not the image that the mix was made of: run `gdacli mix --arm targeted`, or `dvc checkout --force data/syn"
        in outcome.error
    )
    other_pool = runner.here("generate", "-S", "generate.seed=3")
    assert other_pool.code == 0, other_pool.stderr
    outcome = runner.here("evaluate")
    assert "data/mix/targeted.parquet lists images that data/synthetic does not hold" in outcome.error
    assert runner.here("mix").code == 0
    outcome = runner.here("evaluate")
    assert "data/train/targeted-0 was trained on another mix than data/mix/targeted.parquet" in outcome.error
    shutil.rmtree(runner.folder / "data/synthetic")
    outcome = runner.here("train", "--arm", "targeted", "--seed", "0")
    assert "data/synthetic" in outcome.error
    assert "run `dvc pull data/synthetic`" in outcome.error
