"""`gdacli generate`: the pool, every synthetic image that the compared arms need, each once."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.arms import plan_pool, selected
from gdacli.artifacts import new_directory, require, sha256_bytes, sha256_file, write_json, write_text
from gdacli.console import Advance, progress
from gdacli.errors import GdaError
from gdacli.generators import BACKENDS, backend
from gdacli.params import Params
from gdacli.paths import GENERATOR, SELECTION, SOURCE, SYNTHETIC
from gdacli.pool import Request, ShardRequest, dataset_card, encode_sources, make_images, plan_shards, to_sample
from gdacli.prepared import Prepared, decode_sample, read_prepared, read_strategies
from gdacli.rng import digest
from gdacli.shards import Sample, Shard, read_shard
from gdacli.store import ImageStore, Stored, publish
from gdacli.tables import TableWriter

if TYPE_CHECKING:
    import torch

    from gdacli.arms import Arm
    from gdacli.generators import Generator

VERSION = 1

_INDEX = {"key": str, "label": int, "shard": str, "sha256": str, "identity": str}


def run(params: Params) -> dict[str, Any]:
    """Write `data/synthetic`; returns how many images it holds and how many of them were made now."""
    prepared = read_prepared(SOURCE)
    model = require(GENERATOR / params.generate.backend, "gdacli fit")
    weights = digest({str(file.relative_to(model)): sha256_file(file) for file in sorted(model.rglob("*.*"))})
    settings = digest(params.generate.model_dump(), params.compute.threads, weights, BACKENDS[params.generate.backend])
    index = prepared.train_index()
    labels = index["label"]
    arms = params.compared_arms()
    strategies = read_strategies(SELECTION, index["key"])
    chosen = {name: selected(arm, params.all_arms(), strategies, labels) for name, arm in arms.items()}
    plan = plan_pool(arms, chosen, len(labels))
    store = ImageStore(settings)
    sha256_of = dict(zip(index["key"], index["sha256"], strict=True))
    maker = _Maker(params, prepared, model, weights, store, sha256_of)
    shards: list[Shard] = []
    environments: list[dict[str, str]] = []
    with (
        store.locked(),
        new_directory(SYNTHETIC) as folder,
        TableWriter(folder / "index.parquet", _INDEX) as listing,
        progress("generate", plan.num_images, "images") as advance,
    ):
        for wanted in plan_shards(
            plan,
            keys=index["key"],
            labels=labels,
            source_shards=index["shard"],
            source_sha256=index["sha256"],
            class_names=prepared.class_names,
            settings=settings,
            seed=params.generate.seed,
        ):
            stored = maker.shard(wanted, advance)
            shards.append(publish(stored, folder / wanted.name))
            environments += [each for each in stored.environments if each not in environments]
            pairs = zip(read_shard(stored.path), wanted.requests, strict=True)
            listing.append([(s.key, s.label, wanted.name, sha256_bytes(s.image), r.identity) for s, r in pairs])
        counts = {f"s{strength:04d}": int(variants.sum()) for strength, variants in plan.variants.items()}
        manifest = {
            "images": {**counts, "sampled": plan.num_sampled},
            "num_images": plan.num_images,
            "settings": {**params.generate.model_dump(), "threads": params.compute.threads},
            "model": {"path": str(model), "sha256": weights},
            "environments": sorted(environments, key=str),
            "shards": [vars(shard) for shard in shards],
        }
        write_json(folder / "manifest.json", manifest)
        if shards:
            first = next(read_shard(folder / shards[0].name))
            write_text(folder / "README.md", dataset_card(prepared.class_names, first.meta))
    size = sum((SYNTHETIC / shard.name).stat().st_size for shard in shards)
    return {
        "num_images": plan.num_images,
        "run": {"made": maker.made, "reused": plan.num_images - maker.made},
        "images": manifest["images"],
        "per_arm": {name: _added(arms[name], chosen[name]) for name in arms},
        "shards": len(shards),
        "megabytes": round(size / 1e6, 3),
    }


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line."""
    by_strength = ", ".join(f"{name} {count}" for name, count in result["images"].items() if count)
    made, reused = result["run"]["made"], result["run"]["reused"]
    return (
        f"{result['num_images']} images ({by_strength or 'none needed'}): {made} made, {reused} reused; "
        f"{result['shards']} shards, {result['megabytes']:.1f} MB -> {SYNTHETIC}"
    )


class _Maker:
    """Makes shards from the store and, once something is missing, with the generator."""

    made = 0

    def __init__(
        self,
        params: Params,
        prepared: Prepared,
        model: Path,
        weights: str,
        store: ImageStore,
        sha256_of: dict[str, str],
    ) -> None:
        self._params, self._prepared, self._model, self._weights = params, prepared, model, weights
        self._store, self._sha256_of = store, sha256_of
        self._generator: Generator | None = None
        self._environment: dict[str, str] = {}
        self._encoded_shard: str | None = None
        self._encoded: dict[str, torch.Tensor] = {}

    def shard(self, wanted: ShardRequest, advance: Advance) -> Stored:
        """Return the finished shard; what some shard of the store holds is taken, the rest is made."""
        if stored := self._store.find(wanted.identities):
            advance(len(wanted.requests))
            return stored
        have, environments = self._store.take(wanted.identities)
        missing = [request for request in wanted.requests if request.identity not in have]
        advance(len(have))
        if missing:
            generator = self._load()
            environments = [*environments, self._environment]
            latents = self._latents(generator, wanted.source_shard, {request.source_key for request in missing})
            batch_size = self._params.generate.batch_size
            for request, image in make_images(generator, missing, latents, batch_size, advance):
                have[request.identity] = self._sample(generator, request, image)
            self.made += len(missing)
        return self._store.put(wanted.identities, (have[each] for each in wanted.identities), environments)

    def _sample(self, generator: "Generator", request: Request, image: bytes) -> Sample:
        described = {
            "backend": self._params.generate.backend,
            "model": str(self._model),
            "revision": self._weights[:16],
            **generator.describe(request.label, request.strength / 1000, request.seed),
        }
        return to_sample(request, image, self._prepared.class_names[request.label], described)

    def _load(self) -> "Generator":
        if self._generator is None:
            import torch

            from gdacli.compute import set_up

            generate = self._params.generate
            device = set_up(self._params.compute.device, self._params.compute.threads)
            self._generator = backend(generate.backend).load(
                self._model,
                class_names=self._prepared.class_names,
                image_size=self._prepared.square_size(),
                solver=generate.solver,
                num_inference_steps=generate.num_inference_steps,
                guidance_scale=generate.guidance_scale,
                device=device,
                dtype=torch.float32,
                memory_format=torch.contiguous_format,
                compile=False,
            )
            versions = {name: version(name) for name in ("torch", "diffusers")}
            self._environment = {"device": device.type, "machine": platform.machine(), **versions}
        return self._generator

    def _latents(self, generator: "Generator", shard: str | None, keys: set[str]) -> dict[str, "torch.Tensor"]:
        """Return the latents of a source shard's images, each encoded once for all strengths."""
        if shard is None:
            return {}
        if shard != self._encoded_shard:
            self._encoded_shard, self._encoded = shard, {}
        folder = self._prepared.folder
        images = {}
        for sample in read_shard(folder / shard) if keys - self._encoded.keys() else ():
            if sha256_bytes(sample.image) != self._sha256_of.get(sample.key):
                raise GdaError(
                    f"{folder / shard}: sample {sample.key!r} is not the prepared image: the shard is damaged, run "
                    f"`gdacli prepare` or `dvc checkout {folder}`"
                )
            if sample.key in keys - self._encoded.keys():
                images[sample.key] = decode_sample(sample, folder)
        self._encoded |= encode_sources(generator, images, self._params.generate.batch_size)
        return self._encoded


def _added(arm: "Arm", chosen: np.ndarray) -> int:
    return arm.num_images + int(chosen.sum()) * len(arm.strengths) * arm.variants
