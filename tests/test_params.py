import pytest
import yaml
from conftest import TINY

from gdacli.errors import GdaError
from gdacli.params import load_params


@pytest.fixture
def folder(tmp_path):
    values = {**TINY, "data": {"source": "digits"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


WRONG = {
    "data.sorce=x": "data.sorce: unknown key; did you mean source\\? known are: config, image_column",
    "generate.guidance_scale=-1": "generate.guidance_scale: found -1; must be greater than or equal to 0",
    "generate.batch_size=40": "generate.batch_size: found 40; must be a multiple of 16",
    "generate.backend=stable": "generate.backend: found 'stable', allowed: class_conditional",
    "generate.backend=glid": "generate.backend: found 'glid', allowed: class_conditional, .*",
    "generate.prompt=x": "generate: prompt goes with backend: .*text_to_image; found backend: class_conditional",
    "generate.backend=text_to_image": "generate: model: missing; backend: text_to_image needs a folder, a file",
    "generate.solver=euler": "generate.solver: found 'euler'; must be 'ddpm', .* or 'native'",
    "generate={backend: text_to_image, model: x, filter: {constant: false}}": "filter.constant: false would keep",
    "generate={backend: text_to_image, model: x, prompt: 'a {name}'}": "generate.prompt: found {name} in 'a ",
    "fit.lora={prompt: ['a {class_name}', '{x}']}": "fit.lora.prompt.*: found {x} in '{x}'; allowed: {class_name}",
    "generate={backend: text_to_image, model: x, lora_scale: 0.5}": "neither generate.lora nor fit.lora to scale",
    "train.lr=fast": "train.lr: found 'fast'; must be a valid number",
    "train.augment.crop.pading=2": "train.augment.crop.pading: unknown key; did you mean padding",
    "train.budget={}": "train.budget: found neither; give either epochs or updates",
    "train.budget={epochs: 1, updates: 2}": "train.budget: found epochs 1 and updates 2; give either",
    "probe.separation_epoch=9": "probe: separation_epoch 9 is after the last of 2 epochs",
    "probe.separation_epoch=0": "probe.separation_epoch: found 0; must be greater than or equal to 1",
    "probe={model: convnet, epochs: auto, separation_epoch: 2}": "separation_epoch 2 goes with a number of epochs",
    "probe.max_epochs=9": "max_epochs 9 goes with epochs: auto, found 2",
    "probe.folds=1": "probe.folds: found 1; must be greater than or equal to 2",
    "select.per_class=true": "select: per_class: true needs share",
    "select.quotas={disc: 0}": "select.quotas.disc: found 0; must be greater than 0",
    "select.exclude_suspects=true": "found true, but probe.folds null makes no out-of-fold predictions",
    "arms.targeted.select=el2n": "arms.targeted: select: el2n has no size of its own; add like: <arm> or select.share",
    "compare.arms=[]": "compare.arms: found \\[\\]",
    "compare.arms=[original, targetd]": "compare.arms: found 'targetd', allowed: .*original.*did you mean targeted",
    "compare.seeds=[0, 0]": "seeds \\[0, 0\\]: one stands twice",
    "arms.targeted.select=clutser": "arms.targeted.select: found 'clutser', allowed: cluster, .*did you mean cluster",
    "arms.targeted.strengths=[0]": "strengths.0: found 0; must be greater than 0; .*-S arms.targeted.strengths=VALUE",
    "arms.targeted.strengths=[0.05]": "arms.targeted.strengths: 0.05 of generate.num_inference_steps 4 is no den",
    "arms.targeted.strengths=[0.5, 0.5]": "two are equal in thousandths",
    "arms.targeted.strengths=[0.5004]": "found 0.5004, allowed: thousandths, at most three decimals",
    "arms.random.select=all": "like goes with a strategy that ranks images",
    "compute.threads=3": "generate.batch_size: found 32; with compute.threads 3 it must be a multiple of 48",
    "fit.class_dropout=0": "generate.guidance_scale: found 3.0, but fit.class_dropout 0 trains nothing to guide with",
    "fit.conditional=false": "generate.guidance_scale: found 3.0, but fit.conditional false makes a model without cl",
    "fit={conditional: false, patience: 3}": "fit: patience: found 3, but check_every null checks nothing",
    "compare.arms.0=original": "-S compare.arms.0=original: compare.arms is no section, it holds .*original",
    "arms.targeted.strengths=[]": "arms.targeted: add: synthetic needs strengths",
    "arms.targeted.k=3": "arms.targeted: k goes with add: copies, found add: synthetic",
    "arms.targeted.train.lr=-1": "arms.targeted.train.lr: found -1; must be greater than 0",
    "arms.targeted.train.optimiser=sam": "arms.targeted.train.optimiser: unknown key",
    "arms.random.like=nobody": "arms.random.like: found 'nobody', allowed: flood, original",
    "arms.random.like=original": "arms.random.like: original must select images itself",
    "arms.random.like=null": "arms.random: select: random has no size of its own",
    "arms.flood.num_images=0": "arms.flood.num_images: found 0; must be greater than or equal to 1",
    "arms.original={}": "arms.original.train: missing",
    "arms.Bad-Name={train: {}}": "arms.Bad-Name: a name holds a-z, 0-9 and _ only",
    "fit.block_out_channels=[12]": "block_out_channels \\[12\\]: each must be a multiple of 8",
    "batch_size=3": "-S batch_size=3: .*batch_size: unknown key; did you mean (fit|generate|probe|train).batch",
    "train": "-S train: expected section.key=value",
}


@pytest.mark.parametrize("override", WRONG)
def test_mistakes_are_named_in_one_line(folder, override):
    with pytest.raises(GdaError) as caught:
        load_params(folder, [override])
    message = str(caught.value)
    assert "\n" not in message
    import re

    assert re.search(WRONG[override], message), message


def test_an_arm_without_sources_is_refused_where_the_backend_edits_sources(folder):
    edits = ["generate.backend=diffusemix", "generate.model=folder"]
    load_params(folder, edits)
    with pytest.raises(GdaError, match=r"arms.flood: add: sampled [^\n]*diffusemix does not: it edits sources; "):
        load_params(folder, [*edits, "compare.arms=[original, flood]"])
    load_params(folder, ["compare.arms=[original, flood]"])


def test_a_model_without_classes_makes_no_image_from_noise_alone(folder):
    told = ["fit.conditional=false", "generate.guidance_scale=1"]
    assert load_params(folder, told).fit.conditional is False  # the arm flood is there, but not compared
    for more in ("compare.arms=[flood]", "arms.targeted.strengths=[0.5, 1]"):
        with pytest.raises(
            GdaError, match=r"arms\.(flood|targeted): its images are made from noise alone, but fit.cond"
        ):
            load_params(folder, [*told, more])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(GdaError, match=r"params\.yaml does not exist: go to a project's folder"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_text("data: [")
    with pytest.raises(GdaError, match="not valid YAML"):
        load_params(tmp_path)
    (tmp_path / "params.yaml").write_text("hello")
    with pytest.raises(GdaError, match="expected sections"):
        load_params(tmp_path)


def test_overrides_and_the_arms_own_training(folder):
    overrides = [
        "train.batch_size=4",
        "arms.targeted.train={augment: {flip: {}}, budget: {updates: 7}, lr: 0.5}",
        "compare.seeds=[3]",
    ]
    params = load_params(folder, overrides)
    assert params.compare.seeds == [3]
    assert params.train.batch_size == params.train_of("targeted").batch_size == 4
    own = params.train_of("targeted")
    assert (own.lr, own.budget.updates, own.budget.epochs) == (0.5, 7, None)
    assert own.augment.crop is not None
    assert own.augment.flip is not None
    assert params.train_of("original").augment.flip is None


def test_another_model_takes_none_of_the_sections_arguments(folder):
    params = load_params(folder, ["arms.targeted.train={model: resnet18}", "train.model_args={width: 4}"])
    assert params.train_of("targeted").model_args == {}
    assert params.train_of("original").model_args == {"width": 4}
    params = load_params(folder, ["arms.targeted.train={model: preact_resnet18, model_args: {width: 8}}"])
    assert params.train_of("targeted").model_args == {"width": 8}


def test_parameters_do_not_change(folder):
    params = load_params(folder)
    with pytest.raises(ValueError, match="frozen"):
        params.train.lr = 1.0  # type: ignore[misc]


def test_a_value_of_several_kinds_says_all_that_is_allowed(folder):
    for override, start in (
        (
            "train.freeze=0",
            "train.freeze: found 0; must be 'none' or 'backbone', or greater than or equal to 1; change",
        ),
        ("probe.epochs=foo", "probe.epochs: found 'foo'; must be a valid integer"),
    ):
        with pytest.raises(GdaError) as error:
            load_params(folder, [override])
        assert start in str(error.value)
        assert "constrained" not in str(error.value)


def test_an_arms_sam_and_augmentations_join_the_sections(folder):
    params = load_params(
        folder,
        [
            "train.sam={base: adamw, rho: 0.2, batch_norm: first}",
            "train.augment={mixup: {alpha: 0.2, end_epoch: 5}}",
            "arms.original.train={optimizer: sam, sam: {rho: 0.05}, augment: {mixup: {probability: 0.5}}}",
        ],
    )
    train = params.train_of("original")
    assert (train.sam.base, train.sam.rho, train.sam.batch_norm) == ("adamw", 0.05, "first")
    mixup = train.augment.mixup
    assert mixup is not None
    assert (mixup.alpha, mixup.end_epoch, mixup.probability) == (0.2, 5, 0.5)
