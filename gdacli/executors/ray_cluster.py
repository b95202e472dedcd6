"""`executor: ray`: an actor per GPU of a Ray cluster, the one that runs or one started here for the while."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gdacli.artifacts import temporary_name
from gdacli.console import say
from gdacli.errors import GdaError
from gdacli.executors import Advance
from gdacli.pool import ShardRequest, tasks_for
from gdacli.recipe import Recipe
from gdacli.store import ImageStore

if TYPE_CHECKING:
    from gdacli.engine import Engine

_SECONDS_WITHOUT_A_WORKER = 15.0
_SECONDS_TO_CONNECT = 10.0


def run(recipe: Recipe, shards: Sequence[ShardRequest], workers: int | None, advance: Advance) -> None:
    """See `executors.make_shards`; a lost actor's shards go to the others."""
    with _cluster() as ray, _mark(recipe) as mark:
        count, options = _actors(ray, recipe, workers)
        tasks = [_Task(task) for task in tasks_for(shards, count)]
        actor = ray.remote(_Actor).options(max_restarts=0, scheduling_strategy="SPREAD", **options)
        actors = [actor.remote(recipe, "cuda:0" if options["num_gpus"] else "cpu", mark) for _ in tasks[:count]]
        try:
            _serve(ray, actors, list(reversed(tasks)), advance)
        finally:
            for each in actors:
                ray.kill(each)


class _Actor:
    """One engine on a node of the cluster; its methods are streamed."""

    def __init__(self, recipe: Recipe, device: str, mark: Path) -> None:
        self._recipe, self._device, self._mark = recipe, device, mark
        self._engine: Engine | None = None

    def start(self) -> Iterator[str]:
        """Yield the node's name once it is known to see the project and the work directory."""
        import platform

        node = platform.node()
        for path in (self._mark.parent, self._recipe.source, self._recipe.probe):
            if not (self._mark if path == self._mark.parent else path).exists():
                raise GdaError(
                    f"Ray node {node} does not see {path} of the machine that runs gdacli: put project and work "
                    "directory (GDACLI_WORK, a folder or a URL such as s3://bucket/work) where every node sees them"
                )
        yield node

    def make(self, shards: Sequence[ShardRequest]) -> Iterator[tuple[int, int] | None]:
        """Make shards; yields (made, taken) after a batch, None after a shard."""
        if self._engine is None:
            from gdacli.engine import Engine

            self._engine = Engine(self._recipe, self._device)
        yield from self._engine.make(shards)


@dataclass
class _Task:
    """Shards that one actor makes in a go; those that are finished leave the list."""

    shards: list[ShardRequest]
    told: int = 0
    """Images of these shards that the user knows of, perhaps from an actor that was lost."""


@dataclass
class _Job:
    """What an actor is at; nothing while it starts."""

    actor: Any
    node: str = ""
    task: _Task = field(default_factory=lambda: _Task([]))
    done: int = 0
    """Images of these shards that this actor reported."""

    def read(self, message: tuple[int, int] | str | None, advance: Advance) -> None:
        """Take in what the actor yields; an image that a lost actor has reported counts once."""
        if isinstance(message, str):
            self.node = message
        elif message is None:
            finished = len(self.task.shards.pop(0).requests)
            self.task.told -= finished
            self.done -= finished
        else:
            made, taken = message
            self.done += made + taken
            new = max(0, self.done - self.task.told)
            self.task.told += new
            advance(min(made, new), new - min(made, new))


def _serve(ray: ModuleType, actors: Sequence[Any], tasks: list[_Task], advance: Advance) -> None:
    """Hand out the tasks, last one first, to whoever is idle, until none is left."""
    busy: dict[Any, _Job] = {actor.start.options(num_returns="streaming").remote(): _Job(actor) for actor in actors}
    idle: list[_Job] = []
    patience: float | None = _SECONDS_WITHOUT_A_WORKER
    while tasks or any(job.task.shards for job in busy.values()):
        while tasks and idle:
            job, task = idle.pop(), tasks.pop()
            stream = job.actor.make.options(num_returns="streaming").remote(task.shards)
            busy[stream] = _Job(job.actor, job.node, task)
        if not busy:
            raise GdaError(
                "all Ray workers are lost: finished shards are kept; run the same command again, and see Ray's logs "
                "(often a node ran out of memory)"
            )
        ready, _ = ray.wait(list(busy), timeout=patience)
        if not ready:
            say("waiting for the Ray cluster to start workers: other jobs may hold its CPUs or GPUs")
        working = any(job.task.shards for job in busy.values())
        patience = None if working else _SECONDS_WITHOUT_A_WORKER if ready else 20 * (patience or 1)
        for stream in ready:
            job = busy[stream]
            try:
                job.read(ray.get(next(stream)), advance)
            except StopIteration:
                idle.append(busy.pop(stream))
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                cause.add_note(str(error))  # where it was raised, for --debug
                raise cause from None
            except ray.exceptions.RayError as error:
                del busy[stream]
                ray.kill(job.actor)  # a node that cannot be reached may still be there
                lost = f"a Ray worker{f' on node {job.node}' if job.node else ''} is lost ({type(error).__name__})"
                if job.task.shards:
                    tasks.append(_Task(job.task.shards, job.task.told))
                    lost += f"; others make its shard {job.task.shards[0].name}"
                say(lost)


def _actors(ray: ModuleType, recipe: Recipe, workers: int | None) -> tuple[int, dict[str, int]]:
    """Return how many actors to start and what each takes; never more than the cluster can hold, which would hang."""
    threads = recipe.settings["threads"]
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    num_gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if recipe.device.startswith("cuda") and not num_gpus:
        raise GdaError(f"compute.device: found {recipe.device}, but the Ray cluster has no GPU; allowed: auto, cpu")
    gpu = num_gpus > 0 and recipe.device != "cpu"
    rooms = [(node.get("CPU", 0) // threads, node.get("GPU", 0)) for node in nodes]
    room = sum(int(min(cpus, gpus) if gpu else cpus) for cpus, gpus in rooms)
    wanted = workers or (num_gpus if gpu else 1)
    each = f"{threads} CPUs (compute.threads){' and a GPU' if gpu else ''}"
    if not room:
        found = ", ".join(f"{node.get('CPU', 0):.0f} CPUs and {node.get('GPU', 0):.0f} GPUs" for node in nodes)
        raise GdaError(f"a worker needs a Ray node with {each}; the nodes have {found}: lower compute.threads")
    if room < wanted:
        say(f"note: {room} workers, not {wanted}: each takes {each}, and the Ray cluster has no room for more")
    return min(room, wanted), {"num_cpus": threads, "num_gpus": int(gpu)}


@contextmanager
def _mark(recipe: Recipe) -> Iterator[Path]:
    """Yield a file in the work directory; a node that does not see it has another folder of that name."""
    folder = ImageStore(recipe.work, recipe.identity).folder
    mark = folder / temporary_name(Path("ray")).name
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_bytes(b"-")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def _cluster() -> Iterator[ModuleType]:
    """Yield `ray`, connected by its own rules: RAY_ADDRESS, a cluster that runs here, or a new one.

    Raises:
        GdaError: Ray is not installed, or a cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    try:
        import ray
    except ImportError as error:
        raise GdaError(f"generate.executor: ray needs Ray ({error}): pip install 'gdacli[ray]'") from error
    ours = not ray.is_initialized()
    previous, stopped = signal.getsignal(signal.SIGTERM), False
    try:
        if ours:
            _connect(ray)

        def stop(*_: object) -> None:
            nonlocal stopped
            stopped = True
            raise KeyboardInterrupt

        # Ray sets a handler of its own; and of all exceptions, its waits let nothing but KeyboardInterrupt through.
        signal.signal(signal.SIGTERM, stop)
        yield ray
    except SystemExit:  # of Ray's own handler, while it connects
        stopped = True
    finally:
        if ours:
            ray.shutdown()
        signal.signal(signal.SIGTERM, previous)
        if stopped:
            signal.raise_signal(signal.SIGTERM)


def _connect(ray: ModuleType) -> None:
    host, _, port = os.environ.get("RAY_ADDRESS", "").rpartition(":")
    if host and "/" not in host and port.isdecimal():  # Ray itself tries for minutes, and cannot be interrupted
        try:
            socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
        except OSError as error:
            raise GdaError(
                f"RAY_ADDRESS: no Ray cluster answers at {host}:{port} ({error}): correct or unset it"
            ) from error
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise GdaError(
            f"no connection to a Ray cluster ({error}): start one, or correct or unset RAY_ADDRESS"
        ) from error
