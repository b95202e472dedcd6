"""`plan`, `preview` and `regenerate`: before and after generation."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Project
from PIL import Image

from gdacli.artifacts import sha256_file
from gdacli.images import decode_array
from gdacli.shards import read_shard
from gdacli.tables import read_table


@pytest.fixture(scope="module")
def made(tmp_path_factory, shapes) -> Path:
    """Give the folder of a project with a pool; do not change it."""
    root = tmp_path_factory.mktemp("made")
    project = Project(root)
    arms = {
        "targeted": {"select": "cluster", "add": "synthetic", "strengths": [0.5, 0.8], "train": {}},
        "original": {"train": {}},
        "flood": {"add": "sampled", "num_images": 5, "train": {}},
    }
    project.write(
        data={"source": str(shapes), "shard_size": 10}, compare={"arms": ["original", "targeted", "flood"]}, arms=arms
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(root / "work"))
        project.ok("prepare", "probe", "select", "fit", "generate")
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Project:
    """Give a copy of it."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "project/work"))
    return Project(tmp_path / "project")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_a_plan_of_what_is_there_has_nothing_to_make(project):
    outcome = project("plan", "--json")
    plan = json.loads(outcome.stdout)
    assert plan["pool"]["to_make"] == plan["denoising_steps"] == plan["seconds"] == 0
    assert "nothing to make" in project("plan").stdout


def test_a_plan_counts_what_generate_then_makes(project):
    shutil.rmtree(project.folder / "work")
    before = files(project.folder)
    change = ("-S", "generate.seed=7", "-S", "compare.arms=[original, targeted]")
    outcome = project("plan", "--json", "--price-per-hour", "3600", *change)
    plan = json.loads(outcome.stdout)
    assert files(project.folder) == before, "a plan writes nothing"
    selected = plan["arms"]["targeted"]["selected"]
    assert plan["arms"] == {
        "original": {"selected": 0, "synthetic": 0},
        "targeted": {"selected": selected, "synthetic": 2 * selected},
    }
    assert plan["pool"] == {"images": 2 * selected, "made_before": 0, "to_make": 2 * selected}
    # 4 steps at strength 1 are 2 at 0.5 and 3 at 0.8; guidance doubles them
    assert plan["strengths"]["0.5"]["denoising_steps"] == 2 * selected
    assert plan["strengths"]["0.8"]["denoising_steps"] == 3 * selected
    assert plan["denoising_steps"] == 5 * selected
    assert plan["seconds"] > 0
    assert plan["cost"] == pytest.approx(plan["device_hours"] * 3600, rel=0.01, abs=0.05)
    assert plan["megabytes"]["work"] == plan["megabytes"]["pool"] > 0
    assert [batch["strength"] for batch in plan["batches"]] == [0.5, 0.8]
    assert min(plan["free_megabytes"].values()) > 0
    made = json.loads(project("generate", "--json", *change).stdout)
    assert made["run"]["made"] == plan["pool"]["to_make"]
    assert made["per_arm"]["targeted"] == plan["arms"]["targeted"]["synthetic"]
    table = project("plan", "--price-per-hour", "2", *change, "-S", "generate.seed=8").stdout
    assert re.search(r"^targeted +\d+ +\d+$", table, re.MULTILINE)
    assert re.search(r"^the pool +\d+ +\d+ +\d+$", table, re.MULTILINE)
    assert "device hours at 2" in table


def test_a_preview_shows_sources_and_strengths_and_touches_nothing_else(project):
    before = files(project.folder)
    outcome = project("preview", "-n", "4", "--json")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    after = files(project.folder)
    assert set(after) - set(before) == {"data/preview/preview.png", "data/preview/preview.html"}
    assert all(after[name] == digest for name, digest in before.items())
    assert result["strengths"] == [0.5, 0.8]
    assert len(set(result["keys"])) == 4
    labels = dict(zip(*(read_table(project.folder / "data/source/index.parquet")[c] for c in ("key", "label"))))
    assert {labels[key] for key in result["keys"]} == {0, 1, 2}, "every class has its turn"
    with Image.open(project.folder / "data/preview/preview.png") as sheet:
        assert sheet.width > 3 * 128
        assert sheet.height > 4 * 128
    page = (project.folder / "data/preview/preview.html").read_text()
    assert page.count("data:image/png;base64,") == 4 * 3
    assert "http" not in re.sub(r"data:[^\"]*", "", page)


def test_a_preview_shows_the_pools_own_images(project):
    project.ok("preview -n 2")  # in a batch of the pool's size: else the last bits may differ
    page = (project.folder / "data/preview/preview.html").read_text()
    shown = [decode_array(base64.b64decode(text)) for text in re.findall(r"data:image/png;base64,([^\"]*)", page)]
    pool = (project.folder / "data/synthetic").glob("*.tar")
    made = {decode_array(sample.image).tobytes() for path in pool for sample in read_shard(path)}
    assert len(shown) == 2 * 3
    assert [image.tobytes() in made for image in shown] == [False, True, True] * 2


def test_samples_are_previewed_where_no_arm_has_variants(project):
    outcome = project("preview", "-n", "2", "-S", "compare.arms=[original, flood]")
    assert "6 samples of each of 2 classes" in outcome.stdout, outcome.stderr
    page = (project.folder / "data/preview/preview.html").read_text()
    shown = [decode_array(base64.b64decode(text)) for text in re.findall(r"data:image/png;base64,([^\"]*)", page)]
    pool = (project.folder / "data/synthetic").glob("train-sampled-*.tar")
    made = {(sample.label, decode_array(sample.image).tobytes()) for path in pool for sample in read_shard(path)}
    assert len(shown) == 2 * 6
    found = {(place // 6, image.tobytes()) for place, image in enumerate(shown)} & made
    assert [label for label, _ in sorted(found)] == [0, 0, 1, 1], "the pool's 5 are two of classes 0 and 1, one of 2"


def test_nothing_to_preview_is_said(project):
    assert "none of them adds synthetic images" in project("preview", "-S", "compare.arms=[original]").error


def test_an_image_is_made_again_from_what_the_pool_says(project, tmp_path):
    pool = project.folder / "data/synthetic"
    samples = [sample for path in sorted(pool.glob("*.tar")) for sample in read_shard(path)]
    for sample in (samples[0], samples[-1]):
        outcome = project("regenerate", "--key", sample.key, "-o", str(tmp_path / "again.png"))
        assert outcome.code == 0, outcome.stderr
        assert (tmp_path / "again.png").read_bytes() == sample.image
        assert "equal to the image in the shard" in outcome.stdout
    values = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(values.replace("num_inference_steps: 4", "num_inference_steps: 6"))
    assert project("regenerate", "--key", samples[0].key).code == 0, "the pool's settings count, not params.yaml"
    assert "has no such image" in project("regenerate", "--key", "no_s0500_v0").error
    project.ok("fit -S fit.updates=7")
    error = project("regenerate", "--key", samples[0].key).error
    assert "was made with other weights than there are now" in error


def test_another_image_than_the_pools_is_noticed(project):
    pool = project.folder / "data/synthetic"
    manifest = json.loads((pool / "manifest.json").read_text())
    manifest["settings"]["guidance_scale"] = 1.0
    (pool / "manifest.json").write_text(json.dumps(manifest))
    key = read_table(pool / "index.parquet")["key"][0]
    assert "data/synthetic/manifest.json is missing or damaged" in project("regenerate", "--key", key).error
    sums = (pool / "SHA256SUMS").read_text().splitlines(keepends=True)
    own = f"{sha256_file(pool / 'manifest.json')}  manifest.json\n"
    (pool / "SHA256SUMS").write_text("".join(own if "manifest.json" in line else line for line in sums))
    assert "is not the one in data/synthetic/train-s0500-000000.tar" in project("regenerate", "--key", key).error
