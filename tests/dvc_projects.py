"""Projects made by `gdacli init` that run under DVC, as a user runs them."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import fork_server
import pytest
import yaml
from conftest import TINY, Outcome, invoke, write_folder

ARTIFACTS = ("source", "probe", "selection", "generator", "synthetic", "mix", "train", "evaluation")
COMMANDS = ("prepare", "probe", "select", "fit", "generate", "mix", "train", "evaluate")


class Runner:
    """A project and the commands in it, with a clean environment of its own.

    Its `gdacli` and `dvc` are forks (fork_server.py); `installed` runs the programs themselves.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "project"
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join(
                [str(fork_server.commands()), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "GDACLI_WORK": str(root / "work"),
            "GIT_CONFIG_GLOBAL": str(root / "gitconfig"),
            "HF_DATASETS_CACHE": str(root / "hf"),
        }
        (root / "gitconfig").write_text("[user]\n  name = test\n  email = test@example.org\n")

    def __call__(self, *command: str) -> str:
        code, said = self.ended(*command)
        assert code == 0, said
        return said

    def ended(self, *command: str) -> tuple[int, str]:
        """Run a command; returns its exit code and what it said on both streams."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def installed(self, *command: str) -> str:
        """Run a command for which `gdacli` and `dvc` are the installed programs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(self.environment, "PATH", self.environment["PATH"].partition(os.pathsep)[2])
            return self(*command)

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

    def here(self, *arguments: str) -> Outcome:
        """Run gdacli in this process, which has loaded its libraries."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GDACLI_WORK", self.environment["GDACLI_WORK"])
            return invoke(*arguments, "-C", str(self.folder))

    def by_hand(self) -> None:
        """Run every stage in this process, without DVC."""
        for command in COMMANDS:
            outcome = self.here(command)
            assert outcome.code == 0, outcome.stderr


def started(root: Path) -> Runner:
    """Return a project over 36 shapes, committed, of which nothing has run."""
    source = write_folder(root / "shapes")
    made = Runner(root)
    assert invoke("init", str(made.folder), "--source", str(source)).code == 0
    made.edit(**{name: TINY[name] for name in ("probe", "fit", "generate", "train", "compare")})
    made.edit(data={"test_fraction": 0.3}, arms=TINY["arms"], compute={"device": "cpu", "threads": 1})
    made.edit(compare={"seeds": [0]})
    made("git", "add", "--all")
    made("git", "commit", "--quiet", "-m", "Start")
    return made


def finished(root: Path) -> Runner:
    """Return one that was run by hand and taken in by DVC; the pool holds the variants of the arm `targeted`."""
    made = started(root)
    made.by_hand()
    made("dvc", "commit", "--force")
    made("git", "add", "--all")
    made("git", "commit", "--quiet", "-m", "Run")
    return made


def cloned(runner: Runner, root: Path) -> Runner:
    """Return a fresh clone with a cache and a work directory of its own."""
    root.mkdir(exist_ok=True)
    clone = Runner(root)
    runner("git", "clone", "--quiet", str(runner.folder), str(clone.folder))
    return clone
