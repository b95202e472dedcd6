"""The paper's models trained for two steps at their real size: `make soak`; `make test` trains the cheap ones."""

import time

import pytest
import torch
from test_models import PAPER, train_two_steps


@pytest.mark.parametrize("name", PAPER)
def test_each_trains_at_its_real_size(name):
    size, parameters = PAPER[name]
    torch.set_num_threads(2)
    start = time.monotonic()
    losses = train_two_steps(name, size, parameters)
    print(f"{name}: {size} x {size}, {parameters:,} parameters, losses {losses}, {time.monotonic() - start:.1f} s")
