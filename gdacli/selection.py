"""Selection strategies: which training images are learned late.

A strategy is a function `(dynamics, labels, rng) -> (score, chosen)`:
  dynamics: `Dynamics` of N images at E >= 1 recorded epochs; the last is the separation epoch. The images are those
    the probe trained on, as in the paper.
  labels: int [N] in [0, C).
  rng: used only where the strategy is random.
  score: float64 [N], higher = augment first.
  chosen: bool [N], the strategy's natural choice; none where it only ranks.
To add one: write the function and its line in STRATEGIES (in UNSIZED too if it only ranks).
"""

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gdacli.arms import take_top
from gdacli.dynamics import Dynamics
from gdacli.rng import derive_seed
from gdacli.row_files import Rows, Subset, blocks
from gdacli.two_means import TwoMeans, two_means

Strategy = Callable[[Dynamics, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def select_cluster(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Per class, split the logits by k-means (k=2) and choose the cluster of higher mean loss.

    The score is the distance to the early-learned centroid minus that to the late-learned one (> 0 = late-learned).
    A class that cannot be split (one image, identical logits) is taken whole if its mean loss is above the mean of all
    images, and left out whole if not; its scores are its losses relative to that mean.

    Source: targeted-augmentation paper, Algorithm 1. The paper does not state the initialisation: see `two_means`.
    """
    from threadpoolctl import threadpool_limits

    losses = dynamics.loss[-1].astype(np.float64)
    score = losses - losses.mean()
    chosen = np.zeros(len(labels), bool)
    classes = _members(labels)
    seeds = rng.integers(2**31, size=len(classes)).tolist()

    def split(members: np.ndarray, seed: int) -> TwoMeans | None:
        return two_means(Subset(dynamics.logits, members), seed)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(_num_workers()) as workers:  # one class a thread
        for members, means in zip(classes, workers.map(split, classes, seeds), strict=True):
            if means is None:
                chosen[members] = losses[members].mean() > losses.mean()
                continue
            second = means.second
            late = int(losses[members][second].mean() > losses[members][~second].mean())
            score[members] = means.distances[:, 1 - late] - means.distances[:, late]
            chosen[members] = second == bool(late)
    return score, chosen


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each class that has any, ascending."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _num_workers() -> int:
    """Return the number of threads to split classes with, which no result depends on."""
    return min(len(os.sched_getaffinity(0)), 8)


def select_high_loss(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images whose loss is above the mean over all images; the score is the loss.

    Source: targeted-augmentation paper, Table 7, which does not state the size: the mean is ours.
    """
    losses = dynamics.loss[-1].astype(np.float64)
    return losses, losses > losses.mean()


def select_misclassified(
    dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the misclassified images; the score ranks them first, by loss: wrong + loss / (1 + loss).

    Source: targeted-augmentation paper, Table 7.
    """
    wrong = ~dynamics.correct[-1]
    return wrong + _below_one(dynamics), wrong


def select_loss_mixture(
    dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images that the component of higher loss explains better, of a mixture of two normal distributions.

    The losses of all images at the separation epoch are scaled to [0, 1]. The score is the log odds of the component
    of higher mean (> 0 = chosen). If all losses are equal, none is chosen and all scores are 0.

    Source: DivideMix (Li et al. 2020), section 3.1, with its covariance floor of 5e-4 and tolerance of 0.01, and up to
    100 iterations for its 10.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    losses = dynamics.loss[-1].astype(np.float64)
    spread = losses.max() - losses.min()
    if spread == 0:
        return np.zeros(len(losses)), np.zeros(len(losses), bool)
    scaled = ((losses - losses.min()) / spread)[:, None]
    mixture = GaussianMixture(2, tol=1e-2, reg_covar=5e-4, random_state=int(rng.integers(2**31)))
    with threadpool_limits(1), warnings.catch_warnings():  # several threads add up in varying order
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(scaled)
    high = int(mixture.means_[:, 0].argmax())
    weights, means, variances = mixture.weights_, mixture.means_[:, 0], mixture.covariances_[:, 0, 0]
    log_joint = np.log(weights) - 0.5 * np.log(variances) - 0.5 * (scaled - means) ** 2 / variances
    score = log_joint[:, high] - log_joint[:, 1 - high]
    return score, score > 0


def select_forgetting(
    dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images that were forgotten at least once, or never learned.

    An image is forgotten when it is right after an epoch and wrong after the next. The score counts this, equal counts
    ranked by loss (+ loss / (1 + loss)); an image that was never right counts E times, more often than any other.

    Source: Toneva et al. 2019, Definitions 1 and 2 and section 3. Deviations: counted at the ends of epochs, not when
    an image comes up in a batch; ties ranked by loss.
    """
    correct = dynamics.correct
    forgotten = (correct[:-1] & ~correct[1:]).sum(axis=0)
    count = np.where(correct.any(axis=0), forgotten, len(correct))
    return count + _below_one(dynamics), count > 0


def select_el2n(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rank images by the length of the error vector (probabilities - one-hot label) at the separation epoch.

    Source: Paul et al. 2021, Definition 2.2 (EL2N). Deviation: one training, where the paper averages over ten.
    """
    return dynamics.el2n[-1].astype(np.float64), _nothing(labels)


def select_aum(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rank images by minus the area under the margin: the label's logit minus the highest other, mean over the epochs.

    Source: Pleiss et al. 2020, Equations 1 and 2. Deviations: on images without augmentation, after each epoch; no
    threshold samples, which find wrong labels there.
    """
    return -dynamics.margin.mean(axis=0, dtype=np.float64), _nothing(labels)


def select_margin(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rank images by minus the margin at the separation epoch; the misclassified ones come first (score > 0).

    Source: Scheffer et al. 2001 (margin sampling), with the label, which is known here, for the best guess, and in
    logits, as in Pleiss et al. 2020, Equation 1.
    """
    return -dynamics.margin[-1].astype(np.float64), _nothing(labels)


def select_entropy(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rank images by the entropy of the predicted probabilities at the separation epoch, whatever their label.

    Source: Coleman et al. 2020 (selection via proxy), section 3.2, after Shannon 1948.
    """
    return dynamics.entropy[-1].astype(np.float64), _nothing(labels)


def select_random(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rank images at random, with scores in [0, 1).

    Source: targeted-augmentation paper, the arm "Syn-rand".
    """
    return rng.random(len(labels)), _nothing(labels)


def select_all(dynamics: Dynamics, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose every image, with equal scores.

    Source: targeted-augmentation paper, the arm "Syn-all".
    """
    return np.zeros(len(labels)), np.ones(len(labels), bool)


def _below_one(dynamics: Dynamics) -> np.ndarray:
    """Return the losses at the separation epoch squeezed into [0, 1), in their order."""
    losses = dynamics.loss[-1].astype(np.float64)
    return losses / (1 + losses)


def _nothing(labels: np.ndarray) -> np.ndarray:
    return np.zeros(len(labels), bool)


STRATEGIES: dict[str, Strategy] = {
    "cluster": select_cluster,
    "high_loss": select_high_loss,
    "misclassified": select_misclassified,
    "loss_mixture": select_loss_mixture,
    "forgetting": select_forgetting,
    "el2n": select_el2n,
    "aum": select_aum,
    "margin": select_margin,
    "entropy": select_entropy,
    "random": select_random,
    "all": select_all,
}
UNSIZED = frozenset({"el2n", "aum", "margin", "entropy", "random"})
"""The strategies that only rank: their size comes from `select.share` or `like`."""
RANKINGS = frozenset(STRATEGIES) - {"cluster", "all"}
"""The strategies that `select.share` sizes over all classes; `cluster` and `all` have a size of their own."""


@dataclass(frozen=True)
class Selection:
    """What a strategy says of N images."""

    score: np.ndarray
    """float64 [N], higher = augment first; minus infinity of what is no candidate."""
    chosen: np.ndarray
    """Bool [N]."""
    natural: np.ndarray
    """Bool [N], the strategy's own choice before it was sized."""


def select(
    strategy: str,
    dynamics: Dynamics,
    labels: np.ndarray,
    *,
    seed: int,
    candidates: np.ndarray,
    share: float | None,
    per_class: bool,
    quotas: Mapping[int, float],
) -> Selection:
    """Score the images by a strategy of STRATEGIES and choose; see `choose`.

    Args:
        strategy: its name.
        dynamics: of N images.
        labels: int [N].
        seed: of what is random, which is another for each strategy.
        candidates, share, per_class, quotas: of `choose`.
    """
    rng = np.random.default_rng(derive_seed(seed, "select", strategy))
    score, natural = STRATEGIES[strategy](dynamics, labels, rng)
    chosen = choose(strategy, score, natural, labels, candidates, share=share, per_class=per_class, quotas=quotas)
    return Selection(np.where(candidates, score, -np.inf), chosen, natural)


def choose(
    strategy: str,
    score: np.ndarray,
    natural: np.ndarray,
    labels: np.ndarray,
    candidates: np.ndarray,
    *,
    share: float | None,
    per_class: bool,
    quotas: Mapping[int, float],
) -> np.ndarray:
    """Size what a strategy chooses. Shares are of the candidates, and of a class with any at least one is taken.

    Args:
        strategy: its name; `all` takes all candidates, whatever the sizes.
        score: [N], higher = augment first.
        natural: bool [N], the strategy's own choice.
        labels: int [N].
        candidates: bool [N]; others are not chosen.
        share: in (0, 1], that a strategy in RANKINGS takes over all classes, or any one takes with `per_class`; None
            is the natural choice.
        per_class: take `share` in each class.
        quotas: class -> share in (0, 1] that is taken in this class, by score, instead.

    Returns:
        bool [N].
    """
    if strategy == "all":
        return candidates.copy()
    chosen = natural & candidates
    shares = dict(quotas)
    if share is not None and per_class:
        shares = dict.fromkeys(np.unique(labels).tolist(), share) | shares
    elif share is not None and strategy in RANKINGS:
        chosen = take_top(np.where(candidates, score, -np.inf), round(share * int(candidates.sum())))
    for label, quota in shares.items():
        members = np.flatnonzero((labels == label) & candidates)
        chosen[members] = take_top(score[members], max(1, round(quota * len(members))))
    return chosen


def centroids(logits: Rows, labels: np.ndarray, late: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the mean logits of each class's early- and late-learned images.

    Args:
        logits: float [N, C] at the separation epoch; read in blocks.
        labels: int [N].
        late: bool [N], the choice of `select_cluster`.
        num_classes: K.

    Returns:
        float64 [K, 2, C], early first; NaN where a class has no such image.
    """
    from scipy.sparse import csr_array

    group = 2 * labels + late
    sums = np.zeros((2 * num_classes, logits.shape[1]))
    for part in blocks(*logits.shape):
        block = logits[part].astype(np.float64)
        ones, rows = np.ones(len(block)), np.arange(len(block))
        sums += csr_array((ones, (group[part], rows)), shape=(len(sums), len(block))) @ block
    counts = np.bincount(group, minlength=len(sums))[:, None].astype(np.float64)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means.reshape(num_classes, 2, -1)


def is_late(logits: Rows, labels: np.ndarray, centroid: np.ndarray) -> np.ndarray:
    """Call images late-learned if their logits are nearer to their class's late centroid than to its early one.

    Args:
        logits: float [N, C] of the probe; read in blocks.
        labels: int [N].
        centroid: float [K, 2, C] of `centroids`.

    Returns:
        bool [N]. A class with one centroid has one group.
    """
    result = np.empty(len(labels), bool)
    for part in blocks(*logits.shape):
        distance = np.linalg.norm(centroid[labels[part]] - logits[part][:, None, :], axis=2)
        distance = np.where(np.isnan(distance), np.inf, distance)
        result[part] = distance[:, 1] < distance[:, 0]
    return result
