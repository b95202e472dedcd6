import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project

from gdacli.artifacts import sha256_file
from gdacli.shards import read_shard
from gdacli.tables import read_table


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give the folder of a project that is ready to generate; do not change it."""
    made = Project(tmp_path_factory.mktemp("fitted"))
    made.write(data={"source": str(shapes), "shard_size": 10}, compare={"arms": ["original", "targeted", "flood"]})
    made.ok("prepare", "probe", "select", "fit")
    return made.folder


@pytest.fixture
def ready(project: Project, fitted: Path) -> Project:
    """Give a copy of it."""
    shutil.copytree(fitted, project.folder, dirs_exist_ok=True)
    return project


def generate(project: Project, *options: str) -> dict:
    outcome = project("generate", "--json", *options)
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def shards(project: Project) -> dict[str, str]:
    folder = project.folder / "data/synthetic"
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.tar"))}


def test_the_pool_holds_what_the_arms_need_with_its_provenance(ready):
    result = generate(ready)
    folder = ready.folder / "data/synthetic"
    selection = read_table(ready.folder / "data/selection/selection.parquet")
    chosen = {key for key, late in zip(selection["key"], selection["cluster_chosen"], strict=True) if late}
    label_of = dict(zip(selection["key"], selection["label"], strict=True))
    samples = [sample for path in sorted(folder.glob("*.tar")) for sample in read_shard(path)]
    with_source = [sample for sample in samples if sample.meta["source_key"]]
    assert {sample.key for sample in with_source} == {f"{key}_s0500_v0" for key in chosen}
    assert [sample.label for sample in samples if not sample.meta["source_key"]] == [0, 1, 2, 0, 1]
    assert all(sample.label == label_of[sample.meta["source_key"]] for sample in with_source)
    assert len({tuple(sorted((key, type(value).__name__) for key, value in s.meta.items())) for s in samples}) == 1
    assert all(sample.meta["synthetic"] is True for sample in samples)
    assert result["num_images"] == result["run"]["made"] == len(samples) == len(chosen) + 5
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {shard["name"]: shard["sha256"] for shard in manifest["shards"]} == shards(ready)
    assert {environment["device"] for environment in manifest["environments"]} == {"cpu"}
    index = read_table(folder / "index.parquet")
    assert sorted(index["key"]) == sorted(sample.key for sample in samples)
    assert len(set(index["identity"])) == len(samples)


def test_nothing_missing_makes_nothing_and_leaves_torch_alone(ready):
    first = generate(ready)
    before = shards(ready)
    code = (
        "import sys\nfrom gdacli.cli import app\n"
        f"app(['generate', '-C', {str(ready.folder)!r}], standalone_mode=False)\n"
        "print({'torch', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "set()"
    assert f"0 made, {first['num_images']} reused" in done.stdout
    assert shards(ready) == before


def test_what_changes_an_image_makes_it_again_and_changing_back_takes_the_old(ready):
    first, before = generate(ready), shards(ready)
    for change in ("generate.guidance_scale=1.5", "generate.seed=1", "generate.solver=ddim", "compute.threads=1"):
        assert generate(ready, "-S", change)["run"]["made"] == first["num_images"]
        assert shards(ready) != before or change == "compute.threads=1"
    assert generate(ready)["run"]["made"] == 0
    assert shards(ready) == before


def test_another_model_makes_all_again(ready):
    first = generate(ready)
    ready.ok("fit -S fit.updates=7")
    assert generate(ready)["run"]["made"] == first["num_images"]


def test_a_grown_pool_has_the_bytes_of_one_made_at_once(ready, tmp_path, monkeypatch):
    generate(ready, "-S", "compare.arms=[original, flood]")
    ready.ok("select -S compare.arms=[targeted,random,flood]")
    grown = generate(ready, "-S", "compare.arms=[targeted, random, flood]")
    assert grown["run"]["reused"] == 5
    grown_shards = shards(ready)
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "elsewhere"))
    assert generate(ready, "-S", "compare.arms=[targeted, random, flood]")["run"]["reused"] == 0
    assert shards(ready) == grown_shards


def test_damage_in_the_work_directory_is_mended(ready, tmp_path):
    first, before = generate(ready), shards(ready)
    damaged = sorted((tmp_path / "work").rglob("*.tar"))[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content)
    again = generate(ready)
    assert 0 < again["run"]["made"] < first["num_images"]
    assert shards(ready) == before


def test_a_damaged_source_image_is_noticed_before_it_poisons_the_store(ready):
    shard = sorted((ready.folder / "data/source").glob("train-*.tar"))[0]
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    shard.write_bytes(content)
    assert "is not the prepared image: the shard is damaged" in ready("generate").error


def test_an_arm_that_selects_nothing_is_said(ready):
    outcome = ready("select", "-S", "select.share=0.001", "-S", "arms.targeted.select=misclassified")
    assert "warning: arm targeted selects no image" in outcome.stderr


def test_another_data_set_than_the_selections_is_noticed(ready):
    ready.ok("prepare -S data.seed=5")
    assert (
        "made of other train images than the prepared ones: run `gdacli probe` and `gdacli select`"
        in ready("generate").error
    )


def test_arms_without_synthetic_images_make_an_empty_pool_and_mixes_work(ready):
    ready.ok("select -S compare.arms=[original,upsample]")
    assert generate(ready, "-S", "compare.arms=[original, upsample]")["num_images"] == 0
    mixes = json.loads(ready("mix", "--json", "-S", "compare.arms=[original, upsample]").stdout)["arms"]
    assert mixes["upsample"]["copies"] == mixes["upsample"]["selected"] > 0
    assert "data/synthetic lacks" in ready("mix", "--arm", "targeted", "-S", "compare.arms=[original]").error


def test_a_mix_lists_each_sample_once_with_its_hash(ready):
    generate(ready)
    ready.ok("mix")
    mix = read_table(ready.folder / "data/mix/targeted.parquet")
    pool = read_table(ready.folder / "data/synthetic/index.parquet")
    source = read_table(ready.folder / "data/source/index.parquet")
    num_train = source["split"].count("train")
    assert mix["origin"].count("source") == num_train
    assert len(set(mix["key"])) == len(mix["key"])
    digests = dict(zip(pool["key"] + source["key"], pool["sha256"] + source["sha256"], strict=True))
    assert [digests[key] for key in mix["key"]] == mix["sha256"]
    assert set(mix["repeats"].tolist()) == {1}
