"""Where torch runs."""

import ctypes
import os
import sys

import torch

from gdacli.errors import GdaError


def set_up(device: str, threads: int) -> torch.device:
    """Choose the device, fix the number of threads and deterministic kernels.

    Raises:
        GdaError: a GPU is asked for and there is none.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports the compiler, for 1.5 s
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a tenth of a step, to find bugs that are not there
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise GdaError("compute.device: found cuda, but no GPU is there; allowed: auto, cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one of several processes, each with its own GPU
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return torch.device(device)


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors set free: to give it back and ask for it again takes a twentieth of a step's time."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # musl has none
        trim_threshold, mmap_threshold = -1, -3
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_threshold, 2**30)
