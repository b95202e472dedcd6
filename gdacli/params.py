"""`params.yaml`: one model per section with types, ranges and meaning, and one-line errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gdacli.arms import Arm, milli
from gdacli.diffusion import num_denoising_steps
from gdacli.errors import GdaError
from gdacli.explain import FILE, explain, one_of
from gdacli.generators import BACKENDS
from gdacli.selection import RANKINGS, STRATEGIES

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys are errors, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Data(Section):
    """`prepare`: where the images come from and how they are split."""

    source: str = Field(description="`digits`, a folder (images, parquet or Arrow tables, WebDataset shards), a Hub id")
    image_column: str | None = Field(None, description="column of a table; null finds it by type")
    label_column: str | None = Field(None, description="column of a table; null finds it by type")
    config: str | None = Field(None, description="configuration of a Hub dataset")
    revision: str | None = Field(None, description="revision of a Hub dataset")
    image_size: Annotated[int, Field(ge=4, le=4096)] | None = Field(None, description="pixels; null keeps the sizes")
    resize: Literal["crop", "squash", "pad"] = Field("crop", description="how images become square")
    train_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of each class's train images kept"
    )
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of train set apart")
    test_fraction: Fraction = Field(0.2, description="share set apart as test where the source has no test split")
    seed: Seed = Field(0, description="of the splits")
    on_bad_image: Literal["error", "skip"] = Field("error", description="what an undecodable image does")
    shard_size: Positive = Field(1000, description="images per shard")


class Compute(Section):
    """Where the torch stages run; another number of threads changes the last bits of results."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if there is one")
    threads: Positive = Field(2, description="CPU threads")


class Crop(Section):
    """Random crop after zero padding."""

    padding: Positive = Field(4, description="black pixels added on each side")


class Flip(Section):
    """Random horizontal flip."""

    probability: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="share of the images that are mirrored")


class Augment(Section):
    """Augmentations during training, each random per image; null turns one off."""

    crop: Crop | None = Field(None, description="random crop after padding with black")
    flip: Flip | None = Field(None, description="random horizontal flip")


class Optimisation(Section):
    """What probing and training share."""

    model: str = Field(description="an architecture: ours (convnet, preact_resnet18) or any of timm")
    model_args: dict[str, Any] = Field(default_factory=dict, description="arguments of the architecture (width: 16)")
    batch_size: Annotated[int, Field(ge=2)] = Field(128, description="images per update")
    lr: Annotated[float, Field(gt=0)] = Field(0.1, description="highest learning rate")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of SGD")
    weight_decay: Annotated[float, Field(ge=0)] = Field(5e-4, description="of SGD, on all parameters")
    augment: Augment = Field(Augment(), description="augmentations, each random per image; null turns one off")


class Probe(Optimisation):
    """`probe`: a few epochs on the original images, logits recorded after each; the learning rate is constant."""

    epochs: Positive = Field(8, description="epochs to train and record")
    separation_epoch: Positive | None = Field(None, description="epoch that selection looks at; null is the last")
    seed: Seed = Field(0, description="of the weights, the order and the augmentations")

    @model_validator(mode="after")
    def _separation_is_recorded(self) -> "Probe":
        if self.separation_epoch is not None and self.separation_epoch > self.epochs:
            raise ValueError(f"separation_epoch {self.separation_epoch} is after the last of {self.epochs} epochs")
        return self


class Select(Section):
    """`select`: which images are learned late."""

    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description=f"share that ranking strategies choose ({', '.join(sorted(RANKINGS))}); null: natural size"
    )
    seed: Seed = Field(0, description="of k-means and of random choices")


class Fit(Section):
    """`fit`: the class-conditional diffusion model, trained on the train split alone."""

    updates: Positive = Field(2500, description="optimizer steps; more is better")
    batch_size: Positive = Field(128, description="images per update")
    lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="of AdamW; warmed up, then lowered over the last fifth")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.995, description="of the averaged weights that are saved")
    class_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share trained without class, for guidance"
    )
    block_out_channels: Annotated[list[Positive], Field(min_length=1)] = Field(
        [32, 64], description="channels per level"
    )
    layers_per_block: Positive = Field(1, description="residual layers per level")
    flip: bool = Field(False, description="also train on mirrored images")
    seed: Seed = Field(0, description="of the weights, the order and the noise")

    @model_validator(mode="after")
    def _channels_fit_groups(self) -> "Fit":
        if any(channels % 8 for channels in self.block_out_channels):
            raise ValueError(f"block_out_channels {self.block_out_channels}: each must be a multiple of 8")
        return self


class Generate(Section):
    """`generate`: faithful variants; the strengths are the arms'."""

    backend: str = Field("class_conditional", description="one of " + ", ".join(BACKENDS))
    solver: Literal["ddpm", "ddim", "dpmsolver++"] = Field("dpmsolver++", description="ddpm is the paper's")
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="for strength 1; 0.5 takes half")
    guidance_scale: Annotated[float, Field(ge=0)] = Field(3.0, description="1 is none")
    batch_size: Annotated[int, Field(ge=16, multiple_of=16)] = Field(64, description="images at a time")
    seed: Seed = Field(0, description="base of every image's own seed")

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str) -> str:
        return one_of(backend, BACKENDS)


class Budget(Section):
    """How long to train: epochs over the arm's mix, or updates whatever the mix's size."""

    epochs: Positive | None = Field(None, description="passes over the arm's mix: a larger mix gets more updates")
    updates: Positive | None = Field(None, description="optimizer steps, the same for mixes of any size")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Budget":
        if (self.epochs is None) == (self.updates is None):
            found = "neither" if self.epochs is None else f"epochs {self.epochs} and updates {self.updates}"
            raise ValueError(f"found {found}; give either epochs or updates and set the other to null")
        return self


class Train(Optimisation):
    """`train`: from scratch on one arm's mix."""

    budget: Budget = Field(Budget(epochs=200), description="how long: give either epochs or updates")
    schedule: Literal["constant", "piecewise", "cosine"] = Field("piecewise", description="piecewise: /10 at 50, 75 %")


class Compare(Section):
    """Which arms and seeds to run; a DVC matrix goes over them."""

    arms: Annotated[list[str], Field(min_length=1, description="names of arms")]
    seeds: Annotated[list[Seed], Field(min_length=1, description="one training per arm and seed; 3 or more")]

    @model_validator(mode="after")
    def _no_doubles(self) -> "Compare":
        for name, values in (("arms", self.arms), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {values}: one stands twice")
        return self


class ArmParams(Section):
    """One arm; see docs/arms.md."""

    select: str | None = Field(None, description="which images: " + ", ".join(STRATEGIES))
    like: str | None = Field(None, description="another arm, whose number of selected images this one takes")
    match: Literal["total", "per_class"] = Field("total", description="what `like` takes from the other arm")
    add: Literal["copies", "synthetic", "sampled"] | None = Field(None, description="what is added; null: nothing")
    k: Annotated[int, Field(ge=2)] | None = Field(None, description="copies: times that a selected image is shown")
    strengths: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [], description="synthetic: how much noise is added before denoising, t*/T; 1 is pure noise"
    )
    variants: Positive = Field(1, description="synthetic: images per selected image and strength")
    num_images: Positive | None = Field(None, description="sampled: images in all, class-balanced, without a source")
    train: dict[str, Any] = Field(description="overrides of the train section for this arm; {} for none")

    @field_validator("select")
    @classmethod
    def _strategy_exists(cls, select: str | None) -> str | None:
        return select if select is None else one_of(select, STRATEGIES)

    @model_validator(mode="after")
    def _fits_together(self) -> "ArmParams":
        if self.add in (None, "sampled") and (self.select or self.like):
            raise ValueError(f"select and like need add: copies or synthetic, found add: {self.add or 'nothing'}")
        if self.add in ("copies", "synthetic") and self.select is None:
            raise ValueError(f"add: {self.add} needs select: one of {', '.join(STRATEGIES)}")
        needed = {"copies": "k", "synthetic": "strengths", "sampled": "num_images"}
        for add, key in needed.items():
            given = bool(getattr(self, key))
            if given and self.add != add:
                raise ValueError(f"{key} goes with add: {add}, found add: {self.add or 'nothing'}")
            if not given and self.add == add:
                raise ValueError(f"add: {add} needs {key}")
        if self.variants > 1 and self.add != "synthetic":
            raise ValueError(f"variants goes with add: synthetic, found add: {self.add or 'nothing'}")
        if self.select == "all" and self.like is not None:
            raise ValueError("like goes with a strategy that ranks images; select: all takes every one")
        if self.match != "total" and self.like is None:
            raise ValueError("match goes with like")
        for strength in self.strengths:
            if abs(1000 * strength - milli(strength)) > 1e-6:
                raise ValueError(f"strengths: found {strength}, allowed: thousandths, at most three decimals")
        if len({milli(strength) for strength in self.strengths}) < len(self.strengths):
            raise ValueError(f"strengths {self.strengths}: two are equal in thousandths")
        return self

    def to_arm(self, name: str) -> Arm:
        """Return what the layers below know of an arm."""
        return Arm(
            name=name,
            add=self.add,
            select=self.select,
            like=self.like,
            like_per_class=self.match == "per_class",
            k=self.k or 1,
            strengths=tuple(self.strengths),
            variants=self.variants,
            num_images=self.num_images or 0,
        )


class Params(Section):
    """The whole of `params.yaml`."""

    data: Data
    compute: Compute = Field(default_factory=Compute)
    probe: Probe
    select: Select = Field(default_factory=Select)
    fit: Fit = Field(default_factory=Fit)
    generate: Generate = Field(default_factory=Generate)
    train: Train
    compare: Compare
    arms: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], ArmParams]
    versions: dict[str, int] | None = Field(None, description="stage versions of a project made by `gdacli init`")

    @model_validator(mode="after")
    def _batches_fill_the_threads(self) -> "Params":
        share = 16 * self.compute.threads
        if self.generate.batch_size % share:
            raise ValueError(
                f"generate.batch_size: found {self.generate.batch_size}; with compute.threads {self.compute.threads} "
                f"it must be a multiple of {share}, so that an image's bits do not depend on its place in the batch"
            )
        if self.generate.guidance_scale != 1 and self.fit.class_dropout == 0:
            raise ValueError(
                f"generate.guidance_scale: found {self.generate.guidance_scale}, but fit.class_dropout 0 trains "
                "nothing to guide with: allowed is 1, or raise fit.class_dropout (0.1)"
            )
        return self

    @model_validator(mode="after")
    def _arms_refer_to_arms(self) -> "Params":
        for name in self.compare.arms:
            one_of(name, self.arms, "compare.arms: ")
        for name, arm in self.arms.items():
            if arm.like is not None:
                one_of(arm.like, self.arms, f"arms.{name}.like: ")
                other = self.arms[arm.like]
                if other.select is None or other.like is not None:
                    raise ValueError(f"arms.{name}.like: {arm.like} must select images itself, without `like`")
            elif arm.select == "random" and self.select.share is None:
                raise ValueError(f"arms.{name}: select: random has no size of its own; add like: <arm> or select.share")
            for strength in arm.strengths:
                if num_denoising_steps(strength, self.generate.num_inference_steps) == 0:
                    raise ValueError(
                        f"arms.{name}.strengths: {strength} of generate.num_inference_steps "
                        f"{self.generate.num_inference_steps} is no denoising step; raise either"
                    )
            self.train_of(name)
        return self

    def arm(self, name: str) -> Arm:
        """Return an arm by name.

        Raises:
            GdaError: there is no such arm; the message lists those that exist.
        """
        if name not in self.arms:
            raise GdaError(f"{FILE}: there is no arm {name!r}; the arms are {', '.join(self.arms)}")
        return self.arms[name].to_arm(name)

    def all_arms(self) -> dict[str, Arm]:
        """Return every arm of the file by name."""
        return {name: self.arm(name) for name in self.arms}

    def compared_arms(self) -> dict[str, Arm]:
        """Return the arms to run, in the order of `compare.arms`."""
        return {name: self.arm(name) for name in self.compare.arms}

    def train_of(self, arm: str) -> Train:
        """Return the train section with an arm's overrides.

        Raises:
            GdaError: an override is unknown or out of range.
        """
        overrides = self.arms[arm].train
        if not overrides:
            return self.train
        merged = self.train.model_dump()
        try:
            if "model" in overrides:
                merged["model_args"] = {}  # those of another architecture
            for key, value in overrides.items():
                nested = key == "augment" and isinstance(value, dict)
                merged[key] = {**merged[key], **value} if nested else value
            return Train.model_validate(merged)
        except ValidationError as error:
            raise GdaError(explain(error, ("arms", arm, "train"), Train)) from error


def load_params(folder: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check `params.yaml`.

    Args:
        folder: the project's folder.
        overrides: `section.key=value` each, the value in YAML, as `dvc exp run -S` takes them.

    Raises:
        GdaError: the file is missing or not YAML, or a key or a value is wrong; one line.
    """
    path = folder / FILE
    if not path.exists():
        raise GdaError(f"{path} does not exist: go to a project's folder, give one with -C, or make one: `gdacli init`")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GdaError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise GdaError(f"{path}: expected sections such as `data:` and `train:`, found {values!r}")
    for override in overrides:
        _override(values, override)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        message = explain(error, (), Params)
        for override in overrides:
            if message.startswith(f"{FILE}: {override.partition('=')[0]}"):
                message = f"-S {override}: {message}"
        raise GdaError(message) from error


def _override(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        raise GdaError(f"-S {override}: expected section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GdaError(f"-S {override}: the value is not valid YAML") from error
    for depth, key in enumerate(keys[:-1], 1):
        inner = values.get(key) or {}
        if not isinstance(inner, dict):
            raise GdaError(f"-S {override}: {'.'.join(keys[:depth])} is no section, it holds {inner!r}")
        inner = dict(inner)
        values[key] = inner
        values = inner
    values[keys[-1]] = value
