"""The sections of `params.yaml` but for training: one model each, with types, ranges and meaning."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gdacli.executors import EXECUTORS
from gdacli.explain import one_of
from gdacli.gan_section import ALSO_OF_GAN, GAN, Gan
from gdacli.generators import BACKEND_OPTIONS, EMBEDDED, FILES, backend_facts, backend_names
from gdacli.lora_section import Lora, Templates
from gdacli.selection import RANKINGS

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
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


class Select(Section):
    """`select`: which images are learned late; see docs/selection.md."""

    share: Share | None = Field(
        None, description=f"share that ranking strategies choose ({', '.join(sorted(RANKINGS))}); null: natural size"
    )
    per_class: bool = Field(False, description="take `share` in each class, with every strategy but all")
    quotas: dict[str, Share] = Field(
        {}, description="class name: share of its images that every strategy but all takes, whatever the rest says"
    )
    exclude_suspects: bool = Field(
        False, description="never choose images whose label is probably wrong; needs probe.folds"
    )
    seed: Seed = Field(0, description="of k-means and of random choices")

    @model_validator(mode="after")
    def _per_class_has_a_share(self) -> "Select":
        if self.per_class and self.share is None:
            raise ValueError("per_class: true needs share: what part of each class to take (0.3)")
        return self


class Fit(Section):
    """`fit`: the diffusion model of the class_conditional backend, trained on the train split alone.

    Backend gan takes only some of it, see `fit.gan`.
    """

    updates: Positive = Field(2500, description="optimizer steps; with patience at most; more is better")
    batch_size: Positive = Field(128, description="images per update")
    lr: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="of AdamW; warmed up, then, without patience, lowered over the last fifth"
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.995, description="of the averaged weights that are saved; less over the first updates"
    )
    conditional: bool = Field(
        True, description="false: a model that is told no class; variants have their source's label"
    )
    class_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share trained without class, for guidance"
    )
    prediction_type: Literal["epsilon", "v_prediction"] = Field(
        "epsilon", description="what the network says: the noise, or v, which keeps the colours of small networks true"
    )
    block_out_channels: Annotated[list[Positive], Field(min_length=1)] = Field(
        [32, 64], description="channels per level"
    )
    layers_per_block: Positive = Field(1, description="residual layers per level")
    attention_resolutions: list[Positive] = Field(
        [], description="sides in pixels at which a level has self-attention; the middle block always has"
    )
    attention_head_dim: Positive = Field(8, description="channels of an attention head")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="within the residual layers")
    flip: bool = Field(False, description="also train on mirrored images")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the forward pass; auto: bfloat16 on a GPU, else float32; weights are float32"
    )
    compile: bool = Field(False, description="torch.compile: faster on a GPU, after a minute or so more to start")
    check_every: Positive | None = Field(
        None, description="updates between checks: Fréchet distance, sample sheet, saved state; null: only at the end"
    )
    check_images: Annotated[int, Field(ge=2)] = Field(
        1000, description="samples of a check, against as many held-out images; fewer where there are fewer"
    )
    patience: Positive | None = Field(
        None, description="stop after so many checks without a better Fréchet distance, keep the best; null: off"
    )
    lora: Lora | None = Field(
        None, description="fine-tune a text_to_image model in place of it: mapping, see below; null: off"
    )
    gan: Gan = Field(Gan(), description="the networks of generate.backend gan, see below")
    save_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0, description="between two saves of the state from which a killed fit goes on"
    )
    seed: Seed = Field(0, description="of the weights, the order, the noise and the checks")

    def of_weights(self, backend: str) -> dict[str, Any]:
        """Return the settings that decide a backend's weights, or what the checks along the way say."""
        unseen = set() if self.check_every else {"check_images"}
        if backend == GAN:
            return self.model_dump(mode="json", include={"gan", *ALSO_OF_GAN} - unseen)
        # A key that came later, at what there was before, is left out: what is finished stays finished.
        later = {"prediction_type"} if self.prediction_type == "epsilon" else set()
        return self.model_dump(mode="json", exclude={"save_seconds", "lora", "gan", *unseen, *later})

    def of_training(self, backend: str) -> dict[str, Any]:
        """Return what a backend's `fit` takes of them as it stands."""
        if backend == GAN:
            return self.gan.model_dump() | self.model_dump(include={*ALSO_OF_GAN} - {"check_images"})
        return self.model_dump(exclude={"dtype", "check_images", "save_seconds", "lora", "gan"})

    @model_validator(mode="after")
    def _channels_fit_groups(self) -> "Fit":
        if any(channels % 8 for channels in self.block_out_channels):
            raise ValueError(f"block_out_channels {self.block_out_channels}: each must be a multiple of 8")
        return self

    @model_validator(mode="after")
    def _patience_needs_checks(self) -> "Fit":
        if self.patience is not None and self.check_every is None:
            raise ValueError(f"patience: found {self.patience}, but check_every null checks nothing: set check_every")
        return self


Distance = Annotated[float, Field(ge=0, le=2)]


class Filter(Section):
    """`generate.filter`: which synthetic images stay out of the pool; null turns a threshold off.

    Distances are cosine distances between features of the probe: 0 is the same direction, 2 the opposite.
    """

    constant: bool = Field(True, description="drop images of one colour, such as a safety checker's black ones")
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="lowest probability that the probe gives the image's label"
    )
    min_source_distance: Distance | None = Field(None, description="nearer to its source it teaches nothing new")
    max_source_distance: Distance | None = Field(None, description="further from its source it is another image")
    min_nearest_distance: Distance | None = Field(None, description="nearer to another train image it may be memorised")
    min_clip_score: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="lowest cosine of image and prompt; needs clip_model"
    )


class Generate(Section):
    """`generate`: faithful variants; the strengths are the arms'. docs/generators.md says which backend reads what."""

    backend: str = Field(
        EMBEDDED[0], description=f"one of {', '.join(backend_names())}, or a file `generators/<name>.py` of the project"
    )
    model: str | None = Field(
        None, description="folder, file, URL of a file or Hub id of the backend's pretrained model"
    )
    revision: str | None = Field(None, description="of the model, where that is a Hub id")
    variant: str | None = Field(None, description="of the model's files: fp16")
    lora: str | None = Field(None, description="LoRA weights for the model: a folder, a .safetensors file, a Hub id")
    lora_scale: Annotated[float, Field(gt=0, le=2)] = Field(1.0, description="how much of them")
    prompt: Templates | None = Field(
        None, description="may hold {class_name}; of a list each image draws one by its seed; null: the backend's own"
    )
    class_prompts: dict[str, Templates] = Field({}, description="class name: its own prompt or list of prompts")
    negative_prompt: str | None = Field(None, description="what images shall not show; needs guidance_scale above 1")
    native_size: Annotated[int, Field(ge=8, multiple_of=8)] | None = Field(
        None, description="pixels of a side at which the model works; null: those it was trained at"
    )
    safety_checker: bool = Field(True, description="run the model's own, if it has one; images it blackens are dropped")
    cpu_offload: bool = Field(False, description="keep on the GPU only the part of the model that is at work")
    image_guidance_scale: Annotated[float, Field(ge=0)] = Field(
        1.5, description="how much an editing model keeps to the source; 1 is none"
    )
    fractals: str | None = Field(None, description="folder of fractal images to blend in; null: made as needed")
    fractal_weight: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="share of the fractal in each pixel")
    mapping: str | None = Field(
        None, description="file of the exported model's mapping network, z to w, where `model` is its synthesis"
    )
    trusted_sha256: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        [], description="sha256 of exported files that may be loaded, which can run code in them; docs/exported.md"
    )
    output_range: Literal["minus_one_to_one", "zero_to_one"] = Field(
        "minus_one_to_one", description="of the exported model's pixels, from black to white"
    )
    solver: Literal["ddpm", "ddim", "dpmsolver++", "lcm", "native"] = Field(
        "dpmsolver++",
        description="ddpm is the paper's (and Euler ancestral, for turbo models); lcm is for LCM models; native for "
        "those that are passed through to their own pipeline",
    )
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="for strength 1; 0.5 takes half")
    noise_schedule: Literal["native", "glide"] = Field(
        "native", description="what a strength means: the model's own timestep, or the noise that GLIDE has there"
    )
    guidance_scale: Annotated[float, Field(ge=0)] = Field(3.0, description="1 is none")
    batch_size: Annotated[int, Field(ge=16, multiple_of=16)] = Field(
        64, description="images at a time; a multiple of 16 x compute.threads, but where device is cuda"
    )
    seed: Seed = Field(0, description="base of every image's own seed")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the denoiser; auto: bfloat16 on a GPU, else float32"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto", description="auto: channels_last on a GPU"
    )
    compile: bool = Field(False, description="compile the denoiser with torch.compile: a slow start, then faster")
    image_format: Literal["png", "webp", "jpg"] = Field("png", description="png is lossless")
    image_quality: Annotated[int, Field(ge=1, le=100)] = Field(95, description="of webp (100: lossless) and jpg")
    filter: Filter = Field(Filter(), description="which images stay out of the pool")
    clip_model: str | None = Field(
        None, description="folder or Hub id of a CLIP model (needs transformers): each image gets a clip_score"
    )
    reuse: list[str] = Field([], description="pools to take images from: folders or fsspec URLs")
    executor: str = Field("local", description="one of " + ", ".join(EXECUTORS))
    workers: Positive | None = Field(None, description="processes; null: one per GPU, one on a CPU")

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, backend: str) -> str:
        return one_of(backend, backend_names())

    @field_validator("executor")
    @classmethod
    def _executor_exists(cls, executor: str) -> str:
        return one_of(executor, EXECUTORS)

    @model_validator(mode="after")
    def _fits_together(self) -> "Generate":
        own = backend_facts(self.backend).options
        for name in BACKEND_OPTIONS:
            if name not in own and getattr(self, name) != type(self).model_fields[name].default:
                able = [other for other in backend_names() if name in backend_facts(other).options]
                raise ValueError(f"{name} goes with backend: {' or '.join(able)}; found backend: {self.backend}")
        if "model" in own and self.model is None:
            raise ValueError(f"model: missing; backend: {self.backend} needs a folder, a file, a URL or a Hub id")
        if self.negative_prompt is not None and self.guidance_scale == 1:
            raise ValueError("negative_prompt has no effect with guidance_scale 1: raise it (3), or leave it out")
        if self.checks_safety() and not self.filter.constant:
            raise ValueError(
                "filter.constant: false would keep the safety checker's black images: set true, or "
                "safety_checker: false"
            )
        if self.filter.min_clip_score is not None and self.clip_model is None:
            raise ValueError("filter.min_clip_score needs clip_model: a folder or the Hub id of a CLIP model")
        return self

    def named_files(self) -> dict[str, str]:
        """Return the files that the settings name, by option."""
        return {name: getattr(self, name) for name in FILES if getattr(self, name)}

    def checks_safety(self) -> bool:
        """Return whether the backend runs the model's own safety checker, if it has one."""
        return self.safety_checker and "safety_checker" in backend_facts(self.backend).options

    def of_images(self) -> dict[str, Any]:
        """Return the settings that decide what an image is; the others decide where it is made and if it is kept."""
        settings = self.model_dump(exclude={"filter", "clip_model", "reuse", "executor", "workers"})
        listed = {name: [value] if isinstance(value, str) else value for name, value in self.class_prompts.items()}
        prompt = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return settings | {"prompt": prompt, "class_prompts": listed}


class Course(Section):
    """What is seen of the course of a training; see docs/training.md."""

    num_images: Annotated[int, Field(ge=2)] = Field(
        2048, description="synthetic images of each Fréchet distance, of arms that search for images"
    )
    epochs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = Field(
        None, description="after which features are mapped ([5, 15, 30]); null: a sixth, half and all of the training"
    )


class Evaluate(Section):
    """`evaluate`: on which images the arms are compared, and what is measured beside the errors."""

    split: Literal["test", "validation"] = Field(
        "test", description="validation is for choosing, between strengths or strategies; test is for the last word"
    )
    features: str = Field(
        "probe", description="what images are compared by: the probe, or a timm model such as inception_v3.tv_in1k"
    )
    features_weights: str | None = Field(
        None, description="a .safetensors file of that timm model; null: its own, from the Hub or its cache"
    )
    corruption_images: Annotated[int, Field(ge=0)] = Field(
        0, description="images to corrupt in 15 ways at 5 severities, of each class as many; 0: off"
    )
    gradient_variance: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="mini-batches an epoch to measure the variance of their gradients by, in a replay of each arm's "
        "first training (10); null: off",
    )
    course: Course | None = Field(
        None,
        description="maps of features, and Fréchet distances of what a search finds, in a replay of each arm's first "
        "training ({}); null: off",
    )
    feature_map: Literal["pca", "umap"] = Field("pca", description="umap needs pip install 'gdacli[umap]'")
