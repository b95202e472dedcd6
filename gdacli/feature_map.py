"""Features of real and synthetic images as points of a plane."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np

from gdacli.errors import GdaError
from gdacli.rng import derive_seed

Method = Literal["pca", "umap"]

_WITHOUT_UMAP = "evaluate.feature_map: umap needs umap-learn: pip install 'gdacli[umap]', or set pca"

NUM_POINTS = 2000
"""Of a map at most: more hide each other, and a page must stay small."""


@dataclass(frozen=True)
class FeatureMap:
    """Where some real and some synthetic images lie in a plane."""

    method: Method
    real_rows: np.ndarray
    """int64 [n], which images, ascending; so are `synthetic_rows`, int64 [m]."""
    real_points: np.ndarray
    """float64 [n, 2]."""
    synthetic_rows: np.ndarray
    synthetic_points: np.ndarray
    """float64 [m, 2]."""
    variance: tuple[float, float] | None
    """Share of the drawn features' variance along each axis, 0 to 1; None of UMAP, whose axes mean nothing."""


def check_method(method: Method) -> None:
    """Check, before anything dear is computed, that what a method needs is installed.

    Raises:
        GdaError: `umap` without its package.
    """
    if method == "umap" and find_spec("umap") is None:
        raise GdaError(_WITHOUT_UMAP)


def feature_map(real: np.ndarray, synthetic: np.ndarray, *, method: Method = "pca", seed: int = 0) -> FeatureMap:
    """Lay features of real and of synthetic images out in one plane.

    Drawn without putting back are half of NUM_POINTS of each, of one side more where the other has fewer. Both sides
    together are laid out, so that what sets them apart shows.

    Args:
        real: float [N, D], N >= 1.
        synthetic: float [M, D], by the same model.
        method: `pca`, the two directions of most variance; `umap`, neighbours near each other, whatever their distance.
        seed: of the draw, and of UMAP.

    Raises:
        GdaError: `umap` without its package.
        ValueError: fewer than 3 images, or features of fewer than 2 values or of different widths.

    Source: UMAP by umap-learn, at its defaults (McInnes et al. 2018).
    """
    if method not in get_args(Method):
        raise ValueError(f"found method {method!r}, needs one of {', '.join(get_args(Method))}")
    if len(real) + len(synthetic) < 3 or real.shape[1] < 2 or real.shape[1:] != synthetic.shape[1:]:
        raise ValueError(
            f"found features {list(real.shape)} and {list(synthetic.shape)}, needs rows of the same width, 2 or more, "
            "and 3 rows"
        )
    half = NUM_POINTS // 2
    real_rows = _drawn(len(real), max(half, NUM_POINTS - len(synthetic)), seed, "real")
    synthetic_rows = _drawn(len(synthetic), NUM_POINTS - len(real_rows), seed, "synthetic")
    features = np.concatenate([real[real_rows], synthetic[synthetic_rows]]).astype(np.float64)
    variance = None
    if method == "pca":
        points, variance = principal_components(features)
    else:
        points = _umap(features, seed)
    cut = len(real_rows)
    return FeatureMap(method, real_rows, points[:cut], synthetic_rows, points[cut:], variance)


def principal_components(features: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Project on the two directions of most variance; of each, the largest weight is positive.

    Args:
        features: float64 [N, D], D >= 2.

    Returns:
        float64 [N, 2], and the share of the variance along each, 0 to 1.
    """
    from scipy.linalg import eigh

    centred = features - features.mean(0)
    scatter = centred.T @ centred
    width = len(scatter)
    values, directions = eigh(scatter, subset_by_index=[width - 2, width - 1])  # ascending
    values, directions = values[::-1].clip(0), directions[:, ::-1]
    largest = np.abs(directions).argmax(0)
    directions = directions * np.where(directions[largest, [0, 1]] < 0, -1.0, 1.0)
    total = float(np.trace(scatter)) or 1.0  # equal features have no variance to share
    return centred @ directions, (float(values[0]) / total, float(values[1]) / total)


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError as error:
        raise GdaError(f"{_WITHOUT_UMAP} ({error})") from error
    points = UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(features.astype(np.float32))
    return np.asarray(points, np.float64)


def _drawn(num_rows: int, count: int, seed: int, name: str) -> np.ndarray:
    rng = np.random.default_rng(derive_seed("feature map", seed, name))
    return np.sort(rng.permutation(num_rows)[:count])
