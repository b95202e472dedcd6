"""The sections of `params.yaml` that name augmentations: one model each, under its name in `augment.AUGMENTATIONS`."""

from typing import Annotated

from pydantic import Field, model_validator

from gdacli.sections import Positive, Section

Alpha = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(gt=0, le=1)]
Bins = Annotated[int, Field(ge=2, le=1000)]
Range = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]


AUTOMATIC = ("trivial_augment", "rand_augment", "aug_mix")
MIXING = ("mixup", "cut_mix", "snap_mix")


class Ending(Section):
    """What all augmentations have."""

    end_epoch: Positive | None = Field(None, description="last epoch that uses it; null: all epochs")


class Crop(Ending):
    """Random crop after zero padding."""

    padding: Positive = Field(4, description="black pixels added on each side")


class Flip(Ending):
    """Random horizontal flip."""

    probability: Share = Field(0.5, description="share of the images that are mirrored")


class TrivialAugment(Ending):
    """One operation of one random magnitude per image."""

    num_magnitude_bins: Bins = Field(31, description="magnitudes per operation")


class RandAugment(Ending):
    """Some operations of one magnitude per image."""

    num_ops: Annotated[int, Field(ge=1, le=16)] = Field(2, description="operations per image, one after the other")
    magnitude: Annotated[int, Field(ge=0)] = Field(9, description="bin of the magnitude; the last is the strongest")
    num_magnitude_bins: Bins = Field(31, description="bins")

    @model_validator(mode="after")
    def _magnitude_is_a_bin(self) -> "RandAugment":
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(f"magnitude {self.magnitude}: must be below num_magnitude_bins {self.num_magnitude_bins}")
        return self


class AugMix(Ending):
    """A mixture of chains of operations per image."""

    severity: Annotated[int, Field(ge=1, le=10)] = Field(3, description="highest magnitude, of 10")
    mixture_width: Annotated[int, Field(ge=1, le=16)] = Field(3, description="chains that are mixed")
    chain_depth: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None, description="operations per chain; null draws 1, 2 or 3"
    )
    alpha: Alpha = Field(1.0, description="of the weights' Dirichlet and Beta distributions")
    all_ops: bool = Field(True, description="also brightness, color, contrast and sharpness")


class Mixing(Ending):
    """What those that mix two images have."""

    probability: Share = Field(1.0, description="share of the batches that it mixes; a batch is mixed in one way")


class Mixup(Mixing):
    """Weighted means of two images and of their labels."""

    alpha: Alpha = Field(1.0, description="an image's own weight is drawn from Beta(alpha, alpha)")
    label_alpha: Alpha | None = Field(
        None, description="a label's own weight is drawn from this Beta instead; null: the image's weight"
    )


class CutMix(Mixing):
    """A box of another image, labels by its area."""

    alpha: Alpha = Field(1.0, description="the share of the image that stays is drawn from Beta(alpha, alpha)")


class SnapMix(Mixing):
    """A box of another size of another image, labels by class activation."""

    alpha: Alpha = Field(5.0, description="the share outside each box is drawn from Beta(alpha, alpha)")


class RandomResizedCrop(Ending):
    """Random part of the original image, resized: `random_crops.random_box`."""

    scale: Range = Field([0.08, 1.0], description="lowest and highest share of the image's area")
    ratio: Range = Field([0.75, 1.3333], description="lowest and highest width over height of the part")

    @model_validator(mode="after")
    def _in_order(self) -> "RandomResizedCrop":
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1] or self.scale[1] > 1:
            raise ValueError(
                f"scale {self.scale}, ratio {self.ratio}: the lower one comes first, and a scale is at most 1"
            )
        return self


class Augment(Section):
    """Augmentations during training, each random per image; null turns one off."""

    crop: Crop | None = Field(None, description="random crop after padding with black")
    flip: Flip | None = Field(None, description="random horizontal flip")
    trivial_augment: TrivialAugment | None = Field(None, description="TrivialAugment, the wide space")
    rand_augment: RandAugment | None = Field(None, description="RandAugment")
    aug_mix: AugMix | None = Field(None, description="AugMix, without its consistency loss")
    mixup: Mixup | None = Field(None, description="mixup; end_epoch stops it early")
    cut_mix: CutMix | None = Field(None, description="CutMix")
    snap_mix: SnapMix | None = Field(None, description="SnapMix; labels of a row need not sum to 1")
    random_resized_crop: RandomResizedCrop | None = Field(
        None, description="random part of each image as it is stored, resized; they then stream"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Augment":
        automatic = [name for name in AUTOMATIC if getattr(self, name) is not None]
        if len(automatic) > 1:
            raise ValueError(f"found {' and '.join(automatic)}; at most one of {', '.join(AUTOMATIC)}: null the others")
        mixing = {name: getattr(self, name) for name in MIXING if getattr(self, name) is not None}
        if sum(each.probability for each in mixing.values()) > 1 + 1e-9:
            found = ", ".join(f"{name} {each.probability:g}" for name, each in mixing.items())
            raise ValueError(f"found probability of {found}; a batch is mixed in one way: together they are at most 1")
        return self
