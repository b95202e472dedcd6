"""The presets against the numbers of METHODS.md, typed from there, and against params.yaml's own rules."""

from itertools import product
from typing import Any

import pytest
import timm
import torch
import yaml
from conftest import invoke

from gdacli.errors import GdaError
from gdacli.generators.class_conditional.network import make_network
from gdacli.params import Params, load_params
from gdacli.presets import load_presets, preset_values
from gdacli.stages.init import params_text
from gdacli.timm_models import fitted_args

PRESETS, ARCHITECTURES = load_presets()
SCRATCH = ("cifar10", "cifar100", "tiny_imagenet")
META = ("birds", "dtd", "pets", "mgr")
TRANSFER = ("flowers102", "aircraft", "cars", *META)


def params(preset: str, architecture: str | None = None) -> dict[str, Any]:
    """Return the params.yaml of a preset."""
    values = {"image_size": None, **preset_values(preset, architecture)}
    return yaml.safe_load(params_text({**values, "source": "digits", "versions": {"prepare": 1}}))


def test_the_presets_are_those_of_the_issue():
    assert set(PRESETS) == {"cpu", *SCRATCH, *TRANSFER}
    assert set(ARCHITECTURES) >= {"preact_resnet18", "vgg19", "densenet121", "vit", "convnext_tiny", "swin_tiny"}


@pytest.mark.parametrize("preset", SCRATCH)
def test_the_papers_recipe(preset):
    values = params(preset)
    train = values["train"]
    assert (train["model"], train["model_args"], train["pretrained"]) == ("preact_resnet18", {"width": 64}, False)
    assert (train["budget"], train["batch_size"], train["optimizer"]) == ({"epochs": 200}, 128, "sgd")
    assert (train["lr"], train["momentum"], train["weight_decay"]) == (0.1, 0.9, 0.0005)
    assert train["schedule"] == "piecewise"
    assert train["augment"] == {"crop": {"padding": 4}, "flip": {"probability": 0.5}}
    assert train["sam"] == {"base": "sgd", "rho": 0.1, "weight_decay_in_ascent": True, "batch_norm": "both"}
    generate = values["generate"]
    assert (generate["solver"], generate["num_inference_steps"], generate["guidance_scale"]) == ("ddpm", 100, 3.0)
    k = {"cifar10": 5, "cifar100": 5, "tiny_imagenet": 4}[preset]
    strengths = {5: [0.4, 0.5, 0.7, 0.8], 4: [0.5, 0.7, 0.8]}[k]
    for arm in ("targeted", "random", "high_loss", "misclassified", "targeted_sam"):
        assert values["arms"][arm]["strengths"] == strengths
    assert len(strengths) == k - 1
    assert values["arms"]["upsample"]["k"] == 2
    assert values["data"]["image_size"] == {"tiny_imagenet": 64}.get(preset, 32)


def test_the_known_epoch_of_the_probe():
    assert params("cifar10")["probe"]["epochs"] == 8


@pytest.mark.parametrize(
    ("preset", "epochs", "lr"), [("flowers102", 200, 0.001), ("aircraft", 100, 0.01), ("cars", 100, 0.01)]
)
def test_transfer_learning(preset, epochs, lr):
    values = params(preset)
    train = values["train"]
    assert train["model"].partition(".")[0] == "resnet18"
    assert train["pretrained"] is values["probe"]["pretrained"] is True
    assert (train["budget"], train["lr"], values["probe"]["lr"]) == ({"epochs": epochs}, lr, lr)
    assert values["arms"]["targeted"]["strengths"] == [0.5]  # k = 2
    assert values["data"]["image_size"] == 224
    assert set(train["augment"]) == {"random_resized_crop", "flip"}


@pytest.mark.parametrize("preset", META)
def test_the_settings_of_meta_generative_regularization(preset):
    values = params(preset)
    train = Params.model_validate(values).train
    assert (train.model, train.pretrained, values["data"]["image_size"]) == ("resnet18.tv_in1k", True, 224)
    assert (train.nesterov, train.momentum, train.lr, train.optimizer) == (True, 0.9, 0.01, "sgd")
    assert (train.budget.epochs, train.batch_size, train.synthetic.batch_size) == (200, 64, 64)
    assert (train.schedule, [200 * share for share in train.milestones]) == ("piecewise", [60, 120, 160])
    assert (train.finder.lr, train.finder.kl_weight, train.finder.gradient) == (1e-4, 0.01, "finite_differences")
    assert train.finder.architecture == "residual_mlp"


def test_its_tables_are_arms_that_are_chosen_by_the_validation_split():
    values = params("mgr")
    checked = Params.model_validate(values)
    assert (checked.data.validation_fraction, checked.train.checkpoint) == (0.1, "best")
    assert (checked.generate.backend, checked.fit.gan.architecture) == ("gan", "fastgan")
    assert [checked.train_of(name).objective for name in checked.compare.arms] == [
        "cross_entropy", "gda", "gda_multi_head", "gda_ssl", "gda_mps", "pcr", "mgr", "real_consistency",
    ]  # fmt: skip
    assert set(checked.arms) == set(checked.compare.arms)


@pytest.mark.parametrize(
    ("architecture", "lr", "rho"),
    [
        ("preact_resnet18", 0.1, 0.1), ("vgg19", 0.1, 0.1), ("densenet121", 0.1, 0.1), ("vit", 0.01, 0.01),
        ("convnext_tiny", 0.1, 0.05), ("swin_tiny", 0.01, 0.001),
    ],
)  # fmt: skip
def test_the_architectures_of_the_paper(architecture, lr, rho):
    values = params("cifar10", architecture)
    assert (values["train"]["lr"], values["probe"]["lr"], values["train"]["sam"]["rho"]) == (lr, lr, rho)
    assert values["train"]["model"] == values["probe"]["model"]
    assert values["train"]["budget"] == {"epochs": 200}


def test_the_fast_one_is_what_a_new_project_always_had():
    train, probe = params("cpu")["train"], params("cpu")["probe"]
    assert (train["model"], train["model_args"], train["budget"]) == ("preact_resnet18", {"width": 16}, {"epochs": 30})
    assert (train["batch_size"], train["lr"], train["schedule"]) == (128, 0.1, "piecewise")
    assert (probe["epochs"], probe["batch_size"], probe["lr"]) == (8, 128, 0.1)
    assert params("cpu")["fit"]["updates"] == 2000


@pytest.mark.parametrize(("preset", "attended", "millions"), [("cifar10", [16, 8], 37), ("tiny_imagenet", [16, 8], 53)])
def test_the_generators_of_a_gpu(preset, attended, millions):
    fit = Params.model_validate(params(preset)).fit
    assert (fit.attention_resolutions, fit.dropout, fit.ema_decay) == (attended, 0.1, 0.9999)
    assert (fit.compile, fit.dtype, fit.flip) == (True, "auto", True)
    names = ("block_out_channels", "layers_per_block", "attention_resolutions", "attention_head_dim", "dropout")
    with torch.device("meta"):
        network = make_network(params(preset)["data"]["image_size"], 10, **{name: getattr(fit, name) for name in names})
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_architectures_can_be_made(name):
    network = ARCHITECTURES[name]
    with torch.device("meta"):
        made = timm.create_model(network["model"], **fitted_args(network["model"], network["model_args"], 32))
    assert sum(parameter.numel() for parameter in made.parameters()) > 0
    assert timm.models.is_model_pretrained(network["model"]) == network.get("weights", False)


@pytest.mark.parametrize(("preset", "architecture"), list(product(PRESETS, ARCHITECTURES)))
def test_every_preset_and_architecture_is_valid_or_refused_in_one_line(preset, architecture):
    if preset in TRANSFER and not ARCHITECTURES[architecture].get("weights"):
        with pytest.raises(
            GdaError, match=f"'{architecture}', but --preset {preset} starts from .*; allowed: resnet18, v"
        ):
            preset_values(preset, architecture)
        return
    values = params(preset, architecture)
    checked = Params.model_validate(values)
    if preset != "mgr":
        assert checked.train_of("targeted_sam").optimizer == "sam"
    assert checked.train.model == checked.probe.model


def test_init_writes_a_preset_with_its_comments(tmp_path):
    outcome = invoke(
        "init", str(tmp_path / "mine"), "--preset", "tiny_imagenet", "--architecture", "swin_tiny", "--json"
    )
    assert outcome.code == 0, outcome.stderr
    made = load_params(tmp_path / "mine")
    assert (made.train.model, made.train.lr, made.train.sam.rho) == ("swin_tiny_patch4_window7_224", 0.01, 0.001)
    assert made.data.image_size == 64
    text = (tmp_path / "mine/params.yaml").read_text()
    assert "budget: {epochs: 200} # 200 is the paper's;" in text
    assert "{{" not in text


def test_what_there_is_not_is_one_line_and_help_lists_what_there_is(tmp_path):
    folder = str(tmp_path / "mine")
    error = invoke("init", folder, "--preset", "cifar").error
    assert error.startswith("--preset: found 'cifar', allowed: cpu, cifar10")
    assert "did you mean cifar10" in error
    error = invoke("init", folder, "--architecture", "resnet").error
    assert error.startswith("--architecture: found 'resnet', allowed: preact_resnet18, ")
    error = invoke("init", folder, "--preset", "cars", "--architecture", "vit").error
    assert error.startswith(
        "--architecture: found 'vit', but --preset cars starts from pretrained weights; allowed: res"
    )
    assert not (tmp_path / "mine").exists()
    help_text = " ".join(invoke("init", "--help").stdout.replace("│", " ").split())
    assert all(name in help_text for name in [*PRESETS, *ARCHITECTURES])
