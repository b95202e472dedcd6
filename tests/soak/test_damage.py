"""Cuts and flipped bits over the artifacts of a real project, many times: `make soak`, not `make test`."""

import random
from pathlib import Path

import pytest
from conftest import Project
from damage import damaged

from gdacli.checksums import verify_folder

ARTIFACTS = ("source", "probe", "selection", "generator/class_conditional", "synthetic")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give the data of a project with a pool of several shards."""
    made = Project(tmp_path_factory.mktemp("generated"))
    made.write(data={"source": str(shapes), "shard_size": 10}, compare={"arms": ["original", "targeted", "flood"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(made.folder / "work"))
        made.ok("prepare", "probe", "select", "fit", "generate")
    return made.folder / "data"


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("times", [1000])
def test_random_damage_is_always_found_and_named(generated, artifact, times):
    folder = generated / artifact
    generator = random.Random(artifact)
    found = 0
    for _ in range(times):
        with damaged(folder, generator) as (file, what):
            damages = verify_folder(folder)
            assert all(file == damage.file or file.name in damage.problem for damage in damages), (file, what, damages)
            found += bool(damages)
    assert found == times
    assert verify_folder(folder) == []
    print(f"{artifact}: {found} of {times} found and named")
