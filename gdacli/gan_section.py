"""The section `fit.gan` of `params.yaml`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

GAN = "gan"
"""The backend that it is read for."""

ALSO_OF_GAN = frozenset({"conditional", "check_every", "check_images", "patience", "seed"})
"""The keys of `fit` that decide what becomes of a gan, besides those of this section."""

Positive = Annotated[int, Field(ge=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Gan(BaseModel):
    """`fit.gan`: the networks of generate.backend gan, which no other backend reads.

    Of the other keys of `fit`, `conditional`, `check_every`, `check_images`, `patience`, `seed` and `save_seconds` hold
    for it as well; the rest are those of class_conditional. It is computed in float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["dcgan", "fastgan"] = Field(
        "dcgan", description="dcgan: convolutions alone; fastgan: also skips, and a discriminator that reconstructs"
    )
    updates: Positive = Field(
        3000,
        description="steps of both networks; with fit.patience at most",
    )
    batch_size: Annotated[int, Field(ge=4, multiple_of=2)] = Field(64, description="images per update")
    lr: Annotated[float, Field(gt=0)] = Field(5e-4, description="of Adam, constant, of both networks")
    betas: tuple[Beta, Beta] = Field((0.5, 0.999), description="of Adam")
    latent_dim: Positive = Field(100, description="numbers of noise that an image is made of")
    width: Positive = Field(
        32, description="channels at the images' own size; twice as many at each half of it, at most 8 times"
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.995, description="of the averaged weights that are saved; less over the first updates"
    )
    diversity: Annotated[float, Field(ge=0)] = Field(
        0.3, description="weight of a loss that falls as images of other noise differ; 0 leaves it out: see docs/fit.md"
    )
    augment: bool = Field(
        True,
        description="show the discriminator all images recoloured, moved and cut, for small data",
    )
    flip: bool = Field(False, description="also train on mirrored images")
