"""Theorem 4.3 of the targeted-augmentation paper: how far a mini-batch gradient is from the full one, and from which.

The per-example gradients are i.i.d. with variance sigma^2 = 1. A stratified batch has B_1 examples of the alpha N with
the fast-learnable feature and B_2 of the k S others (S = (1 - alpha) N, each k times), in proportion, drawn without
replacement (appendix D). Its error is measured
- around the *population* mean, over data and batch: the theorem's view, in which copies add variance;
- around the full gradient of the *finite* augmented set, over data and batch: what a step of SGD adds to a step of
  gradient descent on that set.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from gdacli.errors import GdaError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Strata:
    """An upsampled set and a batch of it."""

    num_fast: int
    """alpha N."""
    num_slow: int
    """S = (1 - alpha) N, before copying."""
    k: int
    """Copies of each slow-learnable one, at least 2."""
    batch_fast: int
    """B_1."""
    batch_slow: int
    """B_2."""

    @property
    def size(self) -> int:
        """N_new."""
        return self.num_fast + self.k * self.num_slow

    @property
    def batch(self) -> int:
        """B."""
        return self.batch_fast + self.batch_slow


def batch_unit(num_fast: int, num_slow: int, k: int) -> int:
    """Return the smallest batch size with whole B_1 and B_2; the others are its multiples up to N_new."""
    copies = k * num_slow
    return (num_fast + copies) // gcd(num_fast, copies)


def strata(num_fast: int, num_slow: int, k: int, batch: int) -> Strata:
    """Split a batch in proportion.

    Raises:
        GdaError: B_1 and B_2 would not be whole, or the batch is larger than the set.

    Source: equations 12 and 13.
    """
    unit, size = batch_unit(num_fast, num_slow, k), num_fast + k * num_slow
    if batch % unit or not 0 < batch <= size:
        raise GdaError(
            f"--batch-size: found {batch}, needs a multiple of {unit} up to {size}: "
            "a batch has as large a share of copied examples as the set, in whole examples"
        )
    fast = batch * num_fast // size
    return Strata(num_fast, num_slow, k, fast, batch - fast)


def second_moment(s: Strata) -> float:
    """Return E[Y^2] of Y, how often a batch has one slow-learnable example: hypergeometric, exactly.

    B_2 draws without replacement from k S, k of which are copies of the one.

    Source: appendix D, before its inequalities.
    """
    copies = s.k * s.num_slow
    mean = s.batch_slow / s.num_slow
    return mean * (1 - 1 / s.num_slow) * (copies - s.batch_slow) / (copies - 1) + mean**2


def population_variance(s: Strata) -> float:
    """Return E ||g_U - population mean||^2 over data and batch, in units of sigma^2.

    Source: appendix D with the exact moments: (B_1 + S E[Y^2]) / B^2.
    """
    return (s.batch_fast + s.num_slow * second_moment(s)) / s.batch**2


def printed_variance(s: Strata) -> float:
    """Return Theorem 4.3's figure, 1 / B (1 + k (k - 1) (1 - alpha) / (alpha + k (1 - alpha))^2 B / N), an upper bound.

    Source: Theorem 4.3. (As printed it is a lower bound of an upper bound I; appendix D derives it as the bound.)
    """
    num = s.num_fast + s.num_slow
    share = s.num_slow / num
    return (1 + s.k * (s.k - 1) * share / (1 - share + s.k * share) ** 2 * s.batch / num) / s.batch


def generated_variance(s: Strata) -> float:
    """Return E ||g_G - population mean||^2, 1 / B: every example of a generated set is independent."""
    return 1 / s.batch


def finite_variance(s: Strata) -> float:
    """Return E ||g_U - full gradient of D_U||^2 over data and batch, in units of sigma^2.

    Per stratum of n with m drawn, (m / B^2) (1 - m / n) times the expected variance in it (n - 1): 1 among the fast
    ones, k (S - 1) / (k S - 1) among S examples with k copies each, which is less.

    Source: ours, from the variance of a mean drawn without replacement.
    """
    copies = s.k * s.num_slow
    left = 1 - s.batch / s.size
    return left * (s.batch_fast + s.batch_slow * s.k * (s.num_slow - 1) / (copies - 1)) / s.batch**2


def finite_generated_variance(s: Strata) -> float:
    """Return E ||g_G - full gradient of D_G||^2: (1 - B / N_new) / B."""
    return (1 - s.batch / s.size) / s.batch


def full_variance(s: Strata) -> float:
    """Return E ||full gradient of D_U - population mean||^2: (alpha N + k^2 S) / N_new^2.

    It and `finite_variance` add up to `population_variance`: all that copies add is here, in the set and not in the
    batches.
    """
    return (s.num_fast + s.k**2 * s.num_slow) / s.size**2


def simulated(s: Strata, rng: np.random.Generator, trials: int) -> dict[str, Array]:
    """Draw data sets and a batch of each; return squared errors, [trials] each, in units of sigma^2.

    Args:
        s: the set and the batch.
        rng: source of all that is random.
        trials: how many.

    Returns:
        `population` and `finite`, of upsampling; `generated` and `finite_generated`, of generation.
    """
    fast = rng.standard_normal((trials, s.num_fast))
    slow = rng.standard_normal((trials, s.num_slow))
    other = rng.standard_normal((trials, (s.k - 1) * s.num_slow))
    colours = np.full(s.num_slow, s.k)
    copies = rng.multivariate_hypergeometric(colours, s.batch_slow, size=trials, method="marginals")
    of_fast = fast[:, : s.batch_fast].sum(1)  # i.i.d.: the first are as good as any
    upsampled = (of_fast + (copies * slow).sum(1)) / s.batch
    whole = (fast.sum(1) + s.k * slow.sum(1)) / s.size
    made = np.concatenate([slow, other], 1)
    generated = (of_fast + made[:, : s.batch_slow].sum(1)) / s.batch
    whole_generated = (fast.sum(1) + made.sum(1)) / s.size
    return {
        "population": upsampled**2,
        "finite": (upsampled - whole) ** 2,
        "generated": generated**2,
        "finite_generated": (generated - whole_generated) ** 2,
    }
