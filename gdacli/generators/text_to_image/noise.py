"""The noise that a model was trained on, as its scheduler's config says it."""

import math
from typing import Any

from diffusers import DDPMScheduler

from gdacli.denoiser import PredictionType
from gdacli.errors import GdaError
from gdacli.schedules import NUM_TRAIN_TIMESTEPS

_PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction")
_OTHER_SIGMAS = (
    "shift_terminal",
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


def read_timesteps(pipeline: Any) -> tuple[list[float], PredictionType]:
    """Return alpha_bar per timestep, and what the network predicts.

    An alpha_bar of 0 at the last timestep (zero terminal SNR) is fine for v-prediction; a predicted epsilon says
    nothing of the image there, and the division by 0 in its place is none of ours to smooth over.

    Raises:
        GdaError: another kind of scheduler or prediction.
    """
    config = pipeline.scheduler.config
    where = f"{pipeline.name_or_path}/scheduler"
    if "beta_schedule" not in config:
        raise GdaError(
            f"{where}: found {type(pipeline.scheduler).__name__}; allowed with {type(pipeline).__name__}: a scheduler "
            f"of {NUM_TRAIN_TIMESTEPS} timesteps, such as DDIMScheduler"
        )
    try:
        alpha_bars = DDPMScheduler.from_config(config).alphas_cumprod.double().tolist()
    except (ValueError, NotImplementedError) as error:
        raise GdaError(f"{where}: {' '.join(str(error).split())[:200]}") from error
    prediction_type = config.prediction_type
    if prediction_type not in _PREDICTIONS:
        raise GdaError(f"{where}: found prediction_type {prediction_type}; allowed: {', '.join(_PREDICTIONS)}")
    ends = 0 < alpha_bars[-1] < 1 or (alpha_bars[-1] == 0 and prediction_type == "v_prediction")
    if len(alpha_bars) != NUM_TRAIN_TIMESTEPS or not ends:
        raise GdaError(
            f"{where}: found {len(alpha_bars)} timesteps down to alpha_bar {alpha_bars[-1]:.2g} for {prediction_type}; "
            f"allowed: {NUM_TRAIN_TIMESTEPS} that end above 0, or at 0 for v_prediction"
        )
    return alpha_bars, prediction_type


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
