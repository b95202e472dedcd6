"""The finder: a small network that moves latent vectors to where their images help."""

import torch
from torch import nn

ARCHITECTURES = ("residual_mlp", "residual_shallow", "mlp", "linear")


class Finder(nn.Module):
    """F: latent vectors float32 [B, Z] => [B, Z].

    `residual_mlp`: z + tanh(MLP(z)); `residual_shallow`: z + tanh(W z + b); `mlp`: MLP(z); `linear`: W z + b. The first
    two start as the identity, so that a search starts from uniform samples.

    Args:
        latent_dim: Z.
        architecture: of ARCHITECTURES.
        hidden: width of the MLP's two hidden layers; None is Z.
        seed: of the first weights.

    Source: meta-generative-regularization paper, Eq. 10 and appendix B.2; the MLP has three layers with leaky ReLU
    (section 4.1). Its width and its first weights are not
    stated.
    """

    def __init__(self, latent_dim: int, architecture: str, hidden: int | None, seed: int) -> None:
        super().__init__()
        width = hidden or latent_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if architecture in ("residual_mlp", "mlp"):
                self.net: nn.Module = nn.Sequential(
                    nn.Linear(latent_dim, width),
                    nn.LeakyReLU(),
                    nn.Linear(width, width),
                    nn.LeakyReLU(),
                    nn.Linear(width, latent_dim),
                )
            else:
                self.net = nn.Linear(latent_dim, latent_dim)
        self.residual = architecture.startswith("residual")
        if self.residual:
            *_, last = (layer for layer in self.net.modules() if isinstance(layer, nn.Linear))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """[B, Z] => [B, Z]."""
        moved = self.net(z)
        return z + moved.tanh() if self.residual else moved


def kl_to_prior(found: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Return the Kullback-Leibler divergence of found latent vectors from N(0, I), in nats; 0 is none.

    Args:
        found: float [B, Z], B >= 2; of each coordinate the mean and variance over the batch count.
        reduction: over coordinates, `mean` or `sum`.

    Source: meta-generative-regularization paper, Eq. 11, where sigma is a variance (METHODS); its reduction is not
    stated: `sum` is the divergence of the diagonal Gaussian.
    """
    variance, mean = torch.var_mean(found, 0, correction=0)
    divergence = -0.5 * (1 + variance.clamp(min=torch.finfo(variance.dtype).tiny).log() - mean.square() - variance)
    return divergence.mean() if reduction == "mean" else divergence.sum()
