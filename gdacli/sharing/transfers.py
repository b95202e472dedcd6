"""How far a transfer is, in megabytes: what the Hub's client takes for files and bars, and tells us by."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdacli.console import progress

Advance = Callable[..., None]
"""`advance(num_bytes, free=False)`: `free` ones took no time, as those that were there already."""


@contextmanager
def megabytes(title: str, num_bytes: int) -> Iterator[Advance]:
    """Show the progress of a transfer; yields the function to call, from any thread, after some bytes."""
    total, lock, done, shown = max(1, round(num_bytes / 1e6)), threading.Lock(), 0, 0
    with progress(title, total, "MB") as advance_megabytes:

        def advance(count: int, free: bool = False) -> None:
            nonlocal done, shown
            with lock:
                done += count
                now = total if done >= num_bytes else min(total - 1, int(done / 1e6))
                if now > shown:
                    advance_megabytes(now - shown, free=free)
                    shown = now

        yield advance


class Reader(io.BufferedIOBase):
    """A file that is opened when it is read, and tells how far: a server that has it does not ask for its bytes."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self.was_read = False
        self._path, self._advance = path, advance
        self._size = path.stat().st_size
        self._place = self._told = 0
        self._file: Any = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; all that are left by default."""
        self.was_read = True
        if self._file is None:
            self._file = self._path.open("rb")
        self._file.seek(self._place)
        content: bytes = self._file.read(size)
        self._place += len(content)
        if self._place > self._told:  # what is sent again is told once
            self._advance(self._place - self._told)
            self._told = self._place
        if self._place == self._size:
            self._file.close()
            self._file = None
        return content

    def skip(self) -> None:
        """Tell that its bytes need not be sent."""
        self._advance(self._size - self._told, free=True)
        self._told = self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has places to go to."""
        return True


def bar_class(advance: Advance) -> type:
    """Return what huggingface_hub takes for a class of progress bars: it tells the bytes that came, and draws none."""

    class Bar:
        n = total = 0

        def __init__(self, *args: object, **options: object) -> None:
            pass

        def update(self, count: float | None = 1) -> None:
            advance(int(count or 0))  # fewer than none when a download begins anew

        def update_transfer(self, count: float | None = 1) -> None:
            """Take what came over the line by Xet, which `update` tells once it is on the disk."""

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **options: None  # what a bar on a screen does besides

    return Bar
