"""Projects whose generation takes a while, and real processes of it that are killed."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Project, write_folder

from gdacli.artifacts import sha256_file
from gdacli.checksums import verify_folder

BEGUN = Path(__file__).with_name("begun.py")
SHARD_SIZE = 20
"""More than a batch."""


def many_shards(folder: Path, per_class: int = 40) -> Project:
    """Return a project that is ready to generate four small shards for each of its small source shards."""
    folder.mkdir(parents=True, exist_ok=True)
    project = Project(folder)
    project.write(
        data={
            "source": str(write_folder(folder.parent / f"{folder.name}-shapes", per_class)),
            "shard_size": SHARD_SIZE,
        },
        compute={"threads": 1},  # two workers then have two cores
        generate={"batch_size": 16},
        compare={"arms": ["all"]},
        arms={"all": {"select": "all", "add": "synthetic", "strengths": [0.4, 0.5, 0.7, 0.8], "train": {}}},
    )
    project.ok("prepare", "probe", "select", "fit")
    return project


def pool(project: Project) -> dict[str, str] | None:
    """Return the SHA-256 of every file of the published pool, None where there is none; it must be whole."""
    folder = project.folder / "data/synthetic"
    if not folder.exists():
        return None
    assert verify_folder(folder) == []
    return {path.name: sha256_file(path) for path in folder.iterdir()}


@dataclass
class Generation:
    """`gdacli generate` as a process of its own, in a session of its own."""

    project: Project
    options: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    program: Sequence[str | Path] = (sys.executable, BEGUN)
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        settings = (part for option in self.options for part in ("-S", option))
        self.process = subprocess.Popen(
            [*self.program, "generate", "-C", self.project.folder, *settings],
            env={**os.environ, "GDACLI_TEST_BEGUN": str(self.project.folder / "begun"), **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ends_within(self, seconds: float | None) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> tuple[int, str]:
        """Wait for the end of the last of its processes, as they all hold the pipe; returns exit code and stderr."""
        _, stderr = self.process.communicate()
        return self.process.returncode, stderr

    def workers(self) -> list[int]:
        """Return the ids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        ids = children.read_text().split() if children.exists() else []
        return [int(each) for each in ids if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


def begun_images(project: Project) -> list[int]:
    """Return the number of images of each shard that was begun since `begun` was last removed."""
    path = project.folder / "begun"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def num_finished(work: Path) -> int:
    """Return how many shards a work directory holds."""
    return len(list(work.rglob("*.listing")))


@dataclass
class Toll:
    """What many kills did."""

    kills: int = 0
    starting: int = 0
    making: int = 0
    all_made: int = 0
    no_pool: int = 0
    """Kills after which neither the old nor the new pool was there."""
    finished: int = 0
    lost: int = 0
    """Images of shards that were begun in vain."""


def kill_often(project: Project, work: Path, kills: int, workers: int, seed: int) -> Toll:
    """Kill generations with SIGKILL at random points until each is finished, and check what is there after each kill.

    Two pools that share no image take turns, so that an old one is there while a new one is made. Half of the kills
    come at a random time of a run, the others after a random number of shards, as most of a short run is its start;
    the last shard more often, as publishing comes after it.
    Of two workers sometimes one is killed, sometimes all, sometimes just the process that started them.
    """
    chance, toll = random.Random(seed), Toll()
    options = [[f"generate.workers={workers}", f"generate.seed={number}"] for number in (0, 1)]
    wholes = []
    for each in options:
        shutil.rmtree(work, ignore_errors=True)
        start = time.monotonic()
        code, stderr = Generation(project, each).finish()
        assert code == 0, stderr
        seconds, num_shards = time.monotonic() - start, num_finished(work)
        wholes.append(pool(project))
    num_images = sum(begun_images(project)) // 2
    while toll.kills < kills:
        shutil.rmtree(work)
        (project.folder / "begun").unlink()
        turn = toll.finished % 2
        before = toll.kills
        while not _finishes(project, work, options[turn], chance, seconds, num_shards, toll):
            toll.no_pool += pool(project) is None
            assert pool(project) in (None, *wholes)
        assert pool(project) == wholes[turn]
        lost = sum(begun_images(project)) - num_images
        assert 0 <= lost <= (toll.kills - before) * workers * SHARD_SIZE
        toll.finished += 1
        toll.lost += lost
    return toll


def _finishes(
    project: Project,
    work: Path,
    options: list[str],
    chance: random.Random,
    seconds: float,
    num_shards: int,
    toll: Toll,
) -> bool:
    """Run once; says if it finished before it was killed."""
    num_begun = len(begun_images(project))
    run = Generation(project, options)
    left = num_shards - num_finished(work)
    if chance.random() < 0.5:
        ended = run.ends_within(chance.uniform(0, seconds))
    elif not left:
        ended = run.ends_within(None)
    else:
        last = chance.random() < 0.2
        aim = num_shards - (0 if last else chance.randint(0, left - 1))
        while not (ended := run.ends_within(0.005)) and num_finished(work) < aim:
            pass
        ended = ended or run.ends_within(chance.uniform(0, 1.0 if last else 0.2))
    if not ended:
        moment = "all_made" if num_finished(work) == num_shards else "making"
        moment = "starting" if moment == "making" and len(begun_images(project)) == num_begun else moment
        victims = run.workers()
        if victims and chance.random() < 0.3:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
        else:
            (os.killpg if chance.random() < 0.5 else os.kill)(run.process.pid, signal.SIGKILL)
    code, stderr = run.finish()
    if code == 0:
        return True
    assert code == -signal.SIGKILL or "error: a worker ended with code -9" in stderr, (code, stderr)
    assert left_over(run.process.pid) == []
    toll.kills += 1
    setattr(toll, moment, getattr(toll, moment) + 1)
    return False


def left_over(session: int) -> list[int]:
    """Return the ids of the processes of a session that do not end by themselves, in half a minute."""
    for _ in range(300):
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
                found += [int(path.parent.name)] if int(of) == session and state != "Z" else []
        if not found:
            break
        time.sleep(0.1)
    return found
