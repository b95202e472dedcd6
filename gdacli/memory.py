"""How much memory is free, and what to say when a batch does not fit it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from gdacli.errors import GdaError

Result = TypeVar("Result")

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the memory in bytes that a program can still take on a device; of a CPU, within its container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or none with a limit ("max")
        return free
    return min(free, max(0, limit - used))


def guard_memory(
    work: Callable[[torch.Tensor, torch.Tensor, int], Result],
    x: torch.Tensor,
    targets: torch.Tensor,
    count: int,
    *,
    alone: bool,
) -> Result:
    """Return `work(x, targets, count)`.

    Args:
        work: on a batch, or a process's share of one of `count` images.
        x: [b, ...], and targets [b, ...].
        count: images of the batch.
        alone: no other process waits for this one, so that smaller batches can be tried.

    Raises:
        GdaError: it does not fit the memory; the message names the largest size, halving, that does.
    """
    try:
        return work(x, targets, count)
    except RuntimeError as error:  # the memory that it held is free outside of this clause
        if not is_out_of_memory(error):
            raise
    advice = "try half of it"
    if alone:
        fits = _largest_that_fits(work, x, targets)
        advice = (
            f"{fits} does: set it (and lower lr in proportion)" if fits else "not even two do: take a smaller model"
        )
    shape = " x ".join(map(str, x.shape[1:]))
    raise GdaError(f"batch_size: {len(x)} images of {shape} do not fit the memory of {x.device}; {advice}")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say if an error of torch means that memory ran out, on a GPU or a CPU."""
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "not enough memory" in str(error)
        or "can't allocate memory" in str(error)
    )


def _largest_that_fits(
    work: Callable[[torch.Tensor, torch.Tensor, int], Result], x: torch.Tensor, targets: torch.Tensor
) -> int:
    size = len(x) // 2
    while size > 1:
        if x.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            work(x[:size], targets[:size], size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return size
        size //= 2
    return 0
