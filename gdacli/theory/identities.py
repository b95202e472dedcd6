"""Theorems 4.1 and 4.2 of the targeted-augmentation paper: each identity as its two sides, computed independently.

Shapes as in `cubic_network`: R repeats, J filters, N examples. The identities are exact if all noises are orthogonal to
each other and to the features and, for SAM, the logit terms at the perturbed weights are held at those of the weights.
"""

from typing import NamedTuple

import numpy as np

from gdacli.theory.cubic_network import (
    Array,
    Examples,
    ascent,
    feature_alignments,
    gradient,
    logit_terms,
    noise_alignments,
)


class Sides(NamedTuple):
    """The two sides of an identity, of the same shape."""

    found: Array
    """From the gradient."""
    stated: Array
    """What the paper says it is."""


def noise_gradient(weights: Array, examples: Examples) -> Sides:
    """Return <grad_j, xi_i> [R, J, N] of gradient descent, and what it is for orthogonal noises.

    Source: Theorem 4.1 (original set), Theorem 4.2 (upsampled: 3 k / N_new on the replicated ones; generated).
    """
    pulls = examples.copies * logit_terms(weights, examples) * examples.labels  # [R, N]
    lengths = (examples.noise**2).sum(2)
    stated = -3.0 / examples.size * (pulls * lengths)[:, None] * noise_alignments(weights, examples) ** 2
    return Sides(noise_alignments(gradient(weights, examples), examples), stated)


def sam_noise_gradient(weights: Array, examples: Examples, rho: float, hold_logits: bool) -> Sides:
    """Return <grad_j, xi_i> [R, J, N] at SAM's perturbed weights, and Theorem 4.1's factor times gradient descent's.

    The factor is (1 - 3 rho_t / N l_i y_i <w_j, xi_i> ||xi_i||^2)^2: below 1 for a noise of I_{j,+}, whose alignment
    has the sign of its label, above 1 for one of I_{j,-}.

    Args:
        weights: [R, J, d].
        examples: the original set.
        rho: SAM's radius, above 0.
        hold_logits: set l_eps to l, as the proof does; otherwise the network's own at the perturbed weights.

    Source: Theorem 4.1, equations 4 and 9.
    """
    held = logit_terms(weights, examples)
    ahead = weights + ascent(weights, examples, rho)
    found = noise_alignments(gradient(ahead, examples, held if hold_logits else None), examples)
    pulls = examples.copies * held * examples.labels * (examples.noise**2).sum(2)
    scale = 3.0 * rho_t(weights, examples, rho) / examples.size
    factor = 1.0 - scale[:, None, None] * pulls[:, None] * noise_alignments(weights, examples)
    return Sides(found, factor**2 * noise_gradient(weights, examples).stated)


def replicated_noise_gradient(weights: Array, more: Examples, made: Examples, k: int) -> Sides:
    """Return the noise gradients of upsampling on the replicated noises [R, J, S], and k times those of generation.

    Args:
        weights: [R, J, d].
        more: D_U.
        made: D_G; its first rows are those of D_U.
        k: how often a slow-learnable example is in D_U.

    Source: Theorem 4.2. (Lemma A.1 prints k twice; once is right.)
    """
    replicated = np.flatnonzero(more.is_slow)
    of_more = noise_alignments(gradient(weights, more), more)[..., replicated]
    return Sides(of_more, k * noise_alignments(gradient(weights, made), more)[..., replicated])


def feature_gradients(weights: Array, more: Examples, made: Examples, hold_logits: bool) -> Sides:
    """Return <grad_j, v_e> and <grad_j, v_d> of upsampling [R, J, 2], and those of generation.

    Args:
        weights: [R, J, d].
        more: D_U.
        made: D_G; its first rows are those of D_U, then come the slow-learnable ones again, k - 1 times.
        hold_logits: give a generated example the logit term of its source.

    Source: Theorem 4.2, first part; Lemmas A.2 and A.4.
    """
    logits = logit_terms(weights, more)
    slow = np.flatnonzero(more.is_slow)
    sources = np.tile(slow, (made.labels.shape[1] - len(more.is_slow)) // len(slow))
    held = np.concatenate([logits, logits[:, sources]], 1) if hold_logits else None
    of_made = feature_alignments(gradient(weights, made, held), made)
    return Sides(feature_alignments(gradient(weights, more), more), of_made)


def slow_amplification(weights: Array, examples: Examples, rho: float, hold_logits: bool) -> Sides:
    """Return by how much SAM raises the slow feature's gradient over the fast one's, [R, J], and a closed form.

    Found: (SAM's <grad_j, v_d> over gradient descent's) over (the same with v_e). Closed form: ((1 - 3 rho_t beta_d^3
    L_d <w_j, v_d>) / (1 - 3 rho_t beta_e^3 L_e <w_j, v_e>))^2, L being the sum of l over a feature's examples over N.

    Source: ours. The paper's equation 2 has no 3 L, and 2/3 for 2: see `equation_2`.
    """
    held = logit_terms(weights, examples)
    ahead = weights + ascent(weights, examples, rho)
    of_sam = feature_alignments(gradient(ahead, examples, held if hold_logits else None), examples)
    raised = of_sam / feature_alignments(gradient(weights, examples), examples)
    pulls = held * examples.copies
    shares = np.stack([pulls[:, ~examples.is_slow].sum(1), pulls[:, examples.is_slow].sum(1)], 1) / examples.size
    scale = 3.0 * rho_t(weights, examples, rho)[:, None] * np.array(examples.strengths) ** 3 * shares  # [R, 2]
    factors = 1.0 - scale[:, None] * feature_alignments(weights, examples)
    return Sides(raised[..., 1] / raised[..., 0], (factors[..., 1] / factors[..., 0]) ** 2)


def equation_2(weights: Array, examples: Examples, rho: float) -> Array:
    """Return k_j = ((1 - rho_t beta_d^3 <w_j, v_d>) / (1 - rho_t beta_e^3 <w_j, v_e>))^(2/3) as [R, J].

    Where one of the two terms is 0 or less the formula means nothing (SAM would step over the feature): NaN there.

    Source: equation 2, as printed.
    """
    scale = rho_t(weights, examples, rho)[:, None] * np.array(examples.strengths) ** 3
    fast, slow = np.moveaxis(1.0 - scale[:, None] * feature_alignments(weights, examples), -1, 0)
    defined = (fast > 0) & (slow > 0)
    return np.where(defined, (np.where(defined, slow, 1.0) / np.where(defined, fast, 1.0)) ** (2 / 3), np.nan)


def noise_align(weights: Array, examples: Examples, gradients: Array) -> Array:
    """Return NoiseAlign(I_{j,+}, w_j), [R, J]: how much a step learns the noises whose sign is already their label's.

    The mean of |<grad_j, phi>| over the multiset I_{j,+} of noises with sgn <w_j, phi> = y, copies counted; 0 for an
    empty one. Higher = more noise is learned.

    Args:
        weights: [R, J, d]; for SAM the perturbed ones.
        examples: the set, augmented or not.
        gradients: [R, J, d], of the mean loss over that set at these weights.

    Source: section 4.1; footnote 1 for the multisets.
    """
    counted = examples.copies * (noise_alignments(weights, examples) * examples.labels[:, None] > 0)
    total = (counted * np.abs(noise_alignments(gradients, examples))).sum(2)
    return np.asarray(total / np.maximum(counted.sum(2), 1.0))


def rho_t(weights: Array, examples: Examples, rho: float) -> Array:
    """Return rho over the norm of the whole gradient, [R] (section 3, the SAM update)."""
    return np.asarray(rho / np.sqrt((gradient(weights, examples) ** 2).sum((1, 2))))


def largest_rho(weights: Array, examples: Examples) -> Array:
    """Return the bound below which the proof of Theorem 4.1 keeps rho, [R]: the least |<w_j, xi_i>| / ||xi_i||.

    Source: equation 5.
    """
    lengths = np.sqrt((examples.noise**2).sum(2))
    return np.asarray((np.abs(noise_alignments(weights, examples)) / lengths[:, None]).min((1, 2)))


def relative_errors(sides: Sides) -> Array:
    """Return |found - stated| / |stated|, element by element."""
    return np.asarray(np.abs(sides.found - sides.stated) / np.abs(sides.stated))


def largest_error(sides: Sides) -> float:
    """Return the largest |found - stated| over the largest |stated| of the same repeat and filter.

    Rounding is relative to the large terms of a sum: an alignment that happens to be almost 0 is not held to 1e-10 of
    itself.
    """
    found, stated = (side.reshape(*side.shape[:2], -1) for side in sides)
    return float((np.abs(found - stated).max(2) / np.abs(stated).max(2)).max())
