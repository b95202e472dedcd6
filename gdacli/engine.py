"""Makes shards of synthetic images: the denoiser on this thread, encoding and writing of images on others."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from queue import Queue
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.artifacts import sha256_bytes
from gdacli.compute import set_up
from gdacli.errors import GdaError
from gdacli.generation import denoiser_dtype, encoded_images, load_generator, make_batch, padded_batches
from gdacli.images import decode_array, encode
from gdacli.pool import Request, ShardRequest
from gdacli.prepared import decode_sample
from gdacli.published import PublishedPool
from gdacli.recipe import Recipe
from gdacli.scores import CLIP_SCORE, SCORES, Scorer, load_scorer
from gdacli.shards import Sample, read_shard
from gdacli.store import Environment, ImageStore, Taken
from gdacli.weights import SINGLE, locate

if TYPE_CHECKING:
    import torch

# Batches whose images may wait to be encoded; one is enough to keep the denoiser busy, two smooth it.
_WAITING = 2


class Engine:
    """A generator and a probe on one device, each loaded when first needed.

    Args:
        recipe: how to make images.
        device: where, in place of the recipe's.
    """

    def __init__(self, recipe: Recipe, device: str | None = None) -> None:
        self._recipe = recipe if device is None else replace(recipe, device=device)
        self._store = ImageStore(recipe.work, recipe.identity)
        self._pools: list[PublishedPool] | None = None
        self._encoded: dict[str, dict[str, torch.Tensor]] = {}
        self._encoders = ThreadPoolExecutor(max(1, recipe.settings["threads"] // 2), "encode")
        self._writer = ThreadPoolExecutor(1, "write")

    def make(self, shards: Iterable[ShardRequest]) -> Iterator[tuple[int, int] | None]:
        """Put shards into the store: what was made before is taken, the rest is made; written as it is made.

        Yields:
            after each batch how many images were made and how many were taken, and None whenever a shard is finished.

        Raises:
            GdaError: a source image is damaged, or the model does not fit.
        """
        for wanted in shards:
            feed: Queue[Sample | None] = Queue()
            environments: list[Environment] = []
            samples = _until_told(feed, len(wanted.requests))
            written = self._writer.submit(
                self._store.put, wanted.identities, self._recipe.scoring, samples, environments
            )
            try:
                left = deque(wanted.identities)
                ready: dict[str, Sample] = {}
                for made, taken, batch in self._samples(wanted, environments):
                    ready |= batch
                    while left and left[0] in ready:
                        feed.put(ready.pop(left.popleft()))
                    if written.done():  # before all its samples: it failed
                        break
                    yield made, taken
            finally:
                feed.put(None)
            written.result()
            yield None

    def _samples(
        self, wanted: ShardRequest, environments: list[Environment]
    ) -> Iterator[tuple[int, int, dict[str, Sample]]]:
        """Yield the samples of a shard by identity, with how many of them were made and taken; says where in a list."""
        have, where = self._take(wanted.identities)
        environments += where
        samples = {identity: taken.sample for identity, taken in have.items()}
        known = [request for request in wanted.requests if request.identity in have]
        stale = [request for request in known if have[request.identity].scoring != self._recipe.scoring]
        for scored in self._score_again(stale, samples):
            samples |= scored
        yield 0, len(have), samples
        missing = [request for request in wanted.requests if request.identity not in have]
        if missing:
            environments.append(self.environment)
            for batch in self.make_images(missing):
                yield len(batch), 0, batch

    def make_images(self, requests: Sequence[Request]) -> Iterator[dict[str, Sample]]:
        """Make images of one strength, all with or all without a source; yields finished batches by identity.

        Every batch has `batch_size` rows, the last one filled up with repeats. With a constant shape of 16 rows a
        thread, or a multiple (`params.Params` sees to it), an image's bits depend neither on its neighbours nor on its
        place in the batch (tests/test_generators.py), so that what a shard needs is packed densely.
        """
        generator, size = self.generator, self._recipe.settings["batch_size"]
        latents = self._latents(requests)
        waiting: list[tuple[list[Request], Future[tuple[list[bytes], np.ndarray]]]] = []
        for batch, padded in padded_batches(requests, size):
            made = make_batch(
                generator,
                [latents[request.source_key] for request in padded] if latents else None,
                [request.label for request in padded],
                padded[0].strength / 1000,
                [request.seed for request in padded],
                backend_name=self._recipe.settings["backend"],
                image_size=self._recipe.image_size,
            )
            waiting.append((batch, self._encoders.submit(self._encode, made.cpu().numpy(), len(batch))))
            if len(waiting) > _WAITING:
                yield self._finish(*waiting.pop(0))
        for each in waiting:
            yield self._finish(*each)

    @cached_property
    def device(self) -> torch.device:
        """Where it runs; sets torch up."""
        return set_up(self._recipe.device, self._recipe.settings["threads"])

    @cached_property
    def dtype(self) -> torch.dtype:
        """The denoiser's."""
        return denoiser_dtype(self._recipe.settings, self.device)

    @cached_property
    def generator(self) -> Any:
        """The backend's `Generator`.

        Raises:
            GdaError: the model is not here, or is another one than the recipe's.
        """
        recipe = self._recipe
        return load_generator(
            recipe.settings,
            recipe.unchanged_backend(),
            class_names=recipe.class_names,
            image_size=recipe.image_size,
            device=self.device,
        )

    @cached_property
    def scorer(self) -> Scorer:
        """What scores the images."""
        clip_score = None
        if self._recipe.clip_model is not None:
            from gdacli.clip import load_clip

            folder = locate(self._recipe.clip_model, None, "generate.clip_model", SINGLE)
            clip_score = load_clip(folder, self.device)
        return load_scorer(self._recipe.probe, self.device, clip_score)

    @cached_property
    def environment(self) -> Environment:
        """The device and the versions of the libraries that decide the last bits."""
        import torch

        gpu = self.device.type == "cuda"
        cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        return {
            "device": self.device.type,
            "machine": torch.cuda.get_device_name(self.device) if gpu else cpu,
            "cuda": str(torch.version.cuda) if gpu else "",
            **{name: version(name) for name in ("torch", "diffusers", "transformers", "pillow", "deflate")},
        }

    def _take(self, identities: Sequence[str]) -> tuple[dict[str, Taken], list[Environment]]:
        """Take what the store has, then what the pools of `generate.reuse` have."""
        have, environments = self._store.take(identities)
        if self._pools is None:
            self._pools = [PublishedPool(location) for location in self._recipe.reuse]
        for pool in self._pools:
            more, where = pool.take(each for each in identities if each not in have)
            have |= more
            environments += where
        return have, environments

    def _latents(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """Return the latents of the sources by key; each is encoded once while its source shard is at work."""
        wanted: dict[str, dict[str, str]] = {}
        for request in requests:
            if request.source_key:
                wanted.setdefault(request.source_shard, {})[request.source_key] = request.source_sha256
        self._encoded = {shard: self._encoded.get(shard, {}) for shard in wanted}
        for shard, latents in self._encoded.items():
            missing = {key: sha256 for key, sha256 in wanted[shard].items() if key not in latents}
            latents |= self._encode_sources(shard, missing) if missing else {}
        return {key: latent for latents in self._encoded.values() for key, latent in latents.items()}

    def _encode_sources(self, shard: str, sha256_of: dict[str, str]) -> dict[str, torch.Tensor]:
        sources = self._sources(shard, sha256_of)
        return dict(encoded_images(self.generator, sources, self._recipe.settings["batch_size"]))

    def _sources(self, shard: str, sha256_of: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the wanted images of a source shard, uint8 [3, H, W], once they are known to be the prepared ones."""
        folder, left = self._recipe.source, set(sha256_of)
        for sample in read_shard(folder / shard):
            if sample.key in left and sha256_bytes(sample.image) == sha256_of[sample.key]:
                left.remove(sample.key)
                yield sample.key, decode_sample(sample, folder)
        if left:
            raise GdaError(
                f"{folder / shard}: sample {min(left)!r} is not the prepared image: the shard is damaged, run "
                f"`gdacli prepare` or `dvc checkout --force {folder.parent.name}/{folder.name}`"
            )

    def _encode(self, images: np.ndarray, count: int) -> tuple[list[bytes], np.ndarray]:
        """Encode the first `count` images; returns their bytes and all the pixels as a reader will see them."""
        settings = self._recipe.settings
        encoded = [encode(image, settings["image_format"], settings["image_quality"]) for image in images[:count]]
        if settings["image_format"] != "png":
            images = images.copy()
            images[:count] = [decode_array(each) for each in encoded]
        return encoded, images

    def _finish(self, batch: Sequence[Request], future: Future[tuple[list[bytes], np.ndarray]]) -> dict[str, Sample]:
        encoded, pixels = future.result()
        described = [self._describe(request) for request in batch]
        scores = self._score(pixels, list(batch), [each["prompt"] for each in described])
        return {
            request.identity: Sample(request.key, request.label, image, self._recipe.extension, {**meta, **scored})
            for request, image, meta, scored in zip(batch, encoded, described, scores, strict=True)
        }

    def _score_again(self, stale: Sequence[Request], samples: dict[str, Sample]) -> Iterator[dict[str, Sample]]:
        for batch, padded in padded_batches(stale, self._recipe.settings["batch_size"]):
            held = [samples[request.identity] for request in batch]
            pixels = np.stack([decode_array(samples[request.identity].image) for request in padded])
            scores = self._score(pixels, batch, [sample.meta["prompt"] for sample in held])
            old = {*SCORES, CLIP_SCORE}
            yield {
                request.identity: replace(
                    sample, meta={**{key: value for key, value in sample.meta.items() if key not in old}, **scored}
                )
                for request, sample, scored in zip(batch, held, scores, strict=True)
            }

    def _score(self, pixels: np.ndarray, batch: list[Request], prompts: list[str]) -> list[dict[str, Any]]:
        last = len(pixels) - len(batch)
        padded, prompts = batch + batch[-1:] * last, prompts + prompts[-1:] * last
        labels, sources = [each.label for each in padded], [each.source_key for each in padded]
        return self.scorer(pixels, labels, sources, prompts)[: len(batch)]

    def _describe(self, request: Request) -> dict[str, Any]:
        recipe = self._recipe
        own = self.generator.describe(request.label, request.strength / 1000, request.seed)
        if not isinstance(own.get("prompt"), str):
            raise GdaError(
                f"generate.backend: {recipe.settings['backend']} describes an image by {own!r}; "
                "it must say its prompt, a text"
            )
        return {
            "source_key": request.source_key,
            "source_sha256": request.source_sha256,
            "class_name": recipe.class_names[request.label],
            "image_size": recipe.image_size,
            "seed": request.seed,
            "strength": request.strength / 1000,
            "noise_schedule": recipe.settings["noise_schedule"],
            "variant": request.variant,
            "synthetic": True,
            "backend": recipe.settings["backend"],
            "model": recipe.model,
            "revision": recipe.weights[:16],
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            **own,
        }


def _until_told(feed: Queue[Sample | None], count: int) -> Iterator[Sample]:
    """Yield `count` samples as they come in.

    Raises:
        _StoppedError: None came in before the last.
    """
    for _ in range(count):
        sample = feed.get()
        if sample is None:
            raise _StoppedError
        yield sample


class _StoppedError(Exception):
    """A shard is not written to its end, because it is not made to its end."""
