"""`gdacli train` as users run it: killed, resumed, finished before, in two processes, watched, misled."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from conftest import Project
from fork_server import commands
from killed_training import TRAIN, hashes, kill_training, ready_to_train, states, training
from two_processes import check_that_two_train_as_one, environments

import gdacli.timm_models  # noqa: F401  registers our architectures
from gdacli.models import load_checkpoint
from gdacli.training_store import TrainingStore


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give the folder of a project that is ready to train `original`; do not change it."""
    return ready_to_train(tmp_path_factory.mktemp("mixed") / "project", shapes).folder


@pytest.fixture
def ready(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a copy of it, with a work directory of its own."""
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    return Project(Path(shutil.copytree(mixed, tmp_path / "project")))


def test_killed_at_random_points_it_goes_on_and_gives_the_same_bytes(ready, tmp_path):
    options = ("-S", "train.ema_decay=0.9", "-S", "train.checkpoint=best", "-S", "train.budget.updates=40")
    toll = kill_training(ready, tmp_path / "work", options, kills=2, seed=0, program=(str(commands() / "gdacli"),))
    assert toll["finished"] >= 2


def test_its_checkpoint_is_timms(ready):
    ready.ok(" ".join(TRAIN))
    folder = ready.folder / "data/train/original-0"
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(net(x), load_checkpoint(folder).eval()(x))


def test_a_finished_training_is_taken_without_torch(ready, tmp_path):
    ready.ok(" ".join(TRAIN))
    first, cost = hashes(ready), ready.folder / "data/metrics/runs/train/original-0.json"
    took = json.loads(cost.read_text())["seconds"]
    assert took > 0
    shutil.rmtree(ready.folder / "data/train")
    code = (
        "import sys\nfrom gdacli.cli import app\n"
        f"app({[*TRAIN, '-C', str(ready.folder)]!r}, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "original-0: was finished before, taken from" in done.stderr
    assert hashes(ready) == first
    assert json.loads(cost.read_text())["seconds"] == took, "what it took to train, not to take"
    finished = next((tmp_path / "work").rglob("finished"))
    weights = finished / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    again = ready(*TRAIN)
    assert "is damaged; the training runs again" in again.stderr
    assert hashes(ready) == first
    other = ready(*TRAIN, "-S", "train.lr=0.01")
    assert "taken from" not in other.stderr
    assert hashes(ready) != first


def test_features_that_collapse_are_warned_of_whenever_the_training_is_asked_for(ready):
    options = ("objective=real_consistency", "synthetic.weight=30", "budget.updates=24", "save_seconds=60")
    chosen = [part for option in options for part in ("-S", f"train.{option}")]
    for _ in range(2):
        shown = ready(*TRAIN, *chosen).stderr
        assert "warning: original-0: the features collapsed: they are the same for all images (train error" in shown
        assert "lower train.synthetic.weight (found 30)" in shown


def test_a_damaged_state_is_said_and_the_training_starts_again(ready, tmp_path):
    run = training(ready, program=(str(commands() / "gdacli"),))
    while not states(tmp_path):
        assert run.poll() is None
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    state = states(tmp_path)[0]
    state.write_bytes(state.read_bytes()[:-7])
    outcome = ready(*TRAIN)
    assert outcome.code == 0
    assert f"{state} is damaged; the training starts again" in outcome.stderr


def test_history_and_progress(ready):
    outcome = ready(*TRAIN, "-S", "train.trackers=[tensorboard, dvclive]", "--json")
    assert outcome.code == 0, outcome.stderr
    folder = ready.folder / "data/train/original-0"
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "updates", "images", "lr", "loss", "error", "validation_error", "validation_loss"]
    assert rows[-1]["updates"] == "12"
    last = outcome.stderr.splitlines()[-1]
    assert "train original-0: 12/12 updates" in last
    assert f"loss {float(rows[-1]['loss']):.3f}, train error" in last
    assert "images/s" in last
    logs = ready.folder / "data/logs/original-0"
    assert list((logs / "tensorboard").glob("events.out.tfevents.*"))
    live = (logs / "dvclive/plots/metrics/loss.tsv").read_text().splitlines()
    assert len(live) == 1 + len(rows)
    assert float(live[-1].split()[-1]) == pytest.approx(float(rows[-1]["loss"]), rel=1e-4)


def test_what_was_kept_is_said_and_trackers_see_a_training_that_was_finished_before(ready):
    best = ("-S", "train.checkpoint=best")
    result = json.loads(ready(*TRAIN, *best, "--json").stdout)["runs"]["original-0"]
    with (ready.folder / "data/train/original-0/history.csv").open() as file:
        errors = [float(row["validation_error"]) for row in csv.DictReader(file)]
    assert result["validation_error"] == min(errors)
    assert result["kept_epoch"] == 1 + errors.index(min(errors))
    again = ready(*TRAIN, *best, "-S", "train.trackers=[tensorboard]")
    assert "taken from" in again.stderr
    assert f"kept the weights of epoch {result['kept_epoch']} with validation error {min(errors):.2f} %" in again.stdout
    assert list((ready.folder / "data/logs/original-0/tensorboard").glob("events.out.tfevents.*"))


def test_evaluate_refuses_damaged_trainings_and_those_of_other_settings(ready):
    compared = ("-S", "compare.seeds=[0]")
    assert ready(*TRAIN, "-S", "train.label_smoothing=0.3").code == 0
    message = "data/train/original-0 was trained with other settings than params.yaml has for it (label_smoothing)"
    assert message in ready("evaluate", *compared).error
    assert ready(*TRAIN).code == 0
    assert ready("evaluate", *compared).code == 0
    weights = ready.folder / "data/train/original-0/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    assert "data/train/original-0/model.safetensors: " in ready("evaluate", *compared).error


def test_two_processes_give_the_weights_of_one(ready, tmp_path):
    gdacli = str(commands() / "gdacli")

    def start(training):
        return [training(("env", *(f"{key}={value}" for key, value in of.items()), gdacli)) for of in environments()]

    check_that_two_train_as_one(ready, tmp_path / "work", start)


def test_other_commands_do_not_run_in_several_processes(ready, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (
        ready("mix").error == "gdacli mix runs in one process: start it without torchrun, which is for `gdacli train`"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train.schedule=one_cycle"], "train: warmup: found 0; schedule: one_cycle needs a share of the updates"),
        (["train.milestones=[0.6,0.3]"], "train: milestones: found [0.6, 0.3], allowed: rising shares"),
        (["train.optimizer=adamw", "train.nesterov=true"], "nesterov goes with SGD and momentum > 0, found adamw"),
        (["train.sam.m=9"], "sam.m: found 9; at most batch_size 8, or null"),
        (["train.optimizer=lion"], "train.optimizer: found 'lion'"),
        (["train.pretrained=/nowhere/x.safetensors"], "train.pretrained: /nowhere/x.safetensors does not exist"),
        (["train.pretrained=data"], "data is a folder: name the .safetensors file in it"),
        (["train.sam.m=1"], "train.sam.m: found 1"),
        (["train.lr=1e20"], "are no longer numbers in epoch 1 (lr 1e+20): lower lr"),
    ],
)
def test_mistakes_are_one_line(ready, options, message):
    outcome = ready(*TRAIN, *(part for option in options for part in ("-S", option)))
    assert outcome.code == 1
    assert message in outcome.error


def test_the_best_weights_need_validation_images(ready):
    ready.ok("prepare -S data.validation_fraction=0", "probe", "select", "mix")
    outcome = ready(*TRAIN, "-S", "train.checkpoint=best")
    assert (
        "train.checkpoint: found best, but there are no validation images: set data.validation_fraction"
        in outcome.error
    )


def test_what_the_parts_of_an_interrupted_training_took_is_added_up(tmp_path, monkeypatch):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path))
    (tmp_path / "made").mkdir()
    now = 0.0
    monkeypatch.setattr("gdacli.training_store.time.monotonic", lambda: now)
    first = TrainingStore("a" * 64, 0)
    with first.locked():
        now = 100.0
        first.save({"update": 3})
        now = 120.0  # killed: what came after the save is done again
    second = TrainingStore("a" * 64, 0)
    now = 1000.0  # waits for the lock
    with second.locked():
        assert (second.load() or {})["update"] == 3
        now = 1050.0
        second.finish(tmp_path / "made")
    assert second.seconds() == 150
    assert TrainingStore("b" * 64, 0).seconds() is None
