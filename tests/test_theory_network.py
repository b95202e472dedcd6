"""The two-layer network: its gradient against autograd, its data against the definition."""

from typing import Any

import numpy as np
import pytest
import torch

from gdacli.theory.cubic_network import (
    ascent,
    descend,
    draw_examples,
    draw_noise,
    draw_weights,
    gradient,
    losses,
    orthogonalised,
    outputs,
    upsampled,
    with_generated,
)

SMALL: dict[str, Any] = {"repeats": 3, "num_examples": 10, "dimension": 14, "alpha": 0.6}


def network_outputs(weights, x):
    """Return sum_j sum_p <w_j, x^(p)>^3 from the patches themselves; x [N, P, d]."""
    return (x @ weights.T).pow(3).sum((1, 2))


def patches(examples, repeat):
    """Write the data sets out, copy by copy: patches [N_new, 2, d] and labels."""
    beta = np.array(examples.strengths)[examples.is_slow.astype(int)]
    feature = examples.features[examples.is_slow.astype(int)] * beta[:, None] * examples.labels[repeat][:, None]
    rows = np.repeat(np.arange(len(beta)), examples.copies.astype(int))
    x = torch.from_numpy(np.stack([feature, examples.noise[repeat]], 1)[rows])
    return x, torch.from_numpy(examples.labels[repeat][rows])


def sets():
    rng = np.random.default_rng(0)
    plain = draw_examples(rng, **SMALL)
    yield plain
    yield upsampled(plain, 3)
    yield with_generated(plain, 3, draw_noise(rng, 3, 8, 14, 1.5))
    yield orthogonalised(plain)


@pytest.mark.parametrize("which", range(4))
def test_gradient_is_autograds(which):
    examples = list(sets())[which]
    weights = draw_weights(np.random.default_rng(1), 3, 4, 14, 0.5)
    found, values, f = gradient(weights, examples), losses(weights, examples), outputs(weights, examples)
    for repeat in range(3):
        x, y = patches(examples, repeat)
        w = torch.from_numpy(weights[repeat]).requires_grad_()
        loss = torch.nn.functional.softplus(-y * network_outputs(w, x))
        (wanted,) = torch.autograd.grad(loss.mean(), w)
        assert np.allclose(found[repeat], wanted.numpy(), rtol=0, atol=1e-13)
        copies = examples.copies.astype(int)
        assert np.allclose(np.repeat(values[repeat], copies), loss.detach().numpy(), rtol=0, atol=1e-12)
        again = network_outputs(w, x).detach().numpy()
        assert np.allclose(np.repeat(f[repeat], copies), again, rtol=0, atol=1e-12)


def test_sam_steps_by_the_gradient_ahead():
    examples = next(sets())
    weights = draw_weights(np.random.default_rng(1), 3, 4, 14, 0.5)
    ahead = weights + ascent(weights, examples, 0.1)
    assert np.allclose(np.sqrt(((ahead - weights) ** 2).sum((1, 2))), 0.1)
    assert losses(ahead, examples).mean() > losses(weights, examples).mean()
    stepped = descend(weights, examples, 0.3, rho=0.1)
    assert np.allclose(stepped, weights - 0.3 * gradient(ahead, examples), rtol=0, atol=1e-14)
    assert not np.allclose(stepped, descend(weights, examples, 0.3), rtol=0, atol=1e-6)


def test_sets_are_as_large_as_the_paper_says():
    plain, more, made, orthogonal = sets()
    assert (plain.size, more.size, made.size) == (10, 6 + 3 * 4, 6 + 3 * 4)
    assert (made.labels[:, 10:] == np.tile(plain.labels[:, 6:], 2)).all()
    products = orthogonal.noise @ orthogonal.noise.transpose(0, 2, 1)
    assert np.allclose(products, np.eye(10) * (plain.noise**2).sum(2)[:, None], rtol=0, atol=1e-12)
    assert np.abs(orthogonal.noise @ plain.features.T).max() < 1e-12


def test_noises_have_the_length_that_was_asked_for():
    noise = draw_noise(np.random.default_rng(0), 200, 50, 30, 0.7)
    squares = (noise**2).sum(2).ravel()  # mean 0.49, variance 2 * 0.49**2 / 30
    assert abs(squares.mean() - 0.49) < 4 * 0.49 * np.sqrt(2 / 30 / squares.size)


def test_too_few_dimensions_for_orthogonal_noises():
    with pytest.raises(ValueError, match="found 11 dimensions, needs 12 for 10 orthogonal noises"):
        draw_examples(np.random.default_rng(0), **SMALL | {"dimension": 11}, orthogonal=True)
    with pytest.raises(ValueError, match=r"found noises \[3, 7, 14\], needs \[3, 8, 14\]"):
        with_generated(next(sets()), 3, np.zeros((3, 7, 14)))
