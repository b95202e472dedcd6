"""The training loop of the two networks."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from gdacli.errors import GdaError
from gdacli.fitted import Fitted, Keeper, State, stalled
from gdacli.generators.gan.diff_augment import diff_augment
from gdacli.generators.gan.network import ARCHITECTURES, Form, Network, save_network
from gdacli.pixels import to_model

_LOOK_EVERY = 50  # updates between two values of the loss: each waits for the device


def fit(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_classes: int,
    folder: Path,
    on_update: Callable[[int, float], None],
    architecture: str,
    updates: int,
    batch_size: int,
    lr: float,
    betas: tuple[float, float],
    latent_dim: int,
    width: int,
    ema_decay: float,
    diversity: float,
    augment: bool,
    flip: bool,
    seed: int,
    conditional: bool = True,
    check_every: int | None = None,
    patience: int | None = None,
    check: Callable[[Network, int], float] | None = None,
    state: State | None = None,
    keeper: Keeper | None = None,
) -> Fitted:
    """Train a generator against a discriminator and save the generator's averaged weights.

    All that is random is drawn from the seed on the CPU, so that a training that goes on from a saved state gives the
    bits of one that was never interrupted.

    Args:
        images: uint8 [N, 3, H, H] on the device to train on.
        labels: int64 [N].
        folder: gets `network/`.
        on_update: called with the number of updates done and the discriminator's loss.
        architecture: a key of ARCHITECTURES.
        updates: at most; each is a step of the discriminator and one of the generator.
        lr, betas: of Adam, for both.
        latent_dim, width: see `Form`.
        ema_decay: of the average of weights and batch statistics; less at first.
        diversity: weight of `mode_seeking_loss`.
        augment: the discriminator sees all images through `diff_augment`.
        flip: also train on mirrored images.
        conditional: False trains a model of all classes alike, which is told no label.
        check_every, patience, check, state, keeper: as in `class_conditional.fit`.

    Raises:
        GdaError: the image size does not fit, or a loss is not a number.

    Source: Goodfellow et al. 2014 (the game), Karras et al. 2018 (the average); see the architectures and
    `mode_seeking_loss`.
    """
    device = images.device
    torch.manual_seed(seed)
    classes = num_classes if conditional else None
    form = Form(architecture, images.shape[2], classes, latent_dim, width)
    losses_of = ARCHITECTURES[architecture]
    network = Network(form).to(device)
    discriminator = losses_of.Discriminator(form.levels(), classes).to(device)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizers = [torch.optim.Adam(each.parameters(), lr, betas) for each in (network, discriminator)]
    generator = torch.Generator().manual_seed(seed)
    update, losses, checks = 0, list[list[float]](), list[list[float]]()
    best: State | None = None
    parts = {"network": network, "discriminator": discriminator, "averaged": averaged}
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        generator.set_state(state["generator"])
        update, losses, checks, best = state["update"], state["losses"], state["checks"], state["best"]

    def save_state() -> None:
        if keeper is not None:
            keeper.save(
                {
                    "update": update,
                    **{name: part.state_dict() for name, part in parts.items()},
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "generator": generator.get_state(),
                    "losses": losses,
                    "checks": checks,
                    "best": best,
                }
            )

    def seen(shown: torch.Tensor) -> torch.Tensor:
        return diff_augment(shown, generator) if augment else shown

    while update < updates and not stalled(checks, patience):
        if keeper is not None and keeper.due():
            save_state()
        batch = torch.randint(len(images), (batch_size,), generator=generator).to(device)
        mirrored = (torch.rand(batch_size, generator=generator) < 0.5 * flip).to(device)
        z = torch.randn(batch_size, latent_dim, generator=generator).to(device)
        real, told = to_model(images[batch]), labels[batch]
        real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        paired = told[: batch_size // 2].repeat(2)  # two images a class, by which the generator's variety is seen
        made = 2 * network(z, paired) - 1
        discriminator_loss = losses_of.discriminator_loss(discriminator, seen(real), told, seen(made.detach()), paired)
        _step(optimizers[1], discriminator_loss)
        discriminator.requires_grad_(False)
        generator_loss = losses_of.generator_loss(discriminator, seen(made), paired)
        if diversity:
            generator_loss = generator_loss + diversity * mode_seeking_loss(z, made)
        _step(optimizers[0], generator_loss)
        discriminator.requires_grad_(True)
        update += 1
        _average(averaged, network, min(ema_decay, update / (update + 10)))
        checked = check_every is not None and update % check_every == 0
        if update % _LOOK_EVERY == 0 or checked or update == updates:
            if not torch.isfinite(discriminator_loss + generator_loss):
                raise GdaError(f"fit: a loss is no longer a number after update {update}: lower fit.gan.lr")
            losses.append([update, discriminator_loss.item()])
            on_update(update, discriminator_loss.item())
        if check is not None and (checked or (check_every is not None and update == updates)):
            distance = check(averaged, update)
            if patience is not None and distance < min((each for _, each in checks), default=math.inf):
                weights = {name: value.cpu().clone() for name, value in averaged.state_dict().items()}
                best = {"update": update, "weights": weights}
            checks.append([update, distance])
            save_state()
    if best is not None:
        averaged.load_state_dict(best["weights"])
    save_network(averaged, folder)
    return Fitted(update, best["update"] if best is not None else update, losses, checks)


def mode_seeking_loss(z: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return how little images differ for how much their noise does; lower = more varied.

    Few images and a class to each make a generator give one image a class, whatever the noise ("Collapse by
    conditioning", Shahbazi et al. 2022).

    Args:
        z: float32 [2 B, Z].
        images: float32 [2 B, 3, H, W] in [-1, 1]; rows i and B + i are of one class.

    Source: Mao et al. 2019, "Mode Seeking Generative Adversarial Networks", Eq. 3; as in its code, the inverse is
    minimised.
    """
    (z_a, z_b), (a, b) = z.chunk(2), images.chunk(2)
    return 1 / ((a - b).abs().mean() / (z_a - z_b).abs().mean() + 1e-5)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an average of weights and batch statistics towards a network."""
    with torch.no_grad():
        now = network.state_dict()
        for name, value in averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - decay)
            else:  # batches counted
                value.copy_(now[name])
