import numpy as np
from conftest import Project

from gdacli.dynamics import read_probe
from gdacli.row_files import RowFile
from gdacli.tables import read_table


def curve(project: Project) -> list[list[float]]:
    lines = (project.folder / "data/probe/curve.csv").read_text().splitlines()[1:]
    return [[float(cell) for cell in line.split(",")] for line in lines]


def test_dynamics_are_those_of_the_logits_and_the_curve(project):
    project.ok("prepare", "probe -S probe.epochs=3 -S probe.separation_epoch=2")
    keys, labels, dynamics = read_probe(project.folder / "data/probe")
    logits = dynamics.logits[0 : len(keys)].astype(float)
    assert dynamics.loss.shape == (2, len(keys))
    own = logits[np.arange(len(keys)), labels]
    loss = np.log(np.exp(logits).sum(axis=1)) - own
    np.testing.assert_allclose(dynamics.loss[-1], loss, atol=1e-5)
    assert (dynamics.correct[-1] == (logits.argmax(axis=1) == labels)).all()
    errors = [100 * (1 - each.mean()) for each in dynamics.correct]
    np.testing.assert_allclose([row[3] for row in curve(project)[:2]], errors, rtol=1e-4)
    assert len(curve(project)) == 3
    assert np.load(project.folder / "data/probe/features.npy").shape[0] == len(keys)


def test_auto_stops_where_the_fall_slows_or_at_the_limit_and_says_so(project):
    settings = ["-S", "probe.epochs=auto", "-S", "probe.model_args={width: 8}"]
    project.ok("prepare")
    limited = project("probe", *settings, "-S", "probe.max_epochs=3")
    assert "the fall of the training error did not slow in 3 epochs: the last one counts" in limited.stderr
    assert "after epoch 3" in limited.stdout
    three = curve(project)
    free = project("probe", *settings, "-S", "probe.max_epochs=40")
    found = curve(project)
    assert 4 <= len(found) < 40
    assert f"after epoch {len(found)} " in free.stdout
    assert found[:3] == three
    recorded = np.load(project.folder / "data/probe/dynamics.npz", allow_pickle=False)
    assert recorded["separation_epoch"] == len(found) == len(recorded["loss"])


def test_folds_predict_every_image_and_change_nothing_else(project):
    project.ok("prepare", "probe")
    before = (project.folder / "data/probe/SHA256SUMS").read_text().splitlines()
    project.ok("probe -S probe.folds=2")
    after = (project.folder / "data/probe/SHA256SUMS").read_text().splitlines()
    assert set(before) < set(after)
    probabilities = RowFile(project.folder / "data/probe/out_of_fold.npy")
    np.testing.assert_allclose(probabilities[0 : len(probabilities)].sum(axis=1), 1, atol=1e-5)


def test_quotas_are_by_the_name_of_a_class(project):
    project.ok("prepare", "probe", "select")
    project("select", "-S", "select.quotas={ring_shape: 1}")
    selection = read_table(project.folder / "data/selection/selection.parquet")
    assert selection["cluster_chosen"][selection["label"] == 1].all()
    error = project("select", "-S", "select.quotas={ring: 0.5}").error
    assert "select.quotas: no such class: found 'ring', allowed: disc, ring_shape, square" in error
