"""The pool of synthetic images: what each shard holds, what identifies an image, and who makes which shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gdacli.arms import Arm, PoolPlan, plan_pool, sampled_key, selected, synthetic_key
from gdacli.prepared import Prepared
from gdacli.rng import derive_seed, digest

SAMPLED_SHARD_SIZE = 1000

_LINE_ENDS = frozenset("\x85\u2028\u2029")


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
    """Empty for an image without a source, as are the hash of the source's bytes and its shard."""
    source_sha256: str
    source_shard: str


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


@dataclass(frozen=True)
class PoolRequest:
    """The whole pool that some arms need."""

    shards: list[ShardRequest]
    chosen: dict[str, np.ndarray]
    """Per arm which source images it augments, bool [N]."""

    @property
    def num_images(self) -> int:
        """Number of images."""
        return sum(len(shard.requests) for shard in self.shards)


def image_seed(seed: int, source_key: str, strength: int, variant: int) -> int:
    """Return the seed of a variant: of the base seed, its source, the strength in thousandths and its number."""
    return derive_seed(seed, source_key, strength, variant)


def sampled_seed(seed: int, index: int) -> int:
    """Return the seed of the image number `index` that has no source, of the base seed."""
    return derive_seed(seed, "sampled", index)


def request_pool(
    prepared: Prepared,
    strategies: Mapping[str, tuple[np.ndarray, np.ndarray]],
    arms: Mapping[str, Arm],
    all_arms: Mapping[str, Arm],
    *,
    settings: str,
    seed: int,
) -> PoolRequest:
    """Return what the arms need.

    Args:
        prepared: the source images.
        strategies: of `prepared.read_strategies`.
        arms: those to serve.
        all_arms: to look up `like`.
        settings, seed: see `plan_shards`.
    """
    index = prepared.train_index()
    chosen = {name: selected(arm, all_arms, strategies, index["label"]) for name, arm in arms.items()}
    plan = plan_pool(arms, chosen, len(index["label"]))
    return PoolRequest(list(shards_of(prepared, plan, settings=settings, seed=seed)), chosen)


def shards_of(prepared: Prepared, plan: PoolPlan, *, settings: str, seed: int) -> Iterator[ShardRequest]:
    """Yield the shards of a plan over the prepared train images; see `plan_shards`."""
    index = prepared.train_index()
    return plan_shards(
        plan,
        keys=index["key"],
        labels=index["label"],
        source_shards=index["shard"],
        source_sha256=index["sha256"],
        class_names=prepared.class_names,
        settings=settings,
        seed=seed,
    )


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
                    own = image_seed(seed, key, strength, variant)
                    identity = digest(settings, source_sha256[row], label, class_names[label], strength, own)
                    name = synthetic_key(key, strength, variant)
                    requests.append(
                        Request(name, label, own, identity, strength, variant, key, source_sha256[row], shard)
                    )
            if requests:
                yield ShardRequest(shard.replace("train-", f"train-s{strength:04d}-"), shard, strength, requests)
    for number, start in enumerate(range(0, plan.num_sampled, SAMPLED_SHARD_SIZE)):
        requests = []
        for index in range(start, min(start + SAMPLED_SHARD_SIZE, plan.num_sampled)):
            label, own = index % len(class_names), sampled_seed(seed, index)
            identity = digest(settings, "sampled", label, class_names[label], own)
            requests.append(Request(sampled_key(index), label, own, identity, 1000, 0, "", "", ""))
        yield ShardRequest(f"train-sampled-{number:06d}.tar", None, 1000, requests)


def split_among(shards: Sequence[ShardRequest], count: int) -> list[list[ShardRequest]]:
    """Divide shards into `count` parts of about equal work (images times strength), the same ones whatever the order.

    Longest first, each to the part with the least work so far; what goes together is said at `tasks_for`.
    """
    parts: list[list[ShardRequest]] = [[] for _ in range(count)]
    work = [0] * count
    for task in sorted(tasks_for(shards, count), key=lambda task: (-_work(task), task[0].name)):
        least = work.index(min(work))
        parts[least] += task
        work[least] += _work(task)
    return parts


def tasks_for(shards: Sequence[ShardRequest], workers: int) -> list[list[ShardRequest]]:
    """Group shards into what one worker does in a go, the longest first.

    All strengths of a source shard go together, so that its images are encoded once; where there are fewer source
    shards than workers, each shard goes alone.
    """
    groups: dict[str, list[ShardRequest]] = {}
    for shard in sorted(shards, key=lambda each: each.name):
        groups.setdefault(shard.source_shard or shard.name, []).append(shard)
    tasks = list(groups.values()) if len(groups) >= workers else [[shard] for shard in shards]
    return sorted(tasks, key=lambda task: -_work(task)) if workers > 1 else tasks


def _work(task: Sequence[ShardRequest]) -> int:
    return sum(len(shard.requests) * shard.strength for shard in task)


def class_label(class_names: Sequence[str]) -> dict[str, Any]:
    """Return the type of a column of labels as `dataset_info` of a card names it."""
    return {"class_label": {"names": {str(label): name for label, name in enumerate(class_names)}}}


def dataset_features(class_names: Sequence[str], extension: str, meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the columns of our shards as `dataset_info` of a card names them.

    Args:
        class_names: in the order of the labels.
        extension: of the images.
        meta: the json of any sample.
    """
    dtypes = {str: "string", int: "int64", float: "float64", bool: "bool"}
    return [
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
        {"name": extension, "dtype": "image"},
        {"name": "cls", "dtype": class_label(class_names)},
        {"name": "json", "struct": [{"name": key, "dtype": dtypes[type(meta[key])]} for key in sorted(meta)]},
    ]


def front_matter(values: dict[str, Any]) -> str:
    """Return the head of a card: metadata in YAML, between lines of dashes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes line ends of Unicode escaped; PyYAML writes them as they are, and reads them as spaces."""

    def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if _LINE_ENDS & set(text) else None)

    Dumper.add_representer(str, quoted)
    return f"---\n{yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)}---\n"


def dataset_card(class_names: Sequence[str], extension: str, meta: dict[str, Any]) -> str:
    """Return the README.md by which `datasets.load_dataset(folder)` finds columns, types and class names.

    Args:
        class_names, extension, meta: of `dataset_features`.
    """
    front = {
        "tags": ["synthetic"],
        "task_categories": ["image-classification"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.tar"}]}],
        "dataset_info": {"features": dataset_features(class_names, extension, meta)},
    }
    return (
        f"{front_matter(front)}"
        "Synthetic training images made by gdacli. Each sample has an image, its class (`cls`) and how it was made "
        '(`json`).\n\n```python\nimport datasets\n\npool = datasets.load_dataset(FOLDER, split="train")\n```\n'
    )
