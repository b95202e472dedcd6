"""Classifiers in onnxruntime beside torch."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import invoke
from torch import nn

from gdacli.errors import GdaError
from gdacli.exports.onnx import check_agreement, onnx_file
from gdacli.models import Classifier, create_model, save_weights, timm_config

NAMES = ["ant", "bee", "çicada"]

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnet": ("convnet", {"width": 4}),
    "vit": ("vit_tiny_patch16_224", {"depth": 1, "patch_size": 4, "embed_dim": 24}),
}
MORE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # in tests/soak: an export takes seconds
    "preact_resnet18_narrow": ("preact_resnet18", {"width": 4}),
    "resnet": ("test_resnet", {}),
}


def make(kind: str) -> Classifier:
    """Make a classifier whose logits differ from image to image, with statistics of batches and a normalisation."""
    name, args = (MODELS | MORE_MODELS)[kind]
    made = create_model(name, 3, args, 0, image_size=16)
    net = Classifier(made.net, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), made.model_args, 16)
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.2, 0.6, generator=generator)  # type: ignore[arg-type]
    nn.init.normal_(net.net.get_classifier().weight, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def convnet() -> bytes:
    """Give the file of our own small network."""
    return onnx_file(make("convnet"), NAMES)


@pytest.mark.parametrize("kind", MODELS)
def test_onnxruntime_gives_torchs_logits_at_any_batch_size(kind, convnet):
    net = make(kind)
    hold_against_torch(net, convnet if kind == "convnet" else onnx_file(net, NAMES))


def hold_against_torch(net: Classifier, content: bytes) -> None:
    """Compare the logits of a file with a classifier's, and see that the file says what it should and no more."""
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        x = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected = net(x).numpy()
        (found,) = session.run(["logits"], {"image": x.numpy()})
        assert found.shape == (count, 3)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["class_names"]) == NAMES
    assert meta["image_size"] == "16"
    for place in (Path.home(), Path(torch.__file__).parents[1], Path(__file__).parents[1]):
        assert str(place).encode() not in content


def test_equal_classifiers_give_equal_bytes(convnet):
    assert onnx_file(make("convnet"), NAMES) == convnet


def test_the_check_tells_another_classifier(convnet):
    net = make("convnet")
    images = [torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)]
    agreement = check_agreement(net, convnet, images)
    assert agreement.images == 25
    assert 0 <= agreement.difference <= agreement.allowed
    with torch.no_grad():
        net.net.head.bias[0] += 0.01
    with pytest.raises(GdaError, match="logits differ from torch's by up to 0.01, allowed is 0.000") as raised:
        check_agreement(net, convnet)
    assert "\n" not in str(raised.value)
    with torch.no_grad():
        net.net.head.bias[0] = float("nan")
    with pytest.raises(GdaError, match="differ from torch's by up to nan"):
        check_agreement(net, convnet)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    net = make("convnet")
    save_weights(net, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(timm_config("convnet", net, NAMES)))
    return folder


def refused(checkpoint: Path, output: Path) -> str:
    outcome = invoke("export", "--format", "onnx", "--model", str(checkpoint), "-o", str(output))
    assert outcome.code == 1
    assert not output.exists()
    return outcome.error


def test_a_missing_package_is_one_line(checkpoint, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    error = refused(checkpoint, tmp_path / "m.onnx")
    assert error == "--format onnx needs onnxscript: run `pip install 'gdacli[onnx]'`"


def test_a_file_that_torch_disagrees_with_is_not_written(checkpoint, convnet, tmp_path, monkeypatch):
    other = make("convnet")
    nn.init.zeros_(other.net.get_classifier().weight)
    save_weights(other, checkpoint / "model.safetensors")
    monkeypatch.setattr("gdacli.stages.export_model.onnx_file", lambda model, names: convnet)
    assert "the ONNX file is not written: onnxruntime's logits differ" in refused(checkpoint, tmp_path / "m.onnx")


class Unspeakable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x.mean(1)).real[:, :3]


def test_a_network_that_onnx_has_no_words_for_is_one_line():
    with pytest.raises(GdaError, match="torch cannot write this model as ONNX") as raised:
        onnx_file(Classifier(Unspeakable(), image_size=8), NAMES)
    assert "\n" not in str(raised.value)
