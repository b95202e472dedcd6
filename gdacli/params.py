"""`params.yaml` as a whole: how its sections fit together, overrides, and one-line errors."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from gdacli.arm_section import ArmParams, Compare
from gdacli.arms import STORED, Arm
from gdacli.errors import GdaError
from gdacli.explain import FILE, explain, one_of
from gdacli.generators import EMBEDDED, NONE, backend_facts, backend_names, check_batch_size
from gdacli.objective_sections import SEARCHING
from gdacli.push_section import Push
from gdacli.redaction import find_secret, redact
from gdacli.schedules import num_denoising_steps
from gdacli.sections import (
    Compute,
    Data,
    Evaluate,
    Fit,
    Generate,
    Section,
    Select,
)
from gdacli.selection import UNSIZED
from gdacli.training_sections import Probe, Train


class Params(Section):
    """The whole of `params.yaml`."""

    data: Data
    compute: Compute = Field(default_factory=Compute)
    probe: Probe
    select: Select = Field(default_factory=Select)
    fit: Fit = Field(default_factory=Fit)
    generate: Generate = Field(default_factory=Generate)
    train: Train
    evaluate: Evaluate = Field(default_factory=Evaluate)
    compare: Compare
    arms: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], ArmParams]
    push: Push = Field(default_factory=Push)
    versions: dict[str, int] | None = Field(None, description="stage versions of a project made by `gdacli init`")

    @model_validator(mode="after")
    def _batches_fill_the_threads(self) -> "Params":
        check_batch_size(self.generate.batch_size, self.compute.device, self.compute.threads)
        return self

    @model_validator(mode="after")
    def _the_fitted_model_knows_what_it_is_asked(self) -> "Params":
        backend = self.generate.backend
        guides = backend in EMBEDDED and not backend_facts(backend).noise_only and self.generate.guidance_scale != 1
        if backend in EMBEDDED and not self.fit.conditional:
            if guides:
                raise ValueError(
                    f"generate.guidance_scale: found {self.generate.guidance_scale}, but fit.conditional false makes a "
                    "model without classes to guide with: set guidance_scale to 1, or fit.conditional to true"
                )
            for name in self.compare.arms:
                arm = self.arms.get(name)
                if arm is not None and (arm.add == "sampled" or (arm.add == "synthetic" and 1.0 in arm.strengths)):
                    raise ValueError(
                        f"arms.{name}: its images are made from noise alone, but fit.conditional false makes a model "
                        "without classes, whose labels come from a source: set fit.conditional to true, or leave the "
                        "arm out of compare.arms"
                    )
        elif guides and self.fit.class_dropout == 0:
            raise ValueError(
                f"generate.guidance_scale: found {self.generate.guidance_scale}, but fit.class_dropout 0 trains "
                "nothing to guide with: allowed is 1, or raise fit.class_dropout (0.1)"
            )
        return self

    @model_validator(mode="after")
    def _lora_has_a_model(self) -> "Params":
        if self.fit.lora is not None and (self.generate.backend != "text_to_image" or self.generate.lora is not None):
            found = f"backend: {self.generate.backend}"
            if self.generate.lora is not None:
                found += f" and lora: {self.generate.lora}"
            raise ValueError(
                "fit.lora fine-tunes a model of generate.backend: text_to_image that has no generate.lora; found "
                f"{found}: set fit.lora to null, or change generate"
            )
        if self.generate.lora_scale != 1 and self.fit.lora is None and self.generate.lora is None:
            raise ValueError(
                f"generate.lora_scale: found {self.generate.lora_scale}, but there is neither generate.lora nor "
                "fit.lora to scale: name weights, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _suspects_are_known(self) -> "Params":
        if self.select.exclude_suspects and self.probe.folds is None:
            raise ValueError(
                "select.exclude_suspects: found true, but probe.folds null makes no out-of-fold predictions to suspect "
                "by: set probe.folds (5), or exclude_suspects: false"
            )
        return self

    @model_validator(mode="after")
    def _arms_refer_to_arms(self) -> "Params":
        backend = self.generate.backend
        noise_only = backend_facts(backend).noise_only
        for name in self.compare.arms:
            one_of(name, self.arms, "compare.arms: ")
        for name, arm in self.arms.items():
            if arm.like is not None:
                one_of(arm.like, self.arms, f"arms.{name}.like: ")
                other = self.arms[arm.like]
                if arm.add == "imported":
                    if other.add not in ("synthetic", "sampled"):
                        raise ValueError(
                            f"arms.{name}.like: {arm.like} adds no generated images whose number could be taken"
                        )
                elif other.select is None or other.like is not None:
                    raise ValueError(f"arms.{name}.like: {arm.like} must select images itself, without `like`")
            elif arm.select in UNSIZED and self.select.share is None:
                raise ValueError(
                    f"arms.{name}: select: {arm.select} has no size of its own; add like: <arm> or select.share"
                )
            for strength in arm.strengths if arm.add == "synthetic" else ():
                if not noise_only and num_denoising_steps(strength, self.generate.num_inference_steps) == 0:
                    raise ValueError(
                        f"arms.{name}.strengths: {strength} of generate.num_inference_steps "
                        f"{self.generate.num_inference_steps} is no denoising step; raise either"
                    )
            self.train_of(name)
        for name in self.compare.arms:
            if backend == NONE and self.arms[name].add in ("synthetic", "sampled"):
                raise ValueError(
                    f"arms.{name}: add: {self.arms[name].add} needs a generator, but generate.backend is none: name "
                    "one, or leave the arm out of compare.arms"
                )
            self._objective_has_images(name)
            if self.arms[name].add == "sampled" and backend_facts(backend).needs_source:
                raise ValueError(
                    f"arms.{name}: add: sampled makes images from noise alone, which generate.backend {backend} does "
                    "not: it edits sources; use add: synthetic, or leave the arm out of compare.arms"
                )
            if self.arms[name].add == "synthetic" and noise_only:
                raise ValueError(
                    f"arms.{name}: add: synthetic makes variants of images, which generate.backend {backend} does not: "
                    "it makes images from noise alone; use add: sampled, or leave the arm out of compare.arms"
                )
        return self

    def _objective_has_images(self, name: str) -> None:
        arm, train = self.arms[name], self.train_of(name)
        objective, stored = train.objective, arm.add in STORED
        if objective == "cross_entropy":
            return
        searching, own = objective in SEARCHING, train.synthetic
        if stored and (searching or objective == "real_consistency"):
            what = "searches the latent space of a generator" if searching else "compares real images alone"
            raise ValueError(
                f"arms.{name}: train.objective {objective} {what}, but the arm adds {arm.add} images: leave add out, "
                "or take pcr, gda, gda_multi_head or gda_ssl"
            )
        if stored and (own.latent_noise or own.truncation is not None):
            field = "latent_noise" if own.latent_noise else "truncation"
            raise ValueError(
                f"arms.{name}: train.synthetic.{field} is for images that a generator makes while the model trains, "
                f"but the arm adds {arm.add} images, which are stored: leave either out"
            )
        if not stored and objective != "real_consistency" and not backend_facts(self.generate.backend).latent:
            able = ", ".join(each for each in backend_names() if backend_facts(each).latent)
            raise ValueError(
                f"arms.{name}: train.objective {objective} needs synthetic images: an arm that adds some, or a "
                f"generate.backend that makes them while the model trains ({able}); found {self.generate.backend}"
            )

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

    def image_settings(self) -> dict[str, Any]:
        """Return what decides a synthetic image besides its source, class, strength and seed."""
        return {**self.generate.of_images(), "threads": self.compute.threads}

    def making(self) -> dict[str, Any]:
        """Return where images are made, what scores them, and which pools they may be taken from."""
        generate = self.generate
        return {"device": self.compute.device, "clip_model": generate.clip_model, "reuse": generate.reuse}

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
                merged[key] = (
                    _merged(merged.get(key), value) if key in ("augment", "sam", "synthetic", "finder") else value
                )
            return Train.model_validate(merged)
        except ValidationError as error:
            raise GdaError(explain(error, ("arms", arm, "train"), Train)) from error


def load_params(folder: Path, overrides: Sequence[str] = ()) -> Params:
    """Read and check `params.yaml`.

    Args:
        folder: the project's folder.
        overrides: `section.key=value` each, the value in YAML, as `dvc exp run -S` takes them.

    Raises:
        GdaError: the file is missing or not YAML, a key or a value is wrong, or one is a secret; one line.
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
    _check_secrets(values, dict(os.environ))
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        message = explain(error, (), Params)
        for override in overrides:
            if re.match(rf"{FILE}: {re.escape(override.partition('=')[0])}\b(?!_)", message):
                message = f"-S {override}: {message}"
        raise GdaError(message) from error


def _check_secrets(values: Any, environment: Mapping[str, str], place: str = "") -> None:
    """Refuse secrets: the file is in git, and its values go to manifests, cards and shards."""
    if isinstance(values, dict | list):
        named = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in named:
            inner = f"{place}.{key}" if place else str(key)
            _check_secrets(str(key), environment, inner)
            _check_secrets(value, environment, inner)
    elif isinstance(values, str) and (kind := find_secret(values, environment)):
        raise GdaError(
            f"{FILE}: {redact(place)}: holds {kind}, but the file is in git and its values are published: take it out, "
            "give it in the environment (HF_TOKEN, AWS_...) or by a login, and revoke one that was committed"
        )


def _merged(old: Any, new: Any) -> Any:
    """Return `new`, with the keys of `old` that it does not speak of; mappings in mappings likewise."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def _override(values: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        raise GdaError(f"-S {override}: expected section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GdaError(
            f"-S {override}: the value is not valid YAML: quote texts that hold braces, brackets or commas"
        ) from error
    for depth, key in enumerate(keys[:-1], 1):
        inner = values.get(key) or {}
        if not isinstance(inner, dict):
            raise GdaError(f"-S {override}: {'.'.join(keys[:depth])} is no section, it holds {inner!r}")
        inner = dict(inner)
        values[key] = inner
        values = inner
    values[keys[-1]] = value
