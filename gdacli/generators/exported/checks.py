"""What a program must do to be a generator: found out by running it on three latents."""

import textwrap
from collections.abc import Callable

import torch

from gdacli.errors import GdaError

RANGES = {"minus_one_to_one": -1.0, "zero_to_one": 0.0}
"""`generate.output_range`: black; white is 1."""

_OUTSIDE = 0.1
"""Share of values outside the range that are taken for what a generator overshoots by, and are clipped."""

Make = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def check_images(make: Make, name: str, *, latent_dim: int, num_classes: int, labels_count: bool, black: float) -> None:
    """Hold a generator to its contract; on the CPU, where a label that it does not know is an error.

    Args:
        make: (z float32 [B, Z], labels int64 [B]) -> images as the program makes them.
        name: what to call it in messages.
        latent_dim: Z.
        num_classes: of the data.
        labels_count: whether it takes labels.
        black: -1 or 0; white is 1.

    Raises:
        GdaError: it does not run or does not know the last label; the images are no finite float32 [B, 3, S, S] in
            that range, or change from call to call, with their neighbours, or not with their label.
    """
    z = torch.randn(3, latent_dim, generator=torch.Generator().manual_seed(0))
    first = torch.zeros(3, dtype=torch.int64)
    last = torch.full_like(first, num_classes - 1)
    with torch.no_grad():
        made = _run(make, z, first, name, "export it again, as docs/exported.md shows")
        remedy = f"it must know the labels 0 to {num_classes - 1} of the data: export another or wrap it"
        others = _run(make, z, last, name, remedy) if labels_count else made
        again, alone = make(z, first), make(z[:1], first[:1])
    _check_form(made, name, black)
    _check_form(others, name, black)
    if not torch.equal(made, again):
        raise GdaError(
            f"{name}: makes another image of the same z at every call: export it without random parts "
            "(StyleGAN: noise_mode='const')"
        )
    if (made[:1] - alone).abs().max() > 0.01:
        raise GdaError(f"{name}: an image depends on the others of its batch: export it in eval mode (.eval())")
    if labels_count and num_classes > 1 and torch.equal(made, others):
        raise GdaError(
            f"{name}: makes the same images of label 0 and label {num_classes - 1}: the labels have no say, so export "
            "a program of z alone"
        )


def check_gradient(make: Make, name: str, latent_dim: int) -> None:
    """Raise a GdaError if the images have no gradient in z, float32 [B, Z]."""
    z = torch.randn(1, latent_dim, generator=torch.Generator().manual_seed(0), requires_grad=True)
    made = make(z, torch.zeros(1, dtype=torch.int64))
    if not made.requires_grad or not torch.autograd.grad(made.square().sum(), z)[0].any():
        raise GdaError(
            f"{name}: its images have no gradient in z: export it without torch.no_grad, detach and rounding in its "
            "forward"
        )


def _run(make: Make, z: torch.Tensor, labels: torch.Tensor, name: str, remedy: str) -> torch.Tensor:
    try:
        return make(z, labels)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, AssertionError, ValueError, TypeError) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder="...")
        raise GdaError(
            f"{name}: fails at a batch of {len(z)} with label {int(labels[0])} ({reason}): {remedy}"
        ) from error


def _check_form(made: object, name: str, black: float) -> None:
    if not isinstance(made, torch.Tensor):
        raise GdaError(f"{name}: makes a {type(made).__name__}; allowed: one tensor, float32 [B, 3, S, S]")
    if made.dtype != torch.float32 or made.ndim != 4 or made.shape[:2] != (3, 3) or made.shape[2] != made.shape[3]:
        shape = ", ".join(["B", *map(str, made.shape[1:])]) if made.ndim and len(made) == 3 else list(made.shape)
        kind = str(made.dtype).removeprefix("torch.")
        raise GdaError(f"{name}: makes {kind} [{shape}] of B latents; allowed: float32 [B, 3, S, S]")
    if not made.isfinite().all():
        raise GdaError(f"{name}: makes images with NaN or infinite values: export it in float32, or better trained")
    low, high = made.min().item(), made.max().item()
    share = ((made < black) | (made > 1)).float().mean().item()
    if share > _OUTSIDE or (black < 0 <= low):
        found = next(key for key, value in RANGES.items() if value == black)
        raise GdaError(
            f"generate.output_range: found {found}, but {name} makes values from {low:.3g} to {high:.3g}; allowed: "
            f"{' or '.join(RANGES)}: name the one that fits, or scale the images in the program"
        )
