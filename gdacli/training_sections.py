"""The sections of `params.yaml` that train a classifier: what probing and training share, and each one's own."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gdacli.augment_sections import Augment
from gdacli.sections import Positive, Section, Seed


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
