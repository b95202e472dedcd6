"""Programs of torch.export: read once they are known to be trusted, and looked at before they are used."""

import logging
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.utils._sympy.numbers import int_oo

from gdacli.artifacts import sha256_bytes
from gdacli.errors import GdaError


@dataclass(frozen=True)
class Program:
    """A network of one latent space, with labels or without."""

    path: Path
    exported: ExportedProgram
    module: nn.Module
    """Its weights require no gradient."""
    width: int
    """Z: the first input is float32 [B, Z]."""
    takes_labels: bool
    """Whether the second is labels, int64 [B]; else there is none."""

    def __call__(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Run it; latents float32 [B, Z], labels int64 [B]."""
        return self.module(latents, labels) if self.takes_labels else self.module(latents)

    def to(self, device: torch.device) -> "Program":
        """Return it on a device, with the constants that the export wrote down beside the weights."""
        return self if device.type == "cpu" else _program(self.path, move_to_device_pass(self.exported, device))


def read_program(path: Path, key: str, trusted: Sequence[str]) -> Program:
    """Read a file of `torch.export.save` onto the CPU.

    The bytes that are read are those that were hashed.

    Args:
        path: of the file.
        key: of params.yaml, for messages.
        trusted: SHA-256 of files that the user trusts, in hexadecimal.

    Raises:
        GdaError: it is not one of these; it is no such program; its inputs are others than float32 [B, Z], or that and
            int64 [B], of any B.
    """
    if not path.is_file():
        raise GdaError(f"{key}: {path} is no file; allowed: a .pt2 file that torch.export.save wrote")
    content = path.read_bytes()
    found = sha256_bytes(content)
    if found not in trusted:
        raise GdaError(
            f"generate.trusted_sha256: {path} of {key} has sha256 {found}, which is not listed, and to load it can run "
            "code that is in it: if you wrote the file or trust who did, add this sha256 to the list"
        )
    try:
        with _quiet():
            exported = torch.export.load(BytesIO(content))
    except Exception as error:  # each kind of damage has its own
        raise GdaError(
            f"{key}: {path} is no program that torch {torch.__version__} can load ({_short(error)}): export it again, "
            "as docs/exported.md shows"
        ) from error
    shown = ", ".join(_shown(value, exported) for value in _inputs(exported)) or "nothing"
    words = shown.split(", int64 ")
    fits = len(words) <= 2 and words[1:] in ([], ["[B]"]) and words[0].startswith("float32 [B, ")
    if not fits or not words[0].removeprefix("float32 [B, ").removesuffix("]").isdigit():
        raise GdaError(
            f"{key}: {path} takes {shown}; allowed: float32 [B, Z], or that and the labels int64 [B], where B is any "
            "number (torch.export.Dim): docs/exported.md shows the export"
        )
    return _program(path, exported)


def _program(path: Path, exported: ExportedProgram) -> Program:
    inputs = _inputs(exported)
    return Program(path, exported, exported.module().requires_grad_(False), int(inputs[0].shape[1]), len(inputs) == 2)


def _inputs(exported: ExportedProgram) -> list[Any]:
    """Return the example of each input: of a tensor its shape, with symbols, and dtype; of a constant itself."""
    examples = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    named = exported.graph_signature.user_inputs
    return [examples.get(name, name) if isinstance(name, str) else name for name in named]


def _shown(example: object, exported: ExportedProgram) -> str:
    """Write an input as in `float32 [B, 512]`; B is any batch size."""
    if not isinstance(example, torch.Tensor):
        return repr(example)
    sides = [str(side) if isinstance(side, int) else _range(side, exported) for side in example.shape]
    return f"{str(example.dtype).removeprefix('torch.')} [{', '.join(sides)}]"


def _range(side: torch.SymInt, exported: ExportedProgram) -> str:
    limits = exported.range_constraints.get(side.node.expr)
    if limits is None or (limits.upper == int_oo and limits.lower <= 2):  # 2: what torch says of one that may be 1
        return "B"
    return f"{limits.lower} to {limits.upper}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from writing the traceback of a damaged file: the error that ends it is said."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder='...')}"
