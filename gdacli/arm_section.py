"""The sections `compare` and `arms` of `params.yaml`: what is compared."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gdacli.arms import POOL_NAME, Add, Arm, milli
from gdacli.explain import one_of
from gdacli.sections import Positive, Section, Seed
from gdacli.selection import STRATEGIES


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
    like: str | None = Field(
        None, description="another arm, whose number of selected images (imported: of added ones) this one takes"
    )
    match: Literal["total", "per_class"] = Field("total", description="what `like` takes from the other arm")
    add: Add | None = Field(None, description="what is added; null: nothing")
    pool: Annotated[str, Field(pattern=POOL_NAME)] | None = Field(
        None, description="imported: folder in data/pools, of `gdacli pull` or `gdacli import-pool`"
    )
    k: Annotated[int, Field(ge=2)] | None = Field(None, description="copies: times that a selected image is shown")
    strengths: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [],
        description="synthetic: how much noise is added before denoising, t*/T; 1 is pure noise; imported: which ones",
    )
    variants: Positive = Field(1, description="synthetic: images per selected image and strength")
    num_images: Positive | None = Field(
        None, description="sampled: images in all, class-balanced, without a source; imported: how many to draw"
    )
    train: dict[str, Any] = Field(description="overrides of the train section for this arm; {} for none")

    @field_validator("select")
    @classmethod
    def _strategy_exists(cls, select: str | None) -> str | None:
        return select if select is None else one_of(select, STRATEGIES)

    @model_validator(mode="after")
    def _fits_together(self) -> "ArmParams":
        if self.add in (None, "sampled") and (self.select or self.like):
            raise ValueError(
                f"select and like need add: copies, synthetic or imported, found add: {self.add or 'nothing'}"
            )
        if self.add in ("copies", "synthetic") and self.select is None:
            raise ValueError(f"add: {self.add} needs select: one of {', '.join(STRATEGIES)}")
        needed = {"copies": "k", "synthetic": "strengths", "sampled": "num_images", "imported": "pool"}
        for add, key in needed.items():
            given = bool(getattr(self, key))
            chooses = self.add == "imported" and key in ("strengths", "num_images")
            if given and self.add != add and not chooses:
                raise ValueError(f"{key} goes with add: {add}, found add: {self.add or 'nothing'}")
            if not given and self.add == add:
                raise ValueError(f"add: {add} needs {key}")
        if self.add == "imported" and self.like and self.num_images:
            raise ValueError("like and num_images both say how many imported images to draw: leave either out")
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
            pool=self.pool,
        )
