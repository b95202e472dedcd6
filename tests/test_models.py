import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from gdacli.architectures import ARCHITECTURES
from gdacli.artifacts import write_json
from gdacli.errors import GdaError
from gdacli.models import Classifier, create_model, freeze, load_checkpoint, timm_config
from gdacli.timm_models import dividing_window, fitted_args

SWIN = "swin_tiny_patch4_window7_224"
VIT = "vit_patch4_768_d8"
SMALL_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "head_width": 8}
SMALL_SWIN = {"embed_dim": 12, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 3, 4]}
CHECKPOINTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "convnet": ("convnet", {"width": 4}, 16),
    "preact_resnet18": ("preact_resnet18", {"width": 4}, 16),
    "vit": (VIT, SMALL_VIT, 32),
    "swin": (SWIN, SMALL_SWIN, 32),
    "resnet18": ("resnet18", {}, 32),
    "resnet18 by tag": ("resnet18.tv_in1k", {}, 32),
}


PAPER: dict[str, tuple[int, int]] = {
    "preact_resnet18": (32, 11_172_170),
    "vgg19": (32, 139_611_210),
    "densenet121": (32, 6_964_106),
    VIT: (32, 41_048_938),
    "convnext_tiny": (32, 27_827_818),
    SWIN: (32, 27_505_300),
    "resnet18": (224, 11_181_642),
}
"""The paper's models: side of their images in pixels, parameters for 10 classes."""


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def save(folder: Path, name: str, model: Classifier, classes: list[str], size: int) -> Path:
    save_file(model.net.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", timm_config(name, model, classes))
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the weights of a ResNet-18 in timm's layout for 7 classes, as someone may have saved them."""
    path = tmp_path_factory.mktemp("resnet") / "weights.safetensors"
    torch.manual_seed(3)
    net = timm.create_model("resnet18", num_classes=7)
    with torch.no_grad():
        net(torch.rand(4, 3, 32, 32))  # its batch statistics are not the initial ones
    save_file(net.state_dict(), path)
    return path


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", [8, 28, 32])
def test_our_architectures_give_logits_at_any_small_size(name, size):
    model = create_model(name, 7, {"width": 4}, seed=0, image_size=size)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_our_small_architectures_need_no_timm():
    make = "from gdacli.models import create_model; create_model('preact_resnet18', 2, {'width': 4}, 0, image_size=8)"
    code = f"import sys; {make}; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_weights_depend_on_the_seed_alone():
    one, two, other = (create_model("convnet", 3, {}, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["net.head.weight"], other["net.head.weight"])
    sized, plain = create_model(VIT, 3, SMALL_VIT, 1, image_size=32), create_model(VIT, 3, SMALL_VIT, 1)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in sized.state_dict().items())


def test_timm_models_by_name_and_what_is_not_one():
    model = create_model("resnet18", 3, {"block_args": {}}, seed=0)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3)
    allowed = r"allowed: convnet, preact_resnet18, vit_patch4_768_d8 and timm's \d+ .nearest: resnet"
    with pytest.raises(GdaError, match=rf"found 'resnet81'; {allowed}"):
        create_model("resnet81", 3, {}, seed=0)
    with pytest.raises(GdaError, match=r"model_args: convnet does not take \{'depth': 3\}; it takes width"):
        create_model("convnet", 3, {"depth": 3}, seed=0)
    with pytest.raises(GdaError, match=r"model_args: resnet18 does not take \{'img_size': 3\} .*unexpected keyword"):
        create_model("resnet18", 3, {"img_size": 3}, seed=0, image_size=32)
    with pytest.raises(GdaError, match=r"vit_patch4_768_d8 does not take \{'norm_layer': 'none at all'\}"):
        create_model(VIT, 3, {"norm_layer": "none at all"}, seed=0, image_size=32)


# --- the size of the images


@pytest.mark.parametrize(
    ("name", "given", "size", "expected"),
    [
        ("resnet18", {}, 32, {}),
        ("vit_tiny_patch16_224", {"patch_size": 4}, 32, {"img_size": 32, "patch_size": 4}),
        ("vit_tiny_patch16_224", {"img_size": 48}, 32, {"img_size": 48}),
        (SWIN, {}, 32, {"img_size": 32, "window_size": 4}),
        (SWIN, {}, 96, {"img_size": 96, "window_size": 6}),
        (SWIN, {}, 224, {"img_size": 224}),
        (SWIN, {"window_size": 2}, 32, {"img_size": 32, "window_size": 2}),
        (SWIN, {"patch_size": 2}, 32, {"img_size": 32, "patch_size": 2, "window_size": 4}),
        (SWIN, {}, 44, {"img_size": 44}),
        ("swinv2_tiny_window8_256", {}, 32, {"img_size": 32}),
    ],
)
def test_the_rule_by_which_a_model_fits_the_images(name, given, size, expected):
    assert fitted_args(name, given, size) == expected


def test_windows_divide_the_grids():
    for grid in range(1, 65):
        grids = [grid >> stage for stage in range(4)]
        window = dividing_window(grids, 7)
        assert window is None or (4 <= window <= 7 and all(each <= window or each % window == 0 for each in grids))
    assert dividing_window([56, 28, 14, 7], 7) == 7


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("name", "args"),
    [(VIT, SMALL_VIT), (SWIN, SMALL_SWIN), ("convnext_atto", {"depths": [1, 1, 1, 1]}), ("resnet10t", {})],
)
def test_families_give_logits_and_train_at_any_size(name, args, size):
    model = create_model(name, 5, args, seed=0, image_size=size)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x, labels = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "args", "size", "message"),
    [
        ("vit_tiny_patch16_224", {}, 8, r"patches of 16 x 16 pixels, .* 8 x 8: set model_args: {patch_size: 2}, or"),
        (
            "vit_tiny_patch16_224",
            {},
            40,
            r"patches of 16 x 16 .* 40 x 40: set model_args: {patch_size: 10}, or image_s",
        ),
        ("vit_tiny_patch16_224", {"img_size": 48}, 32, r"does not fit images of 32 x 32 pixels \(Input height"),
        ("vgg11", {"mlp_ratio": 0.001}, 8, r"vgg11 does not fit images of 8 x 8 pixels .*: set a larger image_size"),
    ],
)
def test_what_does_not_fit_is_one_line(name, args, size, message):
    with pytest.raises(GdaError, match=message) as caught:
        create_model(name, 3, args, seed=0, image_size=size)
    assert "\n" not in str(caught.value)


# --- the paper's models at their real size


def vit_of_the_cited_code(hidden: int, depth: int, heads: int, width: int, mlp: int, patch: int, size: int) -> int:
    """Count the parameters of lucidrains/vit-pytorch's ViT for 10 classes, layer by layer."""
    pixels, tokens = 3 * patch**2, (size // patch) ** 2 + 1
    embedding = 2 * pixels + pixels * hidden + hidden + 2 * hidden + hidden + tokens * hidden
    attention = 2 * hidden + hidden * 3 * heads * width + heads * width * hidden + hidden
    feed_forward = 2 * hidden + hidden * mlp + mlp + mlp * hidden + hidden
    return embedding + depth * (attention + feed_forward) + 2 * hidden + hidden * 10 + 10


def test_the_papers_models_have_the_parameters_of_their_references():
    theirs = {"vgg19": "vgg19", "densenet121": "densenet121", "convnext_tiny": "convnext_tiny", "resnet18": "resnet18"}
    with torch.device("meta"):
        reference = {name: count(getattr(torchvision.models, other)(num_classes=10)) for name, other in theirs.items()}
        swin = count(torchvision.models.swin_t(num_classes=10))  # at 224 x 224, windows of 7
        ours = {
            name: count(timm.create_model(name, num_classes=10, **fitted_args(name, {}, size)))
            for name, (size, _) in PAPER.items()
        }
        assert count(timm.create_model(SWIN, num_classes=10)) == swin
    # A window of w has (2 w - 1)^2 positions for each head of each block; at 32 x 32 the windows are 4, 4, 2 and 1.
    heads = [2 * 3, 2 * 6, 6 * 12, 2 * 24]
    smaller = sum((13**2 - (2 * window - 1) ** 2) * number for window, number in zip((4, 4, 2, 1), heads, strict=True))
    reference |= {SWIN: swin - smaller, VIT: vit_of_the_cited_code(768, 8, 8, 64, 2304, 4, 32)}
    reference["preact_resnet18"] = 11_172_170
    assert ours == reference == {name: parameters for name, (_, parameters) in PAPER.items()}


def train_two_steps(name: str, size: int, parameters: int) -> list[float]:
    """Train one of the paper's models on two images and return the losses."""
    model = create_model(name, 10, {}, seed=0, image_size=size)
    assert count(model) == parameters
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(x), torch.arange(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert losses[0] != losses[1]
    return losses


@pytest.mark.parametrize("name", [name for name in PAPER if name not in ("vgg19", VIT)])
def test_the_papers_models_train_at_their_real_size(name):  # the two large ones: tests/soak/test_paper_models.py
    train_two_steps(name, *PAPER[name])


def test_the_papers_vit_has_heads_of_64():
    with torch.device("meta"):
        net: Any = timm.create_model(VIT)
        wide: Any = timm.create_model(VIT, head_width=96)
    assert (net.embed_dim, len(net.blocks), net.patch_embed.patch_size) == (768, 8, (4, 4))
    assert (net.blocks[0].attn.num_heads, net.blocks[0].attn.head_dim) == (8, 64)
    assert net.blocks[0].attn.qkv.weight.shape == (3 * 512, 768)
    assert net.blocks[0].mlp.fc1.weight.shape == (2304, 768)
    assert wide.blocks[0].attn.proj.weight.shape == (768, 768)


# --- checkpoints


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints_load_here_and_in_timm_with_the_same_logits(tmp_path, case):
    name, args, size = CHECKPOINTS[case]
    model = create_model(name, 3, args, seed=5, image_size=size)
    x = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    model(x)  # moves the batch statistics
    model.eval()
    folder = save(tmp_path, name, model, ["a", "b", "c"], size)
    again = load_checkpoint(folder).eval()
    theirs: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(again(x), model(x))
        assert torch.equal(theirs(x), model(x))
    assert theirs.pretrained_cfg["label_names"] == ["a", "b", "c"]
    assert theirs.pretrained_cfg["input_size"][1:] in ((size, size), [size, size])
    assert json.loads((folder / "config.json").read_text())["model_args"] == again.model_args == model.model_args
    tuned = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5)
    assert tuned(x).shape == (4, 5)


def test_a_checkpoint_keeps_the_normalisation_of_its_weights(tmp_path, resnet):
    model = create_model("resnet18", 3, {}, seed=0, image_size=32, pretrained=str(resnet)).eval()
    folder = save(tmp_path, "resnet18", model, ["a", "b", "c"], 32)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(theirs)
    assert [*data["mean"], *data["std"]] == [0.485, 0.456, 0.406, 0.229, 0.224, 0.225]
    x = torch.rand(2, 3, 32, 32)
    normalised = (x - torch.tensor(data["mean"]).view(3, 1, 1)) / torch.tensor(data["std"]).view(3, 1, 1)
    with torch.inference_mode():
        assert torch.equal(load_checkpoint(folder).eval()(x), model(x))
        assert torch.allclose(theirs(normalised), model(x), atol=1e-6)
        assert not torch.allclose(theirs(x), model(x), atol=1e-2)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("cut weights", r"model.safetensors is no whole safetensors file .*: bring it back"),
        ("no weights", r"checkpoint: .*model.safetensors does not exist"),
        ("no config", r"config.json does not exist: .* is no checkpoint"),
        ("cut config", r"config.json: not valid JSON"),
        ("other config", r"config.json: found no 'num_classes'"),
        (
            "other model",
            r"weights of preact_resnet18: 105 missing \(first 'stem.weight'\), 36 unexpected .*, 1 of another shape \(",
        ),
        (
            "other width",
            r"does not hold the weights of convnet: 31 of another shape .*: name the model and model_args",
        ),
    ],
)
def test_damaged_and_foreign_checkpoints_are_one_line(tmp_path, harm, message):
    folder = save(tmp_path, "convnet", create_model("convnet", 3, {"width": 4}, 0), ["a", "b", "c"], 8)
    weights, config = folder / "model.safetensors", folder / "config.json"
    values = json.loads(config.read_text())
    if harm == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif harm == "cut config":
        config.write_text(config.read_text()[:50])
    elif harm.startswith("no "):
        (weights if harm == "no weights" else config).unlink()
    elif harm == "other config":
        config.write_text(json.dumps({"architecture": "convnet"}))
    elif harm == "other model":
        config.write_text(json.dumps({**values, "architecture": "preact_resnet18"}))
    else:
        config.write_text(json.dumps({**values, "model_args": {"width": 8}}))
    with pytest.raises(GdaError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


# --- pretrained weights


def test_a_local_file_gives_its_weights_and_another_number_of_classes_a_new_head(resnet):
    weights = load_file(resnet)
    new, other = (create_model("resnet18", 3, {}, seed, pretrained=str(resnet)) for seed in (0, 1))
    kept = create_model("resnet18", 7, {}, seed=0, pretrained=str(resnet))
    for name, value in kept.net.state_dict().items():
        assert torch.equal(value, weights[name])
        assert name.startswith("fc.") or torch.equal(new.net.state_dict()[name], value)
    assert new.net.fc.weight.shape == (3, 512)
    assert not torch.equal(new.net.fc.weight, other.net.fc.weight)
    assert torch.equal(new.net.fc.weight, create_model("resnet18", 3, {}, seed=0, pretrained=str(resnet)).net.fc.weight)
    assert new.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize("case", ["preact_resnet18", "vit", "swin"])
def test_a_checkpoint_of_ours_is_a_start_for_other_classes_and_sizes(tmp_path, case):
    name, args, size = CHECKPOINTS[case]
    first = create_model(name, 3, args, seed=5, image_size=size)
    first.mean += 0.25
    save(tmp_path, name, first, ["a", "b", "c"], size)
    second = create_model(name, 4, args, seed=0, image_size=2 * size, pretrained=str(tmp_path / "model.safetensors"))
    assert second.eval()(torch.rand(2, 3, 2 * size, 2 * size)).shape == (2, 4)
    before, after = first.net.state_dict(), second.net.state_dict()
    positions = {"vit": "pos_embed", "swin": "relative_position_bias_table"}.get(case, "none")
    for key, value in after.items():
        assert key.startswith("head.") or key.endswith(positions) or torch.equal(value, before[key]), key
    assert second.mean.flatten().tolist() == [0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("name", "args", "file", "message"),
    [
        (
            "resnet34",
            {},
            "weights",
            r"weights.safetensors does not hold the weights of resnet34: \d+ missing .first 'lay",
        ),
        ("convnet", {}, "weights", r"weights of convnet: \d+ missing \(first 'features.0.weight'\), \d+ unexpected"),
        (
            "resnet18",
            {"channels": [8, 16, 32, 64]},
            "weights",
            r"weights of resnet18: 6 missing .*, \d+ of another shape",
        ),
        ("resnet18", {}, "cut", r"pretrained: .*cut.safetensors is no whole safetensors file"),
        ("resnet18", {}, "nowhere", r"pretrained: .*nowhere.safetensors does not exist"),
        ("resnet18", {}, "folder", r"folder.safetensors is a folder: name the .safetensors file in it"),
    ],
)
def test_weights_that_do_not_match_are_one_line(tmp_path, resnet, name, args, file, message):
    (tmp_path / "weights.safetensors").write_bytes(resnet.read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(resnet.read_bytes()[:100_000])
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(GdaError, match=message) as caught:
        create_model(name, 3, args, seed=0, pretrained=str(tmp_path / f"{file}.safetensors"))
    assert "\n" not in str(caught.value)


def test_timms_weights_that_cannot_be_had_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(GdaError, match=r"weights of resnet18 cannot be had .*`hf download timm/resnet18.a1_in1k`"):
        create_model("resnet18", 3, {}, seed=0, pretrained=True)
    for name in ("convnet", VIT):
        with pytest.raises(GdaError, match=rf"pretrained: timm has no weights of {name}: set false"):
            create_model(name, 3, {}, seed=0, pretrained=True)


# --- freezing


def trained(model: Classifier) -> set[str]:
    """Take a step and return the names of what moved."""
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    model.train()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.1)
    nn.functional.cross_entropy(model(torch.rand(4, 3, 32, 32)), torch.arange(4) % 3).backward()
    optimizer.step()
    return {name for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(("name", "args"), [("resnet10t", {}), ("preact_resnet18", {"width": 4}), (VIT, SMALL_VIT)])
def test_frozen_parts_and_their_batch_statistics_do_not_move(name, args):
    def of(what: str | int) -> set[str]:
        model = create_model(name, 3, args, seed=0, image_size=32)
        freeze(model.eval(), what)
        assert not model.training
        return trained(model)

    everything, head = of("none"), of("backbone")
    last = {"resnet10t": "fc", "preact_resnet18": "head", VIT: "head"}[name]
    assert head == {f"{last}.weight", f"{last}.bias"}
    assert everything > of(1) > of(2) > head
    stems = {"resnet10t": ("conv1", "bn1"), "preact_resnet18": ("stem",), VIT: ("cls", "pos", "patch_embed")}[name]
    assert all(key.startswith(stems) for key in everything - of(1))


def test_no_more_can_be_frozen_than_there_is():
    with pytest.raises(GdaError, match="freeze: found 6; allowed: none, backbone, or 1 to 5 leading groups"):
        freeze(create_model("resnet18", 3, {}, seed=0), 6)


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


@pytest.mark.parametrize("name", ["convnet", "preact_resnet18", "resnet18", "swin_tiny_patch4_window7_224"])
def test_class_activation_maps_average_to_the_logits(name):
    model = create_model(name, 3, {"width": 4} if name in ARCHITECTURES else {}, seed=0, image_size=64).train()
    x, targets = torch.rand(2, 3, 64, 64), torch.eye(3)[:2]
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    maps = model.attention(x, targets)
    assert maps.dim() == 3
    assert model.training
    assert all(torch.equal(statistics[key], value) for key, value in model.state_dict().items())
    bias = model.net.get_classifier().bias
    with torch.no_grad():
        logits = model.eval()(x)[[0, 1], [0, 1]] - bias[[0, 1]]
    assert torch.allclose(maps.mean((1, 2)), logits, atol=1e-4)


def test_a_model_without_feature_maps_is_named_by_snap_mix():
    model = create_model("vit_patch4_768_d8", 3, {"depth": 1}, seed=0, image_size=8)
    with pytest.raises(GdaError, match=r"augment.snap_mix: this model has no feature maps"):
        model.attention(torch.rand(1, 3, 8, 8), torch.eye(3)[:1])
