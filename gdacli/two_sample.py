"""Whether a classifier can tell synthetic images from the real ones that they were made from."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from gdacli.clustered_share import Share, clustered_share
from gdacli.rng import derive_seed

VERSION = 1
"""Raise it when the same features give another answer."""

MOST_PAIRS = 1000
"""Of real and synthetic images; the interval then ends 3 points to either side of 50 %."""
LEAST_PAIRS = 20
"""With fewer no answer would say anything."""
NUM_FOLDS = 5

_INFLATION = 1 + NUM_FOLDS / (NUM_FOLDS - 1)


def told_apart(a: np.ndarray, b: np.ndarray, seed: int = 0) -> np.ndarray:
    """Tell images from others by a classifier that saw neither; returns for each whether it was right, bool [2, N].

    Logistic regression with a small L2 penalty on standardised features, trained on four fifths of the pairs and asked
    about the rest, five times. Both images of a pair lie in the same fold: a variant that resembles its source is not
    told by that source, and every fold has as many of one kind as of the other.

    Args:
        a, b: float [N, D], N >= LEAST_PAIRS; row i of `b` was made from row i of `a`, or has its class.
        seed: of the folds.

    Raises:
        ValueError: shapes that do not fit.

    Source: Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", section 3, which splits once; here every
    image is held out once.
    """
    if a.shape != b.shape or a.ndim != 2 or len(a) < LEAST_PAIRS:
        raise ValueError(f"found {list(a.shape)} and {list(b.shape)}, needs [N, D] twice, N >= {LEAST_PAIRS}")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(derive_seed("two-sample", len(a), seed))
    fold = rng.permutation(np.arange(len(a)) % NUM_FOLDS)
    features = np.stack([a, b]).astype(np.float64)  # [2, N, D]
    right = np.empty((2, len(a)), bool)
    # One thread, for more add up in varying order; a fit that stops early is a classifier all the same.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number in range(NUM_FOLDS):
            held_out = fold == number
            seen = np.concatenate(features[:, ~held_out])
            mean, scale = seen.mean(0), np.maximum(seen.std(0), 1e-9)
            kinds = np.repeat([0, 1], len(seen) // 2)
            classifier = LogisticRegression(max_iter=300).fit((seen - mean) / scale, kinds)
            asked = (np.concatenate(features[:, held_out]) - mean) / scale
            right[:, held_out] = (classifier.predict(asked) == np.repeat([0, 1], len(asked) // 2)).reshape(2, -1)
    return right


def accuracy(right: np.ndarray) -> Share:
    """Sum up `told_apart`: the share in % of held-out images that were told right; 50 = cannot be told apart.

    The interval lets the two images of a pair hang together, and takes the variance times 1 + 5/4: the five
    classifiers share most of their training images, so that their mistakes hang together too. Without that 7 to 14 %
    of the intervals miss 50 % where nothing can be told; with it 1 to 2 % do, fewer than the 5 % that they may, and
    none of pairs that are alike (`benchmarks/two_sample.py`, 400 repeats each).

    Args:
        right: bool [2, N].

    Source: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003): 1 / J + n2 / n1 in
    place of 1 / J, with J = 5 folds and n2 / n1 = 1/4.
    """
    return clustered_share(right.ravel(), np.tile(np.arange(right.shape[1]), 2), _INFLATION)


def pairs_of_sources(source_rows: np.ndarray, most: int = MOST_PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """Pair sources with the first variant of each: rows of the real and of the synthetic images, int64 [n] each.

    Args:
        source_rows: int [M], the row of the source of each synthetic image.
        most: pairs to draw, by a fixed seed: the same sources give the same draw.
    """
    sources, first = np.unique(source_rows, return_index=True)
    drawn = np.random.default_rng(derive_seed("two-sample pairs", len(sources))).permutation(len(sources))[:most]
    return sources[drawn], first[drawn]


def pairs_of_classes(a: np.ndarray, b: np.ndarray, most: int = MOST_PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """Pair images with ones of their class, drawn by a fixed seed: rows of both, int64 [n] each; all are distinct.

    Args:
        a, b: labels, int [N] and [M].
        most: pairs.
    """
    rng = np.random.default_rng(derive_seed("two-sample classes", len(a), len(b)))
    rows_a, rows_b = list[np.ndarray](), list[np.ndarray]()
    for label in np.intersect1d(a, b):
        of_a, of_b = (rng.permutation(np.flatnonzero(labels == label)) for labels in (a, b))
        count = min(len(of_a), len(of_b))
        rows_a.append(of_a[:count])
        rows_b.append(of_b[:count])
    if not rows_a:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    drawn = rng.permutation(sum(map(len, rows_a)))[:most]
    return np.concatenate(rows_a)[drawn], np.concatenate(rows_b)[drawn]
