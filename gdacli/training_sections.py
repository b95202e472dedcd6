"""The sections of `params.yaml` that train a classifier: what probing and training share, and each one's own."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gdacli.augment_sections import Augment
from gdacli.objective_sections import WithObjective
from gdacli.sections import Positive, Section, Seed


class Sam(Section):
    """Sharpness-aware minimisation (`optimizer: sam`): the gradient is taken where the loss is highest nearby."""

    base: Literal["sgd", "adamw"] = Field("sgd", description="optimizer that takes the step")
    rho: Annotated[float, Field(gt=0)] = Field(0.1, description="length of the ascent step, over all parameters")
    adaptive: bool = Field(False, description="measure it relative to each weight (ASAM)")
    m: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="images that share an ascent step; null: the whole batch, of all processes",
    )
    weight_decay_in_ascent: bool = Field(
        True, description="weight decay is part of the loss, and so of both gradients; false: of the base's step alone"
    )
    batch_norm: Literal["both", "first"] = Field("both", description="passes that move the running statistics")


class Optimisation(Section):
    """What probing and training share."""

    model: str = Field(description="an architecture: ours (convnet, preact_resnet18...) or any of timm")
    model_args: dict[str, Any] = Field(default_factory=dict, description="arguments of the architecture (width: 16)")
    pretrained: bool | str = Field(
        False, description="start from: false (random), true (timm's weights), or a local .safetensors file"
    )
    freeze: Literal["none", "backbone"] | Annotated[int, Field(ge=1, strict=True)] = Field(
        "none", description="what is not trained: all but the last layer, or a number of leading groups (1: the stem)"
    )
    image_size: Annotated[int, Field(ge=4, le=4096)] | None = Field(
        None, description="side of the input in pixels; null: that of the prepared images"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(128, description="images per update, of all processes together")
    optimizer: Literal["sgd", "adamw", "sam"] = Field("sgd", description="sam takes its settings from `sam`")
    lr: Annotated[float, Field(gt=0)] = Field(0.1, description="highest learning rate")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of SGD; the first beta of AdamW")
    nesterov: bool = Field(False, description="of SGD")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        5e-4, description="on all parameters; AdamW decouples it, but see sam.weight_decay_in_ascent"
    )
    sam: Sam = Field(Sam(), description="of optimizer: sam")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of a label spread over all")
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(None, description="longest gradient; null: any")
    balance: Literal["none", "sampling", "loss"] = Field(
        "none", description="weigh classes equally: by drawing them equally often, or in the loss"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass; weights are float32")
    compile: bool = Field(False, description="compile the model with torch.compile: a slow start, then faster")
    augment: Augment = Field(Augment(), description="augmentations, each random per image; null turns one off")
    loading: Literal["auto", "memory", "stream"] = Field(
        "auto", description="images on the device, or read from the shards; auto: by size"
    )
    loader_workers: Annotated[int, Field(ge=0)] = Field(2, description="processes that read images when streaming")

    @model_validator(mode="after")
    def _optimizer_fits(self) -> "Optimisation":
        base = self.sam.base if self.optimizer == "sam" else self.optimizer
        if self.nesterov and (base != "sgd" or self.momentum == 0):
            raise ValueError(f"nesterov goes with SGD and momentum > 0, found {base} and momentum {self.momentum}")
        if self.freeze != "none" and self.pretrained is False:
            raise ValueError(
                f"freeze: found {self.freeze}, but pretrained false would leave random weights as they are; allowed: "
                "none, or name pretrained weights"
            )
        if self.sam.m is not None and self.sam.m > self.batch_size:
            raise ValueError(f"sam.m: found {self.sam.m}; at most batch_size {self.batch_size}, or null")
        return self

    def of_loading(self) -> dict[str, Any]:
        """Return how `loading.open_images` is to read the training images."""
        crop = self.augment.random_resized_crop
        return {
            "loading": self.loading,
            "workers": self.loader_workers,
            "random_resized_crop": crop.model_dump() if crop is not None else None,
        }

    def of_loop(self) -> dict[str, Any]:
        """Return what the training loop takes as it is."""
        names = (
            "batch_size", "lr", "momentum", "nesterov", "weight_decay", "label_smoothing", "clip_norm", "balance",
            "dtype", "compile",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "optimizer": self.sam.base if self.optimizer == "sam" else self.optimizer,
            "sam": self.sam.model_dump(exclude={"base"}) if self.optimizer == "sam" else None,
            "augmentations": self.augment.model_dump(exclude_none=True, exclude={"random_resized_crop"}),
        }


class Probe(Optimisation):
    """`probe`: a few epochs on the original images, each recorded; the learning rate is constant."""

    epochs: Positive | Literal["auto"] = Field(
        8,
        description="epochs to train and record; auto: until the training error falls slowly (docs/selection.md)",
    )
    max_epochs: Positive | None = Field(None, description="epochs: auto stops here at the latest; null is 30")
    separation_epoch: Positive | None = Field(None, description="epoch that selection looks at; null is the last")
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="train as often on all folds but one, to find wrong labels (5 is good); null: no",
    )
    seed: Seed = Field(0, description="of the weights, the order, the augmentations and the folds")

    @model_validator(mode="after")
    def _epochs_fit_together(self) -> "Probe":
        if self.epochs == "auto":
            if self.separation_epoch is not None:
                raise ValueError(f"separation_epoch {self.separation_epoch} goes with a number of epochs, found auto")
        elif self.max_epochs is not None:
            raise ValueError(f"max_epochs {self.max_epochs} goes with epochs: auto, found {self.epochs}")
        elif self.separation_epoch is not None and self.separation_epoch > self.epochs:
            raise ValueError(f"separation_epoch {self.separation_epoch} is after the last of {self.epochs} epochs")
        return self

    def last_epoch(self) -> int:
        """Return the epoch at which the training stops at the latest."""
        return self.max_epochs or 30 if self.epochs == "auto" else self.epochs


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


class Train(Optimisation, WithObjective):
    """`train`: from scratch, or from pretrained weights, on one arm's mix."""

    budget: Budget = Field(Budget(epochs=200), description="how long: give either epochs or updates")
    schedule: Literal["constant", "piecewise", "cosine", "one_cycle"] = Field(
        "piecewise", description="of the learning rate; piecewise: divided by 10 at each milestone"
    )
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.75], description="of schedule: piecewise, rising shares of the updates"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the updates in which the learning rate rises; one_cycle needs some"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="keep the moving average of the weights, with this decay an update; null: the last weights"
    )
    checkpoint: Literal["last", "best"] = Field(
        "last", description="weights that are kept: the last epoch's, or those of the lowest validation error"
    )
    save_seconds: Annotated[float, Field(ge=0)] = Field(
        30.0, description="between two saves of the state from which a killed training goes on"
    )
    trackers: list[Literal["tensorboard", "dvclive"]] = Field(
        [], description="also log each epoch to data/logs; each needs its package"
    )

    def of_weights(self) -> dict[str, Any]:
        """Return the settings that decide the weights; the others decide where images lie and what is watched."""
        elsewhere = {"loading", "loader_workers", "save_seconds", "trackers"}
        own = self.model_dump(mode="json", exclude={*elsewhere, "objective", "synthetic", "finder"})
        return own | self.of_objective()

    @model_validator(mode="after")
    def _objective_fits(self) -> "Train":
        if self.objective != "cross_entropy" and self.optimizer == "sam" and self.sam.m is not None:
            raise ValueError(
                f"sam.m: found {self.sam.m}, which goes with objective: cross_entropy: set it to null with "
                f"{self.objective}"
            )
        return self

    @model_validator(mode="after")
    def _milestones_rise(self) -> "Train":
        if sorted(set(self.milestones)) != self.milestones:
            raise ValueError(f"milestones: found {self.milestones}, allowed: rising shares, such as [0.3, 0.6, 0.8]")
        return self

    @model_validator(mode="after")
    def _one_cycle_rises(self) -> "Train":
        if self.schedule == "one_cycle" and self.warmup == 0:
            raise ValueError(
                "warmup: found 0; schedule: one_cycle needs a share of the updates to rise in, such as 0.25"
            )
        return self
