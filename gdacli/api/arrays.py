"""What callers hand over: images, labels and settings, checked; and torch given back as it was found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gdacli.errors import GdaError

if TYPE_CHECKING:
    import torch

    from gdacli.sections import Section

    S = TypeVar("S", bound=Section)

SMALLEST = 4  # pixels of a side, as `data.image_size` allows


def channels_first(images: Any, name: str = "images") -> np.ndarray:
    """Return images as uint8 [N, 3, H, W], contiguous: another memory layout would change the last bits of results.

    Args:
        images: uint8 [N, H, W, 3] or [N, 3, H, W], of at least 4 x 4 pixels; an array, or a tensor on the CPU.
        name: for the message.

    Raises:
        GdaError: another type or shape, or no image.
    """
    array = np.asarray(images)
    shape = tuple(array.shape)
    is_last = len(shape) == 4 and shape[3] == 3 and min(shape[1:3]) >= SMALLEST
    is_first = len(shape) == 4 and shape[1] == 3 and min(shape[2:]) >= SMALLEST
    if array.dtype != np.uint8 or not (is_last or is_first) or not len(array):
        raise GdaError(
            f"{name}: found {array.dtype} {list(shape)}, allowed: uint8 [N, H, W, 3] or [N, 3, H, W] with N >= 1 and "
            f"sides of {SMALLEST} pixels or more: scale floats to 0..255, repeat grey three times"
        )
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2) if is_last else array)


def square(images: Any, name: str = "images") -> np.ndarray:
    """Return `channels_first` of square images.

    Raises:
        GdaError: they are not square.
    """
    array = channels_first(images, name)
    if array.shape[2] != array.shape[3]:
        raise GdaError(
            f"{name}: found {array.shape[3]} x {array.shape[2]} pixels, allowed: square images: crop or resize them"
        )
    return array


def in_layout_of(made: np.ndarray, images: Any) -> np.ndarray:
    """Return uint8 [N, 3, H, W] with the channels where `images` has them."""
    return made if np.shape(images)[1] == 3 else channels_last(made)


def channels_last(images: np.ndarray) -> np.ndarray:
    """Return uint8 [N, 3, H, W] as [N, H, W, 3], contiguous."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def class_numbers(labels: Any, num: int | None, num_classes: int | None, name: str = "labels") -> np.ndarray:
    """Return labels as int64 [N].

    Args:
        labels: integers [N], from 0.
        num: N; None for any but 0.
        num_classes: C, above all of them; None for any.
        name: for the message.

    Raises:
        GdaError: another type, number or range.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or len(array) != (num or len(array) or 1):
        needed = "N" if num is None else num
        raise GdaError(f"{name}: found {array.dtype} {list(array.shape)}, allowed: integers [{needed}], one an image")
    highest = int(array.max()) if num_classes is None else num_classes - 1
    if array.min() < 0 or array.max() > highest:
        raise GdaError(
            f"{name}: found {array.min()} to {array.max()}, allowed: classes from 0 to {max(highest, 0)}, the place in "
            "class_names"
        )
    return array.astype(np.int64)


def names_of(class_names: Sequence[str] | None, labels: np.ndarray) -> list[str]:
    """Return the class names; where there are none, the numbers up to the highest label.

    Raises:
        GdaError: a name stands twice, or there is one class alone.
    """
    names = [str(label) for label in range(int(labels.max()) + 1)] if class_names is None else list(class_names)
    if len(set(names)) < len(names) or len(names) < 2:
        raise GdaError(f"class_names: found {names}, allowed: two names or more, all different")
    return names


def checked(section: type[S], name: str, values: Mapping[str, Any]) -> S:
    """Return a section of params.yaml with these values.

    Raises:
        GdaError: a key or a value is wrong.
    """
    from pydantic import ValidationError

    from gdacli.explain import explain_reason

    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise GdaError(explain_reason(error, (name,), section)[0]) from error


def refuse(settings: Mapping[str, Any], names: Sequence[str], section: str) -> None:
    """Refuse settings that have no say over arrays.

    Raises:
        GdaError: one is there.
    """
    for name in names:
        if name in settings:
            raise GdaError(f"{section}.{name}: has no say over arrays: leave it out, or use a Project, which has it")


@contextmanager
def computing(device: str, threads: int) -> Iterator[torch.device]:
    """Set torch up as the commands do; yields the device.

    Args:
        device: `compute.device`.
        threads: `compute.threads`.
    """
    from gdacli.invocation import WAIT_BRIEFLY

    os.environ.setdefault(*WAIT_BRIEFLY)  # has its say where torch is not imported yet
    from gdacli.compute import set_up

    with as_found():
        yield set_up(device, threads)


@contextmanager
def as_found() -> Iterator[None]:
    """Give torch's number of threads, its mode and its random state back in the end, for the caller's own work."""
    import torch

    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_deterministic_debug_mode(mode)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
