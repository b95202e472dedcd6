"""The images beside the real ones that an objective trains on: stored ones, or those of a live generator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from gdacli.augment import PIXELS, augment
from gdacli.batches import batch_bounds
from gdacli.distributed import World
from gdacli.latent import LatentGenerator
from gdacli.loading import AS_THEY_ARE, ImageSource
from gdacli.rng import derive_seed
from gdacli.strong_augment import draw, strongly_augmented
from gdacli.training_step import Step


class LearnsNothing:
    """What a supply says of itself that looks for nothing."""

    def check(self) -> None:
        """See `objectives.Supply`."""

    def state_dict(self) -> dict[str, Any]:
        """See `objectives.Supply`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `objectives.Supply`."""


@dataclass(frozen=True)
class Views:
    """A process's share of a batch of images, seen in one or two ways."""

    plain: torch.Tensor
    """Float32 [b, 3, H, W] in [0, 1]."""
    strong: torch.Tensor | None
    """The same images, changed strongly; None where nobody compares."""
    labels: torch.Tensor
    """int64 [b]."""
    count: int
    """B, images of the batch, of all processes."""

    @property
    def images(self) -> list[torch.Tensor]:
        """The tensors that the classifier sees."""
        return [self.plain] if self.strong is None else [self.plain, self.strong]

    def cut_off(self) -> "Views":
        """Return copies that require a gradient and know nothing of where they come from."""
        plain, *strong = (image.detach().requires_grad_() for image in self.images)
        return replace(self, plain=plain, strong=strong[0] if strong else None)


class Stored(LearnsNothing):
    """N images on a disk or the device, shown pass by pass, each in an order of its own.

    Args:
        images: N of them.
        labels: int64 [N], on the CPU.
        batch_size: of all processes.
        augmentations: as of the training; those of `augment.PIXELS` are used, a mixture with others is not.
        strong: `num_ops` and `magnitude` of `strong_augment.draw`; None makes one view.
        seed: of the order and the augmentations.
        world: the processes.
    """

    def __init__(
        self,
        images: ImageSource,
        labels: torch.Tensor,
        *,
        batch_size: int,
        augmentations: Mapping[str, Mapping[str, Any]],
        strong: Mapping[str, int] | None,
        seed: int,
        world: World,
    ) -> None:
        self._images, self._labels = images, labels
        self._bounds = batch_bounds(len(labels), min(batch_size, len(labels)))
        self._augmentations = {name: options for name, options in augmentations.items() if name in PIXELS}
        self._strong, self._seed, self._world = strong, seed, world
        self._next = -1
        self._arriving: Iterator[tuple[torch.Tensor, torch.Tensor, slice]] = iter(())

    def views(self, step: Step) -> Views:
        """See `objectives.Supply`."""
        return self.views_of(step.update, step.epoch)

    def views_of(self, update: int, epoch: int) -> Views:
        """Return the views of an update, counted from 0, in an epoch of the training, from 1."""
        if update != self._next:
            self._arriving = self._from(update)
        self._next = update + 1
        pixels, labels, part = next(self._arriving)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "augment", update))
        no_targets = torch.empty(len(labels), 0, device=pixels.device)
        images, _ = augment(pixels, no_targets, generator, self._augmentations, epoch=epoch)
        strong = _strong_view(images, self._strong, generator, part) if self._strong is not None else None
        return Views(images[part], strong, labels.to(pixels.device)[part], len(pixels))

    def samples(self, count: int, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """See `objectives.Supply`: as they are, none twice, at most all."""
        for images in drawn_images(self._images, count, derive_seed(self._seed, "sample", number)):
            yield {"stored": images}

    def _from(self, update: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """Yield whole batches uint8 [B, 3, H, W] with labels int64 [B], and which of them are this process's."""
        number, skipped = divmod(update, len(self._bounds))
        while True:
            shuffled = torch.Generator().manual_seed(derive_seed(self._seed, "order", number))
            order = torch.randperm(len(self._labels), generator=shuffled)
            bounds = self._bounds[skipped:]
            shares = [self._world.shares(first, end) for first, end in bounds]
            arriving = self._images.batches(number + 1, order, [share[self._world.rank] for share in shares])
            for (first, end), share, mine in zip(bounds, shares, arriving, strict=True):
                pixels = self._world.gather(mine, [stop - start for start, stop in share])
                start, stop = share[self._world.rank]
                yield pixels, self._labels[order[first:end]], slice(start - first, stop - first)
            number, skipped = number + 1, 0


@dataclass(frozen=True)
class Draw:
    """All that is random of an update's generated images."""

    z: torch.Tensor
    """Float32 [B, Z], of the whole batch, as is the rest."""
    labels: torch.Tensor
    """int64 [B], uniform."""
    noise: torch.Tensor | None
    """Float32 [B, Z], what the second view's z is off by."""
    seed: int
    """Of the strong augmentation."""


class Generated(LearnsNothing):
    """Images of a live generator, new ones each update.

    Args:
        generator: on its device.
        num_classes: of the labels that are drawn.
        batch_size: B, of all processes.
        image_size: side in pixels to which its images are resized.
        strong: `num_ops` and `magnitude` of `strong_augment.draw`; None leaves the second view to `latent_noise`.
        latent_noise: variance of noise on z for the second view; 0 takes the same z.
        dtype: of the generator's pass, `float32` or `bfloat16`.
        device: of the generator.
        seed: of the draws.
        world: the processes, each of which makes its share.

    Source: meta-generative-regularization paper, section 2.1 (z, y), 4.1 (differentiable resizing), B.6 (latent noise).
    """

    def __init__(
        self,
        generator: LatentGenerator,
        *,
        num_classes: int,
        batch_size: int,
        image_size: int,
        strong: Mapping[str, int] | None,
        latent_noise: float,
        dtype: str,
        device: torch.device,
        seed: int,
        world: World,
    ) -> None:
        self.generator = generator
        self._num_classes, self._batch_size, self._image_size = num_classes, batch_size, image_size
        self._strong, self._deviation, self._dtype = strong, latent_noise**0.5, dtype
        self.device, self._seed, self._world = device, seed, world

    def draw(self, update: int) -> Draw:
        """Draw what is random of an update, counted from 0."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "latent", update))
        shape = self._batch_size, self.generator.latent_dim
        z = torch.randn(shape, generator=generator)
        labels = torch.randint(self._num_classes, shape[:1], generator=generator)
        noise = torch.randn(shape, generator=generator) * self._deviation if self._deviation else None
        sent = [None if each is None else each.to(self.device, non_blocking=True) for each in (z, labels, noise)]
        return Draw(sent[0], sent[1], sent[2], derive_seed(self._seed, "strong", update))  # type: ignore[arg-type]

    def views(self, step: Step) -> Views:
        """See `objectives.Supply`; z as it is drawn."""
        with torch.no_grad():
            drawn = self.draw(step.update)
            return self.views_of(drawn, drawn.z)

    def views_of(self, drawn: Draw, z: torch.Tensor) -> Views:
        """Return this process's share of the views of z, float32 [B, Z], differentiable in it."""
        start, stop = self._world.shares(0, len(z))[self._world.rank]
        part = slice(start, stop)
        labels = drawn.labels[part]
        plain = self.images(z[part], labels)
        strong = None
        if drawn.noise is not None:
            strong = self.images(z[part] + drawn.noise[part], labels)
        if self._strong is not None:
            generator = torch.Generator().manual_seed(drawn.seed)
            strong = _strong_view(plain if strong is None else strong, self._strong, generator, part, len(z))
        return Views(plain, strong, labels, len(z))

    def samples(self, count: int, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """See `objectives.Supply`."""
        for z, labels in self.latents(count, number):
            yield {"uniform": self.pixels(z, labels)}

    def latents(self, count: int, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield z and labels of `count` images in batches, drawn apart from those of the training."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "sample", number))
        for first in range(0, count, self._batch_size):
            shape = min(self._batch_size, count - first), self.generator.latent_dim
            z = torch.randn(shape, generator=generator)
            labels = torch.randint(self._num_classes, shape[:1], generator=generator)
            yield z.to(self.device), labels.to(self.device)

    def pixels(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the images as uint8, without a gradient."""
        with torch.no_grad():
            return (self.images(z, labels) * 255).round().to(torch.uint8)

    def images(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the images, float32 [b, 3, H, W] in [0, 1], of z, float32 [b, Z], and labels, int64 [b]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._dtype == "bfloat16"):
            images = self.generator(z, labels).float()
        if images.shape[2] != self._image_size:
            images = F.interpolate(images, (self._image_size, self._image_size), mode="bilinear", antialias=True)
        return images


def drawn_images(images: ImageSource, count: int, seed: int, batch_size: int = 256) -> Iterator[torch.Tensor]:
    """Yield batches of images as they are, uint8 [b, 3, H, W], drawn without putting back: `count`, or all of fewer."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    bounds = [(first, min(first + batch_size, len(order))) for first in range(0, len(order), batch_size)]
    return images.batches(AS_THEY_ARE, order, bounds)


def _strong_view(
    images: torch.Tensor, strong: Mapping[str, int], generator: torch.Generator, part: slice, count: int | None = None
) -> torch.Tensor:
    """Return the strong view of a part of a batch; `images` is the whole batch, or with `count` that part of it."""
    drawn = draw(len(images) if count is None else count, generator, image_size=images.shape[2], **strong)
    return strongly_augmented(images[part] if count is None else images, drawn[part])
