"""Where trainings live while they run: states to go on from, and finished ones to find again."""

import contextlib
import fcntl
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from gdacli.artifacts import new_directory, new_file, sha256_bytes
from gdacli.checksums import verify_folder
from gdacli.console import say
from gdacli.store import open_location, work_location

_STATE = "state.pt"
_FINISHED = "finished"
_DIGEST = 64  # bytes of the SHA-256 before the state


class TrainingStore:
    """The work folder of one training, found by its identity, the hash of all that determines its weights.

    It lies in the work directory (`GDACLI_WORK`), or where that is a URL in the user's cache.

    Args:
        identity: of the training.
        seconds: at least so long between two saves.
    """

    def __init__(self, identity: str, seconds: float) -> None:
        location = work_location()
        local = user_cache_path("gdacli") if "://" in location else open_location(location)
        self.folder = local / "trainings" / identity[:32]
        self._seconds, self._last = seconds, time.monotonic()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold it for this process, after another one that holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another gdacli runs this training ({self.folder}); waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def finished(self) -> Path | None:
        """Return the folder of the finished training; None if there is none, or a damaged one, which is said."""
        folder = self.folder / _FINISHED
        if not folder.exists():
            return None
        if verify_folder(folder):
            say(f"warning: {folder} is damaged; the training runs again")
            shutil.rmtree(folder)
            return None
        return folder

    def finish(self, folder: Path) -> None:
        """Keep a copy of the finished training; the state to go on from is no longer needed."""
        with new_directory(self.folder / _FINISHED) as copy:
            copy_files(folder, copy)
        (self.folder / _STATE).unlink(missing_ok=True)

    def due(self) -> bool:
        """Say if the last save is long enough ago."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: dict[str, Any]) -> None:
        """Save a state, whole or not at all."""
        import torch

        buffer = io.BytesIO()  # written to a file by torch, a full disk raises an error without its number
        torch.save(state, buffer)
        content = buffer.getvalue()
        with new_file(self.folder / _STATE) as temporary:
            temporary.write_bytes(sha256_bytes(content).encode() + content)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved last; None if there is none, or a damaged one, which is said."""
        import torch

        path = self.folder / _STATE
        if not path.exists():
            return None
        saved = path.read_bytes()
        digest, content = saved[:_DIGEST], saved[_DIGEST:]
        if sha256_bytes(content).encode() != digest:
            say(f"warning: {path} is damaged; the training starts again")
            return None
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder without folders in it, never as hard links, which DVC's cache would make read-only."""
    for file in sorted(source.iterdir()):
        shutil.copyfile(file, target / file.name)
