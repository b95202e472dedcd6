import json
import subprocess
from pathlib import Path

import pytest
from conftest import Project, invoke

from gdacli.artifacts import new_directory, sha256_file


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give the folder of a project as far as the mixes; do not change it."""
    made = Project(tmp_path_factory.mktemp("mixed"))
    made.write(data={"source": str(shapes)}, compare={"arms": ["original", "upsample"]})
    made.ok("prepare", "probe", "select", "fit", "mix")
    return made.folder


@pytest.fixture
def whole(project: Project, mixed: Path) -> Project:
    """Give a copy of it."""
    subprocess.run(["cp", "-r", f"{mixed}/.", project.folder], check=True)
    return project


def test_all_artifacts_of_a_project_are_checked(whole):
    outcome = whole("verify", "--json")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    data = whole.folder / "data"
    folders = [data / name for name in ("source", "probe", "selection", "generator/class_conditional", "mix")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    assert result == {
        "folders": 5,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "damaged": [],
    }
    assert whole("verify").stdout.endswith("MB: all whole\n")


def test_damage_anywhere_is_named_with_the_remedy(whole):
    data = whole.folder / "data"
    shard = data / "source/train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    (data / "generator/class_conditional/unet/config.json").unlink()
    mix = data / "mix/upsample.parquet"
    mix.write_bytes(mix.read_bytes()[:-1])
    outcome = whole("verify")
    assert outcome.code == 1
    assert outcome.error == "3 damaged files: see above"
    lines = outcome.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:3]] == [
        "data/source/train-000000.tar",
        "data/generator/class_conditional/unet/config.json",
        "data/mix/upsample.parquet",
    ]
    assert f"found sha256 {sha256_file(shard)}, expected " in lines[0]
    assert lines[0].endswith("run `dvc checkout --force data/source`, or make it again")
    assert lines[2].endswith("run `gdacli mix --arm upsample`")
    assert lines[3].endswith("MB: 3 DAMAGED")
    assert len(json.loads(whole("verify", "--json").stdout)["damaged"]) == 3
    assert whole("verify", "data/probe", "data/selection").code == 0
    assert whole("verify", "data/mix").code == 1
    whole.ok("mix --arm upsample", "verify data/mix")


def test_the_figures_of_a_mix_may_be_damaged_too(whole):
    figures = whole.folder / "data/metrics/mix/upsample.json"
    content = json.loads(figures.read_text())
    for damaged, problem in (
        ("{half", "not valid JSON"),
        (json.dumps(content | {"sha256": content["sha256"][:-1] + "x"}), "its sum of upsample.parquet is damaged"),
        (json.dumps({"total": 3}), "holds no sha256 of data/mix/upsample.parquet"),
    ):
        figures.write_text(damaged)
        assert f"data/metrics/mix/upsample.json: {problem}" in whole("verify").stdout
    figures.unlink()
    assert whole("verify").code == 1


def test_artifacts_of_an_older_gdacli_are_not_called_whole(whole):
    (whole.folder / "data/probe/SHA256SUMS").unlink()
    outcome = whole("verify")
    assert outcome.code == 1
    assert "data/probe/SHA256SUMS: missing: an older gdacli made the folder" in outcome.stdout


def test_folders_are_checked_outside_a_project_too(tmp_path):
    with new_directory(tmp_path / "shared/pool") as made:
        (made / "a").write_text("a")
    outcome = invoke("verify", str(tmp_path / "shared/pool"))
    assert (outcome.code, outcome.stdout) == (0, "1 folders, 1 files, 0.0 MB: all whole\n")
    (tmp_path / "shared/pool/a").write_text("b")
    assert invoke("verify", "pool", "-C", str(tmp_path / "shared")).code == 1


def test_what_is_not_there_is_an_error_in_one_line(project):
    assert project("verify", "data/sauce").error.startswith("data/sauce: there is no such folder")
    outcome = project("verify")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.error == "found no artifact to verify: run it in a project that has data/, or name folders"


def test_the_source_loads_beside_its_sums(whole, tmp_path):
    import datasets

    folder = str(whole.folder / "data/source")
    source = datasets.load_dataset(folder, cache_dir=str(tmp_path))
    streamed = datasets.load_dataset(folder, split="train", streaming=True, cache_dir=str(tmp_path))
    counts = {
        s: p["count"] for s, p in json.loads((whole.folder / "data/source/dataset.json").read_text())["splits"].items()
    }
    assert source.num_rows == {split: count for split, count in counts.items() if count}
    assert sum(1 for _ in streamed) == counts["train"]
