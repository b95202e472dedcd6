"""The pool of synthetic images: what each shard holds, what identifies an image, and making the missing ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gdacli.arms import PoolPlan, sampled_key, synthetic_key
from gdacli.images import encode_png
from gdacli.rng import derive_seed, digest
from gdacli.shards import Sample

if TYPE_CHECKING:
    import torch

    from gdacli.generators import Generator

SAMPLED_SHARD_SIZE = 1000
EXTENSION = "png"

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One image that the pool must hold."""

    key: str
    label: int
    seed: int
    identity: str
    strength: int
    """In thousandths."""
    variant: int
    source_key: str
    """Empty for an image without a source."""


@dataclass(frozen=True)
class ShardRequest:
    """One shard of the pool: its name, the source shard it belongs to (None for sampled images), its images."""

    name: str
    source_shard: str | None
    strength: int
    requests: list[Request]

    @property
    def identities(self) -> list[str]:
        """The identities of the images, in order."""
        return [request.identity for request in self.requests]


def plan_shards(
    plan: PoolPlan,
    *,
    keys: Sequence[str],
    labels: np.ndarray,
    source_shards: Sequence[str],
    source_sha256: Sequence[str],
    class_names: Sequence[str],
    settings: str,
    seed: int,
) -> Iterator[ShardRequest]:
    """Yield the shards of the pool: per source shard one for each strength, then the sampled ones.

    Args:
        plan: the images that the arms need.
        keys, labels [N], source_shards, source_sha256: of the training images, in order, shard after shard.
        class_names: of the labels (they reach the prompts); sampled image i is of class i mod their number.
        settings: hash of all that determines an image besides its source, class, strength and seed.
        seed: base seed; an image's seed hashes it with source key, strength and variant.
    """
    shards = np.asarray(source_shards)
    for shard in dict.fromkeys(source_shards):
        rows = np.flatnonzero(shards == shard)
        for strength, variants in plan.variants.items():
            requests = []
            for row in rows.tolist():
                for variant in range(variants[row]):
                    key, label = keys[row], int(labels[row])
                    own = derive_seed(seed, key, strength, variant)
                    identity = digest(settings, source_sha256[row], label, class_names[label], strength, own)
                    name = synthetic_key(key, strength, variant)
                    requests.append(Request(name, label, own, identity, strength, variant, key))
            if requests:
                yield ShardRequest(shard.replace("train-", f"train-s{strength:04d}-"), shard, strength, requests)
    for number, start in enumerate(range(0, plan.num_sampled, SAMPLED_SHARD_SIZE)):
        requests = []
        for index in range(start, min(start + SAMPLED_SHARD_SIZE, plan.num_sampled)):
            label, own = index % len(class_names), derive_seed(seed, "sampled", index)
            identity = digest(settings, "sampled", label, class_names[label], own)
            requests.append(Request(sampled_key(index), label, own, identity, 1000, 0, ""))
        yield ShardRequest(f"train-sampled-{number:06d}.tar", None, 1000, requests)


def encode_sources(generator: Generator, images: dict[str, np.ndarray], batch_size: int) -> dict[str, torch.Tensor]:
    """Encode source images in batches of `batch_size`, the last one filled up with repeats.

    Args:
        generator: of a backend.
        images: source key -> uint8 [3, H, W].
        batch_size: B, as for `make_images`.

    Returns:
        source key -> latent, float32, without the batch dimension.
    """
    import torch

    latents: dict[str, torch.Tensor] = {}
    for batch in _padded(list(images), batch_size):
        encoded = generator.encode(torch.from_numpy(np.stack([images[key] for key in batch])))
        latents |= dict(zip(batch, encoded, strict=True))
    return latents


def make_images(
    generator: Generator,
    requests: Sequence[Request],
    latents: dict[str, torch.Tensor],
    batch_size: int,
    on_images: Callable[[int], None],
) -> Iterator[tuple[Request, bytes]]:
    """Make the images of one strength, encoded as PNG, in the order of the requests.

    Every batch has `batch_size` rows, the last one filled up with repeats. With a constant shape of 16 rows a thread,
    or a multiple (`params.Params` sees to it), an image's bits depend neither on its neighbours nor on its place in
    the batch (tests/test_generators.py), so that what a shard needs is packed densely.

    Args:
        generator: of a backend.
        requests: of one strength; all with a source or all without.
        latents: of `encode_sources`; empty for sampled images.
        batch_size: B.
        on_images: called with the number of images made after each batch.
    """
    import torch

    for start, padded in zip(range(0, len(requests), batch_size), _padded(requests, batch_size), strict=True):
        labels = torch.tensor([request.label for request in padded])
        seeds = [request.seed for request in padded]
        if latents:
            sources = torch.stack([latents[request.source_key] for request in padded])
            made = generator.generate(sources, labels, padded[0].strength / 1000, seeds)
        else:
            made = generator.sample(labels, seeds)
        batch = requests[start : start + batch_size]
        for request, image in zip(batch, made.cpu().numpy(), strict=False):
            yield request, encode_png(image)
        on_images(len(batch))


def _padded(items: Sequence[T], batch_size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), batch_size):
        batch = list(items[start : start + batch_size])
        yield batch + batch[-1:] * (batch_size - len(batch))


def to_sample(request: Request, image: bytes, class_name: str, described: dict[str, Any]) -> Sample:
    """Return the pool's sample of a request, with its provenance; every sample has the same keys."""
    meta = {
        "source_key": request.source_key,
        "class_name": class_name,
        "seed": request.seed,
        "strength": request.strength / 1000,
        "variant": request.variant,
        "synthetic": True,
        **described,
    }
    return Sample(request.key, request.label, image, EXTENSION, meta)


def dataset_card(class_names: Sequence[str], meta: dict[str, Any]) -> str:
    """Return the README.md by which `datasets.load_dataset(folder)` finds columns, types and class names.

    Args:
        class_names: in the order of the labels.
        meta: the json of any sample.
    """
    import yaml

    dtypes = {str: "string", int: "int64", float: "float64", bool: "bool"}
    names = {str(label): name for label, name in enumerate(class_names)}
    features = [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        {"name": EXTENSION, "dtype": "image"},
        {"name": "cls", "dtype": {"class_label": {"names": names}}},
        {"name": "json", "struct": [{"name": key, "dtype": dtypes[type(meta[key])]} for key in sorted(meta)]},
    ]
    front = {
        "tags": ["synthetic"],
        "task_categories": ["image-classification"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.tar"}]}],
        "dataset_info": {"features": features},
    }
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n"
        "Synthetic training images made by gdacli. Each sample has an image, its class (`cls`) and how it was made "
        '(`json`).\n\n```python\nimport datasets\n\npool = datasets.load_dataset(FOLDER, split="train")\n```\n'
    )
