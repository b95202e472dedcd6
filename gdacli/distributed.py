"""Data-parallel training: several processes, started by `torchrun`, that give what one gives."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gdacli.batches import batch_bounds
from gdacli.errors import GdaError
from gdacli.processes import num_processes


@dataclass(frozen=True)
class World:
    """The processes of a training: every one holds all weights and takes a share of each batch."""

    rank: int = 0
    size: int = 1

    def shares(self, first: int, end: int, multiple: int = 1) -> list[tuple[int, int]]:
        """Cut the places [first, end) into a part per process, between the groups that `multiple` images make."""
        count = end - first
        starts = [start for start, _ in batch_bounds(count, multiple)] if multiple > 1 else list(range(count))
        starts.append(count)
        groups = len(starts) - 1
        return list(pairwise(first + starts[groups * rank // self.size] for rank in range(self.size + 1)))

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up tensors of equal shapes over all processes, in place."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(list(tensors), [part.view_as(old) for part, old in zip(parts, tensors, strict=True)])

    def gather(self, mine: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Return the rows of all processes, which hold `counts` each, in the order of their ranks."""
        if self.size == 1:
            return mine
        padded = mine.new_zeros((max(counts), *mine.shape[1:]))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def share_object(self, value: Any) -> Any:
        """Return what the first process gave."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def synchronise_batch_norm(self, model: nn.Module) -> None:
        """Let batch normalisation take its statistics over the whole batch, of all processes.

        Raises:
            GdaError: the model has a kind of batch normalisation that does not lend itself to it.
        """
        if self.size > 1:
            for name, layer in model.named_modules():
                if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    continue
                if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                    layer.__class__ = _Synchronised
                elif type(layer).__name__ == "BatchNormAct2d":  # timm's, with its activation
                    layer.__class__ = _SynchronisedAct
                else:
                    raise GdaError(
                        f"model: {name} is a {type(layer).__name__}, whose statistics cannot be taken over several "
                        "processes: train in one process, set sam.m, or take another model"
                    )


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that `torchrun` started, until the end; without it there is one."""
    if num_processes() == 1:
        yield World()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of a sum is the sum of the gradients, and that of any order."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(gradients[0])


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all processes; torch's SyncBatchNorm needs a GPU."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        return

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] => the same, with mean 0 and variance 1 a channel over all processes in training."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        dims = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = torch.full((1,), float(x.numel() // x.shape[1]), device=x.device)
        sums = _Sum.apply(torch.cat([x.sum(dims), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / total
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
            if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


class _SynchronisedAct(_Synchronised):
    """The same for timm's batch normalisation with an activation."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] => the same."""
        layer: Any = self
        return layer.act(layer.drop(super().forward(input)))
