"""Meta pseudo sampling: latent vectors are moved to where their images lower the validation loss one step ahead."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gdacli.errors import GdaError
from gdacli.finder import kl_to_prior
from gdacli.losses import cross_entropy
from gdacli.meta_gradient import exact, finite_differences
from gdacli.synthetic_images import Draw, Generated, Stored, Views
from gdacli.training_step import Outputs, Step

Term = Callable[[Outputs, Views], torch.Tensor]
"""=> losses, float32 [b]."""


class PseudoSampling:
    """Generated images after a step of the search for them: Algorithm 1, lines 4 to 10.

    Args:
        generated: images of latent vectors.
        term: L_p, what the images are used for; with its `weight`, lambda.
        finder: F, on the device of the generator; None changes the weights of the generator instead.
        validation: real images that are not trained on; None where `criterion` needs none.
        criterion: None looks for a lower validation loss one step ahead; a term is raised instead, on the synthetic
            images, without looking ahead.
        lr: of Adam.
        kl_weight: and `kl_reduction`: see `finder.kl_to_prior`; without a finder z stays N(0, I), and has no such term.
        gradient: `finite_differences`, with `epsilon` its constant, or `exact`, see `meta_gradient`.
        inner_lr: of the step ahead, plain SGD; None is the learning rate of the update.

    In all passes the model trains (batch normalisation takes the statistics of each batch) and its running statistics
    stay. Finite differences are taken in float32 whatever the training's precision, whose rounding they would drown in.

    Source: meta-generative-regularization paper, section 3.2 and appendix B.4 (`criterion`).
    """

    def __init__(
        self,
        generated: Generated,
        term: Term,
        *,
        weight: float,
        finder: nn.Module | None,
        validation: Stored | None,
        criterion: Term | None,
        lr: float,
        kl_weight: float,
        kl_reduction: str,
        gradient: str,
        epsilon: float,
        inner_lr: float | None,
    ) -> None:
        self.generated, self.finder = generated, finder
        self._term, self._weight = term, weight
        self._validation, self._criterion = validation, criterion
        self._kl_weight, self._kl_reduction = kl_weight, kl_reduction
        self._exact, self._epsilon, self._inner_lr = gradient == "exact", epsilon, inner_lr
        searched = generated.generator if finder is None else finder
        self._parameters = [parameter.requires_grad_() for parameter in searched.parameters()]
        if not self._parameters:
            raise GdaError(
                "train.finder.optimise: found generator, but the generator has no weights that can change (an exported "
                "program may hold them as constants): set it to finder"
            )
        self._first = [each.detach().clone() for each in self._parameters] if finder is None else None
        self._adam = torch.optim.Adam(self._parameters, lr)

    def views(self, step: Step) -> Views:
        """See `objectives.Supply`: of found latent vectors."""
        drawn = self.generated.draw(step.update)
        self._improve(step, drawn)
        with torch.no_grad():
            return self.generated.views_of(drawn, self.found(drawn.z))

    def found(self, z: torch.Tensor) -> torch.Tensor:
        """Move latent vectors, float32 [B, Z], to where the search has come."""
        return z if self.finder is None else self.finder(z)

    def samples(self, count: int, number: int) -> Iterator[dict[str, torch.Tensor]]:
        """See `objectives.Supply`; where the generator is changed, `uniform` are images of it as it was."""
        for z, labels in self.generated.latents(count, number):
            with self._as_it_began():
                uniform = self.generated.pixels(z, labels)
            with torch.no_grad():
                found = self.found(z)
            yield {"uniform": uniform, "found": self.generated.pixels(found, labels)}

    @contextlib.contextmanager
    def _as_it_began(self) -> Iterator[None]:
        """Within, a generator that is changed has its first weights."""
        if self._first is None:
            yield
            return
        now = [each.detach().clone() for each in self._parameters]
        _set(self._parameters, self._first)
        try:
            yield
        finally:
            _set(self._parameters, now)

    def check(self) -> None:
        """Raise a GdaError if a weight of what is searched is no longer a number."""
        if not all(parameter.isfinite().all() for parameter in self._parameters):
            what = "generator" if self.finder is None else "finder"
            rate = self._adam.param_groups[0]["lr"]
            raise GdaError(
                f"train.finder: the {what}'s weights are no longer numbers: lower train.finder.lr ({rate:g})"
            )

    def state_dict(self) -> dict[str, Any]:
        """See `objectives.Supply`."""
        return {"searched": [each.detach() for each in self._parameters], "adam": self._adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `objectives.Supply`."""
        _set(self._parameters, state["searched"])
        self._adam.load_state_dict(state["adam"])

    def _improve(self, step: Step, drawn: Draw) -> None:
        """Take a step of Adam: the hyper-gradient is taken at the images and pulled through the generator once."""
        found = self.found(drawn.z)
        views = self.generated.views_of(drawn, found)
        seen = views.cut_off()
        if self._criterion is None:
            towards = self._ahead(step, seen)
        else:
            step.redraw()
            loss = self._criterion(step.outputs, seen).sum() / seen.count
            towards = [-each for each in torch.autograd.grad(loss, seen.images, materialize_grads=True)]
        outputs, weights = [*views.images], [*towards]
        if self.finder is not None and self._kl_weight:
            kl = kl_to_prior(found, self._kl_reduction)
            outputs.append(kl)
            weights.append(torch.full_like(kl, self._kl_weight / step.world.size))  # each process has it whole
        parts = torch.autograd.grad(outputs, self._parameters, weights, materialize_grads=True)
        gradients = [part.contiguous() for part in parts]
        step.world.sum_(gradients)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()
        self._adam.zero_grad()

    def _ahead(self, step: Step, seen: Views) -> list[torch.Tensor]:
        """Return the gradient of the validation loss one step ahead with respect to this process's images: Eq. 8, 9."""
        parameters = list(step.parameters)

        def loss(outputs: Outputs) -> torch.Tensor:
            step.redraw()
            return self._term(outputs, seen).sum() / seen.count

        with twice_differentiable() if self._exact else contextlib.nullcontext():
            now = loss(step.uncompiled if self._exact else step.outputs)
            own = torch.autograd.grad(now, parameters, create_graph=self._exact, materialize_grads=True)
        total = [real + self._weight * each.detach() for real, each in zip(step.real, own, strict=True)]
        step.world.sum_(total)
        rate = self._inner_lr or step.rate
        ahead = torch._foreach_sub([parameter.detach() for parameter in parameters], total, alpha=rate)
        direction = self._validation_gradient(step, ahead)
        if self._exact:
            found = exact(own, direction, seen.images)
        else:
            found = finite_differences(
                lambda: loss(step.precise), parameters, direction, seen.images, constant=self._epsilon
            )
        return [-rate * self._weight * each for each in found]

    def _validation_gradient(self, step: Step, ahead: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradient of the validation loss at parameters ahead, in which all processes share."""
        if self._validation is None:
            raise ValueError("looking ahead needs validation images")
        batch = self._validation.views(step)
        names = {id(parameter): name for name, parameter in step.model.named_parameters()}
        moved = [each.requires_grad_() for each in ahead]
        theirs = {
            names[id(parameter)]: each
            for parameter, each in zip(step.parameters, moved, strict=True)
            if id(parameter) in names  # a head of the objective's own has no part in it
        }
        step.redraw()
        with step.autocast():
            logits = torch.func.functional_call(step.model, theirs, (batch.plain,))
        targets = F.one_hot(batch.labels, logits.shape[1]).float()
        loss = cross_entropy(logits, targets).sum() / batch.count
        gradient = torch.autograd.grad(loss, moved, materialize_grads=True)
        parts = [part.contiguous() for part in gradient]
        step.world.sum_(parts)
        return parts


def _set(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Within, attention takes the one kernel that has a second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
