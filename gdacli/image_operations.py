"""Image operations on a batch, each image with its own magnitude: those of torchvision's auto-augmentations.

Each gives the integers of torchvision's operation on tensors, image by image. Magnitudes are drawn, and stay, on the
CPU, so that nothing waits for a GPU; the images may be anywhere.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def shear_x(m: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Move each row sideways by the magnitude times its height below the upper edge."""
    return _matrices((1, m, m * height / 2), (0, 1, 0))


def shear_y(m: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Move each column down by the magnitude times its distance from the left edge."""
    return _matrices((1, 0, 0), (m, 1, m * width / 2))


def translate_x(m: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Move to the right by the whole pixels of the magnitude."""
    return _matrices((1, 0, -m.trunc()), (0, 1, 0))


def translate_y(m: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Move down by the whole pixels of the magnitude."""
    return _matrices((1, 0, 0), (0, 1, -m.trunc()))


def rotate(m: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Turn counter-clockwise around the centre by the magnitude, in degrees."""
    cos, sin = m.deg2rad().cos(), m.deg2rad().sin()
    return _matrices((cos, -sin, 0), (sin, cos, 0))


def _matrices(first: Sequence[float | torch.Tensor], second: Sequence[float | torch.Tensor]) -> torch.Tensor:
    rows = [*first, *second]
    like = next(entry for entry in rows if isinstance(entry, torch.Tensor))
    full = [entry if isinstance(entry, torch.Tensor) else torch.full_like(like, entry) for entry in rows]
    return torch.stack(full, 1).view(-1, 2, 3)


GEOMETRY: dict[str, Callable[[torch.Tensor, int, int], torch.Tensor]] = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
}
"""Per name: magnitudes [n] => where a pixel of the result comes from, float64 [n, 2, 3], in pixels from the centre."""


def warp(images: torch.Tensor, matrices: torch.Tensor, interpolation: str) -> torch.Tensor:
    """Take each pixel from where its image's matrix says; black where that is outside.

    Args:
        images: float [n, 3, H, W]; the result is differentiable in them.
        matrices: float64 [n, 2, 3] on the CPU: source (x, y) of a pixel at (x, y, 1), in pixels from the centre.
        interpolation: `nearest` or `bilinear`.
    """
    height, width = images.shape[2:]
    scale = torch.tensor([[0.5 * width], [0.5 * height]])
    theta = (matrices.to(images.dtype) / scale).to(images.device, non_blocking=True)[..., None, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    grid = torch.stack([theta[:, axis, 0] * x + theta[:, axis, 1] * y + theta[:, axis, 2] for axis in (0, 1)], -1)
    return F.grid_sample(images, grid, mode=interpolation, align_corners=False)


def identity(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Change nothing."""
    return images


def brightness(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Scale towards black (magnitude -1) or away from it."""
    return _blend(images, torch.zeros((), device=images.device), m)


def color(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Scale towards grey (magnitude -1) or away from it."""
    return _blend(images, _grey(images), m)


def contrast(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Scale towards the image's mean grey (magnitude -1) or away from it."""
    # a sum of integers has the same bits in any order, so on any number of threads
    mean = _grey(images).sum((1, 2, 3), keepdim=True, dtype=torch.float64) / images[0, 0].numel()
    return _blend(images, mean.float(), m)


def sharpness(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Scale towards a blurred image (magnitude -1) or away from it; the outermost pixels stay."""
    if min(images.shape[2:]) <= 2:
        return images
    blurred = images.float()
    rows = blurred[..., :-2, :] + blurred[..., 1:-1, :] + blurred[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * blurred[..., 1:-1, 1:-1]  # sums of integers: exact
    blurred[..., 1:-1, 1:-1] = sums.div_(13).round_()
    return _blend(images, blurred, m)


def posterize(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Keep as many of the highest bits as the magnitude says."""
    mask = (256 - 2 ** (8 - m.long())).to(torch.uint8)  # for 0 bits 256 - 256
    return images & _per_image(mask, images)


def solarize(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Invert the pixels that are at least the magnitude."""
    reached = images >= _per_image(m.ceil().to(torch.uint8), images)
    return images ^ reached.to(torch.uint8).neg_()  # with 255, which inverts, or with 0


def auto_contrast(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Stretch each channel to the whole range."""
    from torchvision.transforms import functional  # an import of a second that crop and flip can do without

    return functional.autocontrast(images)


def equalize(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Give each channel an even histogram."""
    from torchvision.transforms.v2 import functional  # the older one goes over images and channels in Python

    return functional.equalize(images)


def _grey(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)[:, None]


def _blend(images: torch.Tensor, other: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    ratio = 1.0 + m
    blended = _per_image(ratio.float(), images) * images.float() + _per_image((1.0 - ratio).float(), images) * other
    return blended.clamp_(0, 255).to(torch.uint8)


def _per_image(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return values.to(images.device, non_blocking=True)[:, None, None, None]


COLOURS: dict[str, Operation] = {
    "identity": identity,
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
}


def apply_operations(
    images: torch.Tensor, names: Sequence[str], which: torch.Tensor, magnitudes: torch.Tensor, interpolation: str
) -> torch.Tensor:
    """Apply one operation to each image.

    The images go through the operations in groups, those of GEOMETRY as one; the loop is over operations, not images.

    Args:
        images: uint8 [n, 3, H, W].
        names: of operations in GEOMETRY, then of others in COLOURS.
        which: int64 [n] in [0, len(names)), on the CPU.
        magnitudes: float64 [n], on the CPU; each with its sign.
        interpolation: of GEOMETRY, `nearest` or `bilinear`.

    Returns:
        uint8 [n, 3, H, W].

    Source: torchvision's `_apply_op` on tensors, with fill None (black).
    """
    height, width = images.shape[2:]
    order = torch.argsort(which, stable=True)
    counts = torch.bincount(which, minlength=len(names)).tolist()
    num_geometric = sum(name in GEOMETRY for name in names)
    warped = sum(counts[:num_geometric])
    grouped = images.index_select(0, order.to(images.device, non_blocking=True))
    strengths = magnitudes[order].split(counts)
    parts = []
    if warped:
        matrices = [GEOMETRY[name](m, height, width) for name, m in zip(names[:num_geometric], strengths, strict=False)]
        parts.append(warp(grouped[:warped].float(), torch.cat(matrices), interpolation).round_().to(torch.uint8))
    rest = grouped[warped:].split(counts[num_geometric:])
    for name, part, m in zip(names[num_geometric:], rest, strengths[num_geometric:], strict=True):
        if len(part):
            parts.append(COLOURS[name](part, m))
    return torch.cat(parts).index_select(0, torch.argsort(order).to(images.device, non_blocking=True))
