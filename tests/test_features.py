from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import encoded, shape
from safetensors.torch import load_file, save_file

from gdacli.artifacts import sha256_bytes, write_json
from gdacli.errors import GdaError
from gdacli.features import image_features, image_predictions, load_feature_model, model_digest
from gdacli.image_index import References, read_references
from gdacli.models import Classifier, create_model, save_weights, timm_config
from gdacli.shards import Sample, write_shard
from gdacli.tables import write_table

CPU = torch.device("cpu")
NAMES = ("test_resnet.r160_in1k", "test_vit.r160_in1k")


def write_images(folder: Path, num_images: int, size: int = 16, seed: int = 0) -> tuple[References, np.ndarray]:
    """Write shards of 5 images each, and return what names the images, and their pixels."""
    rng = np.random.default_rng(seed)
    pixels = np.stack([shape(number % 3, rng, size) for number in range(num_images)])
    columns: dict[str, list[str]] = {"key": [], "shard": [], "sha256": []}
    folder.mkdir()
    for first in range(0, num_images, 5):
        samples = [
            Sample(f"k{row}", row % 3, encoded(pixels[row]), "png", {})
            for row in range(first, min(first + 5, num_images))
        ]
        name = f"train-{first:06d}.tar"
        write_shard(folder / name, samples)
        columns["key"] += [sample.key for sample in samples]
        columns["shard"] += [name] * len(samples)
        columns["sha256"] += [sha256_bytes(sample.image) for sample in samples]
    write_table(folder / "index.parquet", columns)
    references = read_references(folder / "index.parquet", origin="the test", command="none", folder=folder)
    return references, pixels.transpose(0, 3, 1, 2)


def write_probe(folder: Path, seed: int = 0) -> Path:
    model = create_model("convnet", 3, {"width": 4}, seed, image_size=16)
    folder.mkdir()
    save_weights(model, folder / "model.safetensors")
    write_json(folder / "config.json", timm_config("convnet", model, ["a", "b", "c"]))
    return folder


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the weights of timm's test models for 7 classes, random ones."""
    found = {}
    for name in NAMES:
        torch.manual_seed(1)
        found[name] = tmp_path_factory.mktemp("weights") / "weights.safetensors"
        save_file(timm.create_model(name, num_classes=7).state_dict(), found[name])
    return found


def test_the_probes_features_are_those_in_front_of_its_last_layer(tmp_path):
    references, pixels = write_images(tmp_path / "images", 12)
    model = load_feature_model("probe", None, write_probe(tmp_path / "probe"))
    found = image_features(references, model, device=CPU, cache=tmp_path / "cache")
    assert found.features.dtype == np.float32
    x = torch.from_numpy(pixels).float() / 255
    with torch.inference_mode():
        np.testing.assert_allclose(found.features, model.net.features(x).mean((2, 3)).numpy(), rtol=1e-5, atol=1e-6)
        normalised = F.normalize(torch.from_numpy(found.features), dim=1)
        torch.testing.assert_close(normalised, model.unit_features(x))
    assert len(set(np.linalg.norm(found.features, axis=1).round(4).tolist())) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_timm_model_sees_images_at_its_size_and_normalised_as_it_was_trained(name, tmp_path, timm_weights):
    references, pixels = write_images(tmp_path / "images", 3, size=20)
    model = load_feature_model(name, str(timm_weights[name]), tmp_path)
    found = image_features(references, model, device=CPU, cache=tmp_path / "cache")
    net: Any = timm.create_model(name, num_classes=7).eval()
    net.load_state_dict(load_file(timm_weights[name]))
    x = F.interpolate(torch.from_numpy(pixels), (160, 160), mode="bilinear", antialias=True).float() / 255
    with torch.inference_mode():
        expected = net.forward_head(net.forward_features((x - 0.5) / 0.5), pre_logits=True)
    np.testing.assert_allclose(found.features, expected.numpy(), rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_images_that_were_seen_are_not_looked_at_again(tmp_path, capsys):
    references, _ = write_images(tmp_path / "images", 12)
    model = load_feature_model("probe", None, write_probe(tmp_path / "probe"))
    first = image_features(references, model, device=CPU, cache=tmp_path / "cache", title="real images")
    assert "real images: 12/12 images" in capsys.readouterr().err
    for shard in references.shards:
        shard.unlink()
    same = load_feature_model("probe", None, tmp_path / "probe")
    again = image_features(references, same, device=CPU, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.features, first.features)
    assert again.digest == first.digest


def test_predictions_are_the_models_and_kept_without_features(tmp_path):
    references, pixels = write_images(tmp_path / "images", 12)
    model = load_feature_model("probe", None, write_probe(tmp_path / "probe"))
    x = torch.from_numpy(pixels).float() / 255
    with torch.no_grad():
        model.net.get_classifier().bias -= model.eval()(x).mean(0)  # else it takes all for one class
        expected = model(x).argmax(1).numpy()
    assert len(set(expected.tolist())) > 1
    found = image_predictions(references, model, device=CPU, cache=tmp_path / "cache", loading="stream", workers=1)
    np.testing.assert_array_equal(found, expected)
    (kept,) = (tmp_path / "cache").iterdir()
    assert np.load(kept).files == ["predictions"]
    for shard in references.shards:
        shard.unlink()
    again = image_predictions(references, model, device=CPU, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again, expected)


def test_other_weights_and_other_images_are_other_features(tmp_path):
    references, _ = write_images(tmp_path / "images", 12)
    others, _ = write_images(tmp_path / "others", 12, seed=1)
    model = load_feature_model("probe", None, write_probe(tmp_path / "probe"))
    trained = load_feature_model("probe", None, write_probe(tmp_path / "trained", seed=1))
    smaller = Classifier(model.net, model_args=model.model_args, image_size=8)
    normalised = Classifier(model.net, (0.5,) * 3, (0.5,) * 3, model.model_args, 16)
    cases = [(references, model), (others, model), (references, trained), (references, smaller)]
    cases += [(references, normalised)]
    found = [image_features(each, with_, device=CPU, cache=tmp_path / "cache") for each, with_ in cases]
    assert len({each.digest for each in found}) == len({each.features.tobytes() for each in found}) == len(cases)
    assert model_digest(model) == model_digest(load_feature_model("probe", None, tmp_path / "probe"))


def test_streamed_images_have_the_features_of_those_in_memory(tmp_path):
    references, _ = write_images(tmp_path / "images", 12)
    model = load_feature_model("probe", None, write_probe(tmp_path / "probe"))
    memory = image_features(references, model, device=CPU, cache=tmp_path / "a", loading="memory")
    stream = image_features(references, model, device=CPU, cache=tmp_path / "b", loading="stream", workers=1)
    np.testing.assert_array_equal(memory.features, stream.features)


def test_a_model_that_cannot_be_had_is_one_line(tmp_path, timm_weights):
    probe = write_probe(tmp_path / "probe")
    cases = {
        ("inception_v3.tv_in1k", None): "cannot be had .*hf download timm/inception_v3.tv_in1k",
        ("test_resnet.r160_in1k", str(tmp_path / "none.safetensors")): "none.safetensors does not exist",
        ("test_vit.r160_in1k", str(timm_weights[NAMES[0]])): "does not hold the weights of test_vit",
        ("resnet_18", None): "nearest: .*resnet18",
        ("resnet18.of_ours", None): "Invalid pretrained tag",
        ("convnet", None): "allowed: probe, or a timm model",
        ("probe", "a.safetensors"): "found a.safetensors, but",
    }
    for (name, weights), message in cases.items():
        with pytest.raises(GdaError, match=f"^evaluate.features.*{message}") as raised:
            load_feature_model(name, weights, probe)
        assert "\n" not in str(raised.value)
    with pytest.raises(GdaError, match="gdacli probe"):
        load_feature_model("probe", None, tmp_path / "nothing")


def test_features_that_are_not_numbers_are_refused_and_not_kept(tmp_path):
    references, _ = write_images(tmp_path / "images", 3)
    model = load_feature_model("probe", None, write_probe(tmp_path / "probe"))
    with torch.no_grad():
        model.net.features[0].weight.fill_(torch.nan)
    with pytest.raises(GdaError, match="not numbers"):
        image_features(references, model, device=CPU, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
