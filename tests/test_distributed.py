"""Two processes with gloo give what one gives with the same batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fork_server
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_objectives import make
from test_training import SETTINGS, halves
from two_processes import environments

from gdacli.distributed import World, joined
from gdacli.errors import GdaError
from gdacli.loading import InMemory
from gdacli.models import create_model
from gdacli.training import Epoch, train_classifier

SAM = {"rho": 0.1, "adaptive": False, "m": None, "weight_decay_in_ascent": True, "batch_norm": "both"}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sgd": ("convnet", {"width": 4}, {}),
    "preact": ("preact_resnet18", {"width": 4}, {"clip_norm": 1.0, "ema_decay": 0.5}),
    "odd batches": ("convnet", {"width": 4}, {"batch_size": 19}),
    "sam": ("convnet", {"width": 4}, {"sam": SAM, "optimizer": "adamw", "lr": 0.005}),
    "sam of m images": ("convnet", {"width": 4}, {"sam": {**SAM, "m": 4, "batch_norm": "first"}}),
    "mixing": (
        "convnet",
        {"width": 4},
        {"augmentations": {"flip": {}, "mixup": {}}, "balance": "sampling", "label_smoothing": 0.1, "batch_size": 17},
    ),
    **{
        name: ("convnet", {"width": 4}, {"objective": (name,)})
        for name in ("gda_multi_head", "real_consistency", "mgr")
    },
    "timm's batch norm with an activation": ("resnet10t", {}, {"batch_size": 30, "updates": 2}),
}


def trained() -> dict[str, tuple[dict[str, torch.Tensor], list[tuple[float, float, float]]]]:
    """Train every case, in this process and those that it is joined with; returns weights and the epochs' figures."""
    torch.set_num_threads(1)
    images, labels = halves()
    results = {}
    with joined(torch.device("cpu")) as world:
        for name, (architecture, args, options) in CASES.items():
            model, epochs = create_model(architecture, 2, args, 0), list[Epoch]()
            options = dict(options)
            if "objective" in options:
                (objective,) = options["objective"]
                options["objective"] = make(objective, world=world, lr=1e-3, gradient="exact")
            settings: dict[str, Any] = {**SETTINGS, "updates": 6, **options}
            repeats = torch.ones(60, dtype=torch.int64)
            train_classifier(model, InMemory(images), labels, repeats, **settings, on_epoch=epochs.append, world=world)
            figures = [(epoch.loss, epoch.error, epoch.synthetic_loss or 0.0) for epoch in epochs]
            supply = options["objective"].state_dict()["supply"] if "objective" in options else {}
            searched = {f"searched {i}": each for i, each in enumerate(supply.get("searched", []))}
            results[name] = {**model.state_dict(), **searched}, figures
    return results


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Give what this process trains alone, and what two do; test_train.py starts the command twice."""
    output = tmp_path_factory.mktemp("distributed") / "two.pt"
    processes = [
        subprocess.Popen(
            [fork_server.program(Path(__file__)), str(output)],
            env={**os.environ, **joining},
            stderr=subprocess.PIPE,
            text=True,
        )
        for joining in environments()
    ]
    one = trained()
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    return one, torch.load(output, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_what_one_gives(one_and_two, name):
    (one, one_epochs), (two, two_epochs) = (result[name] for result in one_and_two)
    for key in one:
        if name == "sam of m images" and key.endswith("num_batches_tracked"):
            continue  # a count that nothing uses
        # an activation that rounds to the other side of 0 moves weights by 1e-4; a wrong sum moves them by far more
        assert torch.allclose(one[key].double(), two[key].double(), rtol=1e-3, atol=3e-4), key
    assert torch.allclose(torch.tensor(one_epochs), torch.tensor(two_epochs), rtol=1e-3, atol=1e-4)


@given(st.integers(0, 50), st.integers(0, 100), st.integers(1, 9), st.integers(1, 16))
def test_shares_cover_a_batch_once_at_multiples(first, count, size, multiple):
    shares = World(0, size).shares(first, first + count, multiple)
    assert len(shares) == size
    assert [place for start, end in shares for place in range(start, end)] == list(range(first, first + count))
    assert all((start - first) % multiple == 0 or start == first + count for start, _ in shares)
    assert all(end - start != 1 for start, end in shares) or multiple == 1 or count == 1
    if multiple == 1:
        assert max(end - start for start, end in shares) - min(end - start for start, end in shares) <= 1


def test_a_batch_norm_that_cannot_be_synchronised_is_named():
    class Own(torch.nn.BatchNorm2d):
        pass

    model = torch.nn.Sequential(Own(2))
    with pytest.raises(GdaError, match=r"model: 0 is a Own, whose statistics cannot be taken over several processes"):
        World(0, 2).synchronise_batch_norm(model)


def test_without_torchrun_nothing_is_exchanged():
    world, tensor = World(), torch.ones(2)
    world.sum_([tensor])
    assert tensor.tolist() == [1, 1]
    assert world.gather(tensor, [2]) is tensor
    model = create_model("convnet", 2, {"width": 4}, 0)
    world.synchronise_batch_norm(model)
    assert {type(layer).__name__ for layer in model.modules() if "Norm" in type(layer).__name__} == {"BatchNorm2d"}


if __name__ == "__main__":
    trained_by_two = trained()
    if os.environ["RANK"] == "0":
        torch.save(trained_by_two, sys.argv[1])
