"""The card of a shared dataset: what it is, how it was made, how good it is, and how to load it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from gdacli import __version__
from gdacli.brought_pools import pool_name
from gdacli.generators import EMBEDDED
from gdacli.pool import dataset_features, front_matter
from gdacli.shards import Shard
from gdacli.sharing import markdown
from gdacli.sharing.findings import Found, about_arms, about_copies, arm_rows, quality_rows
from gdacli.sharing.licenses import license_metadata
from gdacli.sharing.pictures import GALLERY, shown_classes
from gdacli.sharing.shared_pool import SAMPLED, VARIED, kind_title

SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B")]  # fmt: skip
"""What the Hub calls so many images: fewer than the number, and the name."""

_TABLE_FOLDED_ABOVE = 30
_MOST_WORKERS = 4  # timm's own number; those without a shard would shorten its epochs
_GENERATORS = {
    "class_conditional": "a small class-conditional diffusion model, trained from nothing on the train images alone",
    "gan": "a small class-conditional GAN, trained from nothing on the train images alone",
    "text_to_image": "a pretrained text-to-image model",
    "glide": "GLIDE, a pretrained text-to-image model",
    "diffusemix": "DiffuseMix: images edited by a pretrained model, joined with their source and blended with fractals",
    "exported": "a generator that was exported as one program",
}
_SETTINGS = {
    "solver": "solver",
    "num_inference_steps": "steps, for strength 1",
    "guidance_scale": "guidance scale",
    "image_guidance_scale": "image guidance scale",
    "negative_prompt": "negative prompt",
    "noise_schedule": "what a strength means",
    "fractal_weight": "share of the fractal",
    "seed": "base seed",
    "dtype": "precision",
}
_OF_OTHERS = {"image_guidance_scale": ("text_to_image", "diffusemix"), "fractal_weight": ("diffusemix",)}


@dataclass(frozen=True)
class Config:
    """A configuration of a dataset: its splits, and what a sample looks like."""

    name: str
    folder: str
    """In which its shards lie, with a slash at the end; empty is the top."""
    extension: str
    meta: dict[str, Any]
    """The json of any sample."""
    splits: dict[str, list[Shard]]
    num_bytes: dict[str, int]
    """Of the shards of each split."""

    def count(self, split: str) -> int:
        """Return the number of images of a split."""
        return sum(shard.count for shard in self.splits[split])


@dataclass(frozen=True)
class DatasetFacts:
    """All that a dataset's card says."""

    repo_id: str
    revision: str
    """The tag under which it is shared."""
    md5: str | None
    """By which DVC knows the pool; None outside DVC."""
    arm: str | None
    """Whose images they are; None of a whole pool."""
    manifest: dict[str, Any]
    """Of what is shared."""
    counts: dict[str, np.ndarray]
    """Kind -> number of images per class."""
    num_pool: int
    """Images in the whole pool."""
    configs: list[Config]
    """The synthetic images first."""
    num_train: int
    """Original training images."""
    data_source: str
    """Where they came from, in a word: no path."""
    source_datasets: list[str]
    arms: dict[str, str]
    """What each arm that was compared adds, in words."""
    share: Mapping[str, Any]
    """The section `push`."""
    features: str
    """The model by whose features images were compared."""
    found: Found

    @property
    def num_images(self) -> int:
        """Synthetic images that are shared."""
        return int(self.manifest["num_images"])

    @property
    def title(self) -> str:
        """The name for readers."""
        return str(self.share["pretty_name"] or f"Synthetic variants of {self.data_source}")


def dataset_card(facts: DatasetFacts) -> str:
    """Return the README.md of a shared dataset."""
    return front_matter(dataset_metadata(facts)) + _text(facts)


def dataset_metadata(facts: DatasetFacts) -> dict[str, Any]:
    """Return the metadata of the card, which the Hub and `datasets` read."""
    infos = [_info(config, facts.manifest["class_names"]) for config in facts.configs]
    total = sum(config.count(split) for config in facts.configs for split in config.splits)
    return {
        "pretty_name": facts.title,
        **license_metadata(facts.share["license"]),
        "task_categories": ["image-classification"],
        "size_categories": [size_category(total)],
        "source_datasets": facts.source_datasets,
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic", "image-classification", "data-augmentation", "webdataset", "gdacli"],
        "configs": [
            {
                "config_name": config.name,
                "data_files": [{"split": split, "path": f"{config.folder}{split}-*.tar"} for split in config.splits],
                **({"default": True} if len(facts.configs) > 1 and config is facts.configs[0] else {}),
            }
            for config in facts.configs
        ],
        "dataset_info": infos[0] if len(infos) == 1 else infos,
    }


def _info(config: Config, class_names: Sequence[str]) -> dict[str, Any]:
    splits = [
        {"name": split, "num_bytes": config.num_bytes[split], "num_examples": config.count(split)}
        for split in config.splits
    ]
    size = sum(config.num_bytes.values())
    return {
        "config_name": config.name,
        "features": dataset_features(class_names, config.extension, config.meta),
        "splits": splits,
        "download_size": size,
        "dataset_size": size,
    }


def size_category(count: int) -> str:
    """Return what the Hub calls so many images.

    >>> size_category(999), size_category(1000), size_category(10**9)
    ('n<1K', '1K<n<10K', '1B<n<10B')
    """
    return next((name for below, name in SIZES if count < below), "1B<n<10B")


def _text(facts: DatasetFacts) -> str:
    import jinja2

    results, missing = facts.found
    environment = jinja2.Environment(  # noqa: S701 - Markdown, whose filter `escaped` also escapes HTML
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"escaped": markdown.escaped, "table": markdown.table, "count": lambda n: f"{n:,}"}
    template = files("gdacli").joinpath("templates/dataset_card.md.j2").read_text(encoding="utf-8")
    names = facts.manifest["class_names"]
    return environment.from_string(template).render(
        facts=facts,
        share=facts.share,
        manifest=facts.manifest,
        synthetic=facts.configs[0],
        source=facts.configs[1] if len(facts.configs) > 1 else None,
        held_out=next((each for each in ("validation", "test") if each in facts.configs[-1].splits), None),
        workers=min(_MOST_WORKERS, sum(len(config.splits["train"]) for config in facts.configs)),
        embedded=_backend(facts.manifest) in EMBEDDED,
        made=_made(facts),
        arms=[["arm", "adds"], *facts.arms.items()] if facts.arms else None,
        counts=_count_rows(facts.counts, names),
        folded=len(names) > _TABLE_FOLDED_ABOVE,
        gallery=GALLERY,
        shown=[names[label] for label in shown_classes(len(names))],
        results=results,
        missing=missing,
        quality=quality_rows(results) if results and results["quality"] else None,
        compared=arm_rows(results) if results else None,
        about_arms=about_arms(results) if results else None,
        copies=about_copies(results) if results else [],
        pool_name=pool_name(facts.repo_id.rpartition("/")[2]),
        sampled=SAMPLED in facts.counts,
        git=_commit(facts.revision),
        version=__version__,
    )


def _commit(revision: str) -> str | None:
    """Return the commit that a tag names; None of one that is made of content."""
    kind, _, rest = revision.partition("-")
    return rest.partition("-")[0] if kind == "git" else None


def _backend(manifest: Mapping[str, Any]) -> str | None:
    return manifest.get("settings", {}).get("backend")


def _made(facts: DatasetFacts) -> list[list[str]]:
    """Return a table of how the images were made, as far as the manifest says."""
    manifest = facts.manifest
    settings, model = manifest.get("settings", {}), manifest.get("model", {})
    backend = _backend(manifest)
    rows = [["setting", "value"]]
    if imported := manifest.get("imported_from"):
        whence = f"the dataset {imported['repo_id']}" if "repo_id" in imported else "a folder of images"
        rows.append(["brought in from", whence])
    if backend:
        rows.append(["generator", f"{_GENERATORS.get(backend, 'a generator of the project')} ({backend})"])
    if model.get("name"):
        rows.append(["model", model["name"]])
    for option, pin in model.get("files", {}).items():
        told = [f"{name} {pin[name]}" for name in ("revision", "commit", "variant") if pin.get(name)]
        rows.append([f"{option}: revision", ", ".join([pin["name"], *told])])
    if model.get("sha256"):
        rows.append(["SHA-256 of the weights", model["sha256"]])
    prompts = settings.get("prompt") or [facts.configs[0].meta.get("prompt", "")]
    label = "prompts" if settings.get("prompt") else "prompt, of one image"
    if any(prompts):
        rows.append([label, "; ".join(prompts)])
    if settings.get("class_prompts"):
        listed = (f"{name}: {' / '.join(texts)}" for name, texts in settings["class_prompts"].items())
        rows.append(["prompts of classes", "; ".join(listed)])
    strengths = [kind_title(kind) for kind in facts.counts if kind not in (SAMPLED, VARIED)]
    if strengths:
        rows.append(["strengths", ", ".join(strengths)])
    for name, title in _SETTINGS.items():
        if settings.get(name) is not None and backend in _OF_OTHERS.get(name, (backend,)):
            rows.append([title, f"{settings[name]:g}" if isinstance(settings[name], float) else str(settings[name])])
    if settings.get("lora"):
        rows.append(["LoRA scale", f"{settings['lora_scale']:g}"])
    kept = {name: value for name, value in manifest.get("filter", {}).items() if value not in (None, False)}
    filters = ("no images of one colour" if value is True else f"{name} {value}" for name, value in kept.items())
    rows.append(["filter", ", ".join(filters) or "none"])
    for each in manifest.get("environments", []):
        known = (f"{name} {each[name]}" for name in ("device", "torch", "diffusers", "transformers") if each.get(name))
        rows.append(["made with", ", ".join(known)])
    return rows


def _count_rows(counts: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[str]]:
    titles = [kind if kind in (SAMPLED, VARIED) else f"strength {kind_title(kind)}" for kind in counts]
    rows = [["class", *titles, "all"]]
    columns = list(counts.values())
    for label, name in enumerate(names):
        each = [int(column[label]) for column in columns]
        rows.append([name, *map(str, each), str(sum(each))])
    totals = [int(column.sum()) for column in columns]
    return [*rows, ["all classes", *map(str, totals), str(sum(totals))]]
