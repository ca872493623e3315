"""Large tensors are stored in half precision where that changes them little."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from icon_classifier.compact.half import MIN_VALUES, halve

SIDE = 64
RANDOM = np.random.default_rng(0)


def weights(scale: float = 1.0) -> npt.NDArray[np.float32]:
    return (scale * RANDOM.standard_normal((SIDE, SIDE))).astype(np.float32)


def product(weight: npt.NDArray[Any], *, constant: bool = False) -> bytes:
    """Return a model that multiplies a vector by a weight: an initializer, or of a Constant."""
    tensor = numpy_helper.from_array(weight, "" if constant else "weight")
    node = helper.make_node("Constant", [], ["weight"], value=tensor)
    graph = helper.make_graph(
        [*([node] if constant else []), helper.make_node("MatMul", ["in", "weight"], ["out"])],
        "product",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [] if constant else [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"icon_classifier": "{}"})
    return bytes(model.SerializeToString())


def run(model: bytes, vector: npt.NDArray[np.float32], optimized: str = "") -> npt.NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = optimized
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], {"in": vector})[0])


@pytest.mark.parametrize("constant", [False, True])
def test_answers_are_those_of_the_rounded_weights_in_float32(constant: bool) -> None:
    weight, vector = weights(), RANDOM.standard_normal((1, SIDE)).astype(np.float32)
    exact = product(weight, constant=constant)
    half = halve(exact)
    assert len(half) < 0.6 * len(exact)
    expected = vector @ weight.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(run(half, vector), expected, atol=1e-5)
    assert onnx.load_from_string(half).metadata_props[0].key == "icon_classifier"


def test_onnx_runtime_casts_when_it_opens_the_model(tmp_path: Any) -> None:
    path = tmp_path / "optimized.onnx"
    run(halve(product(weights())), np.zeros((1, SIDE), np.float32), str(path))
    optimized = onnx.load(path)
    assert [node.op_type for node in optimized.graph.node] == ["MatMul"]
    assert [each.data_type for each in optimized.graph.initializer] == [TensorProto.FLOAT]


def with_an_outlier() -> npt.NDArray[np.float32]:
    weight = weights()
    weight[3, 5] = 70_000  # infinite in float16
    return weight


@pytest.mark.parametrize(
    "weight",
    [with_an_outlier(), weights(1e-6), weights()[:, : MIN_VALUES // SIDE - 1], weights() > 0],
    ids=["too large", "too small", "few values", "no floats"],
)
def test_other_tensors_stay_as_they_are(weight: npt.NDArray[Any]) -> None:
    exact = product(weight)
    assert halve(exact) == exact


def test_model_halved_twice_is_the_same() -> None:
    half = halve(product(weights()))
    assert halve(half) == half
