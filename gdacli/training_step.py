"""An update in progress, for what takes part in it beside the real images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from gdacli.distributed import World
from gdacli.models import Classifier
from gdacli.rng import derive_seed

Outputs = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Images float [b, 3, H, W] in [0, 1] => logits [b, C] and what the last layer sees, [b, D]."""


@dataclass(frozen=True)
class Step:
    """An update after its real images' gradient is known, and before the weights move."""

    update: int
    """From 0."""
    epoch: int
    """From 1."""
    rate: float
    """The learning rate."""
    model: Classifier
    forward: Outputs
    """The model's `logits_and_last_features`, perhaps compiled."""
    dtype: str
    """Of the forward passes, `float32` or `bfloat16`."""
    parameters: Sequence[torch.Tensor]
    """What is trained."""
    real: Sequence[torch.Tensor]
    """This process's part of the gradient of the real images' loss, of the parameters."""
    world: World
    seed: int
    """Of the training."""

    def outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and features in the precision of the training."""
        with self.autocast():
            return self.forward(_laid_out(images))

    def uncompiled(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same from a pass that can be differentiated twice, which torch.compile's cannot."""
        with self.autocast():
            return self.model.logits_and_last_features(_laid_out(images))

    def precise(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and features in float32."""
        return self.forward(_laid_out(images))

    def autocast(self) -> AbstractContextManager[None]:
        """Return what sets the precision of the training."""
        device = self.parameters[0].device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def redraw(self) -> None:
        """Let the next pass over synthetic images draw what every such pass of this update does: dropout and alike."""
        torch.manual_seed(derive_seed(self.seed, "synthetic network", self.update, self.world.rank))


class Objective(Protocol):
    """What a training minimises beside the cross-entropy of its images, with all that it needs for it."""

    losses: torch.Tensor
    """Of the images of the last update that this process saw, [b], at the weights as they were before it."""

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside the classifier."""
        ...

    def gradients(self, step: Step) -> list[torch.Tensor]:
        """Return this process's part of its gradient; within an update each call is over the same images."""
        ...

    def samples(self, count: int, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield its synthetic images as they would be made now; see `objectives.Supply`."""
        ...

    def check(self) -> None:
        """Raise a GdaError if something of its own is no longer a number."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a training goes on from, beside the classifier and its optimizer."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take that over."""
        ...


def _laid_out(images: torch.Tensor) -> torch.Tensor:
    """Return images in the layout in which trainings run."""
    return images.contiguous(memory_format=torch.channels_last)
