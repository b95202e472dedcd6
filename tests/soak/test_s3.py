"""The work directory and pools in an object store, S3 as moto serves it: `make soak`."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from killed import many_shards, pool


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Give a project that is generated; do not change it."""
    project = many_shards(tmp_path_factory.mktemp("local") / "project", per_class=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(project.folder.parent / "work"))
        project.ok("generate")
    return project


@pytest.fixture
def ready(local: Project, tmp_path: Path) -> Project:
    """Give a copy of it without the pool."""
    shutil.copytree(local.folder, tmp_path / "project", ignore=shutil.ignore_patterns("synthetic"))
    return Project(tmp_path / "project")


@dataclass
class Bucket:
    """An S3 bucket."""

    name: str
    files: Any


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Serve an empty bucket with the work directory; what is run as a process finds it by the environment."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url, name = "http://{}:{}".format(*server.get_host_and_port()), f"bucket-{secrets.token_hex(4)}"
    credentials = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    for key, value in {"FSSPEC_S3_ENDPOINT_URL": url, "GDACLI_WORK": f"s3://{name}/work", **credentials}.items():
        monkeypatch.setenv(key, value)
    files = s3fs.S3FileSystem(endpoint_url=url, skip_instance_cache=True)
    files.mkdir(name)
    yield Bucket(name, files)
    server.stop()


def generate(project: Project, *options: str) -> dict:
    """Run it as a process, which reads the environment anew."""
    command = [sys.executable, "-m", "gdacli", "generate", "--json", "-C", str(project.folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def forget(project: Project) -> None:
    shutil.rmtree(project.folder / "data/synthetic")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_work_directory_in_an_object_store_gives_the_local_bytes_and_is_reused(ready, local, bucket, workers):
    made = generate(ready, "-S", f"generate.workers={workers}")
    assert made["run"] == {"made": made["num_images"], "reused": 0}
    assert pool(ready) == pool(local)
    forget(ready)
    assert generate(ready)["run"] == {"made": 0, "reused": made["num_images"]}
    assert pool(ready) == pool(local)


def test_a_damaged_shard_in_an_object_store_is_made_again(ready, local, bucket):
    made = generate(ready)
    forget(ready)
    path = sorted(each for each in bucket.files.find(f"{bucket.name}/work") if each.endswith(".tar"))[0]
    content = bytearray(bucket.files.cat_file(path))
    content[len(content) // 2] ^= 1
    bucket.files.pipe_file(path, bytes(content))
    assert 0 < generate(ready)["run"]["made"] < made["num_images"]
    assert pool(ready) == pool(local)


def test_parts_on_machines_that_share_an_object_store_are_merged(ready, local, bucket, tmp_path):
    other = Project(Path(shutil.copytree(ready.folder, tmp_path / "other")))
    parts = [generate(project, "--part", f"{number}/2") for number, project in ((1, ready), (2, other))]
    assert not (ready.folder / "data/synthetic").exists()
    merged = generate(other, "--merge")
    assert merged["run"]["made"] == 0
    assert sum(part["run"]["made"] for part in parts) == merged["num_images"]
    assert pool(other) == pool(local)


def test_images_of_an_uploaded_pool_are_reused(ready, local, bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    bucket.files.put(str(local.folder / "data/synthetic"), f"{bucket.name}/pool", recursive=True)
    made = generate(ready, "-S", f"generate.reuse=[s3://{bucket.name}/pool]")
    assert made["run"] == {"made": 0, "reused": made["num_images"]}
    assert pool(ready) == pool(local)
