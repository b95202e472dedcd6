"""Half masks: which half of a mixed image stays the source."""

import numpy as np

from gdacli.rng import derive_seed

MASKS = ("source_left", "source_right", "source_top", "source_bottom")
"""By the half that is the source's."""

_SEAM = 20 / 256


def draw_mask(seed: int) -> str:
    """Return one of MASKS by an image's seed.

    Source: DiffuseMix (Islam et al. 2024), section 3: halves side by side or one above the other, and their mirrored
    forms; its code draws from `source_left` and `source_top` alone.
    """
    return MASKS[derive_seed(seed, "mask") % len(MASKS)]


def edited_share(mask: str, size: int) -> np.ndarray:
    """Return how much of each pixel is the edited image's, float32 [size, size] in [0, 1].

    It goes from 0 to 1 in a line over a seam of 20/256 of a side, in the middle.

    Source: the seam is that of DiffuseMix's code, 20 of its 256 pixels; its paper has a binary mask.

    >>> edited_share("source_left", 4)[0].tolist(), edited_share("source_bottom", 4)[:, 0].tolist()
    ([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    """
    place = (np.arange(size) + 0.5) / size - 0.5
    ramp = np.clip(place / _SEAM + 0.5, 0, 1).astype(np.float32)
    if mask in ("source_right", "source_bottom"):
        ramp = ramp[::-1]
    line = ramp[None] if mask in ("source_left", "source_right") else ramp[:, None]
    return np.ascontiguousarray(np.broadcast_to(line, (size, size)))
