import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Project
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError
from test_dataset_folder import SHARED, write
from tiny_project import ODD_CLASSES, SHARE, SIZE, write_finished, write_odd_source, write_results

from gdacli.artifacts import read_json
from gdacli.errors import GdaError
from gdacli.pool import dataset_card as small_card
from gdacli.push_section import License
from gdacli.shards import Shard
from gdacli.sharing import markdown
from gdacli.sharing.dataset_card import Config, DatasetFacts, dataset_card, size_category
from gdacli.sharing.findings import about_copies
from gdacli.sharing.licenses import license_metadata
from gdacli.sharing.model_folder import write_model
from gdacli.sharing.origin import hub_id, source_title
from gdacli.tables import read_table, write_table

MODEL = Path("data/share/model")
PAGE = MarkdownIt("commonmark").enable("table").enable("strikethrough")
TYPED = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["no", "1.0", "null", "~", "---", "# a", "1. a", "- a", "a|b", "<b>&amp;", "[a](b)", "```", "a\nb"]
    ),
)
FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


def facts(names: list[str], **changes: Any) -> DatasetFacts:
    meta = {"prompt": "a thing", "seed": 1, "synthetic": True}
    counts = {"s0500": np.arange(len(names))}
    values: dict[str, Any] = {
        "repo_id": "me/shapes",
        "revision": "git-0123456789ab",
        "md5": None,
        "arm": None,
        "manifest": {"class_names": names, "num_images": int(counts["s0500"].sum()), "dropped": {}},
        "counts": counts,
        "num_pool": 100,
        "configs": [Config("default", "", "png", meta, {"train": [Shard("train-0.tar", "ab", 5)]}, {"train": 10})],
        "num_train": 9,
        "data_source": "photos",
        "source_datasets": ["original"],
        "arms": {},
        "share": SHARE,
        "features": "probe",
        "found": (None, "It was not evaluated."),
    }
    return DatasetFacts(**{**values, **changes})


def as_read(text: str) -> str:
    """Return what a reader sees of what was typed: one line, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", " ".join(text.split()))


def cells(text: str) -> list[list[str]]:
    """Return the text of the cells of the tables of a page, as a reader sees it."""
    rows: list[list[str]] = []
    tokens = PAGE.parse(text)
    for before, token in zip(tokens, tokens[1:], strict=False):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("td_open", "th_open"):
            assert all(child.type in ("text", "text_special") for child in token.children or [])
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


@settings(max_examples=40)
@given(st.lists(st.lists(TYPED, min_size=2, max_size=2), min_size=1, max_size=4))
def test_a_table_shows_what_was_typed(rows):
    shown = cells(markdown.table([["one", "two"], *rows]))
    assert shown[1:] == [[as_read(cell) for cell in row] for row in rows]


@given(TYPED)
def test_a_line_shows_what_was_typed(text):
    children = [
        child
        for each in PAGE.parse(f"{markdown.escaped(text)}\n")
        if each.type == "inline"
        for child in each.children or []
    ]
    shown = "".join(child.content for child in children)
    assert shown == as_read(text)
    assert {child.type for child in children} <= {"text", "text_special"}


@settings(max_examples=10)
@example(["no", "1.0", "null", "~", "a|b <i>*é", "a\n---\nb", "`", "\x00\x85\u2028", "{{ x }}"], "---\n# a\n")
@example(["a\x85", "b\u2028c", "\u2029d", "e\nf"], "g\x85")
@given(st.lists(TYPED.filter(lambda name: name.strip() != ""), min_size=2, max_size=5, unique=True), TYPED)
def test_cards_are_read_back_as_they_were_meant(names, limits):
    from datasets import DatasetInfo

    share = {**SHARE, "limits": limits or None, "pretty_name": limits or None}
    text = dataset_card(facts(names, share=share))
    card = DatasetCard(text)
    data: Any = card.data
    assert data.pretty_name == (limits or "Synthetic variants of photos")
    info = DatasetInfo._from_yaml_dict(data.dataset_info)
    assert info.features["cls"].names == names
    assert info.splits["train"].num_examples == 5
    if not set("\x85\u2028\u2029") & set("".join([*names, limits])):  # which the Hub's own writer loses
        assert DatasetCard(str(card)).data.to_dict() == card.data.to_dict()
    shown = [row[0] for row in cells(FRONT.sub("", text))]
    assert [as_read(name) for name in names] == shown[-len(names) - 1 : -1]
    small: Any = DatasetCard(small_card(names, "png", {"seed": 1})).data
    assert DatasetInfo._from_yaml_dict(small.dataset_info).features["cls"].names == names


def test_the_name_of_a_licence_is_escaped():
    terms = {"id": "other", "name": "<b>ours</b> [x](y)", "link": None, "stated_in": "LICENSE"}
    text = dataset_card(facts(list(ODD_CLASSES), share={**SHARE, "license": terms, "source_license": terms}))
    assert FRONT.sub("", text).count(f"**{markdown.escaped(terms['name'])}**") == 2


def test_a_long_table_is_folded():
    assert "<details>" in dataset_card(facts([f"class {number}" for number in range(31)]))
    assert "<details>" not in dataset_card(facts([f"class {number}" for number in range(30)]))


@pytest.mark.parametrize(("count", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M")])
def test_sizes_have_the_hubs_names(count, name):
    assert size_category(count) == name


def test_licences_have_the_hubs_names():
    other = {"id": "other", "stated_in": "x", "name": "ours", "link": "https://example.org"}
    assert license_metadata(other) == {
        "license": "other",
        "license_name": "ours",
        "license_link": "https://example.org",
    }
    assert license_metadata(SHARE["license"]) == {"license": "cc-by-4.0"}
    for wrong, said in (
        ({"id": "cc-by-4", "stated_in": "x"}, r"allowed: the Hub's identifiers \(cc-by-4.0"),
        ({"id": "other", "stated_in": "x"}, "name: missing"),
        ({"id": "mit", "stated_in": "x", "name": "ours"}, "go with id: other"),
        ({"id": "mit", "stated_in": ""}, "at least 1 character"),
    ):
        with pytest.raises(ValidationError, match=said):
            License.model_validate(wrong)


def test_a_source_has_a_name_without_its_folder(tmp_path):
    (tmp_path / "shoes").mkdir()
    assert (hub_id(str(tmp_path / "shoes")), source_title(str(tmp_path / "shoes"))) == (None, "shoes")
    assert (hub_id("user/shoes"), source_title("user/shoes")) == ("user/shoes", "user/shoes")
    assert hub_id("digits") is None


def test_copies_are_said_with_how_many_were_looked_for():
    found = {"images": 9, "exact": 1, "near": 2, "near_looked_for": 5, "near_looked_among": 9}
    copies = {"memorised": found, "unchanged": {**found, "images": 0}, "side": 8}
    said = about_copies({"copies": copies, "split": "test", "provenance": {"imported": {}}})
    assert said == [
        "1 of 9 images equal a train image other than their source in every pixel; 2 more of 5 that were compared "
        "look like one.",
        "They were compared at 8 x 8 pixels: there unrelated images look alike too.",
    ]


def share_model(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"repo_id": "me/shapes", "revision": "git-0123456789ab", "arm": "targeted", "seed": 0}
    arguments |= {"description": "+ variants", "share": SHARE, "data_source": "photos"}
    return write_model(MODEL, **{**arguments, **changes})


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a finished project as working directory."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    write_finished(Project(tmp_path / "project"), write_odd_source(tmp_path / "photos", per_class=6))
    return tmp_path / "project"


def test_the_cards_say_what_was_found(finished):
    write()
    assert "It was not evaluated. Whether they help is not known." in (SHARED / "README.md").read_text()
    assert share_model()["evaluated"] is False
    assert "model-index" not in (MODEL / "README.md").read_text()
    results = write_results()
    write()
    share_model()
    for folder in (SHARED, MODEL):
        assert markdown.escaped(results["headline"]) in (folder / "README.md").read_text()
    card = ModelCard.load(MODEL / "README.md")
    name, evaluated = model_index_to_eval_results(json.loads(json.dumps(card.data.to_dict()["model-index"])))
    assert name == "shapes"
    assert evaluated == card.data.eval_results
    assert {(each.metric_type, each.metric_name): each.metric_value for each in evaluated} == {
        ("accuracy", "accuracy of this model (seed 0)"): 0.97,
        ("accuracy", "accuracy, mean of 2 seeds"): 0.9675,
        ("f1", "macro F1, mean of 2 seeds"): 0.0325,
    }
    assert {(each.dataset_name, each.dataset_split) for each in evaluated} == {("photos", "test")}
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0",
        "timm",
        "image-classification",
    )
    (finished / "data/synthetic/manifest.json").write_text(
        json.dumps({**read_json(finished / "data/synthetic/manifest.json"), "backend_version": "2"})
    )
    write()
    assert "of another version of the images" in (SHARED / "README.md").read_text()
    older = {key: value for key, value in results["provenance"].items() if key != "imported"}
    (finished / "data/evaluation/results.json").write_text(json.dumps({**results, "provenance": older}))
    write()
    share_model()
    for folder in (SHARED, MODEL):
        assert "The evaluation at hand is of an older gdacli" in (folder / "README.md").read_text()


def test_the_quality_is_in_the_card(finished):
    quality = {
        "pool": "",
        "strength": 0.5,
        "diversity": {"between_variants": None, "to_source": 0.1},
        "num_images": 10,
        "frechet": 1.25,
        "kernel": {"mean": 0.01, "sd": 0.1},
        "neighbours": {"precision": 0.5, "recall": 0.6, "density": 0.7, "coverage": 0.8},
        "faithfulness": 97.5,
    }
    few = {**quality, "strength": None, "frechet": None, "kernel": None, "neighbours": None}
    few["diversity"] = None
    results = write_results(quality=[quality, few, {**quality, "pool": "rivals", "strength": 0.7}])
    write()
    rows = cells((SHARED / "README.md").read_text())
    assert "0.7" not in {row[0] for row in rows}, "of another pool"
    assert ["0.5", "10", "1.250", "0.0100", "0.50", "0.60", "0.70", "0.80", "97.5"] in rows
    assert ["sampled", "10", "-", "-", "-", "-", "-", "-", "97.5"] in rows
    provenance = {**results["provenance"], "imported": {"rivals": results["provenance"]["pool"]}, "pool": None}
    write_results(quality=results["quality"], provenance=provenance)
    shutil.copytree("data/synthetic", "data/pools/rivals")
    mix = read_table(Path("data/mix/targeted.parquet"))
    mix["shard"] = [name.replace("data/synthetic", "data/pools/rivals") for name in mix["shard"]]
    write_table(Path("data/mix/rivals.parquet"), mix)
    write(arm="rivals")
    rows = cells((SHARED / "README.md").read_text())
    assert ["0.7", "10", "1.250", "0.0100", "0.50", "0.60", "0.70", "0.80", "97.5"] in rows
    assert len([row for row in rows if row[-1] == "97.5"]) == 1


def test_a_shared_model_loads_with_timm_and_with_gdacli(finished):
    import timm
    import torch

    import gdacli.timm_models  # noqa: F401 - registers our architecture
    from gdacli.models import load_checkpoint

    share_model()
    before = (MODEL / "README.md").read_bytes()
    share_model()
    assert (MODEL / "README.md").read_bytes() == before
    assert sorted(path.name for path in MODEL.iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
    ]
    assert b"import gdacli.timm_models" in before
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = load_checkpoint(Path("data/train/targeted-0")).eval()(images)
        net: Any = timm.create_model(f"local-dir:{MODEL}", pretrained=True).eval()
        assert torch.equal(net(images), expected)
        assert torch.equal(load_checkpoint(MODEL).eval()(images), expected)
    assert net.pretrained_cfg["label_names"] == list(ODD_CLASSES)


def test_what_a_model_lacks_is_said(finished):
    with pytest.raises(GdaError, match="push.model_license: missing"):
        share_model(share={**SHARE, "model_license": None})
    with pytest.raises(GdaError, match="run `gdacli train --arm targeted --seed 3` first"):
        share_model(seed=3)
    (finished / "data/train/targeted-0/config.json").write_text("{}")
    with pytest.raises(GdaError, match=r"config.json: .*dvc checkout --force data/train/targeted-0"):
        share_model()
