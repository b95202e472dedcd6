"""`executor: local`: one process per device, here."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from gdacli.errors import GdaError
from gdacli.executors import Advance
from gdacli.pool import ShardRequest, tasks_for
from gdacli.recipe import Recipe


def run(recipe: Recipe, shards: Sequence[ShardRequest], workers: int | None, advance: Advance) -> None:
    """See `executors.make_shards`; a single worker is this process."""
    devices = _devices(recipe, workers)
    tasks = tasks_for(shards, len(devices))
    if len(devices) == 1:
        from gdacli.engine import Engine

        for message in Engine(recipe, devices[0]).make(shard for task in tasks for shard in task):
            if message is not None:
                advance(*message)
        return
    context = multiprocessing.get_context("spawn")  # a forked process cannot use the GPU
    running: dict[Connection, BaseProcess] = {}
    try:
        for device in devices[: len(tasks)]:
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_work, args=(theirs, recipe, device), daemon=True)
            process.start()
            theirs.close()
            running[ours] = process
        _serve(running, list(reversed(tasks)), advance)
    finally:
        for connection, process in running.items():
            process.kill()
            process.join()
            connection.close()


def _serve(running: dict[Connection, BaseProcess], tasks: list[list[ShardRequest]], advance: Advance) -> None:
    """Hand out the tasks, last one first, until every worker has said that it is idle and none is left."""
    busy = set(running)
    while busy:
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)  # noqa: S101  # what `wait` was given
            try:
                message = connection.recv()
                if message is None and tasks:
                    connection.send(tasks.pop())
                elif message is None:
                    busy.remove(connection)
            except (EOFError, ConnectionError):
                process = running[connection]
                process.join()
                raise GdaError(
                    f"a worker ended with code {process.exitcode} (-9: killed, often for lack of memory): finished "
                    "shards are kept; run the same command again, perhaps with fewer generate.workers"
                ) from None
            if isinstance(message, BaseException):
                raise message
            if message is not None:
                advance(*message)


def _work(connection: Connection, recipe: Recipe, device: str) -> None:
    """Make shards until the other end closes; messages: None (idle), (made, taken), or an exception."""
    for number in (signal.SIGINT, signal.SIGTERM):  # may reach every process; the first one ends the others
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from gdacli.engine import Engine

    try:
        engine = Engine(recipe, device)
        while True:
            connection.send(None)
            for message in engine.make(connection.recv()):
                if message is not None:
                    connection.send(message)
    except Exception as error:
        if type(error).__module__ not in ("builtins", GdaError.__module__):  # others may not travel between processes
            error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(traceback.format_exc())
        connection.send(error)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _devices(recipe: Recipe, workers: int | None) -> list[str]:
    if recipe.device == "cpu":
        return ["cpu"] * (workers or 1)
    import torch

    count = torch.cuda.device_count()
    if not count and recipe.device == "auto":
        return ["cpu"] * (workers or 1)
    return [f"cuda:{number % count}" if count else recipe.device for number in range(workers or max(count, 1))]
