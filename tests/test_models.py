import pytest
import torch
from safetensors.torch import save_file

from gdacli.architectures import ARCHITECTURES
from gdacli.artifacts import write_json
from gdacli.errors import GdaError
from gdacli.models import (
    create_model,
    load_checkpoint,
    timm_config,
)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [8, 28, 32])
def test_our_architectures_give_logits_at_any_small_size(name, size):
    model = create_model(name, 7, {"width": 4}, seed=0)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_preact_resnet18_has_the_papers_size():
    model = create_model("preact_resnet18", 10, {}, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_172_170


def test_weights_depend_on_the_seed_alone():
    one, two, other = (create_model("convnet", 3, {}, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["net.head.weight"], other["net.head.weight"])


def test_timm_models_by_name_and_what_is_not_one():
    model = create_model("resnet18", 3, {"block_args": {}}, seed=0)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(
        GdaError, match=r"found 'resnet81'; allowed: convnet, preact_resnet18 and timm's \d+ .nearest: resnet"
    ):
        create_model("resnet81", 3, {}, seed=0)
    with pytest.raises(GdaError, match=r"model_args: convnet does not take \{'depth': 3\}; it takes width"):
        create_model("convnet", 3, {"depth": 3}, seed=0)


def test_checkpoints_round_trip(tmp_path):
    model = create_model("preact_resnet18", 3, {"width": 4}, seed=5).eval()
    save_file(model.net.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    write_json(tmp_path / "config.json", timm_config("preact_resnet18", model, ["a", "b", "c"], 16, {"width": 4}))
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_checkpoint(tmp_path).eval()(x), model(x))


@pytest.mark.parametrize("name", ["convnet", "preact_resnet18", "resnet18", "vit_tiny_patch16_224"])
def test_features_come_with_the_logits_of_the_model_and_have_length_1(name):
    arguments = {"img_size": 32, "patch_size": 8} if name.startswith("vit") else {}
    model = create_model(name, 3, arguments, seed=0).eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, features = model.logits_and_features(x)
        assert torch.allclose(logits, model(x), atol=1e-5)
        assert torch.equal(features, model.unit_features(x))
    assert features.shape == (4, model.net.num_features)
    assert torch.allclose(features.norm(dim=1), torch.ones(4), atol=1e-5)
