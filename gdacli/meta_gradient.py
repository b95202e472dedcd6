"""How the loss one training step ahead changes with the images of that step: the hyper-gradient, in two ways.

theta' = theta - eta (g + lambda grad_theta L(theta, x)), v = grad L_val(theta'): by the chain rule the gradient of
L_val(theta') with respect to x is -eta lambda grad_x <grad_theta L(theta, x), v>. Both functions return the part behind
-eta lambda.
"""

from collections.abc import Callable, Sequence

import torch

from gdacli.optim import moved

Tensors = Sequence[torch.Tensor]


def finite_differences(
    loss: Callable[[], torch.Tensor],
    parameters: Tensors,
    direction: Tensors,
    images: Tensors,
    *,
    constant: float = 0.01,
) -> list[torch.Tensor]:
    """Return grad_x <grad_theta loss, v> by a central difference: two more forward and backward passes.

    Args:
        loss: of `parameters` and `images` as they are when it is called: a scalar.
        parameters: theta; moved meanwhile, their bits are the same before and after.
        direction: v, of their shapes; zeros give zeros.
        images: x, tensors that require a gradient.
        constant: length of the step to either side, epsilon ||v||.

    Source: meta-generative-regularization paper, Eq. 9, read as DARTS (Liu et al. 2019, Eq. 8): theta +- epsilon v with
    epsilon = 0.01 / ||v|| (METHODS).
    """
    norm = torch.nn.utils.get_total_norm(list(direction))
    epsilon = float(constant / norm.clamp(min=torch.finfo(norm.dtype).tiny))
    sides = []
    for sign in (1.0, -1.0):
        with moved(parameters, direction, sign * epsilon):
            sides.append(torch.autograd.grad(loss(), list(images), materialize_grads=True))
    return [(above - below) / (2 * epsilon) for above, below in zip(*sides, strict=True)]


def exact(gradient: Tensors, direction: Tensors, images: Tensors) -> list[torch.Tensor]:
    """Return grad_x <grad_theta loss, v> by differentiating twice.

    Args:
        gradient: grad_theta loss, made with `create_graph`.
        direction: v, of the same shapes.
        images: x.
    """
    pairs = [(each, along) for each, along in zip(gradient, direction, strict=True) if each.requires_grad]
    if not pairs:
        return [torch.zeros_like(each) for each in images]
    outputs, along = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, list(images), along, materialize_grads=True))
