"""The Python functions give what the commands give: same images, settings and seeds, same bytes."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, shape
from conftest import Project as CommandLine

import gdacli.api
from gdacli.api import (
    GdaError,
    Project,
    create_project,
    evaluate,
    fit,
    generate,
    image_seeds,
    load_classifier,
    probe,
    sample,
    select,
    train,
)
from gdacli.artifacts import read_json
from gdacli.selection import STRATEGIES, UNSIZED

pytestmark = pytest.mark.usefixtures("forked_dvc")  # `create_project` starts it
PAGE = Path(__file__).parents[1] / "docs/python.md"
CPU: dict[str, Any] = {"device": "cpu", "threads": 1}
TRAIN: dict[str, Any] = {key: value for key, value in TINY["train"].items() if key != "budget"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, shapes) -> Project:
    """Give a project of which every stage ran through the API; do not change it."""
    folder = tmp_path_factory.mktemp("api") / "project"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(folder.parent / "work"))
        sections: dict[str, dict] = {
            "data": {"source": str(shapes)},
            "compare": {"arms": ["original", "targeted", "flood"]},
        }
        CommandLine(folder).write(**sections)
        project, here = Project(folder), Path.cwd()
        project.prepare()
        project.probe()
        project.select()
        project.fit()
        project.generate()
        project.mix()
        project.train()
        project.evaluate()
        assert Path.cwd() == here
    return project


def prepared(project: Project) -> tuple[list[str], np.ndarray, np.ndarray]:
    keys, images, labels = project.images()
    assert images.dtype == np.uint8
    assert images.shape == (len(keys), 16, 16, 3)
    return keys, images, labels


def test_a_project_writes_what_the_commands_write(made, tmp_path, shapes, monkeypatch):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "params.yaml").write_bytes((made.folder / "params.yaml").read_bytes())
    CommandLine(folder).ok("prepare", "probe", "select")
    for name in ("source/SHA256SUMS", "probe/SHA256SUMS", "selection/SHA256SUMS", "metrics/select.json"):
        assert (folder / "data" / name).read_bytes() == (made.folder / "data" / name).read_bytes()


def test_a_probe_of_arrays_is_the_projects(made):
    _, images, labels = prepared(made)
    dynamics = probe(images, labels, **CPU, **TINY["probe"])
    selection = made.selection()
    found = select(dynamics, labels)
    assert np.array_equal(found.score, selection.score)
    assert np.array_equal(found.chosen, selection.chosen)
    assert np.array_equal(selection.label, labels)
    assert dynamics.loss.shape == (2, len(labels))


def test_variants_of_arrays_are_the_pools_bit_for_bit(made):
    keys, images, labels = prepared(made)
    pool = made.pool()
    rows = np.flatnonzero(made.selection().chosen)
    backend = made.folder / "data/generator/class_conditional"
    own: dict[str, Any] = {"generator": backend, "class_names": made.class_names(), **CPU, **TINY["generate"]}
    seeds = image_seeds([keys[row] for row in rows], 0.5)
    variants = generate(images[rows], labels[rows], strength=0.5, seeds=seeds, **own)
    of_pool = np.array([key != "" for key in pool.source_key])
    assert [pool.source_key[row] for row in np.flatnonzero(of_pool)] == [keys[row] for row in rows]
    assert np.array_equal(variants, pool.images(of_pool))
    assert set(pool.strength[of_pool]) == {0.5}
    first = generate(images[rows].transpose(0, 3, 1, 2), labels[rows], strength=0.5, seeds=seeds, **own)
    assert np.array_equal(first.transpose(0, 2, 3, 1), variants)
    of_place = image_seeds([str(row) for row in range(len(rows))], 0.5, seed=7)
    by_place = generate(images[rows], labels[rows], strength=0.5, seeds=of_place, **own)
    assert np.array_equal(generate(images[rows], labels[rows], strength=0.5, seeds=7, **own), by_place)
    assert not np.array_equal(by_place, variants)
    assert np.array_equal(sample(pool.label[~of_pool], image_size=16, **own), pool.images(~of_pool))
    assert not np.array_equal(sample(pool.label[~of_pool], image_size=16, seeds=7, **own), pool.images(~of_pool))
    assert np.array_equal(np.stack(list(pool)), pool.images())


def test_a_training_on_arrays_gives_the_projects_weights(made, tmp_path):
    _, images, labels = prepared(made)
    pool = made.pool()
    of_arm = np.array([key != "" for key in pool.source_key])
    added = pool.images(of_arm), pool.label[of_arm]
    found = train(images, labels, synthetic=added, class_names=made.class_names(), epochs=2, seed=1, **CPU, **TRAIN)
    theirs = made.folder / "data/train/targeted-1"
    found.save(tmp_path / "saved")
    for name in ("model.safetensors", "config.json", "history.csv"):
        assert (tmp_path / "saved" / name).read_bytes() == (theirs / name).read_bytes()
    test = made.images("test")[1]
    loaded = load_classifier(tmp_path / "saved")
    assert np.array_equal(loaded.predict(test, **CPU), made.classifier("targeted", 1).predict(test, **CPU))
    assert np.allclose(loaded.predict(test, **CPU).sum(1), 1)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again/history.csv").read_bytes() == (theirs / "history.csv").read_bytes()


def test_an_evaluation_of_arrays_has_the_reports_figures(made):
    _, images, labels = made.images("test")
    arms = ["original", "targeted", "flood"]
    said = {arm: [made.classifier(arm, seed).predict(images, **CPU) for seed in (0, 1)] for arm in arms}
    found, results = evaluate(said, labels), made.evaluation().results
    for arm in arms:
        assert found.arms[arm].errors == results["arms"][arm]["errors"]
        assert found.arms[arm].error_interval == pytest.approx(results["arms"][arm]["error_interval"])
    compared = found.comparisons["original"]["targeted"]
    assert compared.difference.mean == results["comparisons"]["original"]["targeted"]["difference"]["mean"]
    assert compared.corrected_p == results["comparisons"]["original"]["targeted"]["corrected_p"]
    assert evaluate(said, labels, main="targeted").headline.split(":")[0] == made.evaluation().headline.split(":")[0]
    classes = {arm: np.argmax(each, axis=2) for arm, each in said.items()}
    assert [each.errors for each in evaluate(classes, labels).arms.values()] == [
        each.errors for each in found.arms.values()
    ]
    assert repr(made.evaluation()) == (made.folder / "data/evaluation/report.md").read_text()
    assert "| targeted |" in repr(found).replace("  ", "")


def test_figures_are_kept_and_torch_is_given_back(made, monkeypatch):
    assert read_json(made.folder / "data/metrics/prepare.json")["class_counts"]["train"]
    assert read_json(made.folder / "data/metrics/runs/train/targeted-1.json")["seconds"] > 0
    monkeypatch.chdir(made.folder.parent)
    here, threads = Path.cwd(), torch.get_num_threads()
    state = torch.get_rng_state()
    with pytest.raises(GdaError, match="select.share"):
        made.select(overrides={"select.share": 2})
    with pytest.raises(GdaError, match="there is no arm 'nothing'"):
        made.mix("nothing")
    _, images, labels = prepared(made)
    probe(images, labels, device="cpu", threads=3, epochs=1, model_args={"width": 4})
    assert (Path.cwd(), torch.get_num_threads()) == (here, threads)
    assert torch.equal(torch.get_rng_state(), state)


def test_overrides_are_those_of_the_command_line(made):
    values = {"select.quotas": {"disc": 0.5}, "train.lr": 1e-05, "compare.seeds": [3], "probe.pretrained": False}
    params = made.params(values)
    assert params.select.quotas == {"disc": 0.5}
    assert params.train.lr == 1e-05
    assert params.compare.seeds == [3]
    with pytest.raises(GdaError, match="probe.epoch: unknown key; did you mean"):
        made.params({"probe.epoch": 3})


def test_a_project_of_arrays_keeps_labels_and_splits(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = np.stack([shape(int(label), rng) for label in labels])
    splits = np.where(np.arange(24) < 18, "train", "test")
    names = ["ten", "2", "Ünder score"]
    project = create_project(tmp_path / "made", images=images, labels=labels, class_names=names, splits=splits)
    project.prepare({"compute.device": "cpu"})
    assert project.class_names() == names
    for split in ("train", "test"):
        _, read, of_class = project.images(split)
        assert np.array_equal(read, images[splits == split])
        assert np.array_equal(of_class, labels[splits == split])
    with pytest.raises(GdaError, match="exists: choose another folder, or open it"):
        create_project(tmp_path / "made", source="digits")
    with pytest.raises(GdaError, match="splits: found"):
        create_project(tmp_path / "other", images=images, labels=labels, splits=["training"] * 24)
    assert not (tmp_path / "other/params.yaml").exists()


def logits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    recorded = rng.normal(0, 0.3, (2, 60, 3))
    recorded[:, ::2] += 4 * np.eye(3)[labels[::2]]
    return recorded, labels


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_takes_recorded_logits(strategy):
    recorded, labels = logits()
    share = 0.25 if strategy in UNSIZED else None
    found = select(recorded, labels, strategy, share=share)
    assert (found.score.shape, found.chosen.dtype) == ((60,), bool)
    assert strategy not in UNSIZED or found.chosen.sum() == 15
    again = select(recorded.astype(np.float32), labels.astype(np.int32), strategy, share=share)
    assert np.array_equal(found.chosen, again.chosen)
    if strategy in UNSIZED:
        with pytest.raises(GdaError, match="give share"):
            select(recorded, labels, strategy)


def test_late_images_are_those_without_a_margin():
    recorded, labels = logits()
    assert np.array_equal(select(recorded[-1], labels).chosen, np.arange(60) % 2 == 1)
    allowed = np.arange(60) < 30
    assert not select(recorded, labels, candidates=allowed).chosen[30:].any()


IMAGES, LABELS = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: probe(IMAGES / 255, LABELS), r"images: found float64 \[6, 8, 8, 3\], allowed: uint8"),
        (lambda: probe(IMAGES[:, :, :6], LABELS), "found 6 x 8 pixels, allowed: square"),
        (lambda: probe(IMAGES, LABELS[:3]), r"labels: found int64 \[3\], allowed: integers \[6\]"),
        (
            lambda: probe(IMAGES, LABELS, lr=-1),
            "^probe.lr: found -1; must be greater than 0$",
        ),
        (lambda: probe(IMAGES, LABELS, folds=5), "probe.folds: has no say over arrays"),
        (lambda: train(IMAGES, LABELS), "train.budget: found neither; give either epochs or updates"),
        (lambda: train(IMAGES, LABELS, epochs=1, checkpoint="best"), "needs validation="),
        (lambda: train(IMAGES, LABELS, epochs=1, objective="pcr"), "needs synthetic="),
        (lambda: train(IMAGES, LABELS, epochs=1, image_size=16), "train.image_size: found 16"),
        (lambda: train(IMAGES, LABELS, epochs=1, repeats=[1]), "repeats: found"),
        (lambda: train(IMAGES, LABELS, epochs=1, class_names=["a"]), "labels: found 0 to 1"),
        (lambda: train(IMAGES, LABELS, epochs=1, synthetic=(IMAGES[:, :4, :4], LABELS)), "synthetic: found 4 pixels"),
        (lambda: select(np.zeros((6, 2)), LABELS, "cluter"), "strategy: found 'cluter', allowed: cluster, "),
        (lambda: select(np.zeros((6, 2)), LABELS, share=0.5), "share: cluster has a size of its own"),
        (lambda: select(np.zeros((5, 2)), LABELS), r"allowed: integers \[5\]"),
        (lambda: select(np.full((6, 2), np.nan), LABELS), "logits that are no numbers"),
        (lambda: fit(IMAGES, LABELS, "x", backend="glide"), "allowed: class_conditional, gan"),
        (lambda: evaluate({"a": LABELS, "b": LABELS[:3]}, LABELS), "predictions: b: found int64"),
        (lambda: evaluate({"a": [LABELS], "b": [LABELS] * 2}, LABELS), "every arm needs the same ones"),
        (lambda: evaluate({"a": np.full((6, 2), 3.0)}, LABELS), "probabilities, no logits"),
        (lambda: evaluate({"a": LABELS}, LABELS, reference="c"), "reference: found 'c', allowed: a"),
        (lambda: Project("no_such_folder"), "no_such_folder/params.yaml does not exist"),
        (lambda: create_project("x"), "give either source, or images and labels"),
    ],
)
def test_a_mistake_is_one_line(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GdaError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "params.yaml" not in str(caught.value) or "no_such_folder" in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_generator_of_another_kind_is_refused(made):
    _, images, labels = prepared(made)
    own: dict[str, Any] = {"class_names": made.class_names(), **CPU, "batch_size": 32}
    folder = made.folder / "data/generator/class_conditional"
    with pytest.raises(GdaError, match="run `gdacli fit` first"):
        generate(images, labels, generator=made.folder / "data/generator/gan", **own)
    with pytest.raises(GdaError, match="allowed: above 0, up to 1"):
        generate(images, labels, generator=folder, strength=1.5, **own)
    with pytest.raises(GdaError, match="is no denoising step"):
        generate(images, labels, generator=folder, strength=0.01, **own)
    with pytest.raises(GdaError, match=f"allowed: {len(labels)}, one an image"):
        generate(images, labels, generator=folder, seeds=[1], **own)
    with pytest.raises(GdaError, match="must be a multiple of 64"):
        generate(images, labels, generator=folder, **{**own, "threads": 4})


def test_repeats_and_objectives_have_their_say():
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = np.stack([shape(int(label), rng) for label in labels])
    own: dict[str, Any] = {"epochs": 1, **CPU, **TRAIN}
    twice = train(images, labels, repeats=np.full(24, 2), **own)
    assert twice.history["images"] == [48]
    pcr = train(images, labels, synthetic=(images[:9], labels[:9]), objective="pcr", validation=(images, labels), **own)
    assert pcr.history["images"] == [24]
    assert set(pcr.history) >= {"synthetic_loss", "validation_error"}
    assert pcr.class_names == ["0", "1", "2"]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def without_numbers(text: str) -> list[str]:
    """Leave what another machine prints too: the last bits of a training differ there."""
    return re.sub(r"\d+(\.\d+)?|-+", "#", re.sub(" +", " ", text)).splitlines()


def test_the_page_runs_as_it_is_printed(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GDACLI_WORK", str(made.folder.parent / "work"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.folder, tmp_path / "shoes")
    arrays, loop, project, new = blocks("python")
    namespace: dict = {}
    exec(arrays, namespace)  # noqa: S102
    assert without_numbers(capsys.readouterr().out) == without_numbers(blocks("text")[0])
    exec(loop, namespace)  # noqa: S102
    assert namespace["late"].sum() == 270
    exec(project, namespace)  # noqa: S102
    assert capsys.readouterr().out == made.evaluation().headline + "\n"
    assert namespace["first"].shape == (2, 16, 16, 3)
    assert len(namespace["probabilities"]) == len(made.images("test")[0])
    exec(new, namespace)  # noqa: S102
    assert set(namespace["read"].shape[1:]) == {8, 3}
    assert Path.cwd() == tmp_path


def test_the_page_lists_every_function_and_method():
    text = PAGE.read_text()
    functions = [name for name in gdacli.api.__all__ if name[0].islower()]
    methods = [name for name, each in vars(Project).items() if callable(each) and name[0] != "_"]
    assert len(functions) > 8
    assert not [name for name in functions + methods if not re.search(rf"`(project\.)?{name}\(|`{name}`", text)]
    on_arrays, on_folders = text.split("| of a `Project`")
    for part, owner in ((on_arrays, gdacli.api), (on_folders, Project)):
        for name, arguments in re.findall(r"^\| [^|]*?`(\w+)\(([^)]+)\)`", part, re.MULTILINE):
            named = set(re.findall(r"(?<![*\w\"])(\w+)(?==|,|$| or)", arguments))
            assert named <= set(inspect.signature(getattr(owner, name)).parameters), (name, named)


def test_importing_the_api_loads_nothing_heavy():
    heavy = "{'torch', 'diffusers', 'datasets', 'sklearn', 'timm', 'scipy', 'pyarrow'}"
    code = f"import sys, gdacli.api; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
