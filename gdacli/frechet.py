"""The Fréchet distance between Gaussians, from statistics that are small enough to keep."""

import math
from dataclasses import dataclass

import numpy as np

from gdacli.row_files import Rows

_BLOCK_WIDTHS = 4  # rows of a block in feature widths: its QR then costs a quarter more than that of all rows at once
_MIN_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class GaussianStatistics:
    """Mean and covariance of features, the covariance as a root: 8 D (D + 1) bytes at most, for any number of rows.

    A root and not the covariance itself, for squaring would lose half of the digits of its small eigenvalues, and a
    distance would have to take the root again.
    """

    mean: np.ndarray
    """float64 [D]."""
    root: np.ndarray
    """float64 [min(N, D), D]; root^T root is the covariance (n - 1)."""

    @property
    def covariance(self) -> np.ndarray:
        """float64 [D, D], with n - 1, as of `np.cov`."""
        return self.root.T @ self.root

    @classmethod
    def of(cls, features: Rows) -> "GaussianStatistics":
        """Fit a Gaussian, block by block and in double precision.

        Args:
            features: float [N, D], an array or a file of rows; N >= 2, may be less than D.

        Raises:
            ValueError: another shape, or values that are not finite.

        Source: centred features X = Q R have the covariance R^T R / (n - 1). R of all rows is R of the last R above
        the next block (sequential TSQR of Demmel, Grigori, Hoemmen and Langou 2012, "Communication-optimal parallel
        and sequential QR and LU factorizations").
        """
        if len(features.shape) != 2 or features.shape[0] < 2 or features.shape[1] < 1:
            raise ValueError(f"found features {list(features.shape)}, needs [N, D] with N >= 2 and D >= 1")
        num_rows, width = features.shape
        step = max(_BLOCK_WIDTHS * width, _MIN_BLOCK_ROWS)
        blocks = [slice(first, first + step) for first in range(0, num_rows, step)]
        # the mean first: products of features that are not centred lose digits
        total = np.zeros(width)
        for block in blocks:
            total += features[block].sum(0, dtype=np.float64)
        if not np.isfinite(total).all():
            raise ValueError("found features that are not finite")
        mean = total / num_rows
        root = np.empty((0, width))
        for block in blocks:
            root = np.concatenate([root, features[block] - mean])
            if len(root) > width:
                root = np.asarray(np.linalg.qr(root, mode="r"))
        return cls(mean, root / math.sqrt(num_rows - 1))


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Return the squared Fréchet distance between two Gaussians; 0 = equal, lower = nearer.

    On Inception-v3 features it is the FID; like that it is biased upwards by few rows, so compare equal numbers.

    Args:
        a, b: statistics of features of the same width D.

    Raises:
        ValueError: the widths differ.

    Source: Dowson and Landau (1982): |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A and B; Heusel
    et al. (2017) for FID. With A = R^T R and B = S^T S, tr (A B)^(1/2) is the sum of the singular values of R S^T. That
    is exact for singular covariances too, where a matrix root is not.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"found statistics of {len(a.mean)} and of {len(b.mean)} features, needs the same features")
    root = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + (a.root**2).sum() + (b.root**2).sum() - 2 * root
    return max(0.0, float(distance))  # equal sets: rounding may leave -1e-13
