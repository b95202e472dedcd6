"""Images on their way to a classifier."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch


class ImageSource(Protocol):
    """N images of one size, wherever they lie."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int, order: torch.Tensor, bounds: Sequence[tuple[int, int]]) -> Iterator[torch.Tensor]:
        """Yield training batches, uint8 [B, 3, H, W] on the device.

        Args:
            epoch: from 1.
            order: int64 [n], the rows that the epoch shows, one after the other; a row may come more than once.
            bounds: per batch the first place in `order` and the one after the last.
        """
        ...

    def in_order(self, batch_size: int = 256) -> Iterator[torch.Tensor]:
        """Yield all images as they are for a prediction, in the order of their rows, uint8 [B, 3, H, W]."""
        ...


class InMemory:
    """Images that lie on the device.

    Args:
        images: uint8 [N, 3, H, W].
    """

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, epoch: int, order: torch.Tensor, bounds: Sequence[tuple[int, int]]) -> Iterator[torch.Tensor]:
        """See `ImageSource`."""
        order = order.to(self._images.device)
        for first, end in bounds:
            yield self._images.index_select(0, order[first:end])

    def in_order(self, batch_size: int = 256) -> Iterator[torch.Tensor]:
        """See `ImageSource`."""
        yield from self._images.split(batch_size)
