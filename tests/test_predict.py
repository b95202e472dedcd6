"""`gdacli predict` as users run it, beside what `gdacli evaluate` saw."""

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Project, encoded, invoke, shape
from PIL import Image
from test_docs import ROOT, commands

from gdacli.image_files import decoded_batches, find_images
from gdacli.images import decode, resize_to
from gdacli.models import create_model, load_checkpoint, save_weights, timm_config
from gdacli.tables import read_table

NAMES = ["disc", "ring_shape", "square"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give a project that was evaluated and whose arm was exported to `out`; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("evaluated")
        patch.setenv("GDACLI_WORK", str(root / "work"))
        project = Project(root / "project")
        project.folder.mkdir()
        one = {"arms": ["original"], "seeds": [0]}
        # larger than the model's images, so that they must be resized
        project.write(data={"source": str(shapes)}, compare=one, train={"image_size": 12})
        project.ok("prepare", "probe", "select", "mix", "train", "evaluate")
        project.ok("export --format imagefolder --arm original -o out")
    return project.folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an untrained classifier of images of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp("model")
    net = create_model("convnet", 3, {"width": 4}, 0, image_size=16)
    save_weights(net, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(timm_config("convnet", net, NAMES)))
    return folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def predicted(*arguments: str | Path) -> list[dict[str, str]]:
    outcome = invoke("predict", *map(str, arguments))
    assert outcome.code == 0, outcome.stderr
    return rows(outcome.stdout)


def test_it_predicts_what_evaluate_predicted(evaluated, tmp_path):
    out = tmp_path / "test.csv"
    model = evaluated / "data/train/original-0"
    outcome = invoke("predict", str(evaluated / "out/test"), "--model", str(model), "-o", str(out))
    assert outcome.code == 0, outcome.stderr
    table = read_table(evaluated / "data/evaluation/predictions.parquet")
    expected = {
        key: (NAMES[label], confidence)
        for key, label, confidence in zip(table["key"], table["prediction"], table["confidence"], strict=True)
    }
    assert outcome.stdout.startswith(f"{len(expected)} images: ")
    found = {Path(row["file"]).stem: row for row in rows(out.read_text())}
    assert found.keys() == expected.keys()
    for key, (name, confidence) in expected.items():
        assert found[key]["class"] == name
        assert float(found[key]["probability"]) == pytest.approx(confidence, rel=2e-6)


def test_any_image_is_read_as_prepare_reads_it(model, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(shape(1, rng, 24)).resize((24, 16))
    folder = tmp_path / "photos" / "deep" / "er"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a.png": encoded(image),
        "b.png": encoded(image.convert("RGBA").rotate(10)),
        "c.png": encoded(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 100),
        "d.jpg": encoded(image, "JPEG", exif=exif),
        "e.gif": encoded(image, "GIF"),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("no image")
    found = predicted(tmp_path / "photos", "--model", model, "--top", "3")
    assert [Path(row["file"]).name for row in found] == [name for name in files for _ in range(3)]
    resize: Any
    for resize in ("squash", "pad"):
        paths = find_images(tmp_path / "photos")
        kinds: dict[str, Any] = {"resize": resize, "on_bad_image": "error", "batch_size": 2, "threads": 2}
        made = torch.cat([batch for _, _, batch in decoded_batches(paths, image_size=16, **kinds)])
        expected = np.stack([np.asarray(resize_to(decode(content), 16, resize)) for content in files.values()])
        assert torch.equal(made, torch.from_numpy(expected).permute(0, 3, 1, 2))
    squashed = predicted(tmp_path / "photos", "--model", model, "--resize", "squash", "--top", "3")
    assert squashed != found


def test_probabilities_are_the_softmax_in_falling_order(model, shapes, tmp_path):
    files = find_images(shapes)
    found = predicted(shapes, "--model", model, "--top", "3")
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    with torch.inference_mode():
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        expected = load_checkpoint(model).eval()(x).softmax(1)
    for number, file in enumerate(files):
        three = found[3 * number : 3 * number + 3]
        assert {row["file"] for row in three} == {str(file)}
        values = [float(row["probability"]) for row in three]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert values == pytest.approx([float(expected[number, NAMES.index(row["class"])]) for row in three], rel=1e-4)
    assert predicted(files[5], "--model", model) == found[15:16]
    assert predicted(shapes, "--model", model, "--top", "3") == found


def test_json_has_the_counts(model, shapes):
    outcome = invoke("predict", str(shapes / "disc"), "--model", str(model), "--json")
    result = json.loads(outcome.stdout)
    assert (result["images"], result["skipped"], sum(result["classes"].values())) == (12, 0, 12)
    assert [sorted(row) for row in result["predictions"]] == [["class", "file", "probability"]] * 12
    assert "predict: 12/12 images" in outcome.stderr


def test_images_that_do_not_decode(model, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "photos")
    bad = tmp_path / "photos/disc/003.png"
    bad.write_bytes(bad.read_bytes()[:60])
    arguments = ("predict", str(tmp_path / "photos"), "--model", str(model), "-o", str(tmp_path / "p.csv"))
    outcome = invoke(*arguments)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.error.startswith(f"{bad}: ")
    assert "give --on-bad-image skip" in outcome.error
    assert not (tmp_path / "p.csv").exists()
    outcome = invoke(*arguments, "--on-bad-image", "skip")
    assert outcome.code == 0
    assert f"skipped: {bad}: " in outcome.stderr
    assert outcome.stdout.startswith("35 images, 1 undecodable skipped: ")
    assert len(rows((tmp_path / "p.csv").read_text())) == 35
    outcome = invoke("predict", str(bad), "--model", str(model), "--on-bad-image", "skip")
    assert "none of the 1 images decodes" in outcome.error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("nowhere", "--model", "MODEL"), "nowhere: there is no such folder or file"),
        (("MODEL", "--model", "MODEL"), "found no image in it (.bmp, "),
        (("SHAPES", "--model", "SHAPES"), "config.json does not exist: SHAPES is no checkpoint"),
        (("SHAPES", "--model", "MODEL", "--top", "4"), "--top: found 4; allowed: 1 to 3"),
    ],
    ids=lambda value: None,
)
def test_what_cannot_be_predicted_is_one_line(model, shapes, options, error):
    places = {"MODEL": str(model), "SHAPES": str(shapes)}
    outcome = invoke("predict", *(places.get(word, word) for word in options))
    assert outcome.code == 1
    assert error.replace("SHAPES", str(shapes)) in outcome.error


def test_a_model_without_class_names_is_one_line(model, shapes, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    for names, found in ((None, "no label_names"), (["a", "b"], "2 label_names")):
        (tmp_path / "model/config.json").write_text(json.dumps({**config, "label_names": names}))
        outcome = invoke("predict", str(shapes), "--model", str(tmp_path / "model"))
        assert f"config.json: found {found} for 3 classes" in outcome.error


def test_the_commands_and_snippets_of_the_page_run(evaluated, monkeypatch):
    page = ROOT / "docs/export.md"
    monkeypatch.chdir(evaluated)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(evaluated / "cache"))
    (evaluated / "rejects.csv").write_text("key\n")
    for command in commands(page):
        outcome = invoke(*shlex.split(command.replace("targeted", "original"))[1:])
        assert outcome.code == 0, outcome.stderr
        assert ("onnx" in command) == ("20 random and 28 real images, logits within" in outcome.stdout)
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(snippets) == 4
    for snippet in snippets:
        exec(snippet.replace("targeted", "original"), {})  # noqa: S102
