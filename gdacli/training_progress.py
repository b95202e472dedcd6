"""How a training of a classifier shows that it goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gdacli.console import progress
from gdacli.training import Epoch


@contextmanager
def training_progress(
    name: str, updates: int, per_epoch: int
) -> Iterator[tuple[Callable[[Epoch], None], Callable[[int, int], None]]]:
    """Show a training; yields `on_epoch` and `on_update` of `training.train_classifier`.

    Args:
        name: of the training.
        updates: it makes in all.
        per_epoch: updates of a whole epoch.
    """
    with progress(f"train {name}", updates, "updates") as advance:
        start, shown, waiting, note = time.monotonic(), 0, 0, ""
        seen: int | None = None

        def on_epoch(epoch: Epoch) -> None:
            nonlocal note
            note = f"loss {epoch.loss:.3f}, train error {epoch.error:.1f} %, "
            if epoch.validation_error is not None:
                note += f"validation error {epoch.validation_error:.1f} %, "
            if epoch.synthetic_loss is not None:
                note += f"synthetic loss {epoch.synthetic_loss:.3g}, "
            show()

        def on_update(update: int, count: int) -> None:
            nonlocal start, shown, seen, waiting
            if update - shown > 1:  # it goes on after these
                advance(update - shown - 1, free=True)
            shown, waiting = update, waiting + 1
            if seen is None:  # the first update pays for what starts up
                start, seen = time.monotonic(), 0
            else:
                seen += count
            if update % per_epoch and update < updates:  # after the last one of an epoch more is known
                show()

        def show() -> None:
            nonlocal waiting
            if waiting:
                rate = f"{seen / (time.monotonic() - start):.0f} images/s" if seen else ""
                advance(waiting, note=f"{note}{rate}")
                waiting = 0

        yield on_epoch, on_update
