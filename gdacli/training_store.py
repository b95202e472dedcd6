"""Where trainings live while they run: states to go on from, and finished ones to find again."""

import contextlib
import fcntl
import io
import shutil
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gdacli.artifacts import new_directory, new_file, read_json, sha256_bytes, sha256_file, write_json
from gdacli.checksums import verify_folder
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.rng import digest
from gdacli.store import local_work_folder

TRAINING_VERSION = 3
"""Of what a training does; a higher one trains again."""

_STATE = "state.pt"
_FINISHED = "finished"
_COST = "cost"
_DIGEST = 64  # bytes of the SHA-256 before the state


def training_identity(
    dataset: Path,
    mix: Path,
    settings: Mapping[str, Any],
    seed: int,
    generator: str | None,
    *,
    device: str,
    threads: int,
) -> str:
    """Return the hash of all that determines a training's weights, but for the kind of machine.

    Args:
        dataset: the `dataset.json` of the prepared data.
        mix: of the arm.
        settings: `Train.of_weights`.
        seed: of the training.
        generator: `LiveGenerator.identity` of what makes images meanwhile; None if nothing does.
        device: `compute.device`.
        threads: `compute.threads`.

    Raises:
        GdaError: the weights to start from do not exist.
    """
    packages = ["torch", "timm", "torchvision", "pillow"]
    if settings["objective"] != "cross_entropy":
        packages += ["kornia", "scikit-learn", "diffusers"]  # second views, truncation, a live generator
    return digest(
        TRAINING_VERSION,
        sha256_file(dataset),
        sha256_file(mix),
        settings,
        _start(settings["pretrained"]),
        seed,
        generator,
        device,
        threads,
        [version(name) for name in packages],
    )


def _start(pretrained: bool | str) -> list[str]:
    """Return the hashes of the files that a training starts from: weights, and the normalisation beside them."""
    if not isinstance(pretrained, str):
        return []
    path = Path(pretrained).expanduser()
    if not path.is_file():
        what = "is a folder: name the .safetensors file in it" if path.is_dir() else "does not exist"
        raise GdaError(f"train.pretrained: {path} {what}")
    return [sha256_file(file) for file in (path, path.with_name("config.json")) if file.exists()]


class TrainingStore:
    """The work folder of one training, found by its identity, the hash of all that determines its weights.

    It lies in the work directory (`GDACLI_WORK`), or where that is a URL in the user's cache.

    Args:
        identity: of the training.
        seconds: at least so long between two saves.
    """

    def __init__(self, identity: str, seconds: float) -> None:
        self.folder = local_work_folder() / "trainings" / identity[:32]
        self._seconds, self._last = seconds, time.monotonic()
        self._begun = self._last

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
            self._begun = time.monotonic()
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
        self.keep_figures(_COST, {"seconds": round(time.monotonic() - self._begun, 3)})
        (self.folder / _STATE).unlink(missing_ok=True)

    def due(self) -> bool:
        """Say if the last save is long enough ago."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: dict[str, Any]) -> None:
        """Save a state, whole or not at all."""
        import torch

        buffer = io.BytesIO()  # written to a file by torch, a full disk raises an error without its number
        torch.save({**state, "seconds": time.monotonic() - self._begun}, buffer)
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
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        self._begun -= state.get("seconds", 0.0)
        return state

    def seconds(self) -> float | None:
        """Return how long the finished training took, all its parts together; None if that is not known."""
        return (self.figures(_COST) or {}).get("seconds")

    def keep_figures(self, name: str, figures: Any) -> None:
        """Keep what was measured on this training, JSON-able, under a name."""
        write_json(self.folder / f"{name}.json", figures)

    def figures(self, name: str) -> Any:
        """Return what was kept under a name; None if there is none, or it is damaged, which is said."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            return read_json(path)
        except GdaError:
            say(f"warning: {path} is damaged; it is measured again")
            return None


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder, never as hard links, which DVC's cache would make read-only."""
    shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
