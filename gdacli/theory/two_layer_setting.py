"""The setting of `gdacli theory two-layer`, and what is allowed in it."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from gdacli.errors import GdaError
from gdacli.theory.cubic_network import Examples, draw_examples, draw_noise

INITIAL_SD = 0.1
"""sigma_0 of every initial weight. Ours: the paper gives none."""
LARGEST_NOISE = 2e9
"""Bytes of noise patches that a run may hold."""
DIMENSIONS = (0.5, 1.0, 3.0, 10.0, 30.0)
"""d / N at which the identities are checked with noises that are not orthogonal."""
FEWEST_PAIRS = 20
"""Draws of the comparison of upsampling and generation, at least."""


class Stream(IntEnum):
    """What is drawn: each from a stream of its own, so that one option does not change what another one draws."""

    EXAMPLES = 0
    WEIGHTS = 1
    GENERATED = 2
    FRESH = 3
    IDENTITIES = 4
    TOLERANCE = 5
    BATCHES = 6


@dataclass(frozen=True)
class Setting:
    """All that determines what the program finds."""

    k: int
    """Examples in an augmented set per slow-learnable one, the original counted."""
    alpha: float
    """Share of examples with the fast-learnable feature."""
    beta_e: float
    beta_d: float
    num_examples: int
    """N."""
    dimension: int
    num_filters: int
    learning_rate: float
    rho: float
    noise_sd: float
    """sigma_p: a noise patch has this expected squared length, squared."""
    generated_noise_sd: float
    """The same of the generated examples."""
    iterations: int
    repeats: int
    seed: int

    @property
    def num_slow(self) -> int:
        """(1 - alpha) N."""
        return self.num_examples - round(self.alpha * self.num_examples)

    @property
    def num_augmented(self) -> int:
        """N_new = alpha N + k (1 - alpha) N."""
        return self.num_examples + (self.k - 1) * self.num_slow

    @property
    def generated_factor(self) -> float:
        """E[<w, gamma>^2 ||gamma||^2] of a generated noise over that of an original one: of the fourth order."""
        return (self.generated_noise_sd / self.noise_sd) ** 4

    @property
    def orthogonal_dimension(self) -> int:
        """The dimension, or if that is too low the lowest with orthogonal noises of the augmented set and features."""
        return max(self.dimension, self.num_augmented + 2)

    def rng(self, *stream: int) -> np.random.Generator:
        """Return the generator of a stream."""
        return np.random.default_rng([self.seed, *stream])

    def draw(self, rng: np.random.Generator, repeats: int, dimension: int) -> Examples:
        """Draw data sets of the setting."""
        return draw_examples(
            rng,
            repeats=repeats,
            num_examples=self.num_examples,
            dimension=dimension,
            alpha=self.alpha,
            beta_e=self.beta_e,
            beta_d=self.beta_d,
            noise_sd=self.noise_sd,
        )

    def draw_generated(self, rng: np.random.Generator, repeats: int, dimension: int) -> np.ndarray:
        """Draw the noises of the generated examples, [repeats, (k - 1) (1 - alpha) N, dimension]."""
        return draw_noise(rng, repeats, (self.k - 1) * self.num_slow, dimension, self.generated_noise_sd)


def check(setting: Setting) -> None:
    """Refuse a setting for which the paper's quantities are not defined.

    Raises:
        GdaError: what was found, what is allowed, what to do.
    """
    fast = setting.alpha * setting.num_examples
    if abs(fast - round(fast)) > 1e-9 or not 0 < round(fast) < setting.num_examples:
        raise GdaError(
            f"--alpha: found {setting.alpha:g} with --num-examples {setting.num_examples}, which makes {fast:g} "
            "examples with the fast-learnable feature: take an alpha for which this is a whole number, not 0, not all"
        )
    if setting.beta_d >= setting.beta_e:
        raise GdaError(
            f"--beta-d: found {setting.beta_d:g}, needs less than --beta-e ({setting.beta_e:g}): "
            "or it is not the slow-learnable feature"
        )
    num = setting.num_augmented
    numbers = max(
        setting.repeats * setting.orthogonal_dimension, FEWEST_PAIRS * (num + 2), DIMENSIONS[-1] * setting.num_examples
    )
    size = 8.0 * num * numbers
    if size > LARGEST_NOISE:
        raise GdaError(
            f"--num-examples: found {setting.num_examples}, with k {setting.k}, {setting.dimension} dimensions and "
            f"{setting.repeats} repeats the noises of {num} examples take {size / 1e9:.1f} GB, more than "
            f"{LARGEST_NOISE / 1e9:g}: lower one of the four"
        )
