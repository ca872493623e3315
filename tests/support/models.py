"""A tiny ONNX model: it predicts which of three colours a picture has most of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from icon_classifier.model.info import compiler_sha256

LABELS = ["red", "green", "blue"]
SIZE = 8
SQUISH = {
    "op": "resize",
    "size": [SIZE, SIZE],
    "method": "squish",
    "pad_mode": "zeros",
    "resample": 2,
}


def metadata(**changes: Any) -> dict[str, Any]:
    """Return valid metadata with some entries changed."""
    entries: dict[str, Any] = {
        "format": 1,
        "labels": LABELS,
        "transforms": [SQUISH],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "temperature": 1.0,
        "unsure": {"score": "energy", "threshold": 2.0},
        "export_sha256": "0" * 64,
        "compiler_sha256": compiler_sha256(),
        "versions": {"onnx": onnx.__version__},
        "date": "2026-01-01T00:00:00+00:00",
        "recipe": "colours",
        "figures": {"error": 0.0},
        "opset": 17,
    }
    entries.update(changes)
    return entries


def model_bytes(**changes: Any) -> bytes:
    """Return an export.onnx: the features are mean colours, a logit is four times a colour.

    The logits of a fourth and further labels are 0.
    """
    labels = changes.get("labels", LABELS)
    classes = len(labels) if isinstance(labels, list) else len(LABELS)
    scale = 4 * np.eye(3, classes, dtype=np.float32)
    weight = numpy_helper.from_array(scale, "weight")
    kernel = numpy_helper.from_array(scale.T[:, :, None, None].copy(), "kernel")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "weight"], ["logits"]),
        helper.make_node("ReduceLogSumExp", ["logits"], ["score"], axes=[1], keepdims=0),
        helper.make_node("Conv", ["image", "kernel"], ["evidence"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info(
                "evidence", TensorProto.FLOAT, ["N", classes, SIZE, SIZE]
            ),
        ],
        [weight, kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"icon_classifier": json.dumps(metadata(**changes))})
    data: bytes = model.SerializeToString()
    return data


def write_model(folder: Path, **changes: Any) -> Path:
    """Write an export.onnx into a folder."""
    path = folder / "export.onnx"
    path.write_bytes(model_bytes(**changes))
    return path
