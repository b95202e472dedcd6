"""A classifier as an ONNX file, and the check that a runtime sees in it what torch does."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from gdacli.errors import GdaError
from gdacli.models import Classifier

INPUT, OUTPUT = "image", "logits"

TOLERANCE = 1e-4
"""How far a logit may be from torch's, as a share of the largest logit of the check (at least 1)."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OPSET = 20
_BATCHES = (1, 3, 16)


@dataclass(frozen=True)
class Agreement:
    """How an ONNX file compares with torch on some images."""

    images: int
    difference: float
    """The largest of a logit."""
    allowed: float


def check_installed() -> None:
    """Check that what writes and runs ONNX files is there.

    Raises:
        GdaError: a package is missing.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise GdaError(f"--format onnx needs {' and '.join(missing)}: run `pip install 'gdacli[onnx]'`")


def onnx_file(model: Classifier, class_names: Sequence[str]) -> bytes:
    """Return a classifier as an ONNX file of one piece; equal classifiers give equal bytes.

    Input `image`, float32 [N, 3, H, W], RGB in [0, 1], any N; output `logits`, float32 [N, C]. The normalisation is
    inside. The metadata say the names of the classes, the size, and how an image is brought to it.

    Args:
        model: on the CPU, made for an image size.
        class_names: C of them.

    Raises:
        GdaError: torch cannot express the network in ONNX.
    """
    side = model.side()
    example = torch.zeros(2, 3, side, side)
    with _quiet():
        try:
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except Exception as error:  # the exporter raises errors of many kinds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise GdaError(f"torch cannot write this model as ONNX ({reason}): name another model") from error
    if program is None:
        raise GdaError("torch cannot write this model as ONNX: it made nothing of it")
    ir = program.model
    ir.doc_string = None
    for graph in (ir.graph, *(function.graph for function in ir.functions.values())):
        graph.doc_string = None
        for node in graph.all_nodes():  # the exporter's notes: where its own source lies on this machine
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
    ir.metadata_props.clear()
    ir.metadata_props.update(
        {
            "class_names": json.dumps(list(class_names), ensure_ascii=False),
            "image_size": str(side),
            "input": "float32 [N, 3, H, W], RGB in [0, 1]; the normalisation is inside the model",
            "resize": "cut out the largest centred square, scale it to image_size, bilinear and antialiased",
            "output": "logits [N, C]; softmax gives probabilities, in the order of class_names",
        }
    )
    return program.model_proto.SerializeToString(deterministic=True)


def check_agreement(model: Classifier, content: bytes, images: Sequence[torch.Tensor] = ()) -> Agreement:
    """Run an ONNX file with onnxruntime beside the classifier, on random images and some others.

    Args:
        model: on the CPU.
        content: of the file.
        images: batches, uint8 [B, 3, H, W].

    Raises:
        GdaError: a logit is further off than TOLERANCE, or a class is another one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    generator, side = torch.Generator().manual_seed(0), model.side()
    batches = [torch.rand(count, 3, side, side, generator=generator) for count in _BATCHES]
    batches += [batch.float() / 255 for batch in images]
    model.eval()
    with torch.inference_mode():
        expected = [model(batch).float().numpy() for batch in batches]
    found = [session.run([OUTPUT], {INPUT: batch.numpy()})[0] for batch in batches]
    ours, theirs = np.concatenate(expected), np.concatenate(found)
    allowed = TOLERANCE * max(1.0, float(np.abs(ours).max()))
    difference = float(np.abs(ours - theirs).max())
    if not difference <= allowed:  # also if it is no number
        raise GdaError(
            f"the ONNX file is not written: onnxruntime's logits differ from torch's by up to {difference:.3g}, "
            f"allowed is {allowed:.3g}: torch translated the model wrongly; try other versions of torch and onnxruntime"
        )
    second, first = np.sort(ours, axis=1)[:, -2:].T
    clear = first - second > 2 * allowed  # logits that are equal but for rounding have no order
    others = int(((ours.argmax(1) != theirs.argmax(1)) & clear).sum())
    if others:
        raise GdaError(f"the ONNX file is not written: onnxruntime gives {others} of {len(ours)} images another class")
    return Agreement(len(ours), difference, allowed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own progress from the terminal: what goes wrong is raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
