import math

import pytest
import torch

from gdacli.losses import cross_entropy


def test_cross_entropy_of_soft_targets():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert cross_entropy(logits, targets).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
