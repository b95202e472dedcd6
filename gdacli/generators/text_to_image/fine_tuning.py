"""Fine-tunes a text-to-image model on the train split by low-rank layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from gdacli.denoiser import Condition, target
from gdacli.errors import GdaError
from gdacli.fitted import Keeper
from gdacli.generators.text_to_image.family import Family
from gdacli.pixels import resize, to_model
from gdacli.prompts import Prompts
from gdacli.rng import derive_seed
from gdacli.schedules import Schedule

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers of the denoiser that get low-rank ones beside them: all of its attention, as in diffusers' examples."""

_ADAPTER = "default"
_WARM_UP = 50  # updates
_LOOK_EVERY = 10  # updates between two values of the loss


def train_layers(
    pipeline: Any,
    family: Family,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    prompts: Prompts,
    updates: int,
    batch_size: int,
    lr: float,
    rank: int,
    prompt_dropout: float,
    flip: bool,
    gradient_checkpointing: bool,
    dtype: torch.dtype,
    seed: int,
    folder: Path,
    on_update: Callable[[int, float], None],
    keeper: Keeper | None = None,
    state: Mapping[str, Any] | None = None,
) -> list[list[float]]:
    """Train low-rank layers beside the attention of a model's denoiser and save them; all else stays as it is.

    What each update sees depends on the seed and the number of the update alone, so that a training that goes on from a
    saved state gives the weights of one that was never interrupted.

    Args:
        pipeline, family: of `open_family`, not compiled.
        images: uint8 [N, 3, H, W] on the device to train on.
        labels: int64 [N].
        prompts: what an image of a class is said to show.
        rank: of the low-rank layers, whose scale is 1.
        prompt_dropout: share of each batch that is told no prompt, for classifier-free guidance.
        flip: also train on mirrored images.
        gradient_checkpointing: compute the activations twice, which takes less memory.
        dtype: of the denoiser's own weights and of the activations; the low-rank layers are float32.
        folder: gets `pytorch_lora_weights.safetensors` as diffusers' pipelines load it.
        on_update: called with the number of updates done and the mean loss since the last call.
        keeper: where the state goes when it is due.
        state: what `keeper` saved last; None starts afresh.

    Returns:
        [update, mean loss of the updates since the value before] each.

    Raises:
        GdaError: the loss is not a number.

    Source: Hu et al. 2021, on the model's own loss (Ho et al. 2020; Salimans and Ho 2022; Lipman et al. 2023); the
    noise level is drawn evenly over the model's schedule.
    """
    network, device = family.network, images.device
    layers = _add_layers(network, rank, seed, gradient_checkpointing)
    optimizer = torch.optim.AdamW(layers, lr, weight_decay=1e-2)
    schedule, conditions = family.schedule("native"), dict[str | None, Condition]()
    update, losses = 0, list[list[float]]()
    if state is not None:
        set_peft_model_state_dict(network, state["layers"])
        optimizer.load_state_dict(state["optimizer"])
        update, losses = state["update"], state["losses"]
    since = list[float]()
    while update < updates:
        if keeper is not None and not since and keeper.due():
            saved = get_peft_model_state_dict(network)
            keeper.save({"layers": saved, "optimizer": optimizer.state_dict(), "update": update, "losses": losses})
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (update + 1) / _WARM_UP)
        draw = torch.Generator().manual_seed(derive_seed(seed, "update", update))
        rows = torch.randint(len(images), (batch_size,), generator=draw)
        times, levels, scales = _levels(schedule, 1 - torch.rand(batch_size, generator=draw), device)
        mirrored = (torch.rand(batch_size, generator=draw) < 0.5 * flip).to(device)
        dropped = (torch.rand(batch_size, generator=draw) < prompt_dropout).tolist()
        noise = torch.randn(batch_size, *family.latent_shape, generator=draw).to(device)
        told = [
            None if without else prompts(label, derive_seed(seed, "prompt", update, number))
            for number, (label, without) in enumerate(zip(labels[rows.to(device)].tolist(), dropped, strict=True))
        ]
        pixels = resize(to_model(images[rows.to(device)]), family.native_size)
        clean = family.encode(torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels))
        levels, scales = (_as_wide(each, clean) for each in (levels, scales))
        noisy = scales * (levels.sqrt() * clean + (1 - levels).sqrt() * noise)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction = family.predict(noisy.to(dtype), times, _told(family, conditions, told))
        if family.learned_variance:
            prediction = prediction.chunk(2, 1)[0]
        loss = F.mse_loss(prediction.float(), target(family.prediction_type, clean, noise, levels))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(layers, 1.0)
        optimizer.step()
        update += 1
        since.append(loss.item())
        if update % _LOOK_EVERY == 0 or update == updates:
            mean = sum(since) / len(since)
            if not mean < float("inf"):
                raise GdaError(f"fit: the loss is no longer a number after update {update}: lower fit.lora.lr")
            losses.append([update, mean])
            since.clear()
            on_update(update, mean)
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    pipeline.save_lora_weights(folder, **{f"{part}_lora_layers": get_peft_model_state_dict(network)})
    return losses


def _add_layers(network: Any, rank: int, seed: int, gradient_checkpointing: bool) -> list[nn.Parameter]:
    """Add the low-rank layers; everything else is frozen, and in eval mode: dropout would draw what no state keeps."""
    network.requires_grad_(False)
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(TARGETS))
    network.add_adapter(config, adapter_name=_ADAPTER)
    if gradient_checkpointing:
        network.enable_gradient_checkpointing()
    layers = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.data = layer.data.float()
    return layers


def _levels(
    schedule: Schedule, strengths: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return time, alpha_bar and scale of the level at which each strength starts, [B] each."""
    starts = [schedule.levels(strength, math.ceil(0.5 / strength))[0] for strength in strengths.tolist()]  # one step
    columns = zip(*((level.time, level.alpha_bar, level.scale) for level in starts), strict=True)
    times, levels, scales = (torch.tensor(column, device=device) for column in columns)
    return times, levels, scales


def _told(family: Family, known: dict[str | None, Condition], texts: Sequence[str | None]) -> Condition:
    """Return what the network is told of prompts, tensors [B, ...]; each is embedded once."""
    for text in dict.fromkeys(texts):
        if text not in known:
            known[text] = family.embed(text)
    return tuple(torch.stack(parts) for parts in zip(*(known[text] for text in texts), strict=True))


def _as_wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Give [B] the dimensions of [B, ...]."""
    return values.float().reshape(-1, *[1] * (like.ndim - 1))
