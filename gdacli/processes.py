"""Which of the processes that `torchrun` started this one is; without it there is one."""

import os


def num_processes() -> int:
    """Return how many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Say if this process is the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"
