"""Images on their way to a classifier: on the device where they fit, streamed from their shards where they do not."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from gdacli.console import progress, say
from gdacli.errors import GdaError
from gdacli.image_index import ImageIndex, References
from gdacli.images import BadImageError
from gdacli.memory import free_bytes
from gdacli.processes import num_processes
from gdacli.random_crops import Box, centre_box, random_box, resized_part, uniforms
from gdacli.rng import derive_seed

AS_THEY_ARE = 0
"""The epoch of images for a prediction, without random crops; epochs of a training start at 1."""

Loading = Literal["auto", "memory", "stream"]

SHARE_OF_FREE_MEMORY = {"cpu": 0.25, "cuda": 0.4}
"""How much of a device's free memory `auto` lets the images take; the rest is for the training."""

_AHEAD = 2  # batches per worker that are decoded before they are asked for
_MANY_IMAGES = 8192  # from here on, decoding them takes longer than starting workers for it
_MEGABYTE = 1024**2
_MANY_BYTES = 256 * _MEGABYTE  # from here on a line says where they lie


class ImageSource(Protocol):
    """N images of one size, wherever they lie."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int, order: torch.Tensor, bounds: Sequence[tuple[int, int]]) -> Iterator[torch.Tensor]:
        """Yield training batches, uint8 [B, 3, H, W] on the device.

        Args:
            epoch: from 1, or AS_THEY_ARE.
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


class Streaming:
    """Images that are read from their shards and decoded each time they are asked for.

    What a batch holds depends on the seed, the epoch and the places in the order alone: not on the number of workers,
    nor on where an epoch was taken up again. At most two batches per worker wait in (shared) memory.

    Args:
        index: of the images, of any size.
        image_size: side of what is yielded, in pixels. Images of this size keep every bit; of others the centred square
            is taken and resized (see `random_crops.resized_part`), which is resizing the shorter side and cutting out
            the centre.
        device: where the batches go.
        workers: processes that decode, one thread each; 0 decodes in this one.
        random_resized_crop: `scale` and `ratio` of `random_crops.random_box`, and `end_epoch`, the last epoch that uses
            it (None for all); then a training batch shows a part of each image, drawn for its place in the order, and
            a prediction the centred square.
        seed: of the crops.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        image_size: int,
        device: torch.device,
        workers: int,
        random_resized_crop: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self._dataset = _Batches(index, image_size, random_resized_crop, seed)
        self._device, self._workers = device, workers
        self._idle: list[_Loader] = []

    def __len__(self) -> int:
        return len(self._dataset.index)

    def batches(self, epoch: int, order: torch.Tensor, bounds: Sequence[tuple[int, int]]) -> Iterator[torch.Tensor]:
        """See `ImageSource`."""
        return self._stream((epoch, first, order[first:end].tolist()) for first, end in bounds)

    def in_order(self, batch_size: int = 256) -> Iterator[torch.Tensor]:
        """See `ImageSource`."""
        firsts = range(0, len(self), batch_size)
        return self._stream(
            (AS_THEY_ARE, first, list(range(first, min(first + batch_size, len(self))))) for first in firsts
        )

    def _stream(self, wanted: Iterable["_Wanted"]) -> Iterator[torch.Tensor]:
        # Workers that served to the end wait for the next epoch. Those of an error, or of a caller that stopped early,
        # end with the loader; and who asks for a second stream before the first is through gets other workers.
        loader = self._idle.pop() if self._idle else _Loader(self._dataset, self._workers, self._device)
        yield from loader.run(wanted)
        self._idle.append(loader)


_Wanted = tuple[int, int, list[int]]
"""A batch to be made: epoch, place of its first image in the order, rows."""


class _Batches(Dataset):
    """Makes batches, in a worker or here."""

    def __init__(self, index: ImageIndex, image_size: int, crop: Mapping[str, Any] | None, seed: int) -> None:
        self.index = index
        self._size, self._seed = image_size, seed
        self._crop = dict(crop) if crop is not None else None
        self._end_epoch = self._crop.pop("end_epoch", None) if self._crop is not None else None

    def __getitem__(self, wanted: _Wanted) -> torch.Tensor | GdaError:
        """Return uint8 [B, 3, H, W], or an error: one that is raised in a worker arrives as a text of many lines."""
        try:
            return self._make(*wanted)
        except GdaError as error:
            return error

    def _make(self, epoch: int, first: int, rows: list[int]) -> torch.Tensor:
        batch = _empty_batch((len(rows), 3, self._size, self._size))
        with _one_thread():
            for slot, (row, choose) in enumerate(zip(rows, self._parts(epoch, first, len(rows)), strict=True)):
                try:
                    batch[slot] = resized_part(self.index.encoded(row), self._size, choose)
                except BadImageError as error:
                    raise GdaError(
                        f"{self.index.name(row)} does not decode ({error}): pull or make it again"
                    ) from error
        return batch

    def _parts(self, epoch: int, first: int, count: int) -> list[Callable[[int, int], Box]]:
        """Return what chooses the part to show of each image of a batch, given its width and height."""
        over = self._end_epoch is not None and epoch > self._end_epoch
        if self._crop is None or over or epoch == AS_THEY_ARE:
            return [centre_box] * count
        seed = derive_seed("random_resized_crop", self._seed, epoch)
        numbers = uniforms(seed, range(first, first + count)).tolist()
        return [partial(random_box, **self._crop, numbers=each) for each in numbers]


class _Plan(Sampler):
    """What the loader's next run is to make."""

    wanted: Iterable[_Wanted] = ()

    def __iter__(self) -> Iterator[_Wanted]:
        return iter(self.wanted)


class _Loader:
    """A DataLoader whose workers stay for the next run; one run at a time."""

    def __init__(self, dataset: _Batches, workers: int, device: torch.device) -> None:
        self._plan, self._device = _Plan(), device
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._plan,
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_ctrl_c_to_the_main_process,
            generator=torch.Generator(),  # else it would draw from the global one, and change what a dropout draws
        )

    def run(self, wanted: Iterable[_Wanted]) -> Iterator[torch.Tensor]:
        self._plan.wanted = wanted
        try:
            for batch in self._start():  # no name for the iterator: a traceback would keep it, and so the workers
                if isinstance(batch, GdaError):
                    # Raising `batch` itself would tie it, its traceback and this frame into a knot that only the
                    # garbage collector unties, and the workers would stay until then.
                    raise GdaError(*batch.args)
                yield batch.to(self._device, non_blocking=True)
        except (RuntimeError, OSError, EOFError) as error:  # torch's word for a dead worker, and what its death tore
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise GdaError(
                f"a process that decodes images died ({reason[0]}): lower loader_workers or batch_size, or give this "
                "machine more (shared) memory"
            ) from error
        except BaseException:
            del self._loader  # ends its workers
            raise

    def _start(self) -> Iterator[Any]:
        with _signals_as_they_were():
            return iter(self._loader)


@contextmanager
def _signals_as_they_were() -> Iterator[None]:
    """Start workers without a change to this process's signals, and so that Ctrl-C passes by them from their start on.

    torch sets a handler that raises in the midst of a training step when a worker has died; without it the loader
    notices within 5 seconds, while it waits for the worker's batch, which is where errors of images belong.
    """
    if threading.current_thread() is not threading.main_thread():  # torch sets none there, and Ctrl-C does not come
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_ctrl_c_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch resize with one thread: a single image is too small for more, which would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _empty_batch(shape: tuple[int, ...]) -> torch.Tensor:
    """Return uint8 of a shape; in a worker it lies in shared memory from the start, which saves a copy."""
    batch = torch.empty(shape, dtype=torch.uint8)
    return batch if torch.utils.data.get_worker_info() is None else batch.share_memory_()


def open_images(
    references: References,
    *,
    image_size: int,
    device: torch.device,
    loading: Loading = "auto",
    workers: int = 0,
    random_resized_crop: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ImageSource:
    """Open images where they are best read from.

    `auto` decodes them once onto the device if they take at most SHARE_OF_FREE_MEMORY there, and streams them
    otherwise. A random resized crop needs the original sizes, so with one they always stream. Of images of any size
    both give the same batches.

    Args:
        references: of N images.
        image_size: side in pixels of what is yielded.
        device: where it is yielded.
        loading: `memory` and `stream` leave no choice.
        workers: processes that decode, while streaming or for the many images of one that is read into memory.
        random_resized_crop, seed: see `Streaming`.

    Raises:
        GdaError: a shard or an image is missing or another than named; the images do not fit into the memory.
    """
    needed = len(references) * 3 * image_size**2
    free = free_bytes(device)
    share = SHARE_OF_FREE_MEMORY[device.type] / (num_processes() if device.type == "cpu" else 1)
    what = f"{len(references)} images of {image_size} x {image_size} pixels, {needed / _MEGABYTE:.0f} MB,"
    where = f"{100 * share:.0f} % of the {free / _MEGABYTE:.0f} MB that are free on the {device.type}"
    if loading == "memory" and random_resized_crop is not None:
        raise GdaError(
            "loading: found memory, but random_resized_crop needs the images at their original sizes: allowed with it "
            "are auto and stream"
        )
    if loading == "memory" and needed > free:
        raise GdaError(
            f"loading: found memory, but {what} do not fit into the {free / _MEGABYTE:.0f} MB that are free on the "
            f"{device.type}: set loading to auto or stream"
        )
    why_stream = (
        "as loading says"
        if loading == "stream"
        else "random_resized_crop cuts from each as it is stored"
        if random_resized_crop is not None
        else f"more than {where}"
        if loading == "auto" and needed > share * free
        else None
    )
    options: dict[str, Any] = {"image_size": image_size, "device": device, "seed": seed}
    if why_stream is not None:
        say(f"loading: {what} stream from {len(references.shards)} shards with {workers} workers: {why_stream}")
        index = ImageIndex(references)
        return Streaming(index, workers=workers, random_resized_crop=random_resized_crop, **options)
    if needed >= _MANY_BYTES:
        why = "as loading says" if loading == "memory" else f"at most {where}"
        say(f"loading: {what} are read into memory: {why}")
    workers = workers if len(references) >= _MANY_IMAGES else 0
    return _read(Streaming(ImageIndex(references), workers=workers, **options), image_size, device)


def _read(source: Streaming, image_size: int, device: torch.device) -> InMemory:
    images = torch.empty((len(source), 3, image_size, image_size), dtype=torch.uint8, device=device)
    row = 0
    bar = progress("loading", len(source), "images") if len(source) >= _MANY_IMAGES else None
    with bar or nullcontext(lambda count: None) as advance:
        for batch in source.in_order():
            images[row : row + len(batch)] = batch
            row += len(batch)
            advance(len(batch))
    return InMemory(images)
