import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, OWN_GENERATOR, Project, files_of_at_most, write_grain

from gdacli.artifacts import sha256_file
from gdacli.images import decode_array
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


def images(project: Project) -> dict[str, tuple[bytes, dict]]:
    folder = project.folder / "data/synthetic"
    return {each.key: (each.image, each.meta) for path in sorted(folder.glob("*.tar")) for each in read_shard(path)}


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
    assert manifest["dropped"] == {}
    assert (folder / "dropped.csv").read_text().splitlines()[0].startswith("key,reason,shard,identity,confidence,")
    for sample in samples:
        assert 0 <= sample.meta["confidence"] <= 1
        assert sample.meta["nearest_key"] != sample.meta["source_key"]
        assert 0 <= sample.meta["source_distance"] <= 2 if sample.meta["source_key"] else True
        assert sample.meta["source_distance"] == -1 if not sample.meta["source_key"] else True
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
    for change in ("generate.guidance_scale=1.5", "generate.seed=1", "generate.solver=ddim", "compute.threads=2"):
        assert generate(ready, "-S", change)["run"]["made"] == first["num_images"]
        assert shards(ready) != before or change == "compute.threads=2"
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
    shutil.rmtree(ready.folder / "data/synthetic")
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "elsewhere"))
    assert generate(ready, "-S", "compare.arms=[targeted, random, flood]")["run"]["reused"] == 0
    assert shards(ready) == grown_shards


@pytest.mark.parametrize("kind", ["tar", "listing"])
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_in_the_work_directory_is_named_and_mended(ready, tmp_path, kind, damage):
    first, before = generate(ready), shards(ready)
    shutil.rmtree(ready.folder / "data/synthetic")  # else its images are taken
    damaged = sorted((tmp_path / "work").rglob(f"*.{kind}"))[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 4
    damaged.write_bytes(content if damage == "flip" else content[:-9])
    outcome = ready("generate", "--json")
    assert 0 < json.loads(outcome.stdout)["run"]["made"] < first["num_images"]
    assert f"{damaged.with_suffix('.tar')} or its listing is damaged" in outcome.stderr
    counts = [line.split()[1].split("/") for line in outcome.stderr.splitlines() if line.startswith("generate: ")]
    assert all(int(done) <= int(total) for done, total in counts)
    assert shards(ready) == before


def test_another_probe_scores_the_images_again_and_makes_none(ready):
    generate(ready)
    before = images(ready)
    ready.ok("probe -S probe.seed=3")
    assert generate(ready)["run"]["made"] == 0
    after = images(ready)
    assert {key: image for key, (image, _) in after.items()} == {key: image for key, (image, _) in before.items()}
    assert all(after[key][1]["confidence"] != before[key][1]["confidence"] for key in before)
    rescored = shards(ready)
    shutil.rmtree(ready.folder / "data/synthetic")
    assert generate(ready)["run"]["made"] == 0
    assert shards(ready) == rescored


def test_parts_made_in_any_order_give_the_bytes_of_one_run(ready, tmp_path, monkeypatch):
    generate(ready)
    before, metrics = shards(ready), (ready.folder / "data/metrics/generate.json").read_text()
    shutil.rmtree(ready.folder / "data/synthetic")
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "elsewhere"))
    third = generate(ready, "--part", "3/3")
    assert not (ready.folder / "data/synthetic").exists()
    assert third["run"]["made"] == third["num_images"] > 0
    error = ready("generate", "--merge").error
    assert "of 4 shards are not made yet (first: train-s" in error
    assert generate(ready, "--part", "1/3")["run"]["made"] > 0
    assert generate(ready, "--part", "2/3")["run"]["made"] > 0
    assert generate(ready, "--merge")["run"]["made"] == 0
    assert shards(ready) == before
    assert (ready.folder / "data/metrics/generate.json").read_text() == metrics


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "3", "1/0"])
def test_a_part_that_cannot_be_is_a_usage_error(ready, part):
    outcome = ready("generate", "--part", part)
    assert outcome.code == 2
    assert "expected I/N with 1 <= I <= N" in outcome.stderr


def test_a_pool_elsewhere_is_reused_and_its_damage_named(ready, tmp_path, monkeypatch):
    first = generate(ready)
    before = shards(ready)
    shutil.move(ready.folder / "data/synthetic", tmp_path / "pool")
    reuse = f"generate.reuse=['{tmp_path / 'pool'}']"
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "second"))
    assert generate(ready, "-S", reuse)["run"] == {"made": 0, "reused": first["num_images"]}
    assert shards(ready) == before
    shutil.rmtree(ready.folder / "data/synthetic")
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "third"))
    damaged = tmp_path / "pool/train-s0500-000000.tar"
    content = bytearray(damaged.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 1
    damaged.write_bytes(content)
    outcome = ready("generate", "--json", "-S", reuse)
    assert f"{damaged} is missing or damaged" in outcome.stderr
    assert 0 < json.loads(outcome.stdout)["run"]["made"] < first["num_images"]
    assert shards(ready) == before
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "fourth"))
    for name in ("manifest.json", "index.parquet"):
        content = bytearray((tmp_path / "pool" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "pool" / name).write_bytes(content)
        shutil.rmtree(ready.folder / "data/synthetic", ignore_errors=True)
        assert f"{name} is missing or damaged" in ready("generate", "-S", reuse).error
    nothing = f"generate.reuse=['{tmp_path / 'nothing'}']"
    assert (
        "no pool of images (SHA256SUMS is missing)" in ready("generate", "-S", nothing, "-S", "generate.seed=9").error
    )


def test_the_pool_in_place_is_reused_when_the_work_directory_is_new(ready, tmp_path, monkeypatch):
    first, before = generate(ready), shards(ready)
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "new"))
    assert generate(ready)["run"] == {"made": 0, "reused": first["num_images"]}
    assert shards(ready) == before


def test_a_filter_drops_with_counts_and_without_making_anything(ready):
    first = generate(ready)
    before = images(ready)
    distances = sorted(meta["source_distance"] for _, meta in before.values() if meta["source_key"])
    limit = distances[len(distances) // 2]
    ready.write(
        data={"source": str(ready.folder), "shard_size": 10},
        compare={"arms": ["original", "targeted", "flood"]},
        generate={"filter": {"min_source_distance": limit}},
    )
    filtered = generate(ready)
    kept = images(ready)
    expected = {key for key, (_, meta) in before.items() if not 0 <= meta["source_distance"] < limit}
    assert set(kept) == expected
    assert filtered["run"]["made"] == 0
    assert filtered["dropped"] == {"min_source_distance": first["num_images"] - len(expected)}
    manifest = json.loads((ready.folder / "data/synthetic/manifest.json").read_text())
    assert manifest["dropped"] == filtered["dropped"]
    rows = (ready.folder / "data/synthetic/dropped.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == set(before) - expected
    index = read_table(ready.folder / "data/synthetic/index.parquet")
    assert set(index["key"]) == expected
    assert f"dropped: {len(rows)} by min_source_distance" in ready("generate").stdout
    everything = generate(ready, "-S", "generate.filter={min_confidence: 1}")
    assert everything["num_images"] == 0
    assert everything["shards"] == 0


def test_images_can_be_stored_as_webp_or_jpeg(ready):
    for kind in ("webp", "jpg"):
        generate(ready, "-S", f"generate.image_format={kind}")
        tar = sorted((ready.folder / "data/synthetic").glob("*.tar"))[0]
        sample = next(read_shard(tar))
        assert sample.extension == kind
        assert decode_array(sample.image).shape == (3, 16, 16)
    card = (ready.folder / "data/synthetic/README.md").read_text()
    assert "- name: jpg\n    dtype: image" in card


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


def test_a_clip_score_is_added_and_filtered_by_only_when_asked(ready, tmp_path):
    from tiny_models import clip

    generate(ready)
    assert not any("clip_score" in meta for _, meta in images(ready).values())
    clip(tmp_path / "clip")
    named = f"generate.clip_model={tmp_path / 'clip'}"
    assert generate(ready, "-S", named)["run"]["made"] == 0
    scores = sorted(meta["clip_score"] for _, meta in images(ready).values())
    assert -1 <= scores[0] < scores[-1] <= 1
    index = read_table(ready.folder / "data/synthetic/index.parquet")
    assert sorted(index["clip_score"].tolist()) == scores
    middle = scores[len(scores) // 2]
    kept = generate(ready, "-S", named, "-S", f"generate.filter.min_clip_score={middle}")
    assert kept["dropped"] == {"min_clip_score": sum(score < middle for score in scores)}
    error = ready("generate", "-S", "generate.filter.min_clip_score=0.1").error
    assert "filter.min_clip_score needs clip_model" in error


def test_a_pretrained_model_is_pinned_by_fit_and_generates(ready, tmp_path):
    from tiny_models import stable_diffusion
    from tiny_pipelines import with_safety_checker

    model = stable_diffusion(tmp_path / "sd", size=32)
    named = [part for value in ("backend=text_to_image", f"model={model}") for part in ("-S", f"generate.{value}")]
    assert "run `gdacli fit` first" in ready("generate", *named).error
    pinned = ready("fit", *named, "--json")
    assert pinned.code == 0, pinned.stderr
    assert json.loads(pinned.stdout)["files"]["model"]["name"] == str(model)
    generate(ready, *named)
    _, meta = next(iter(images(ready).values()))
    assert meta["prompt"].startswith("a photo of ")
    assert (meta["native_size"], meta["image_size"], meta["noise_schedule"]) == (32, 16, "native")
    assert (meta["backend"], meta["model"]) == ("text_to_image", str(model))
    weights = model / "unet/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    error = ready("generate", *named).error
    assert "has other bytes than `gdacli fit` wrote down: run it again" in error
    assert ready("fit", *named).code == 0
    assert generate(ready, *named)["run"]["made"] > 0
    checked = with_safety_checker(model, tmp_path / "checked", -1.5)
    flagged = [*named, "-S", f"generate.model={checked}"]
    assert ready("fit", *flagged).code == 0
    (ready.folder / "data/synthetic").rename(tmp_path / "synthetic")
    assert "images is of one colour: a safety checker blackened them, or" in ready("generate", *flagged).error
    assert not (ready.folder / "data/synthetic").exists()
    assert "run `gdacli fit`" in ready("generate", *flagged, "-S", "generate.safety_checker=false").error
    error = ready("fit", "-S", "generate.backend=text_to_image", "-S", f"generate.model={tmp_path / 'none'}").error
    assert "does not exist here: name a folder that this machine sees, or a Hub id" in error
    chosen = ("-S", "generate.backend=text_to_image", "-S")
    error = ready("fit", *chosen, f"generate.model={ready.folder / 'data/source'}").error
    assert error.endswith("holds no model_index.json; allowed: a folder in diffusers' layout, or a Hub id")
    error = ready("fit", "-S", "generate.backend=glide", "-S", f"generate.model={model}").error
    assert error.endswith("sd is a folder; allowed: the file of the weights, or its URL")
    error = ready("fit", "-S", "generate.backend=text_to_image", "-S", "generate.model=nobody/nothing").error
    assert "run `hf download nobody/nothing` where there is a network" in error
    error = ready("fit", *named, "-S", "generate.lora=nobody/nothing").error
    assert "generate.lora: found 'nobody/nothing'" in error
    assert "run `hf download nobody/nothing` where there is a network" in error
    assert "prompt goes with backend: " in ready("generate", "-S", "generate.prompt=x").error


def test_diffusemix_is_the_only_addition_or_on_the_selected_images_alone(ready, tmp_path, shapes):
    from tiny_models import instruct_pix2pix, stable_diffusion

    model, fractals = instruct_pix2pix(tmp_path / "model"), tmp_path / "fractals"
    fractals.mkdir()
    arm = {"add": "synthetic", "strengths": [1.0], "train": {}}
    arms = {"diffusemix": {"select": "all", **arm}, "ours": {"select": "cluster", **arm}}
    settings = {"backend": "diffusemix", "model": str(model), "fractals": str(fractals), "prompt": ["Autumn", "snowy"]}

    def write(compared: list[str], **changed: object) -> None:
        ready.write(
            data={"source": str(shapes), "shard_size": 10},
            arms=arms,
            compare={"arms": ["original", *compared]},
            generate={**settings, **changed},
        )

    write(["ours", "diffusemix"])
    assert "holds none of *.png, *.jpg, *.jpeg, *.webp: name another folder" in ready("fit").error
    shutil.copy(next(shapes.rglob("*.png")), fractals / "one.png")
    write(["ours", "diffusemix"], model=str(stable_diffusion(tmp_path / "sd", size=32)))
    ready.ok("select", "fit")
    assert "found a StableDiffusionPipeline; allowed: StableDiffusionInstructPix2PixPipeline" in ready("generate").error
    write(["ours", "diffusemix", "flood"])
    assert "arms.flood: add: sampled makes images from noise alone" in ready("fit").error
    write(["ours"])
    ready.ok("fit")
    few = generate(ready)["num_images"]
    write(["ours", "diffusemix"])
    grown = generate(ready)["run"]
    assert grown["reused"] == few
    assert grown["made"] > 0
    made = images(ready)
    source = read_table(ready.folder / "data/source/index.parquet")
    label_of = dict(zip(source["key"], source["label"], strict=True))
    assert {meta["source_key"] for _, meta in made.values()} == set(
        np.array(source["key"])[np.array(source["split"]) == "train"]
    )
    for _, meta in made.values():
        assert meta["prompt"] in ("Autumn", "snowy")
        assert (meta["fractal"], meta["start_timestep"]) == ("one.png", 999)
        assert meta["class_name"] == CLASSES[label_of[meta["source_key"]]]
    assert len({meta["prompt"] for _, meta in made.values()}) == 2
    mixes = json.loads(ready("mix", "--json").stdout)["arms"]
    assert mixes["ours"]["synthetic"] == few < mixes["diffusemix"]["synthetic"] == len(made)


def test_a_damaged_generator_makes_no_image(ready):
    weights = ready.folder / "data/generator/class_conditional/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[9000] ^= 1
    weights.write_bytes(content)
    error = ready("generate").error
    assert f"{weights.relative_to(ready.folder)}: " in error
    assert error.endswith("run `gdacli fit`, or `dvc checkout --force data/generator/class_conditional`")


def test_a_pretrained_model_is_fine_tuned_by_fit(ready, tmp_path):
    from tiny_models import stable_diffusion

    model = stable_diffusion(tmp_path / "sd", size=32)
    named = [part for value in ("backend=text_to_image", f"model={model}") for part in ("-S", f"generate.{value}")]
    lora = ("-S", "fit.lora={updates: 2, batch_size: 2, rank: 2, lr: 0.1}")
    assert ready("fit", *named).code == 0
    generate(ready, *named)
    plain = images(ready)
    first = ready("fit", *named, *lora)
    assert "text_to_image: 2 updates of low-rank layers beside " in first.stdout
    assert generate(ready, *named)["run"]["made"] == len(plain)  # another model is another identity
    assert all(image != plain[key][0] for key, (image, _) in images(ready).items())
    assert {meta["model"] for _, meta in images(ready).values()} == {f"{model} + fit.lora"}
    assert (ready.folder / "data/plots/fit.csv").read_text().startswith("updates,loss\n2,")
    again = ready("fit", *named, *lora)
    assert "was finished before, taken from" in again.stderr
    assert again.stdout == first.stdout
    assert generate(ready, *named)["run"]["made"] == 0
    error = ready("fit", *lora).error
    assert "fit.lora fine-tunes a model of generate.backend: text_to_image that has no generate.lora; found" in error


def test_shards_of_several_batches_that_grew_have_the_bytes_of_new_ones(ready, tmp_path, monkeypatch):
    """28 images a shard in batches of 16: the second batch is filled up, and a grown shard is packed anew."""
    ready.ok("prepare -S data.shard_size=100", "probe", "select", "fit")
    shared = ["-S", "compare.arms=[targeted, flood]", "-S", "generate.batch_size=16"]
    few, many = ([f"arms.targeted.variants={number}", *shared] for number in (1, 2))
    generate(ready, "-S", *few)
    grown = generate(ready, "-S", *many)
    assert grown["run"]["reused"] == (grown["num_images"] - 5) // 2 + 5
    assert (grown["num_images"] - 5) / (grown["shards"] - 1) > 16
    grown_shards = shards(ready)
    shutil.rmtree(ready.folder / "data/synthetic")
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "new"))
    again = generate(ready, "-S", *many)
    assert again["run"] == {"made": again["num_images"], "reused": 0}
    assert shards(ready) == grown_shards


def test_two_workers_make_the_bytes_of_one(ready, tmp_path, monkeypatch):
    write_grain(ready)
    options = ("-S", "generate.backend=grain", "-S", "arms.targeted.strengths=[0.5, 0.8]")
    ready.ok("fit -S generate.backend=grain")
    made = []
    for workers in (1, 2):
        monkeypatch.setenv("GDACLI_WORK", str(tmp_path / f"work{workers}"))
        shutil.rmtree(ready.folder / "data/synthetic", ignore_errors=True)
        result = generate(ready, *options, "-S", f"generate.workers={workers}")
        assert result["run"] == {"made": result["num_images"], "reused": 0}
        made.append(shards(ready))
    assert made[0] == made[1]


def test_what_a_filter_dropped_is_taken_too_by_a_fresh_work_directory(ready, tmp_path, monkeypatch):
    generate(ready)
    middle = sorted(meta["confidence"] for _, meta in images(ready).values())[8]
    some = f"generate.filter.min_confidence={middle}"
    result, before = generate(ready, "-S", some), shards(ready)
    assert result["dropped"] == {"min_confidence": 8}
    assert sum(result["per_arm"].values()) == result["num_images"]
    assert len(list((ready.folder / "data/synthetic/dropped").glob("*.tar"))) > 0
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "new"))
    assert generate(ready, "-S", some)["run"]["made"] == 0
    assert shards(ready) == before


def shard_of(listing: Path) -> list[str]:
    return json.loads(listing.read_bytes().partition(b"\n")[2])["identities"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_keeps_the_finished_shards(ready, tmp_path, workers):
    """A limit on the size of a file fails a write like a full disk; one shard has many images and exceeds it."""
    small_and_large = ["-S", "compare.arms=[targeted, flood]", "-S", "arms.flood.num_images=60"]
    if workers == 2:
        write_grain(ready)
        small_and_large += ["-S", "generate.backend=grain"]
        ready.ok("fit -S generate.backend=grain")
    with files_of_at_most(100_000):
        limited = ready("generate", *small_and_large, "-S", f"generate.workers={workers}")
    assert limited.code == 1
    assert limited.error.startswith("the disk is full (")
    assert limited.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in limited.stderr
    assert not (ready.folder / "data/synthetic").exists()
    finished = list((tmp_path / "work").rglob("*.listing"))
    assert finished or workers == 2
    assert len(list((tmp_path / "work").rglob("*.tar"))) == len(finished)
    result = generate(ready, *small_and_large)
    assert result["run"]["made"] >= 60
    assert result["run"]["reused"] == sum(len(shard_of(path)) for path in finished)


def test_a_backend_of_the_project_is_one_file(ready):
    """The file of docs/own-generator.md."""
    chosen = ("-S", "generate.backend=grain")
    assert "found 'grain', allowed: class_conditional, " in ready("generate", *chosen).error
    code = write_grain(ready)
    file = ready.folder / "generators/grain.py"
    for command in re.findall(r"^\$ gdacli (.*)$", OWN_GENERATOR.read_text(), re.MULTILINE):
        assert ready(*command.split()).code == 0
    made = images(ready)
    source = {
        each.key: decode_array(each.image).astype(int)
        for path in (ready.folder / "data/source").glob("train-*.tar")
        for each in read_shard(path)
    }

    def moved(strength: float) -> float:
        generate(ready, *chosen, "-S", f"arms.targeted.strengths=[{strength}]")
        pairs = [(image, meta["source_key"]) for image, meta in images(ready).values() if meta["source_key"]]
        return float(np.mean([np.abs(decode_array(image) - source[key]).mean() for image, key in pairs]))

    assert 0 < moved(0.25) < moved(1.0)
    assert generate(ready, *chosen)["run"]["made"] == 0
    assert images(ready) == made
    assert ready("regenerate", "--key", next(iter(made))).code == 0
    data = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    changed = code.replace("100 * strength", "90 * strength")  # without a new VERSION
    file.write_text(changed.replace("import torch\n", f"{data}import torch\n"))
    assert generate(ready, *chosen)["run"]["made"] == len(made)
    for wrong, message in (
        (
            code.replace("torch.uint8)", "torch.int64)"),
            "grain made torch.int64 [32, 3, 16, 16]; allowed: torch.uint8 [32,",
        ),
        (code.replace('"prompt"', '"words"'), "grain describes an image by {'words': "),
        (code.replace("VERSION = 1", "VERSION = one()"), "must be plain constants: write them out"),
        (code.replace("def load(", "def lode("), "grain.py: has no function `load`"),
        (code.replace("film", "fi\0lm").replace("Film", "\0"), "this is no Python that runs"),
        (
            code.replace("OPTIONS = ()", 'OPTIONS = ("strength",)'),
            "OPTIONS ('strength',); allowed: an integer, and a tuple",
        ),
        (
            code.replace("OPTIONS = ()", 'OPTIONS = (); MODEL = "folder"'),
            "found MODEL 'folder'; allowed: 'pipeline' or",
        ),
        (code.replace("def load(", "def load"), "grain.py:9: "),
    ):
        file.write_text(wrong)
        assert message in ready("generate", *chosen).error
