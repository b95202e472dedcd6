"""A project's artifacts go to an S3 remote, as moto serves it, and come back; docs/remotes.md: `make soak`."""

import json
import secrets
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from dvc_projects import Runner, cloned, finished
from test_docs import ROOT, commands

_PAGE = commands(ROOT / "docs/remotes.md")
TO_S3 = _PAGE[_PAGE.index("pip install dvc-s3") + 1 :]


@dataclass
class Server:
    """An S3 server that lets one user in."""

    port: int = 0
    access_key: str = ""
    secret_key: str = ""
    bucket: str = field(default_factory=lambda: f"bucket-{secrets.token_hex(4)}")  # moto forgets nothing
    _running: Any = field(init=False)

    def start(self) -> None:
        """Serve, again on the same port with the same objects."""
        from moto.server import ThreadedMotoServer

        self._running = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._running.start()
        self.port = self._running.get_host_and_port()[1]

    def stop(self) -> None:
        self._running.stop()
        self._running._server.server_close()  # else the port takes connections that nobody answers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def words(self, command: str) -> list[str]:
        """Return a command of the page with this server's values."""
        values = {"https://s3.example.org": self.url, "KEY": self.access_key, "SECRET": self.secret_key}
        values["s3://bucket/shoes"] = f"s3://{self.bucket}/shoes"
        return [values.get(word, word) for word in shlex.split(command)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Give a finished project; do not change it."""
    return finished(tmp_path_factory.mktemp("local"))


@pytest.fixture
def project(local: Runner, tmp_path: Path) -> Runner:
    """Give a copy of it."""
    made = Runner(tmp_path)
    shutil.copytree(local.folder, made.folder)
    return made


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve an empty bucket; who has another key or secret is turned away."""
    import boto3

    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    served = Server()
    served.start()
    root = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=served.url, **root).create_bucket(Bucket=served.bucket)
    users = boto3.client("iam", endpoint_url=served.url, **root)
    users.create_user(UserName=served.bucket)
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    users.put_user_policy(UserName=served.bucket, PolicyName="all", PolicyDocument=json.dumps(allowed))
    key = users.create_access_key(UserName=served.bucket)["AccessKey"]
    served.access_key, served.secret_key = key["AccessKeyId"], key["SecretAccessKey"]
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on moto checks keys
    yield served
    served.stop()


def with_keys(runner: Runner, access_key: str, secret_key: str) -> None:
    runner.environment |= {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}


def committed(runner: Runner) -> str:
    """Return the content of all files that git has, or would take."""
    runner("git", "add", "--all")
    runner("git", "commit", "--quiet", "-m", "Add a remote")
    names = runner.output("git", "ls-files").splitlines()
    return "\n".join((runner.folder / name).read_text(errors="replace") for name in names)


def with_remote(runner: Runner, server: Server) -> Runner:
    """Give a project the page's remote, without keys."""
    for command in TO_S3[:-1]:
        if "--local" not in command:
            runner(*server.words(command))
    return runner


def test_the_pages_commands_push_and_a_fresh_clone_pulls_the_same_bytes_and_reuses_them(project, server, tmp_path):
    said = [project(*server.words(command)) for command in TO_S3]
    assert "files pushed" in said[-1]
    assert "Everything is up to date" in project("dvc", "push")
    text = committed(project)
    assert server.url in text
    assert server.access_key not in text
    assert server.secret_key not in text

    clone = cloned(project, tmp_path / "elsewhere")
    with_keys(clone, server.access_key, server.secret_key)
    clone("dvc", "pull", "data/synthetic")
    assert "1 folders" in clone("gdacli", "verify", "data/synthetic")
    assert set(clone.hashes()) == {name for name in project.hashes() if name.startswith("synthetic/")}
    clone("dvc", "pull")
    assert clone.hashes() == project.hashes()
    assert "Data and pipelines are up to date" in clone("dvc", "status")
    assert clone.repro() == set()
    arms = {**TINY["arms"], "flood": {"add": "sampled", "num_images": 8, "train": {}}}
    clone.edit(arms=arms, compare={"arms": ["original", "targeted", "flood"]})
    clone("dvc", "repro", "generate")
    assert clone.made() == 8
    assert clone.manifest()["num_images"] == project.manifest()["num_images"] + 8


@pytest.mark.parametrize(
    ("wrong", "line"),
    [("access_key", "Forbidden"), ("secret_key", "Forbidden"), (None, "Unable to locate credentials")],
)
def test_wrong_keys_are_said_and_nothing_is_lost(project, server, tmp_path, wrong, line):
    before = with_remote(project, server).hashes()
    committed(project)
    right = {"access_key": server.access_key, "secret_key": server.secret_key}
    if wrong:
        with_keys(project, **{**right, wrong: "AKIA0000000000000000"})
    refused(project, "push", line)
    assert project.hashes() == before
    with_keys(project, **right)
    assert "files pushed" in project("dvc", "push", "data/synthetic")

    clone = cloned(project, tmp_path / "elsewhere")
    if wrong:
        with_keys(clone, **{**right, wrong: "AKIA0000000000000000"})
    refused(clone, "pull", line)
    assert clone.hashes() == {}
    with_keys(clone, **right)
    clone("dvc", "pull", "data/synthetic")
    assert set(clone.hashes().items()) <= set(before.items())
    assert clone("git", "status", "--short") == ""


def test_a_server_that_is_down_is_said_and_nothing_is_lost(project, server, tmp_path):
    before = with_remote(project, server).hashes()
    committed(project)
    with_keys(project, server.access_key, server.secret_key)
    project("dvc", "push", "data/synthetic")
    clone = cloned(project, tmp_path / "elsewhere")
    with_keys(clone, server.access_key, server.secret_key)
    clone("dvc", "pull", "data/synthetic")
    server.stop()
    refused(project, "push", "Could not connect to the endpoint URL")
    refused(clone, "pull", "Could not connect to the endpoint URL")
    assert project.hashes() == before
    assert clone.hashes() == {name: digest for name, digest in before.items() if name.startswith("synthetic/")}
    server.start()
    project("dvc", "push")
    clone("dvc", "pull")
    assert clone.hashes() == before


def refused(runner: Runner, command: str, line: str) -> None:
    code, said = runner.ended("dvc", command)
    print(f"\n$ dvc {command}\n{said.strip()}\n(exit {code})")
    assert code != 0
    assert line in said
