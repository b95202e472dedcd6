"""The two-feature data and the two-layer network of the targeted-augmentation paper, over many repeats at once.

Shapes: R repeats, N examples, J filters, d dimensions. Everything is float64: the identities are held to 1e-10.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """R data sets of N examples: a feature patch and a noise patch each (P = 2)."""

    labels: Array
    """[R, N], 1 or -1."""
    is_slow: NDArray[np.bool_]
    """[N]: whether the feature patch is the slow-learnable feature; the same rows in every repeat."""
    noise: Array
    """[R, N, d]."""
    copies: Array
    """[N]: how often an example is in the data set, 1 or more: upsampling raises it."""
    features: Array
    """[2, d]: the unit vectors v_e (fast) and v_d (slow)."""
    strengths: tuple[float, float]
    """beta_e and beta_d."""

    @property
    def size(self) -> int:
        """Return the number of examples, copies counted (N_new of an augmented set)."""
        return int(self.copies.sum())


def draw_examples(
    rng: np.random.Generator,
    *,
    repeats: int,
    num_examples: int,
    dimension: int,
    alpha: float,
    beta_e: float = 1.0,
    beta_d: float = 0.2,
    noise_sd: float = 1.0,
    orthogonal: bool = False,
) -> Examples:
    """Draw data sets in which round(alpha N) examples, the first rows, have the fast-learnable feature.

    Args:
        rng: source of all that is random.
        repeats: R.
        num_examples: N.
        dimension: d, at least 3; with `orthogonal` at least N + 2.
        alpha: share of examples with the fast-learnable feature, 0 to 1.
        beta_e, beta_d: strengths of the features, beta_e > beta_d >= 0.
        noise_sd: sigma_p; the expected squared length of a noise patch is its square.
        orthogonal: rotate the noises onto orthogonal directions, orthogonal to both features too, and keep their
            lengths: the paper's simplification. Otherwise they are independent normal, the features' plane included.

    Raises:
        ValueError: too few dimensions for orthogonal noises.

    Source: Definition 3.1, with P = 2; exactly round((1 - alpha) N) examples have v_d, as section 4.2 assumes.
    """
    labels = rng.choice(np.array([-1.0, 1.0]), (repeats, num_examples))
    is_slow = np.arange(num_examples) >= round(alpha * num_examples)
    noise = draw_noise(rng, repeats, num_examples, dimension, noise_sd)
    features = np.eye(2, dimension)
    examples = Examples(labels, is_slow, noise, np.ones(num_examples), features, (beta_e, beta_d))
    return orthogonalised(examples) if orthogonal else examples


def draw_noise(rng: np.random.Generator, repeats: int, num: int, dimension: int, noise_sd: float) -> Array:
    """Draw noise patches [R, num, d], normal with variance noise_sd^2 / d in every coordinate."""
    return rng.standard_normal((repeats, num, dimension)) * (noise_sd / np.sqrt(dimension))


def orthogonalised(examples: Examples) -> Examples:
    """Return the examples with noises that are orthogonal to each other and to the features, of the same lengths.

    Raises:
        ValueError: there are fewer than N + 2 dimensions.
    """
    repeats, num, dimension = examples.noise.shape
    if dimension < num + 2:
        raise ValueError(f"found {dimension} dimensions, needs {num + 2} for {num} orthogonal noises and two features")
    lengths = np.linalg.norm(examples.noise, axis=2, keepdims=True)
    spanned = np.concatenate([np.broadcast_to(examples.features, (repeats, 2, dimension)), examples.noise], 1)
    directions = np.linalg.qr(spanned.transpose(0, 2, 1))[0].transpose(0, 2, 1)[:, 2:]
    return replace(examples, noise=directions * lengths)


def upsampled(examples: Examples, k: int) -> Examples:
    """Return the examples with each slow-learnable one k times: D_U, of N_new = alpha N + k (1 - alpha) N."""
    return replace(examples, copies=np.where(examples.is_slow, float(k), 1.0))


def with_generated(examples: Examples, k: int, noise: Array) -> Examples:
    """Return the examples and k - 1 generated ones for each slow-learnable one: D_G, as large as `upsampled`.

    A generated example has its source's feature and label, and its own noise.

    Args:
        examples: the original ones.
        k: examples in the new set per slow-learnable one, the original counted.
        noise: [R, (k - 1) S, d], S being the number of slow-learnable ones; gamma in the paper.

    Raises:
        ValueError: noises of another shape.
    """
    slow = np.flatnonzero(examples.is_slow)
    sources = np.tile(slow, k - 1)
    needed = (len(examples.labels), len(sources), examples.noise.shape[2])
    if noise.shape != needed:
        raise ValueError(f"found noises {list(noise.shape)}, needs {list(needed)}")
    return replace(
        examples,
        labels=np.concatenate([examples.labels, examples.labels[:, sources]], 1),
        is_slow=np.concatenate([examples.is_slow, np.ones(len(sources), bool)]),
        noise=np.concatenate([examples.noise, noise], 1),
        copies=np.ones(len(examples.is_slow) + len(sources)),
    )


def draw_weights(rng: np.random.Generator, repeats: int, num_filters: int, dimension: int, sd: float) -> Array:
    """Draw initial weights [R, J, d], normal with standard deviation sd (sigma_0)."""
    return rng.standard_normal((repeats, num_filters, dimension)) * sd


def feature_alignments(weights: Array, examples: Examples) -> Array:
    """Return <w_j, v_e> and <w_j, v_d> as [R, J, 2]."""
    return weights @ examples.features.T


def noise_alignments(weights: Array, examples: Examples) -> Array:
    """Return <w_j, xi_i> as [R, J, N]."""
    return weights @ examples.noise.transpose(0, 2, 1)


def outputs(weights: Array, examples: Examples) -> Array:
    """Return f(x_i; W) as [R, N].

    Source: Definition 3.2: the sum over filters of <w_j, xi_i>^3 + y_i beta^3 <w_j, v>^3.
    """
    return _outputs(feature_alignments(weights, examples), noise_alignments(weights, examples), examples)


def logit_terms(weights: Array, examples: Examples) -> Array:
    """Return l_i = sigmoid(-y_i f(x_i; W)), [R, N], in (0, 1): how much an example still pulls."""
    return expit(-examples.labels * outputs(weights, examples))


def losses(weights: Array, examples: Examples) -> Array:
    """Return the logistic loss of every example, [R, N], in nats."""
    return np.logaddexp(0.0, -examples.labels * outputs(weights, examples))


def gradient(weights: Array, examples: Examples, logits: Array | None = None) -> Array:
    """Return the gradient of the mean loss over all copies with respect to the weights, [R, J, d].

    Args:
        weights: [R, J, d].
        examples: the training set.
        logits: [R, N], taken for l_i in place of the network's own: the paper's "controlled logit terms".

    Source: Lemmas A.1, A.3 and A.5 in one: -3 / N_new times the sum over examples, with their copies, of
    l_i (beta^3 <w_j, v>^2 v + y_i <w_j, xi_i>^2 xi_i). (Lemma A.1 prints k twice; it belongs there once.)
    """
    on_features, on_noise = feature_alignments(weights, examples), noise_alignments(weights, examples)
    if logits is None:
        logits = expit(-examples.labels * _outputs(on_features, on_noise, examples))
    pull = logits * examples.copies  # [R, N]
    cubes = np.array(examples.strengths) ** 3
    of_features = cubes * np.stack([pull[:, ~examples.is_slow].sum(1), pull[:, examples.is_slow].sum(1)], 1)  # [R, 2]
    total = (of_features[:, None] * on_features**2) @ examples.features
    total += ((pull * examples.labels)[:, None] * on_noise**2) @ examples.noise
    return np.asarray(-3.0 / examples.size * total)


def ascent(weights: Array, examples: Examples, rho: float, logits: Array | None = None) -> Array:
    """Return SAM's perturbation rho g / ||g||_F with g the gradient, [R, J, d].

    Source: section 3, the SAM update; rho^(t) = rho / ||g||_F.
    """
    g = gradient(weights, examples, logits)
    return np.asarray(rho * g / np.sqrt((g**2).sum((1, 2), keepdims=True)))


def descend(weights: Array, examples: Examples, learning_rate: float, rho: float = 0.0) -> Array:
    """Return the weights after one full-batch step of gradient descent, or of SAM if rho > 0."""
    ahead = weights + ascent(weights, examples, rho) if rho else weights
    return np.asarray(weights - learning_rate * gradient(ahead, examples))


def _outputs(on_features: Array, on_noise: Array, examples: Examples) -> Array:
    cubes = np.array(examples.strengths) ** 3 * (on_features**3).sum(1)  # [R, 2]
    of_noise = on_noise * on_noise * on_noise  # ten times as fast as a power
    return np.asarray(of_noise.sum(1) + examples.labels * cubes[:, examples.is_slow.astype(int)])
