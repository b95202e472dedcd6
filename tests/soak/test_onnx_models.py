"""Further classifiers in onnxruntime beside torch, see tests/test_onnx.py: each export takes seconds."""

import pytest
from test_onnx import MORE_MODELS, NAMES, hold_against_torch, make

from gdacli.exports.onnx import onnx_file


@pytest.mark.parametrize("kind", MORE_MODELS)
def test_onnxruntime_gives_torchs_logits_at_any_batch_size(kind):
    net = make(kind)
    hold_against_torch(net, onnx_file(net, NAMES))
