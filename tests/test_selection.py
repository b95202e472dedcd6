import numpy as np
import pytest

from gdacli.selection import STRATEGIES, centroids, cross_entropy, is_late, select_cluster


def outputs(seed: int = 0, num: int = 120, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits at two epochs in which every third image is learned late."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, num)
    logits = rng.normal(0, 0.3, (2, num, classes)).astype(np.float32)
    confident = np.arange(num) % 3 != 0
    logits[:, confident, labels[confident]] += 5
    return logits, labels


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_the_contract(name):
    dynamics, labels = outputs()
    score, chosen = STRATEGIES[name](dynamics, labels, np.random.default_rng(1))
    assert score.shape == chosen.shape == labels.shape
    assert score.dtype == np.float64
    assert chosen.dtype == bool
    assert np.isfinite(score).all()
    again = STRATEGIES[name](dynamics.copy(), labels.copy(), np.random.default_rng(1))
    assert (again[0] == score).all()
    assert (again[1] == chosen).all()
    if 0 < chosen.sum() < len(chosen) and name != "cluster":
        assert score[chosen].min() > score[~chosen].max()
    one_epoch = STRATEGIES[name](dynamics[-1:], labels, np.random.default_rng(1))
    assert (one_epoch[1] == chosen).all()


def test_cluster_finds_the_late_learned_images_of_each_class():
    dynamics, labels = outputs()
    score, chosen = select_cluster(dynamics, labels, np.random.default_rng(0))
    assert (chosen == (np.arange(len(labels)) % 3 == 0)).all()
    assert ((score > 0) == chosen).all()
    losses = cross_entropy(dynamics[-1], labels)
    for label in np.unique(labels):
        of_class = labels == label
        assert losses[of_class & chosen].mean() > losses[of_class & ~chosen].mean()


@pytest.mark.parametrize("late", [True, False])
def test_classes_that_cannot_be_split_are_taken_or_left_whole(late):
    dynamics, labels = outputs()
    alone = np.zeros((2, 3, 4), np.float32)
    alone[:, :, 0 if late else 3] = 9
    labels = np.concatenate([np.where(labels == 3, 2, labels), [3, 3, 3]])
    _, chosen = select_cluster(np.concatenate([dynamics, alone], axis=1), labels, np.random.default_rng(0))
    assert (chosen[-3:] == late).all()
    _, chosen = select_cluster(np.concatenate([dynamics, alone], axis=1)[:, :-2], labels[:-2], np.random.default_rng(0))
    assert chosen[-1] == late


def test_loss_is_exact_and_stable():
    logits = np.array([[0.0, 0.0], [1000.0, 0.0]], np.float32)
    assert cross_entropy(logits, np.array([0, 1])) == pytest.approx([np.log(2), 1000])


def test_centroids_sort_new_images_as_the_clusters_did():
    dynamics, labels = outputs()
    _, chosen = select_cluster(dynamics, labels, np.random.default_rng(0))
    centers = centroids(dynamics[-1], labels, chosen, 5)
    assert centers.shape == (5, 2, 4)
    assert np.isnan(centers[4]).all()
    assert (is_late(dynamics[-1], labels, centers) == chosen).all()
    fresh, fresh_labels = outputs(seed=7)
    assert (is_late(fresh[-1], fresh_labels, centers) == (np.arange(len(fresh_labels)) % 3 == 0)).all()
    centers[0, 0] = np.nan  # class 0 has no early image: all of it is late
    assert is_late(fresh[-1], fresh_labels, centers)[fresh_labels == 0].all()
