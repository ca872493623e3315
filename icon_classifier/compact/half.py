"""Store the weights of a converted model in half precision, and compute in float32 as before."""

import numpy as np
import numpy.typing as npt
import onnx

MIN_VALUES = 1024
"""Values of the smallest tensor that is stored in half precision: biases stay exact."""

MAX_ERROR = 2**-10
"""Largest error of a value, as a share of its tensor's largest.

Rounding to float16 makes half of it. Values above 65504 become infinite, and those of a tensor all
below 0.00003 lose more.
"""


def halve(exact: bytes) -> bytes:
    """Return a model with its large tensors in float16, half the size.

    Each is cast to float32, once: ONNX Runtime computes what is constant when it opens a model. So
    a prediction takes as long as before. A tensor that float16 cannot hold stays as it is.

    Parameters
    ----------
    exact : bytes
        An export.onnx, quantized or not.
    """
    model = onnx.load_from_string(exact)
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        if node.attribute[0].name == "value":
            node.attribute[0].t.name = node.output[0]
            graph.initializer.append(node.attribute[0].t)
            graph.node.remove(node)
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_VALUES:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if _largest(halves - values) <= MAX_ERROR * _largest(values):
            name = f"{tensor.name}_half"
            casts.append(
                onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
            )
            tensor.CopyFrom(onnx.numpy_helper.from_array(halves, name))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _largest(values: npt.NDArray[np.float32]) -> float:
    return float(np.abs(values).max())
