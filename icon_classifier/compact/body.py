"""The part of a converted network that is quantized: its body, without the smallest layers."""

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from icon_classifier.errors import ConversionError

MIN_WEIGHTS = 1024
"""Weights of the first layer that is quantized.

Those before it, of pixels and few channels, make half of the error and save neither time nor space.
"""


def open_session(model: bytes, **options: Any) -> onnxruntime.InferenceSession:
    """Open a model with one thread."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def fold(model: bytes) -> onnx.ModelProto:
    """Compute what is constant in a model, such as sizes of padding."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "folded.onnx")
        open_session(
            model,
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            optimized_model_filepath=str(path),
        )
        return onnx.shape_inference.infer_shapes(onnx.load(path))


def find_body(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes to quantize, in the order in which they are computed.

    They are those before the head of a network; of one without, all but the last. Names are those
    of the modules in ``torch.nn.Sequential(resampling, Graph(network))``.

    Raises
    ------
    ConversionError
        There are none.
    """
    outputs = {output.name for output in model.graph.output}
    sizes = {each.name: math.prod(each.dims) for each in model.graph.initializer}
    nodes = (
        node
        for node in model.graph.node
        if node.name.startswith("/1/network")
        and not node.name.startswith("/1/network.1")
        and not outputs.intersection(node.output)
    )
    found = list(
        itertools.dropwhile(
            lambda node: all(sizes.get(name, 0) < MIN_WEIGHTS for name in node.input), nodes
        )
    )
    if not found:
        raise ConversionError("this model cannot be quantized: it has no large layers")
    return found
