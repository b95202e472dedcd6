"""The installed `gdacli` and `dvc`, run by forks of one process that has imported what they import.

A short command of ours spends most of its time on the import of torch, diffusers and scikit-learn. `commands` gives a
folder for the PATH with programs of the same names. Such a program hands its arguments, folder, environment and streams
to a server, which is started once for all processes of a run of the tests; the server imports those libraries at the
first request, forks, and the fork runs the text of the installed script as `__main__`. Signals are passed on, and a
fork dies with its program. So all that is shared is imports: of libraries that have read no setting which the command
has otherwise, and that have started no thread; both are checked.
"""

import atexit
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

PRELOADED = (
    "torch._dynamo", "torchvision", "timm", "kornia", "scipy.stats", "sklearn.cluster", "pyarrow.dataset",
    "matplotlib.backends.backend_svg", "matplotlib.pyplot", "diffusers.training_utils", "networkx", "scmrepo.git",
    "diffusers.models.autoencoders.autoencoder_kl", "diffusers.models.unets.unet_2d",
    "diffusers.pipelines.pipeline_utils", "diffusers.schedulers.scheduling_ddpm", "gdacli.cli", "gdacli.stages.fit",
    "gdacli.stages.train", "gdacli.stages.evaluate", "gdacli.objective_assembly", "gdacli.models", "gdacli.gauge",
    "gdacli.trackers", "dvc.cli.parser", "dvc.repo.graph", "dvc.data_cloud", "dvc.dvcfile",
)  # fmt: skip
READ_AT_IMPORT = ("HF_", "OMP_", "GOMP_", "OPENBLAS_", "MKL_", "TORCH_", "PYTHON")
"""How the variables begin that these libraries read when they are imported."""
NOT_YET = {"HF_DATASETS_CACHE": "datasets"}
"""Those that a library reads which a fork imports itself."""

shared = Path()
"""Folder of all processes that share the server; conftest.py sets it."""
open_connections: list[socket.socket] = []
"""The server ends when the last of all processes is closed."""


def commands() -> Path:
    """Return a folder with the programs, of a server that runs until this process ends."""
    folder = shared / "fork_server"
    if open_connections:
        return folder
    folder.mkdir(exist_ok=True)
    address = folder / "socket"
    with (shared / "fork_server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            open_connections.append(_connected(str(address)))
            return folder
        address.unlink(missing_ok=True)
        for name in ("gdacli", "dvc"):
            _write_program(folder, Path(sys.executable).with_name(name))
        server = subprocess.Popen([sys.executable, __file__, str(address)], stdin=subprocess.DEVNULL)
        while server.poll() is None:
            with contextlib.suppress(OSError):
                open_connections.append(_connected(str(address)))
                atexit.register(_leave, server)
                return folder
            time.sleep(0.01)
        raise RuntimeError(f"the fork server ended with {server.returncode}")


def program(script: Path) -> Path:
    """Return a program that runs another script of Python as `commands` runs the installed ones."""
    folder = commands()
    return _write_program(folder, script)


def _write_program(folder: Path, script: Path) -> Path:
    written = folder / script.name
    written.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import fork_server\nfork_server.client({str(folder / 'socket')!r}, {str(script)!r})\n"
    )
    written.chmod(0o755)
    return written


def _leave(server: subprocess.Popen) -> None:
    open_connections.pop().close()
    server.wait()


def _connected(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)
    return connection


def client(address: str, script: str) -> None:
    """Let the server run a script, and end as it does."""
    connection = _connected(address)
    request = json.dumps({"argv": [script, *sys.argv[1:]], "cwd": str(Path.cwd()), "env": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(request)
    pid = _received(connection)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os.kill(pid, number))
    code = _received(connection)
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _send(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # the program was killed
        connection.sendall(number.to_bytes(4, "big", signed=True))


def _received(connection: socket.socket) -> int:
    return int.from_bytes(_read(connection, 4), "big", signed=True)


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError("the fork server has ended: see its error in what the test printed")
        data += part
    return data


def serve(address: str) -> int:
    """Fork for each request until nobody is connected any more; returns an exit code, also in the forks."""
    before, forks = dict(os.environ), dict[socket.socket, int]()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.data:  # a fork has ended
                connection, pid = key.data
                ready.unregister(key.fd)
                os.close(key.fd)
                del forks[connection]
                _send(connection, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            if key.fileobj is listener:
                ready.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            connection = cast(socket.socket, key.fileobj)
            head, streams, *_ = socket.recv_fds(connection, 4, 3)
            if not head:  # closed by the other side
                if connection in forks:
                    os.kill(forks[connection], signal.SIGKILL)
                ready.unregister(connection)
                connection.close()
                if len(ready.get_map()) == 1:
                    return 0
                continue
            request = json.loads(_read(connection, int.from_bytes(head, "big")))
            _preload()
            pid = os.fork()
            if not pid:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                return _run(request, before)
            for stream in streams:
                os.close(stream)
            _send(connection, pid)
            forks[connection] = pid
            ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (connection, pid))


def _preload() -> None:
    import gc
    import importlib

    if set(PRELOADED) <= set(sys.modules):
        return
    gc.disable()
    for name in PRELOADED:
        importlib.import_module(name)
    threads = {task.read_text().strip() for task in Path("/proc/self/task").glob("[0-9]*/comm")}
    assert len(threads - {"jemalloc_bg_thd"}) == 1, (
        f"{threads} run, of which a fork has one"
    )  # that one jemalloc restarts
    gc.freeze()
    gc.enable()


def _run(request: dict, before: dict[str, str]) -> int:
    """Run a script as Python does; returns its exit code."""
    import runpy
    import threading
    import traceback

    code: object = 0
    try:
        for name in {*request["env"], *before}:
            if name.startswith(READ_AT_IMPORT) and request["env"].get(name) != before.get(name):
                assert NOT_YET.get(name, "sys") not in sys.modules, f"{name} was read by what is imported"
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv[:] = request["argv"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as Python ends, but not taking every module down: a second
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return code if isinstance(code, int) else 1


if __name__ == "__main__":
    os._exit(serve(sys.argv[1]))
