"""The time shift of a flow-matching model, as its scheduler's config says it."""

import math
from typing import Any

from gdacli.errors import GdaError

_OTHER_SIGMAS = (
    "shift_terminal",
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


def read_shift(pipeline: Any, num_tokens: int) -> "Shift":
    """Return the time shift of a flow-matching model.

    Args:
        pipeline: with a FlowMatchEulerDiscreteScheduler.
        num_tokens: of one image, on which a dynamic shift depends.

    Raises:
        GdaError: another kind of scheduler, or one whose sigmas are no shifted time.
    """
    config = pipeline.scheduler.config
    where = f"{pipeline.name_or_path}/scheduler"
    odd = [name for name in _OTHER_SIGMAS if config.get(name)]
    if "base_shift" not in config or odd:
        found = f"{type(pipeline.scheduler).__name__}{' with ' + odd[0] if odd else ''}"
        raise GdaError(f"{where}: found {found}; allowed: FlowMatchEulerDiscreteScheduler without {_OTHER_SIGMAS[0]}")
    if not config.use_dynamic_shifting:
        return Shift(config.shift)
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + slope * (num_tokens - config.base_image_seq_len)
    return Shift(math.exp(mu) if config.time_shift_type == "exponential" else mu)


class Shift:
    """u -> s u / (1 + (s - 1) u).

    Source: Esser et al. 2024, Eq. 23; all of diffusers' shifts are this with their own s, `shift`, exp(mu) or mu.
    """

    def __init__(self, shift: float) -> None:
        self._shift = shift

    def __call__(self, u: float) -> float:
        """Return sigma."""
        return self._shift * u / (1 + (self._shift - 1) * u)
