from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from gdacli.dynamics import QUANTITIES, Dynamics, describe
from gdacli.selection import (
    RANKINGS,
    STRATEGIES,
    UNSIZED,
    centroids,
    choose,
    is_late,
    select_aum,
    select_cluster,
    select_forgetting,
    select_loss_mixture,
)


def dynamics_of(logits: np.ndarray, labels: np.ndarray) -> Dynamics:
    """Describe logits, float32 [E, N, C]."""
    epochs = [describe(torch.from_numpy(each), torch.from_numpy(labels)).numpy() for each in logits]
    quantities = dict(zip(QUANTITIES, np.stack(epochs).transpose(2, 0, 1), strict=True))
    return Dynamics(**{**quantities, "correct": quantities["correct"].astype(bool)}, logits=logits[-1])


def outputs(seed: int = 0, num: int = 120, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits at two epochs in which every third image is learned late."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, num)
    logits = rng.normal(0, 0.3, (2, num, classes)).astype(np.float32)
    confident = np.arange(num) % 3 != 0
    logits[:, confident, labels[confident]] += 5
    return logits, labels


LATE = np.arange(120) % 3 == 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_the_contract(name):
    logits, labels = outputs()
    dynamics = dynamics_of(logits, labels)
    score, chosen = STRATEGIES[name](dynamics, labels, np.random.default_rng(1))
    assert score.shape == chosen.shape == labels.shape
    assert score.dtype == np.float64
    assert chosen.dtype == bool
    assert np.isfinite(score).all()
    again = STRATEGIES[name](dynamics_of(logits.copy(), labels.copy()), labels.copy(), np.random.default_rng(1))
    assert (again[0] == score).all()
    assert (again[1] == chosen).all()
    assert not chosen.any() if name in UNSIZED else chosen.any()
    if 0 < chosen.sum() < len(chosen) and name != "cluster":
        assert score[chosen].min() > score[~chosen].max()
    one_epoch = STRATEGIES[name](dynamics_of(logits[-1:], labels), labels, np.random.default_rng(1))
    assert one_epoch[0].shape == score.shape
    alike = dynamics_of(np.zeros((1, 6, 3), np.float32), np.array([0, 0, 1, 1, 2, 2]))
    assert np.isfinite(STRATEGIES[name](alike, np.array([0, 0, 1, 1, 2, 2]), np.random.default_rng(1))[0]).all()


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"random", "all"}))
def test_a_higher_score_means_learned_later(name):
    logits, labels = outputs()
    score, _ = STRATEGIES[name](dynamics_of(logits, labels), labels, np.random.default_rng(1))
    assert score[LATE].min() > score[~LATE].max()


def test_cluster_finds_the_late_learned_images_of_each_class():
    logits, labels = outputs()
    dynamics = dynamics_of(logits, labels)
    score, chosen = select_cluster(dynamics, labels, np.random.default_rng(0))
    assert (chosen == LATE).all()
    assert ((score > 0) == chosen).all()
    for label in np.unique(labels):
        of_class = labels == label
        assert dynamics.loss[-1][of_class & chosen].mean() > dynamics.loss[-1][of_class & ~chosen].mean()


def test_clusters_do_not_depend_on_the_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    dynamics = dynamics_of(rng.normal(size=(1, 900, 200)).astype(np.float32), labels)
    found = []
    for workers, blas in ((1, 1), (3, 2)):
        monkeypatch.setattr("gdacli.selection._num_workers", lambda workers=workers: workers)
        with threadpool_limits(blas):
            found.append(select_cluster(dynamics, labels, np.random.default_rng(0)))
    assert (found[0][0] == found[1][0]).all()
    assert (found[0][1] == found[1][1]).all()


@pytest.mark.parametrize("late", [True, False])
def test_classes_that_cannot_be_split_are_taken_or_left_whole(late):
    logits, labels = outputs()
    alone = np.zeros((2, 3, 4), np.float32)
    alone[:, :, 0 if late else 3] = 9
    labels = np.concatenate([np.where(labels == 3, 2, labels), [3, 3, 3]])
    logits = np.concatenate([logits, alone], axis=1)
    _, chosen = select_cluster(dynamics_of(logits, labels), labels, np.random.default_rng(0))
    assert (chosen[-3:] == late).all()
    _, chosen = select_cluster(dynamics_of(logits[:, :-2], labels[:-2]), labels[:-2], np.random.default_rng(0))
    assert chosen[-1] == late


def test_forgetting_counts_from_right_to_wrong_and_never_learned_counts_most():
    correct = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 0, 0, 1], [1, 0, 1, 0, 1]], bool)
    logits, labels = outputs(num=5)
    loss = np.full((4, 5), 0.5, np.float32)
    dynamics = replace(dynamics_of(logits, labels), correct=correct, loss=loss)
    score, chosen = select_forgetting(dynamics, labels, np.random.default_rng(0))
    assert np.floor(score).tolist() == [0, 2, 1, 4, 0]
    assert chosen.tolist() == [False, True, True, True, False]


def test_aum_averages_the_margins_over_the_epochs():
    logits = np.array([[[3.0, 1, 0], [0, 2, 1]], [[5.0, 1, 2], [0, 0, 4]]], np.float32)
    labels = np.array([0, 1])
    score, _ = select_aum(dynamics_of(logits, labels), labels, np.random.default_rng(0))
    assert score.tolist() == [-(2 + 3) / 2, -(1 - 4) / 2]


def test_the_mixture_tells_the_losses_of_two_groups_apart():
    rng = np.random.default_rng(0)
    loss = np.concatenate([rng.normal(0.2, 0.05, 400), rng.normal(3, 0.4, 100)]).astype(np.float32).clip(0)
    logits, labels = outputs(num=500)
    dynamics = replace(dynamics_of(logits, labels), loss=loss[None])
    _, chosen = select_loss_mixture(dynamics, labels, np.random.default_rng(0))
    assert (chosen == (np.arange(500) >= 400)).all()


def sized(name: str, score: np.ndarray, natural: np.ndarray, labels: np.ndarray, **changes) -> np.ndarray:
    options: dict[str, Any] = {"share": None, "per_class": False, "quotas": {}}
    candidates = changes.pop("candidates", np.ones(len(labels), bool))
    return choose(name, score, natural, labels, candidates, **(options | changes))


labelled = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(each, min_size=n, max_size=n) for each in (st.integers(0, 3), st.booleans())])
)


@given(labelled, st.sampled_from(sorted(STRATEGIES)), st.floats(0.01, 1), st.booleans(), st.booleans())
def test_shares_are_of_the_candidates_of_each_class_or_of_all(rows, name, share, per_class, quota):
    labels, candidates = np.array(rows[0]), np.array(rows[1])
    rng = np.random.default_rng(len(labels))
    score, natural = rng.random(len(labels)), rng.random(len(labels)) < 0.5
    quotas = {0: 0.5} if quota else {}
    chosen = sized(name, score, natural, labels, candidates=candidates, share=share, per_class=per_class, quotas=quotas)
    assert not (chosen & ~candidates).any()
    if name == "all":
        assert (chosen == candidates).all()
        return
    if name in RANKINGS and not per_class and not quota:
        assert chosen.sum() == round(share * candidates.sum())
    for label in np.unique(labels):
        members = (labels == label) & candidates
        if (per_class or label in quotas) and members.any():
            part = quotas.get(label, share)
            assert chosen[members].sum() == max(1, round(part * members.sum()))
            assert min(score[members & chosen]) > max(score[members & ~chosen], default=-1)
        elif not per_class and name not in RANKINGS:
            assert (chosen[members] == natural[members]).all()


def test_centroids_sort_new_images_as_the_clusters_did():
    logits, labels = outputs()
    _, chosen = select_cluster(dynamics_of(logits, labels), labels, np.random.default_rng(0))
    centers = centroids(logits[-1], labels, chosen, 5)
    assert centers.shape == (5, 2, 4)
    assert np.isnan(centers[4]).all()
    of_class = (labels == 1) & chosen
    assert centers[1, 1] == pytest.approx(logits[-1][of_class].astype(float).mean(axis=0))
    assert (is_late(logits[-1], labels, centers) == chosen).all()
    fresh, fresh_labels = outputs(seed=7)
    assert (is_late(fresh[-1], fresh_labels, centers) == LATE).all()
    centers[0, 0] = np.nan  # class 0 has no early image: all of it is late
    assert is_late(fresh[-1], fresh_labels, centers)[fresh_labels == 0].all()
