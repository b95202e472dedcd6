"""Trainings in two processes, as torchrun starts them."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import torch
from conftest import Project
from killed_training import TRAIN, training
from safetensors.torch import load_file


def environments() -> list[dict[str, str]]:
    """Return what torchrun sets for each of two processes on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    joining = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [{**joining, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def check_that_two_train_as_one(project: Project, work: Path, start: Callable[..., list[Popen[str]]]) -> None:
    """Train `original` in this process and as `start` does, and compare the weights.

    Args:
        project: of `killed_training.ready_to_train`.
        work: its work directory.
        start: called with what starts a training when it gets its `program`; returns the processes, the first of which
            says the result.
    """
    settings = ["loading=stream", "augment.mixup={}", "model_args.width=32", "budget.epochs=null"]
    settings.append("budget.updates=2")  # later, rounding flips a ReLU
    options = [word for setting in settings for word in ("-S", f"train.{setting}")]
    assert project(*TRAIN, *options).code == 0
    name = "data/train/original-0/model.safetensors"
    one = load_file(project.folder / name)
    shutil.rmtree(work)
    shutil.rmtree(project.folder / "data/train")
    runs = start(lambda program: training(project, *options, "-S", "compute.threads=1", program=program))
    ends = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), ends
    assert [stdout.count("original-0: 2 updates") for stdout, _ in ends] == [1] + [0] * (len(runs) - 1)
    two = load_file(project.folder / name)
    assert all(torch.allclose(one[key].double(), two[key].double(), rtol=1e-3, atol=2e-5) for key in one)
