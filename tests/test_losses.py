import math

import pytest
import torch

from gdacli.losses import balanced_weights, cross_entropy


def test_cross_entropy_of_soft_targets():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    expected = [-0.5 * (math.log(0.7) + math.log(0.2)), -math.log(0.8)]
    assert cross_entropy(logits, targets).tolist() == pytest.approx(expected)
    weighted = cross_entropy(logits, targets, class_weights=torch.tensor([2.0, 1.0, 3.0])).tolist()
    assert weighted == pytest.approx([-0.5 * (2 * math.log(0.7) + math.log(0.2)), -3 * math.log(0.8)])
    smooth = cross_entropy(logits, targets, smoothing=0.3)[1].item()
    assert smooth == pytest.approx(-0.8 * math.log(0.8) - 0.1 * 2 * math.log(0.1))


def test_balanced_weights_make_classes_count_the_same_with_a_mean_of_one():
    labels, repeats = torch.tensor([0, 0, 0, 2]), torch.tensor([1, 2, 3, 2])
    weights = balanced_weights(labels, repeats, 3)
    assert weights[[0, 2]].tolist() == pytest.approx([8 / (2 * 6), 8 / (2 * 2)])
    assert (weights[labels] * repeats).sum() / repeats.sum() == pytest.approx(1)
