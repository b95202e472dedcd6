"""Epochs written to TensorBoard and DVCLive, beside `history.csv`, for those who watch a training there."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gdacli.errors import GdaError

Log = Callable[[int, Mapping[str, float]], None]
"""(epoch, name -> value)."""


@contextlib.contextmanager
def open_trackers(names: Sequence[str], folder: Path) -> Iterator[Log]:
    """Yield the function that logs an epoch to all of `names`, each in its own folder, which is emptied first.

    Args:
        names: of `tensorboard`, `dvclive`.
        folder: theirs are in it.

    Raises:
        GdaError: the package is not installed, the message names the command that brings it; or git has no commit.
    """
    with contextlib.ExitStack() as stack:
        logs: list[Log] = []
        for name in names:
            shutil.rmtree(folder / name, ignore_errors=True)
            try:
                logs.append(_OPEN[name](folder / name, stack))
            except ImportError as error:
                raise GdaError(
                    f"train.trackers: {name} needs a package that is not installed ({error}): "
                    f"pip install 'gdacli[{name}]'"
                ) from error

        def log(epoch: int, values: Mapping[str, float]) -> None:
            for each in logs:
                each(epoch, values)

        yield log


def _tensorboard(folder: Path, stack: contextlib.ExitStack) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = stack.enter_context(SummaryWriter(folder))

    def log(epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)

    return log


def _dvclive(folder: Path, stack: contextlib.ExitStack) -> Log:
    from dvclive import Live
    from scmrepo.exceptions import SCMError

    try:
        live = stack.enter_context(Live(str(folder), save_dvc_exp=False, dvcyaml=False))
    except SCMError as error:
        raise GdaError(f"train.trackers: dvclive needs a commit in git ({error}): commit, or leave it out") from error

    def log(epoch: int, values: Mapping[str, float]) -> None:
        live.step = epoch
        for name, value in values.items():
            live.log_metric(name, value)
        live.make_summary()

    return log


_OPEN = {"tensorboard": _tensorboard, "dvclive": _dvclive}
