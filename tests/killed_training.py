"""Projects that are ready to train, and real processes of `gdacli train` that are killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import Project

from gdacli.artifacts import sha256_file

MODULE = (sys.executable, "-m", "gdacli")
TRAIN = ("train", "--arm", "original", "--seed", "0")


def ready_to_train(folder: Path, shapes: Path) -> Project:
    """Return a project up to the mix `original`, whose trainings save their state after every update."""
    folder.mkdir(parents=True)
    project = Project(folder)
    project.write(
        data={"source": str(shapes), "validation_fraction": 0.2},
        compare={"arms": ["original"]},
        train={"save_seconds": 0, "budget": {"updates": 12}},
    )
    project.ok("prepare", "probe", "select", "mix")
    return project


def training(project: Project, *options: str, program: tuple[str, ...] = MODULE) -> subprocess.Popen[str]:
    """Start `gdacli train` in a session of its own."""
    return subprocess.Popen(
        [*program, *TRAIN, "-C", str(project.folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def hashes(project: Project) -> dict[str, str]:
    """Return the SHA-256 of every file of the training."""
    folder = project.folder / "data/train/original-0"
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def states(work: Path) -> list[Path]:
    """Return the saved states in a work directory."""
    return list(work.rglob("state.pt"))


def kill_training(
    project: Project, work: Path, options: tuple[str, ...], kills: int, seed: int, program: tuple[str, ...] = MODULE
) -> dict[str, int]:
    """Kill a training with SIGKILL at random moments, start it again until it ends, and compare every byte.

    Half of the kills come at a random time of a run, the others soon after a state is there.

    Returns:
        how many kills came before the first update, in the midst, and after the end; how many trainings finished.
    """
    published = project.folder / "data/train/original-0"
    start = time.monotonic()
    assert project(*TRAIN, *options).code == 0
    seconds, whole = time.monotonic() - start + 5, hashes(project)  # a process also starts
    chance, toll = random.Random(seed), {"before": 0, "midst": 0, "after": 0, "finished": 0}

    def finished() -> None:
        assert hashes(project) == whole
        toll["finished"] += 1
        shutil.rmtree(published)
        shutil.rmtree(work)

    finished()
    while sum(toll.values()) - toll["finished"] < kills:
        run = training(project, *options, program=program)
        wait = chance.uniform(0, seconds)
        if chance.random() < 0.5 or kills < 10:
            while not states(work) and run.poll() is None:
                time.sleep(0.002)
            wait = chance.uniform(0, 0.3)
        try:
            run.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            toll["after" if published.exists() else "midst" if states(work) else "before"] += 1
        _, stderr = run.communicate()
        assert run.returncode in (0, -signal.SIGKILL), stderr
        if published.exists():
            finished()
    resumed = project(*TRAIN, *options)
    assert resumed.code == 0, resumed.stderr
    finished()
    return toll
