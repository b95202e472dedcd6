"""The sections of `params.yaml` that name augmentations: one model each, under its name in `augment.AUGMENTATIONS`."""

from typing import Annotated

from pydantic import Field

from gdacli.sections import Positive, Section


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
