"""The training loop, and predictions."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from gdacli.augment import augment
from gdacli.batches import batch_bounds, epoch_order
from gdacli.distributed import World
from gdacli.errors import GdaError
from gdacli.loading import ImageSource
from gdacli.losses import balanced_weights, cross_entropy
from gdacli.memory import guard_memory
from gdacli.models import Classifier
from gdacli.optim import average_into, learning_rate, make_optimizer
from gdacli.rng import derive_seed
from gdacli.sam import Outcome, sam_gradients
from gdacli.training_step import Objective, Step

State = dict[str, Any]
"""Tensors, numbers, and lists and dicts of them."""


@dataclass(frozen=True)
class Epoch:
    """What is known of an epoch after it: mean loss (nats) and error (%) on the augmented batches it trained on."""

    epoch: int
    updates: int
    """Since the start, as is `images`: the number of images seen, repeats counted."""
    images: int
    lr: float
    loss: float
    error: float
    validation_error: float | None = None
    """Of the weights that would be kept, in %."""
    validation_loss: float | None = None
    """Of the same weights: mean cross-entropy in nats."""
    synthetic_loss: float | None = None
    """Mean of the objective's term on its synthetic images, without its weight."""


class Keeper(Protocol):
    """Saves the state of a training, from which one that was killed goes on."""

    def due(self) -> bool:
        """Say if it is time to save."""
        ...

    def save(self, state: State) -> None:
        """Save."""
        ...


def train_classifier(
    model: Classifier,
    images: ImageSource,
    labels: torch.Tensor,
    repeats: torch.Tensor,
    *,
    num_classes: int,
    updates: int,
    batch_size: int,
    optimizer: str,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    sam: Mapping[str, Any] | None,
    schedule: str,
    warmup: float,
    label_smoothing: float,
    clip_norm: float | None,
    ema_decay: float | None,
    balance: str,
    dtype: str,
    compile: bool,
    augmentations: Mapping[str, Mapping[str, Any]],
    seed: int,
    on_epoch: Callable[[Epoch], bool | None],
    milestones: Sequence[float] = (0.5, 0.75),
    objective: Objective | None = None,
    on_update: Callable[[int, int], None] = lambda update, images: None,
    validate: Callable[[Classifier], tuple[float, float]] | None = None,
    keep_best: bool = False,
    state: State | None = None,
    keeper: Keeper | None = None,
    world: World | None = None,
) -> None:
    """Train `model` in place.

    The order of an epoch hangs on (seed, epoch), all else that is random on (seed, update): a training that goes on
    from a saved state gives the bits of one that was never interrupted. Every process of `world` augments the whole
    batch and trains on its share of it; batch normalisation takes its statistics over what shares a gradient: the
    batch of all processes, or with `sam.m` the m images.

    Args:
        model: on its device.
        images: N images, whose batches are on the device of the model.
        labels: int64 [N] in [0, num_classes), on the CPU.
        repeats: int64 [N], how often an epoch shows each image.
        updates: optimizer steps in all; the last epoch may be cut short.
        batch_size: images of an update, of all processes together.
        optimizer: `sgd` or `adamw`, over the parameters that require a gradient.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: on all parameters.
        sam: options of `optim.sam_gradients` (rho, adaptive), and m, batch_norm, weight_decay_in_ascent; None is off.
        schedule: and `warmup`, `milestones`: see `optim.learning_rate`.
        label_smoothing: share of each label spread over all classes.
        clip_norm: the longest gradient, None for any; with SAM that of the second pass.
        ema_decay: train on, but leave the moving average of the weights in `model`; None is off.
        balance: `none`, `sampling` (draw each class equally often) or `loss` (weigh it).
        dtype: of the forward pass, `float32` or `bfloat16`.
        compile: the forward pass with torch.compile.
        augmentations: name -> options of `augment.augment`.
        seed: of the order and of the augmentations.
        on_epoch: called after each epoch, and ends the training by returning True; of a training that goes on, with
            the earlier epochs too, at once.
        objective: what is minimised beside the cross-entropy of the images; None is nothing, and without `sam.m`.
        on_update: called after each update with its number and the number of its images.
        validate: returns the validation error in % of a model, and its mean cross-entropy in nats.
        keep_best: leave the weights of the lowest validation error in `model`, the earliest of equal ones.
        state: what `keeper` saved last; None starts afresh.
        keeper: where the state goes.
        world: the processes; None is one.

    Raises:
        GdaError: the loss or a weight is not a number, or a batch does not fit the memory.

    Source: the cited setup of the targeted-augmentation paper (METHODS: inputs in [0, 1], no normalisation).
    """
    world = world or World()
    model.to(memory_format=torch.channels_last)  # convolutions are faster so
    device = next(model.parameters()).device
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if objective is not None:
        parameters += objective.parameters()
    in_loss = sam is not None and sam["weight_decay_in_ascent"]
    step = make_optimizer(
        parameters, optimizer, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=0 if in_loss else weight_decay
    )
    group_size = 1 if sam is None or sam["m"] is None else sam["m"]
    if group_size == 1:
        world.synchronise_batch_norm(model)
    average = copy.deepcopy(model) if ema_decay is not None else None
    if compile:
        torch.use_deterministic_algorithms(True, warn_only=True)  # tells the compiler too
    forward: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model) if compile else model
    both = model.logits_and_last_features
    forward_both = torch.compile(both) if compile and objective is not None else both
    class_weights = balanced_weights(labels, repeats, num_classes).to(device) if balance == "loss" else None
    truths = labels.to(device)
    generator = torch.Generator()
    history: list[Epoch] = []
    best: State | None = None
    update, sums = 0, torch.zeros(4, device=device)  # of this epoch: loss, wrong, synthetic loss, synthetic images

    def check_finite(tensors: Iterable[torch.Tensor], when: str) -> None:
        if objective is not None:
            objective.check()
        if not all(tensor.isfinite().all() for tensor in tensors):
            also = "" if objective is None else ", or synthetic.weight"
            raise GdaError(f"loss or weights are no longer numbers {when} (lr {lr:g}): lower lr{also}")

    def gradients(x: torch.Tensor, targets: torch.Tensor, count: int) -> Outcome:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = forward(x)
        losses = cross_entropy(logits, targets, class_weights=class_weights, smoothing=label_smoothing)
        parts = list(torch.autograd.grad(losses.sum() / count, parameters, materialize_grads=True))
        if objective is not None:
            now = Step(update, epoch, rate, model, forward_both, dtype, parameters, parts, world, seed)
            parts = list(torch._foreach_add(parts, objective.gradients(now)))
        return parts, losses.detach(), logits.detach()

    def batch_gradients(x: torch.Tensor, targets: torch.Tensor, count: int) -> Outcome:
        if sam is None:
            return gradients(x, targets, count)
        return sam_gradients(
            gradients,
            model,
            parameters,
            x,
            targets,
            count,
            rho=sam["rho"],
            adaptive=sam["adaptive"],
            m=sam["m"],
            decay=weight_decay if in_loss else 0.0,
            batch_norm=sam["batch_norm"],
            sum_=world.sum_,
        )

    if state is not None:
        model.load_state_dict(state["model"])
        step.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        if objective is not None:
            objective.load_state_dict(state["objective"])
        update, best, history = state["update"], state["best"], [Epoch(*values) for values in state["history"]]
        sums.copy_(state["sums"])
        for done in history:
            on_epoch(done)
    per_epoch = len(batch_bounds(int(repeats.sum()), batch_size))
    while update < updates:
        epoch = update // per_epoch + 1
        begun = (epoch - 1) * per_epoch
        order = epoch_order(labels, repeats, seed, epoch, equal_classes=balance == "sampling")
        bounds = batch_bounds(len(order), batch_size)[: updates - begun]
        ahead = bounds[update - begun :]
        shares = [world.shares(first, end, group_size) for first, end in ahead]
        arriving = images.batches(epoch, order, [share[world.rank] for share in shares])
        model.train()
        for (first, end), share, mine in zip(ahead, shares, arriving, strict=True):
            if keeper is not None and keeper.due():
                check_finite([sums], f"in epoch {epoch}")
                keeper.save(
                    {
                        "update": update,
                        "model": model.state_dict(),
                        "optimizer": step.state_dict(),
                        "average": average.state_dict() if average is not None else None,
                        "objective": objective.state_dict() if objective is not None else None,
                        "best": best,
                        "history": [astuple(done) for done in history],
                        "sums": sums,
                    }
                )
            torch.manual_seed(derive_seed(seed, "network", update, world.rank))  # dropout and the like
            generator.manual_seed(derive_seed(seed, "augment", update))
            rate = learning_rate(schedule, lr, update, updates, warmup, milestones)
            for group in step.param_groups:
                group["lr"] = rate
            pixels = world.gather(mine, [part_end - part for part, part_end in share])
            truth = truths[order[first:end].to(device)]
            targets = F.one_hot(truth, num_classes).float()
            x, targets = augment(pixels, targets, generator, augmentations, epoch=epoch, attention=model.attention)
            part = slice(*(place - first for place in share[world.rank]))
            result, losses, logits = guard_memory(
                batch_gradients, x[part], targets[part], len(x), alone=world.size == 1
            )
            beside = objective.losses if objective is not None else losses.new_empty(0)
            figures = torch.stack(
                [
                    losses.sum(),
                    (logits.argmax(1) != truth[part]).sum(),
                    beside.sum(),
                    torch.full_like(sums[0], len(beside)),
                ]
            )
            world.sum_([*result, figures])
            sums += figures
            for parameter, gradient in zip(parameters, result, strict=True):
                parameter.grad = gradient
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
            step.step()
            step.zero_grad()  # and so the next ones take their memory
            result.clear()
            if average is not None and ema_decay is not None:
                average_into(average, model, ema_decay)
            update += 1
            on_update(update, len(x))
        loss, wrong, beside_loss, beside_seen = sums.tolist()
        check_finite([sums, *model.state_dict().values()], f"after epoch {epoch}")
        seen = bounds[-1][1]
        error, validation_loss = validate(average or model) if validate is not None else (None, None)
        lowest = min((done.validation_error for done in history if done.validation_error is not None), default=math.inf)
        if keep_best and error is not None and error < lowest:
            best = copy.deepcopy((average or model).state_dict())
        images_seen = (history[-1].images if history else 0) + seen
        figures_of = loss / seen, 100 * wrong / seen, error, validation_loss
        history.append(
            Epoch(epoch, update, images_seen, rate, *figures_of, beside_loss / beside_seen if beside_seen else None)
        )
        sums.zero_()
        if on_epoch(history[-1]):
            break
    if best is not None:
        model.load_state_dict(best)
    elif average is not None:
        model.load_state_dict(average.state_dict())
    model.to(memory_format=torch.contiguous_format)  # which gives the bits of timm


def predict(
    model: Classifier,
    batches: Iterable[torch.Tensor],
    output: Callable[[Classifier, torch.Tensor], torch.Tensor] = Classifier.__call__,
) -> torch.Tensor:
    """Return the logits, float32 [N, C] on the CPU, of batches uint8 [B, 3, H, W], such as `source.in_order()`.

    `output` takes something else from the model, such as `Classifier.unit_features`.
    """
    model.eval()
    with torch.inference_mode():
        return torch.cat([output(model, batch.float() / 255).float().cpu() for batch in batches])
