"""Where torch runs."""

import os

import torch

from gdacli.errors import GdaError


def set_up(device: str, threads: int) -> torch.device:
    """Choose the device, fix the number of threads and deterministic kernels.

    Raises:
        GdaError: a GPU is asked for and there is none.
    """
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with it
    torch.use_deterministic_algorithms(True, warn_only=True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise GdaError("compute.device: found cuda, but no GPU is there; allowed: auto, cpu")
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one of several processes, each with its own GPU
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return torch.device(device)
