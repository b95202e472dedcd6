"""What objectives cannot be put together of."""

from typing import Any

import pytest
import torch
from test_training import halves

from gdacli.distributed import World
from gdacli.errors import GdaError
from gdacli.loading import InMemory
from gdacli.models import create_model, freeze
from gdacli.objective_assembly import make_objective
from gdacli.objectives import OBJECTIVES
from gdacli.training_sections import Train

HALVES = InMemory(halves()[0]), halves()[1]


def assemble(name: str, frozen: str | int = "none", images: Any = HALVES) -> Any:
    model = create_model("convnet", 2, {"width": 4}, 0)
    freeze(model, frozen)
    start = frozen != "none"
    settings = Train(model="convnet", objective=name, freeze=frozen, pretrained=start).of_weights()
    around: dict[str, Any] = {"live": None, "validation": None, "augmentations": {}, "seed": 0, "world": World()}
    return make_objective(settings, model, 2, torch.device("cpu"), real=HALVES, stored=images, **around)


@pytest.mark.parametrize("name", [name for name, kind in OBJECTIVES.items() if kind.images == "synthetic"])
def test_a_frozen_backbone_goes_only_with_what_trains_the_last_layer(name):
    if OBJECTIVES[name].trains_last_layer:
        assemble(name, "backbone")
    else:
        with pytest.raises(GdaError, match=f"train.freeze: found backbone, but train.objective {name} trains"):
            assemble(name, "backbone")
    assemble(name)


@pytest.mark.parametrize("name", [name for name, kind in OBJECTIVES.items() if kind.images != "synthetic"])
def test_stored_images_are_not_passed_over(name):
    with pytest.raises(GdaError, match=f"train.objective: {name} .* but the arm adds images"):
        assemble(name)


def test_real_images_are_those_of_real_consistency():
    assert len(assemble("real_consistency", images=None)._supply._labels) == len(HALVES[1])


@pytest.mark.parametrize(
    "given",
    [{"objective": "gda_mps", "finder": {"criterion": "pcr"}}, {"objective": "pcr"}, {"objective": "gda_ssl"}],
    ids=str,
)
def test_whoever_compares_views_needs_a_second_one(given):
    model: dict[str, Any] = {"model": "convnet", "synthetic": {"strong_augment": None}}
    with pytest.raises(ValueError, match="compares two views"):
        Train(**model, **given)
    Train(**model, **given | {"objective": "gda"})
