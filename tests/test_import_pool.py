"""Pools from elsewhere: images of other tools, and pools that gdacli made in another project."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import CLASSES, Project, encoded, shape

from gdacli.artifacts import new_directory, sha256_bytes
from gdacli.brought_pools import take_pool
from gdacli.errors import GdaError
from gdacli.images import decode_array, encode_png
from gdacli.prepared import read_prepared
from gdacli.shards import Sample, read_shard, write_shard
from gdacli.tables import read_table, write_table


def train_keys(project: Project) -> list[str]:
    index = read_table(project.folder / "data/source/index.parquet")
    return [key for key, split in zip(index["key"], index["split"], strict=True) if split == "train"]


def held_out_keys(project: Project) -> list[str]:
    index = read_table(project.folder / "data/source/index.parquet")
    return [key for key, split in zip(index["key"], index["split"], strict=True) if split == "test"]


def rivals(folder: Path, names: list[str], size: int = 24) -> Path:
    """Write images of the last class alone, of another size than the project's."""
    rng = np.random.default_rng(1)
    (folder / CLASSES[2]).mkdir(parents=True)
    for name in names:
        (folder / CLASSES[2] / name).write_bytes(encoded(shape(2, rng, size), "PNG"))
    return folder


def index_of(project: Project, name: str) -> dict:
    return read_table(project.folder / f"data/pools/{name}/index.parquet")


def mixed(project: Project, arm: str, *options: str) -> dict:
    outcome = project("mix", "--arm", arm, "--json", *options)
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["arms"][arm]


def images(folder: Path) -> dict[str, Sample]:
    return {sample.key: sample for shard in sorted(folder.glob("*.tar")) for sample in read_shard(shard)}


def test_images_of_another_tool_become_an_arm_that_is_trained_and_judged(ready, tmp_path):
    sources = train_keys(ready)
    folder = rivals(tmp_path / "My Rival", [f"{sources[0]}_s0300_v0.png", f"{sources[0]}_s0300_v1.png", "free.png"])
    named = f"{CLASSES[2]}/free.png"
    (tmp_path / "sources.csv").write_text(f"file,source_key\n{named},{sources[1]}\nnowhere.png,{sources[1]}\n")
    before = (ready.folder / "params.yaml").read_text()
    outcome = ready("import-pool", str(folder), "--json", "--source-keys", str(tmp_path / "sources.csv"))
    result = json.loads(outcome.stdout)
    assert (result["arm"], result["num_images"], result["num_with_source"]) == ("my_rival", 3, 3)
    assert "1 of its 2 files are not in" in outcome.stderr
    params = yaml.safe_load((ready.folder / "params.yaml").read_text())
    assert params["arms"].pop("my_rival") == {"add": "imported", "pool": "my_rival", "train": {}}
    assert params["compare"]["arms"].pop() == "my_rival"
    assert params == yaml.safe_load(before)
    index = index_of(ready, "my_rival")
    assert sorted(index["source_key"]) == sorted([sources[0]] * 2 + [sources[1]])
    assert sorted(index["strength"].tolist()) == [-1, 300, 300]
    for sample in images(ready.folder / "data/pools/my_rival").values():
        assert decode_array(sample.image).shape == (3, 16, 16), "as prepare resizes"
        assert (sample.label, sample.meta["class_name"]) == (2, CLASSES[2])
    ready.ok("verify", "mix", "train", "evaluate")
    mix = read_table(ready.folder / "data/mix/my_rival.parquet")
    assert mix["origin"].count("synthetic") == 3
    assert {shard for shard, origin in zip(mix["shard"], mix["origin"], strict=True) if origin == "synthetic"} == {
        "data/pools/my_rival/train-000000.tar"
    }
    results = json.loads((ready.folder / "data/evaluation/results.json").read_text())
    quality = {(each["pool"], each["strength"]): each["num_images"] for each in results["quality"]}
    assert {key: number for key, number in quality.items() if key[0]} == {
        ("my_rival", 0.3): 2,
        ("my_rival", None): 1,
    }
    assert {pool for pool, _ in quality} == {"", "my_rival"}
    page = (ready.folder / "data/evaluation/report.html").read_text()
    assert "<th>my_rival</th>" in page
    assert "imported pool my_rival" in page
    assert "+ images of the imported pool my_rival" in (ready.folder / "data/evaluation/report.md").read_text()
    again = ready("import-pool", str(folder))
    assert again.code == 0, "the same pool may be brought in again"
    assert "as it stands in params.yaml" in again.stdout
    rejected = f"my_rival:{index['key'][0]}"
    (ready.folder / "rejects.csv").write_text(f"key\n{rejected}\n")
    assert mixed(ready, "my_rival")["synthetic"] == 2
    assert mixed(ready, "my_rival")["rejected"] == 1
    others = "[0.8]" if index["strength"][0] == 300 else "[0.3]"
    assert mixed(ready, "my_rival", "-S", f"arms.my_rival.strengths={others}")["rejected"] == 0, "it is not asked for"


def test_shards_and_plain_names_say_what_they_know(ready, tmp_path):
    source = train_keys(ready)[0]
    pixels = np.full((3, 16, 16), 90, np.uint8)
    folder = tmp_path / "shards"
    told = {"source_key": source, "strength": 0.8}
    samples = [Sample(f"x{n}", 1, encode_png(pixels + n), "png", told if n else {}) for n in range(3)]
    write_shard(folder / "train-000000.tar", samples)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    ready.ok(f"import-pool {folder} --name other --arm rival -S data.shard_size=2")
    index = index_of(ready, "other")
    assert index["source_key"] == ["", source, source]
    assert index["strength"].tolist() == [-1, 800, 800]
    assert index["shard"] == ["train-000000.tar", "train-000000.tar", "train-000001.tar"]
    kept = images(ready.folder / "data/pools/other")
    assert [each.image for each in kept.values()] == [each.image for each in samples], "bytes that fit are kept"
    assert mixed(ready, "rival", "-S", "arms.rival.strengths=[0.8]")["synthetic"] == 2
    assert mixed(ready, "rival", "-S", "arms.rival.num_images=1")["synthetic"] == 1
    same = [read_table(ready.folder / "data/mix/rival.parquet")["key"] for _ in range(2) if mixed(ready, "rival")]
    assert same[0] == same[1]
    assert "num_images is 4, but the pool data/pools/other has 3 images" in (
        ready("mix", "--arm", "rival", "-S", "arms.rival.num_images=4").error
    )


def test_a_pool_of_another_project_is_taken_as_it_is_and_arms_choose_from_it(ready, generated, tmp_path):
    mine = mixed(ready, "targeted")["synthetic"]
    ready.ok(f"import-pool {generated / 'data/synthetic'} --name theirs")
    theirs = ready.folder / "data/pools/theirs"
    for name in ["index.parquet", *(path.name for path in theirs.glob("*.tar"))]:
        assert (theirs / name).read_bytes() == (generated / "data/synthetic" / name).read_bytes()
    everything = mixed(ready, "theirs")["synthetic"]
    assert everything == len(images(generated / "data/synthetic"))
    assert mixed(ready, "theirs", "-S", "arms.theirs.select=cluster")["synthetic"] == mine
    assert mixed(ready, "theirs", "-S", "arms.theirs.like=flood")["synthetic"] == 5
    first = read_table(ready.folder / "data/mix/theirs.parquet")["key"]
    assert mixed(ready, "theirs", "-S", "arms.theirs.like=targeted")["synthetic"] == mine
    larger = read_table(ready.folder / "data/mix/theirs.parquet")["key"]
    assert set(first) <= set(larger), "a larger draw holds a smaller"
    error = ready("mix", "--arm", "theirs", "-S", "arms.theirs.like=original").error
    assert "arms.theirs.like: original adds no generated images" in error
    for setting, said in {
        "num_images=2": "like and num_images both say",
        "k=2": "k goes with add: copies",
        "pool=null": "add: imported needs pool",
        "pool=A/b": "pool: found 'A/b'",
    }.items():
        like = ("-S", "arms.theirs.like=flood")
        assert said in ready("mix", "--arm", "theirs", *like, "-S", f"arms.theirs.{setting}").error


def change_pool(folder: Path, **changes: object) -> None:
    """Publish a pool again with another manifest, as its maker would have."""
    with new_directory(folder) as target:
        shutil.copytree(folder, target, dirs_exist_ok=True)
        manifest = json.loads((folder / "manifest.json").read_text())
        (target / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        (target / "SHA256SUMS").unlink()


def test_pools_that_do_not_fit_are_one_line_and_change_nothing(ready, generated, tmp_path):
    pool = tmp_path / "pool"
    shutil.copytree(generated / "data/synthetic", pool)
    params = (ready.folder / "params.yaml").read_bytes()
    change_pool(pool, class_names=[*CLASSES[:2], "other"])
    assert (
        f"it has 3 classes, the project 3, and class 2 is 'other' there and {CLASSES[2]!r} here"
        in ready("import-pool", str(pool)).error
    )
    change_pool(pool, class_names=list(CLASSES))
    ready.ok("prepare -S data.test_fraction=0.6")
    assert "sources are test images here (first: " in ready("import-pool", str(pool)).error
    ready.ok("prepare")
    shard = next(pool.glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    assert f"{shard.name}: changed or cut short" in ready("import-pool", str(pool)).error
    shard.write_bytes(whole)
    assert not (ready.folder / "data/pools").exists() or not list((ready.folder / "data/pools").iterdir())
    assert (ready.folder / "params.yaml").read_bytes() == params
    source = ready.folder / "data/source"
    for name in ("index.parquet", "dataset.json"):
        assert (source / name).exists()
    ready.ok(f"import-pool {pool} --arm first")
    elsewhere = tmp_path / "else" / "here"
    shutil.copytree(pool, elsewhere)
    assert "holds a pool from elsewhere (folder pool)" in ready("import-pool", str(elsewhere), "--name", "pool").error
    assert "another arm 'original'" in ready("import-pool", str(pool), "--arm", "original", "--name", "other").error
    assert "--arm: found 'A-b', allowed" in ready("import-pool", str(pool), "--arm", "A-b", "--name", "other").error
    assert not (ready.folder / "data/pools/other").exists()
    assert "--name: found 'A b', allowed" in ready("import-pool", str(pool), "--name", "A b").error


def published_again(folder: Path, spoil: Callable[[Path, dict, dict], None]) -> Path:
    """Publish a pool again with its sums in order, after its manifest, index or shards were changed."""
    with new_directory(folder) as target:
        shutil.copytree(folder, target, dirs_exist_ok=True)
        (target / "SHA256SUMS").unlink()
        manifest, index = json.loads((folder / "manifest.json").read_text()), read_table(folder / "index.parquet")
        spoil(target, manifest, index)
        (target / "manifest.json").write_text(json.dumps(manifest))
        write_table(target / "index.parquet", index)
    return folder


def say_of_first_sample(target: Path, manifest: dict, index: dict, **changes: Any) -> None:
    shard = target / manifest["shards"][0]["name"]
    first, *others = list(read_shard(shard))
    write_shard(shard, [replace(first, **changes), *others])


def first_shard(manifest: dict, name: str) -> None:
    manifest["shards"][0]["name"] = name


def put_held_out_image(target: Path, manifest: dict, index: dict) -> None:
    """Put the image that the test case left beside the pool in the place of the first one."""
    content = (target.parent / "test.png").read_bytes()
    say_of_first_sample(target, manifest, index, image=content)
    index["sha256"][0] = sha256_bytes(content)


HOSTILE = {
    "parent": (lambda _, manifest, __: first_shard(manifest, "../train-out.tar"), "found the shard '../train-out.tar'"),
    "absolute": (lambda _, manifest, __: first_shard(manifest, "/etc/train-a.tar"), "found the shard '/etc/train-a"),
    "not there": (lambda _, manifest, __: first_shard(manifest, "train-none.tar"), "found the shard 'train-none.tar'"),
    "no list": (lambda _, manifest, __: manifest.pop("shards"), "names no shards or no classes"),
    "twice": (lambda _, manifest, __: manifest["shards"].append(manifest["shards"][0]), "names a shard twice"),
    "shard": (lambda _, __, index: index["shard"].__setitem__(0, "../../x.tar"), "is not as index.parquet says"),
    "label": (lambda _, __, index: index["label"].__setitem__(0, 7), "is not as index.parquet says"),
    "source": (
        lambda *pool: say_of_first_sample(*pool, meta={"source_key": "nobody"}),
        "is not as index.parquet says",
    ),
    "column": (lambda _, __, index: index.pop("sha256"), "has no column sha256"),
    "more": (lambda _, manifest, __: manifest["shards"].pop(), "which is in no shard"),
    "test image": (put_held_out_image, "1 of its images are test images themselves"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_pool_that_names_other_files_or_contradicts_itself_is_not_taken(generated, tmp_path, monkeypatch, case):
    spoil, said = HOSTILE[case]
    pool = Path(shutil.copytree(generated / "data/synthetic", tmp_path / "pool"))
    held_out = next(read_shard(generated / "data/source/test-000000.tar"))
    (tmp_path / "test.png").write_bytes(held_out.image)
    shutil.copyfile(next(pool.glob("train-*.tar")), tmp_path / "train-out.tar")
    published_again(pool, spoil)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(GdaError, match=re.escape(said)):
        take_pool(pool, "theirs", read_prepared(generated / "data/source"), {"folder": "pool"}, str(pool))
    assert not [path for path in (tmp_path / "project").rglob("*") if path.is_file()]


def test_names_are_checked_before_anything_is_written(ready, generated):
    pool = generated / "data/synthetic"
    params = (ready.folder / "params.yaml").read_bytes()
    assert "another arm 'original'" in ready("import-pool", str(pool), "--arm", "original").error
    assert "--arm: found 'A b', allowed" in ready("import-pool", str(pool), "--arm", "A b").error
    assert not list((ready.folder / "data").glob("pools/*/*"))
    assert (ready.folder / "params.yaml").read_bytes() == params
    ready.ok(f"import-pool {pool} --name theirs")
    text = (ready.folder / "params.yaml").read_text()
    own = text.replace("pool: theirs,", "pool: theirs, num_images: 2,")
    assert own != text
    (ready.folder / "params.yaml").write_text(own)
    ready.ok(f"import-pool {pool} --name theirs")
    assert (ready.folder / "params.yaml").read_text() == own, "what the arm takes of its pool is the user's to say"


def test_images_that_do_not_fit_are_one_line_and_make_nothing(ready, tmp_path):
    test = held_out_keys(ready)[0]
    assert "there is no such folder" in ready("import-pool", str(tmp_path / "none")).error
    cases = {
        "class": (
            lambda folder: (folder / CLASSES[2]).rename(folder / "wing"),
            "class 'wing' is none of the project's",
        ),
        "leak": (lambda folder: rivals(folder / "in", [f"{test}_s0500_v0.png"]), "1 of its 1 sources are test images"),
        "stranger": (
            lambda folder: rivals(folder / "in", ["nobody_s0500_v0.png"]),
            "are no train images here (first: ",
        ),
        "broken": (lambda folder: (folder / CLASSES[2] / "b.png").write_bytes(b"no image"), "b.png: not an image"),
        "splits": (
            lambda folder: [rivals(folder / "in" / name, ["a.png"]) for name in ("train", "test")],
            "the splits",
        ),
        "csv": (lambda folder: (tmp_path / "keys.csv").write_text("a,b\n1,2\n"), "no CSV with the columns file"),
    }
    for name, (spoil, said) in cases.items():
        folder = rivals(tmp_path / name, ["a.png"])
        spoil(folder)
        folder = folder / "in" if (folder / "in").exists() else folder
        options = ("--source-keys", str(tmp_path / "keys.csv")) if name == "csv" else ()
        assert said in ready("import-pool", str(folder), *options).error, name
    held_out = next(each for each in read_shard(ready.folder / "data/source/test-000000.tar") if each.label == 2)
    (tmp_path / "itself" / CLASSES[2]).mkdir(parents=True)
    (tmp_path / "itself" / CLASSES[2] / "a.png").write_bytes(held_out.image)
    assert "it is the test image itself" in ready("import-pool", str(tmp_path / "itself")).error
    assert not (ready.folder / "data/pools").exists() or not list((ready.folder / "data/pools").iterdir())
    skipping = ready("import-pool", str(tmp_path / "broken"), "-S", "data.on_bad_image=skip")
    assert "1 undecodable skipped" in skipping.stdout


def test_without_a_generator_nothing_is_fitted_and_an_imported_arm_is_trained(ready, tmp_path):
    ready.ok(f"import-pool {rivals(tmp_path / 'rival', ['a.png'])}")
    without = ("-S", "generate.backend=none")
    error = ready("fit", *without).error
    assert "arms.targeted: add: synthetic needs a generator, but generate.backend is none" in error
    for command in ("fit", "generate", "mix"):
        outcome = ready(command, *without, "-S", "compare={arms: [original, rival], seeds: [0]}")
        assert outcome.code == 0, outcome.stderr
    assert sorted(path.name for path in (ready.folder / "data/generator/none").iterdir()) == [
        "SHA256SUMS",
        "model.json",
    ]
    assert json.loads((ready.folder / "data/synthetic/manifest.json").read_text())["num_images"] == 0
    assert read_table(ready.folder / "data/mix/rival.parquet")["origin"].count("synthetic") == 1


def test_the_template_keeps_its_text_when_an_arm_is_added(tmp_path):
    from gdacli.params_file import add_arm
    from gdacli.stages.init import run

    run(tmp_path / "p", "digits")
    path = tmp_path / "p/params.yaml"
    before = path.read_text().splitlines()
    assert add_arm(path, "rival", {"add": "imported", "pool": "rival", "train": {}})
    after = path.read_text().splitlines()
    assert len(after) == len(before) + 1
    changed = [line for line in after if line not in before]
    assert "  rival: {add: imported, pool: rival, train: {}}" in changed
    assert len(changed) == 2, changed
    line = after.index("  rival: {add: imported, pool: rival, train: {}}")
    assert after[line - 1].startswith("  flood: ")
    assert not after[line + 1]  # and below that the comments on the next section
    assert not add_arm(path, "rival", {"add": "imported", "pool": "rival", "train": {}})


def test_an_imported_arm_is_shared_and_exported_without_a_generated_pool(ready, tmp_path):
    source = train_keys(ready)[0]
    folder = rivals(tmp_path / "rival", ["a.png", f"{source}_s0300_v0.png", "b.png"])
    (tmp_path / "sources.csv").write_text(f"file,source_key\n{CLASSES[2]}/a.png,{source}\n")
    ready.ok(f"import-pool {folder} --source-keys {tmp_path / 'sources.csv'}", "mix --arm rival")
    shutil.rmtree(ready.folder / "data/synthetic")
    params = yaml.safe_load((ready.folder / "params.yaml").read_text())
    terms = {"id": "cc-by-4.0", "stated_in": "LICENSE"}
    ready.write(**params | {"push": {"license": terms, "source_license": terms, "generator_license": terms}})
    push = ("push", "--repo-id", "me/rival", "--arm", "rival", "--include-source", "--dry-run")
    outcome = ready(*push)
    assert outcome.code == 0, outcome.stderr
    card = (ready.folder / "data/share/dataset/README.md").read_text()
    assert json.loads((ready.folder / "data/share/dataset/manifest.json").read_text())["images"] == {
        "s0300": 1,
        "variants": 1,
        "sampled": 1,
    }
    assert re.search(r"\| class +\| strength 0.3 \| variants \| sampled \| all \|", card)
    assert "Another tool than gdacli made them" in card
    assert "dvc repro generate" not in card
    rejected = f"rival:{index_of(ready, 'rival')['key'][0]}"
    (ready.folder / "rejects.csv").write_text(f"key\n{rejected}\n")
    said = f"data/mix/rival.parquet lists 1 images that rejects.csv rejects (first: {rejected}): run `gdacli mix --arm"
    assert said in ready(*push).error
    export = ("export", "--format", "parquet", "--arm", "rival", "-o", str(tmp_path / "out"))
    assert said in ready(*export).error
    ready.ok("mix --arm rival")
    assert ready(*push).code == 0
    assert ready(*export).code == 0


@pytest.mark.parametrize(
    "arms",
    [
        "arms:\n    a: {train: {}} # one\n\n# next\nversions: {}\n",
        "arms:\n    a:\n        strengths:\n        - 0.5\n        - 0.3\n        train: {}\n# next\n",
        "arms:\n    a:\n        strengths: [\n            0.5]\n        train:\n\n# next\nversions: {}\n",
        "arms: {a: {train: {}}} # next\nversions: {}\n",
        "arms:\n    a: {train: {}}",
    ],
    ids=["a line", "sequence", "empty", "braces", "no line end"],
)
def test_an_arm_is_added_above_the_comments_on_the_next_section(tmp_path, arms):
    from gdacli.params_file import add_arm

    path = tmp_path / "params.yaml"
    path.write_text("compare: {arms: [a]}\n" + arms)
    before = yaml.safe_load(path.read_text())
    entry = {"add": "imported", "pool": "rival", "train": {}}
    assert add_arm(path, "rival", entry)
    text = path.read_text()
    after = yaml.safe_load(text)
    assert list(after["arms"]) == ["a", "rival"]
    assert after == {**before, "arms": {**before["arms"], "rival": entry}, "compare": {"arms": ["a", "rival"]}}
    assert "# next" not in text or text.index("rival: {add") < text.index("# next")


def test_a_table_says_of_what_its_images_were_made(ready, tmp_path):
    import datasets

    key = train_keys(ready)[0]
    cell = {"bytes": encoded(shape(2, np.random.default_rng(1), 16), "PNG"), "path": None}
    columns = {"image": [cell, cell], "label": [CLASSES[2]] * 2, "source_key": [key, None], "strength": [0.3, None]}
    features = {"image": datasets.Image(), "label": datasets.Value("string"), "source_key": datasets.Value("string")}
    features["strength"] = datasets.Value("float64")
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(tmp_path / "table/train.parquet")
    ready.ok(f"import-pool {tmp_path / 'table'}")
    found = index_of(ready, "table")
    assert list(found["source_key"]) == [key, ""]
    assert found["strength"][0] == 300
