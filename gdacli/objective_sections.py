"""The sections of `params.yaml` of the training objectives that use synthetic images beside the real ones."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gdacli.sections import Positive, Section

Unit = Annotated[float, Field(ge=0, lt=1)]

OBJECTIVES = ("cross_entropy", "gda", "gda_multi_head", "gda_ssl", "pcr", "real_consistency", "mgr", "gda_mps")
SEARCHING = ("mgr", "gda_mps")
CONSISTENCY = ("gda_ssl", "pcr", "real_consistency", "mgr")


class StrongAugment(Section):
    """The strong augmentation T of consistency: RandAugment, differentiable, random per image."""

    num_ops: Annotated[int, Field(ge=1, le=16)] = Field(2, description="operations per image, one after the other")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="of 31 bins; the last is the strongest")


class Truncation(Section):
    """Multi-modal truncation sampling: w is pulled towards the nearest of the centres of many w."""

    psi: Annotated[float, Field(ge=0, le=1)] = Field(0.7, description="what is left of the distance; 1 is none pulled")
    num_centres: Positive = Field(64, description="clusters of w; several times as many as classes")
    num_samples: Positive = Field(20_000, description="w that are drawn to find them")


class Synthetic(Section):
    """Synthetic images beside the real ones, of every objective but cross_entropy; see docs/objectives.md."""

    weight: Annotated[float, Field(gt=0)] = Field(
        0.1, description="of the synthetic term, the papers' lambda: `gdacli sweep lambda` chooses it"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        64, description="synthetic images per update, of all processes; of fewer stored ones all"
    )
    strong_augment: StrongAugment | None = Field(
        StrongAugment(), description="of the second view that consistency compares; null: none, then set latent_noise"
    )
    latent_noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="variance of noise on z for the second view of consistency (LatentAugment: 0.001); 0: off"
    )
    truncation: Truncation | None = Field(None, description="pull w towards common images; null: off")
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        4, description="denoising steps where the generator is the diffusion model"
    )
    batch_norm: Literal["real", "both"] = Field("real", description="images whose batches move the running statistics")
    temperature: Annotated[float, Field(gt=0, le=1)] = Field(0.4, description="gda_ssl: sharpens what is aimed at")
    confidence: Unit = Field(0.8, description="gda_ssl: least probability that counts")


class Finder(Section):
    """The search for latent vectors (objectives mgr and gda_mps); see docs/objectives.md."""

    architecture: Literal["residual_mlp", "residual_shallow", "mlp", "linear"] = Field(
        "residual_mlp", description="z + tanh(MLP(z)), z + tanh(linear(z)), MLP(z), linear(z); an MLP has 3 layers"
    )
    hidden: Positive | None = Field(None, description="width of the MLP; null: that of z")
    lr: Annotated[float, Field(gt=0)] = Field(1e-4, description="of Adam")
    kl_weight: Annotated[float, Field(ge=0)] = Field(0.01, description="keeps found z near N(0, I); 0: no such term")
    kl_reduction: Literal["mean", "sum"] = Field("mean", description="over the coordinates of z")
    criterion: Literal["validation", "cross_entropy", "pcr"] = Field(
        "validation",
        description="what it looks for: a lower validation loss one step ahead, or (no meta-learning) a higher loss of "
        "that kind on the synthetic images",
    )
    gradient: Literal["finite_differences", "exact"] = Field(
        "finite_differences", description="of the validation loss one step ahead"
    )
    epsilon: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="length of the step to either side, for finite differences"
    )
    optimise: Literal["finder", "generator"] = Field(
        "finder", description="generator: change its weights instead of z; kl_weight then has no term"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        64, description="validation images per update, of all processes; of fewer all"
    )
    inner_lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of the step looked ahead; null: that of the update"
    )


class WithObjective(Section):
    """What of `train` says which loss is minimised."""

    objective: Literal[
        "cross_entropy", "gda", "gda_multi_head", "gda_ssl", "pcr", "real_consistency", "mgr", "gda_mps"
    ] = Field("cross_entropy", description="what is minimised; all others use synthetic images as a term of their own")
    synthetic: Synthetic = Field(Synthetic(), description="of the other objectives: weight, batch, second view")
    finder: Finder = Field(Finder(), description="of mgr and gda_mps: the search for useful latent vectors")

    @model_validator(mode="after")
    def _a_second_view(self) -> "WithObjective":
        given, what = self.synthetic, f"objective: {self.objective}"
        if self.objective == "gda_mps" and self.finder.criterion == "pcr":
            what += " with finder.criterion: pcr"
        elif self.objective not in CONSISTENCY:
            return self
        if given.strong_augment is None and given.latent_noise == 0:
            raise ValueError(
                f"{what} compares two views of an image, but synthetic.strong_augment is null and "
                "synthetic.latent_noise 0: set either"
            )
        if self.objective == "real_consistency" and given.strong_augment is None:
            raise ValueError("objective: real_consistency needs synthetic.strong_augment: real images have no latents")
        return self

    def of_objective(self) -> dict[str, Any]:
        """Return the settings of the objective that decide the weights; none of those that it does not read."""
        found: dict[str, Any] = {"objective": self.objective}
        if self.objective != "cross_entropy":
            found["synthetic"] = self.synthetic.model_dump(mode="json")
        if self.objective in SEARCHING:
            found["finder"] = self.finder.model_dump(mode="json")
        return found
