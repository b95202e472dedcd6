"""`advise` on a project's own artifacts, as they come."""

import json
from pathlib import Path

from conftest import Project, write_folder

from gdacli.artifacts import sha256_file


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def advice(project: Project, *arguments: str) -> dict:
    outcome = project("advise", "--json", *arguments)
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_it_says_what_it_needs(project):
    assert "run `gdacli prepare` first" in project("advise").error
    project.ok("prepare")
    assert "run `gdacli probe` first" in project("advise").error


def test_before_generation_it_speaks_of_the_real_images_and_reads_no_test_image(project, tmp_path, monkeypatch):
    project.write(data={"source": str(write_folder(tmp_path / "more", per_class=30)), "validation_fraction": 0.3})
    project.ok("prepare", "probe")
    for shard in (project.folder / "data/source").glob("test-*.tar"):
        shard.unlink()
    before = files(project.folder)
    found = advice(project)
    assert files(project.folder) == before, "it writes nothing into the project"
    figures = found["figures"]
    assert figures["groups"] == []
    assert (figures["copies"], figures["memorised"], figures["verdict"], figures["selection"]) == (None,) * 4
    assert figures["control"]["num_groups"] >= 20
    assert figures["judge"]["name"] == "probe"
    assert figures["judge"]["validation"]["num_images"] >= 20
    assert figures["gap_unit"] == figures["num_features"] / (2 * figures["median_class"])
    project.ok("select")
    again = advice(project)["figures"]
    assert again["selection"]["strategy"] == "cluster"
    assert {**again, "selection": None} == figures, "a second time, from the cache"


def test_after_generation_and_after_the_comparison(ready):
    source, elsewhere = ready.folder / "data/source", ready.folder / "elsewhere"
    elsewhere.mkdir()
    for shard in source.glob("test-*.tar"):
        shard.rename(elsewhere / shard.name)
    page = ready("advise")
    assert page.code == 0, page.stderr
    for shard in elsewhere.iterdir():
        shard.rename(source / shard.name)
    assert "strength 0.5" in page.stdout
    assert "sampled" in page.stdout
    figures = advice(ready)["figures"]
    varied, sampled = figures["groups"]
    assert (varied["name"], varied["has_source"]) == ("0.5", True)
    assert (sampled["name"], sampled["unchanged"], sampled["num_images"]) == ("sampled", None, 5)
    assert sampled["apart"] is None, "five images are too few"
    assert figures["copies"]["num_images"] == varied["num_images"] + 5
    assert 0 <= figures["memorised"]["share"] <= 1
    assert figures["no_verdict"] == "It was not evaluated."

    ready.ok("mix", "train", "evaluate")
    written = json.loads((ready.folder / "data/evaluation/results.json").read_text())["advice"]
    found = advice(ready)
    assert found == written, "the report says the same"
    assert found["figures"]["judge"]["name"] == "original-0"
    assert found["figures"]["verdict"]["arm"] == "targeted"
    assert found["figures"]["doubts"] == []
    (doubt,) = advice(ready, "-S", "train.lr=0.5")["figures"]["doubts"]
    assert doubt.startswith("original-0 was trained with other settings than params.yaml has for it")
    assert "(lr): `gdacli train --arm original --seed 0`" in doubt
    assert found["advice"][0]["rule"] == "verdict"
    html = (ready.folder / "data/evaluation/report.html").read_text()
    assert '<h2 id="advice">What to try next</h2>' in html
    assert "<code>gdacli advise</code>" not in html
    assert "### What to try next" in (ready.folder / "data/evaluation/report.md").read_text()

    results = ready.folder / "data/evaluation/results.json"
    results.write_text(json.dumps({k: v for k, v in json.loads(results.read_text()).items() if k != "advice"}))
    assert "of an older gdacli" in advice(ready)["figures"]["no_verdict"]
    manifest = ready.folder / "data/synthetic/manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert "of another version of the images" in advice(ready)["figures"]["no_verdict"]
