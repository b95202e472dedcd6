"""Training objectives with a term on synthetic images, beside the cross-entropy of the real ones.

L(theta) + lambda L_p(theta): meta-generative-regularization paper, Eq. 2. To add one: a function of (what the
classifier says of images, views of a batch) -> losses [b], and its line in OBJECTIVES.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from gdacli.losses import cross_entropy, pseudo_consistency, uda_consistency
from gdacli.sam import running_statistics_kept
from gdacli.synthetic_images import Views
from gdacli.training_step import Outputs, Step

Gradients = list[torch.Tensor]

Term = Callable[[Outputs, Views], torch.Tensor]
"""=> losses, float32 [b]."""


def gda(outputs: Outputs, views: Views) -> torch.Tensor:
    """Return the cross-entropy of each synthetic image: paper, Eq. 2 and 4."""
    logits = outputs(views.plain)[0]
    return cross_entropy(logits, F.one_hot(views.labels, logits.shape[1]).float())


def gda_multi_head(outputs: Outputs, views: Views, *, head: nn.Linear) -> torch.Tensor:
    """Return the cross-entropy of what a last layer of its own says of each: paper, section 4.1 (GDA+MH)."""
    logits = head(outputs(views.plain)[1])
    return cross_entropy(logits, F.one_hot(views.labels, logits.shape[1]).float())


def gda_ssl(outputs: Outputs, views: Views, *, temperature: float, confidence: float) -> torch.Tensor:
    """Return how the predictions of both views differ: paper, section 4.1 (GDA+SSL), by UDA."""
    strong, plain = _of_both(outputs, views, 0)
    return uda_consistency(strong, plain, temperature=temperature, confidence=confidence)


def pcr(outputs: Outputs, views: Views) -> torch.Tensor:
    """Return how far the features of both views are apart: paper, Eq. 5 and 6; the last layer has no part in it."""
    return pseudo_consistency(*_of_both(outputs, views, 1))


def _of_both(outputs: Outputs, views: Views, which: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (0) or features (1) of the strong and the plain view, from one pass over both."""
    if views.strong is None:
        raise ValueError("a consistency needs two views")
    strong, plain = outputs(torch.cat([views.strong, views.plain]))[which].chunk(2)
    return strong, plain


@dataclass(frozen=True)
class Kind:
    """What tells an objective from the others."""

    term: Callable[..., torch.Tensor]
    """A `Term`, but for its options."""
    images: Literal["synthetic", "found", "real"]
    """Which it is taken of; found ones are those of a search for latent vectors."""
    two_views: bool
    """Whether it compares strongly augmented images with plain ones."""
    labelled: bool
    """Whether the images must be of their class."""
    trains_last_layer: bool
    """Whether the classifier's last layer learns from it."""


OBJECTIVES = {
    "gda": Kind(gda, "synthetic", two_views=False, labelled=True, trains_last_layer=True),
    "gda_multi_head": Kind(gda_multi_head, "synthetic", two_views=False, labelled=True, trains_last_layer=False),
    "gda_ssl": Kind(gda_ssl, "synthetic", two_views=True, labelled=False, trains_last_layer=True),
    "pcr": Kind(pcr, "synthetic", two_views=True, labelled=False, trains_last_layer=False),
    "real_consistency": Kind(pcr, "real", two_views=True, labelled=False, trains_last_layer=False),
    "mgr": Kind(pcr, "found", two_views=True, labelled=False, trains_last_layer=False),
    "gda_mps": Kind(gda, "found", two_views=False, labelled=True, trains_last_layer=True),
}


class Supply(Protocol):
    """Where the images come from: `synthetic_images.Stored`, `Generated`, or `pseudo_sampling.PseudoSampling`."""

    def views(self, step: Step) -> Views:
        """Return this process's share of an update's batch, without a gradient."""
        ...

    def samples(self, count: int, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """Yield images as they would be made now, in batches uint8 [b, 3, H, W] by how they were drawn.

        They are drawn apart from the training, which is left undisturbed: `stored`; `uniform`, of z from N(0, I); of a
        search also `found`, of where it moves the same z.

        Args:
            count: images in all.
            number: of the draw; the same one gives the same z.
        """
        ...

    def check(self) -> None:
        """Raise a GdaError if something that it learns is no longer a number."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it has learned; empty if it learns nothing."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take that over."""
        ...


class SyntheticObjective:
    """The `training_step.Objective` that is a term on synthetic images, and what belongs to it.

    Args:
        term: of OBJECTIVES, with its options.
        supply: of images.
        weight: lambda.
        head: a last layer of its own for `gda_multi_head`, on the device of the model; trained with it, then left.
        moves_statistics: whether batch normalisation learns its running statistics from these images too.

    The images are a batch of their own: batch normalisation normalises them by themselves, both views together. Whether
    they move the running statistics, the paper does not say.
    """

    def __init__(
        self,
        term: Term,
        supply: Supply,
        *,
        weight: float,
        head: nn.Module | None = None,
        moves_statistics: bool = False,
    ) -> None:
        self._term, self._supply, self._weight, self._head = term, supply, weight, head
        self._moves_statistics = moves_statistics
        self._update: int | None = None
        self._views: Views | None = None
        self.losses = torch.empty(0)
        """Of this process's images, unweighted, at the weights as they were before the update: [b]."""

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside the classifier."""
        return [] if self._head is None else list(self._head.parameters())

    def gradients(self, step: Step) -> Gradients:
        """Return this process's part of the gradient of lambda L_p; SAM asks twice in an update."""
        first = self._views is None or step.update != self._update
        if self._views is None or first:
            with running_statistics_kept(step.model):
                self._views = self._supply.views(step)
            self._update = step.update
        views = self._views
        step.redraw()
        with contextlib.nullcontext() if self._moves_statistics else running_statistics_kept(step.model):
            losses = self._term(step.outputs, views)
        total = self._weight * losses.sum() / views.count
        parts = torch.autograd.grad(total, list(step.parameters), materialize_grads=True)
        if first:
            self.losses = losses.detach()
        return list(parts)

    def samples(self, count: int, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """See `Supply`."""
        return self._supply.samples(count, number)

    def check(self) -> None:
        """Raise a GdaError if what looks for images is no longer a number."""
        self._supply.check()

    def state_dict(self) -> dict[str, Any]:
        """Return what a training goes on from, beside the classifier and its optimizer."""
        head = None if self._head is None else self._head.state_dict()
        return {"head": head, "supply": self._supply.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take that over."""
        if self._head is not None:
            self._head.load_state_dict(state["head"])
        self._supply.load_state_dict(state["supply"])
