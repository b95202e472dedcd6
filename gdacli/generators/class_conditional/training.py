"""The training loop of the denoiser."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from gdacli.denoiser import compiled, target
from gdacli.errors import GdaError
from gdacli.fitted import Fitted, Keeper, State, stalled
from gdacli.generators.class_conditional.network import make_network
from gdacli.pixels import to_model
from gdacli.rng import derive_seed
from gdacli.schedules import NUM_TRAIN_TIMESTEPS, cosine_alpha_bars

_WARM_UP = 100  # updates
_LOOK_EVERY = 50  # updates between two values of the loss: each waits for the device


def fit(
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_classes: int,
    updates: int,
    batch_size: int,
    lr: float,
    ema_decay: float,
    class_dropout: float,
    block_out_channels: Sequence[int],
    layers_per_block: int,
    flip: bool,
    seed: int,
    folder: Path,
    on_update: Callable[[int, float], None],
    attention_resolutions: Sequence[int] = (),
    attention_head_dim: int = 8,
    dropout: float = 0.0,
    conditional: bool = True,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
    check_every: int | None = None,
    patience: int | None = None,
    check: Callable[[UNet2DModel, int], float] | None = None,
    state: State | None = None,
    keeper: Keeper | None = None,
) -> Fitted:
    """Train the denoiser and save its averaged weights in diffusers' layout.

    The batches hang on the seed and the number of the update alone, so that a training that goes on from a saved state
    gives the bits of one that was never interrupted.

    Args:
        images: uint8 [N, 3, H, W] on the device to train on; H is divisible by 2 per level after the first.
        labels: int64 [N].
        updates: optimizer steps at most. The rate is warmed up and falls over the last fifth of them; with `patience`
            it stays, for nobody knows which fifth is the last, and averaging the weights does what its fall would.
        class_dropout: share of each batch that gets the null class, so that guidance has its unconditional half.
        folder: gets `unet/` and `scheduler/`.
        on_update: called with the number of updates done and the loss (mean squared error of the prediction).
        conditional: False trains a model of all classes alike, which is told no label.
        prediction_type: what the network says of noisy x: its noise, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar)
            x_0, which also says in almost pure noise what the image is, as its mean colour.
        dtype: of the forward pass; weights, their average and the optimizer are float32.
        compile: the forward and backward pass with torch.compile.
        check_every: updates between two checks; the last update is checked too. None checks never.
        patience: stop after so many checks in a row without a new lowest distance, and save the weights of the lowest
            one; None makes all updates and saves the last weights.
        check: gets the averaged network in eval mode and the number of updates, returns a distance, lower = better.
        state: what `keeper` saved last; None starts afresh.
        keeper: where the state goes, after each check too.

    Raises:
        GdaError: the image size does not fit the levels, the compiler does not work, or the loss is not a number.

    Source: Ho et al. 2020 (loss), Salimans and Ho 2022, section 4 (v), Nichol and Dhariwal 2021 (cosine schedule), Ho
    and Salimans 2022 (null class).
    """
    device = images.device
    torch.manual_seed(seed)
    unet = make_network(
        images.shape[2],
        num_classes if conditional else None,
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        attention_resolutions=attention_resolutions,
        attention_head_dim=attention_head_dim,
        dropout=dropout,
    ).to(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        unet.to(memory_format=torch.channels_last)
    unet.train()
    forward: Callable[..., Any] = compiled(unet, "fit.compile") if compile else unet
    ema = EMAModel(unet.parameters(), decay=ema_decay, use_ema_warmup=True, power=3 / 4, foreach=on_gpu)
    optimizer = torch.optim.AdamW(unet.parameters(), lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    alpha_bars = torch.tensor(cosine_alpha_bars(), dtype=torch.float32)
    update, losses, checks = 0, list[list[float]](), list[list[float]]()
    best: State | None = None
    if state is not None:
        unet.load_state_dict(state["unet"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        ema.to(device)
        generator.set_state(state["generator"])
        update, losses, checks, best = state["update"], state["losses"], state["checks"], state["best"]

    def save_state() -> None:
        if keeper is not None:
            keeper.save(
                {
                    "update": update,
                    "unet": unet.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "ema": ema.state_dict(),
                    "generator": generator.get_state(),
                    "losses": losses,
                    "checks": checks,
                    "best": best,
                }
            )

    while update < updates and not stalled(checks, patience):
        if keeper is not None and keeper.due():
            save_state()
        optimizer.param_groups[0]["lr"] = lr * _rate(update, updates, falls=patience is None)
        batch = torch.randint(len(images), (batch_size,), generator=generator)
        t = torch.randint(NUM_TRAIN_TIMESTEPS, (batch_size,), generator=generator)
        noise = _sent(torch.randn(batch_size, *images.shape[1:], generator=generator), device)
        dropped = _sent(torch.rand(batch_size, generator=generator) < class_dropout, device)
        mirrored = _sent(torch.rand(batch_size, generator=generator) < 0.5 * flip, device)
        level = _sent(alpha_bars[t], device)[:, None, None, None]
        batch, t = _sent(batch, device), _sent(t, device)
        clean = to_model(images[batch])
        clean = torch.where(mirrored[:, None, None, None], clean.flip(3), clean)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        classes = labels[batch].masked_fill(dropped, num_classes) if conditional else None
        torch.manual_seed(derive_seed(seed, "dropout", update))
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            prediction = forward(noisy, t, class_labels=classes, return_dict=False)[0]
        loss = F.mse_loss(prediction.float(), target(prediction_type, clean, noise, level))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        ema.step(unet.parameters())
        update += 1
        checked = check_every is not None and update % check_every == 0
        if update % _LOOK_EVERY == 0 or checked or update == updates:
            if not torch.isfinite(loss):
                raise GdaError(f"fit: the loss is no longer a number after update {update}: lower fit.lr")
            losses.append([update, loss.item()])
            on_update(update, loss.item())
        if check is not None and (checked or (check_every is not None and update == updates)):
            averaged = copy.deepcopy(unet).eval()
            ema.copy_to(averaged.parameters())
            distance = check(averaged, update)
            if patience is not None and distance < min((each for _, each in checks), default=math.inf):
                weights = {name: value.cpu() for name, value in averaged.state_dict().items()}
                best = {"update": update, "weights": weights}
            checks.append([update, distance])
            save_state()
    if best is not None:
        unet.load_state_dict(best["weights"])
    else:
        ema.copy_to(unet.parameters())
    unet.to(memory_format=torch.contiguous_format).save_pretrained(folder / "unet")
    scheduler = DDPMScheduler(NUM_TRAIN_TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type)
    scheduler.save_pretrained(folder / "scheduler")
    return Fitted(update, best["update"] if best is not None else update, losses, checks)


def _rate(update: int, updates: int, *, falls: bool) -> float:
    """Return the share of the learning rate for an update, counted from 0."""
    warm = min(1.0, (update + 1) / _WARM_UP)
    return min(warm, (updates - update) / (0.2 * updates)) if falls else warm


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Send a tensor from the CPU to the device; to a GPU without waiting until that has finished its work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
