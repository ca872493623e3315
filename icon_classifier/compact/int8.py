"""Quantize a converted model to 8-bit integers, by photos or by what was measured on them.

The network's body is quantized statically, per channel. Its head, the score and the evidence stay
float32: an error there is an error of the answer, and the evidence of single cells has other ranges
than a photo.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from icon_classifier.compact.body import find_body, fold
from icon_classifier.compact.calibration import fit, measure
from icon_classifier.compact.comparison import compare
from icon_classifier.compact.photos import arrays, readable_photos
from icon_classifier.errors import ConversionError
from icon_classifier.model.info import METADATA_KEY
from icon_classifier.model.session import Model

MIN_PHOTOS = 20
"""Fewest different photos: half of them calibrate, half judge."""

MAX_CALIBRATION_PHOTOS = 100
"""More change the ranges little."""

_OPERATORS = (
    *("Conv", "MatMul", "Gemm", "Add", "Mul", "Relu", "Clip", "Sigmoid", "Concat", "Pad", "Split"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose", "Flatten"),
)
"""What is computed with integers; anything else, such as a softmax, stays float32."""

_Floats = npt.NDArray[np.float32]


def quantize(exact: bytes, folder: Path) -> bytes:
    """Quantize a model by photos, and judge it on others.

    Parameters
    ----------
    exact : bytes
        An export.onnx, as :func:`icon_classifier.conversion.convert.convert` converts it.
    folder : pathlib.Path
        Photos such as the model is for, in folders of any depth. Where a folder is named like a
        class, its photos are of that class.

    Returns
    -------
    bytes
        The quantized export.onnx. Its metadata has an entry ``int8``; docs/model-file.md
        describes it.

    Raises
    ------
    ConversionError
        The model is quantized already, there are too few photos, the network cannot be quantized,
        or too many labels change.
    """
    reader = Model(exact)
    if "int8" in reader.info.raw:
        raise ConversionError(
            "expected an exact model to quantize, got one of 8-bit integers; leave --int8 out, or "
            "run icon-classifier convert --int8 '' first"
        )
    photos = readable_photos(folder)
    if len(photos) < MIN_PHOTOS:
        raise ConversionError(
            f"expected a folder of at least {MIN_PHOTOS} different photos, got {len(photos)}; "
            "better a hundred, of every class, such as the page will get"
        )
    count = min(len(photos) // 2, MAX_CALIBRATION_PHOTOS)
    ranges, means = measure(fold(exact), arrays(reader, photos[:count]))
    settings: dict[str, Any] = {
        "photos": count,
        "temperature": reader.info.temperature,
        "threshold": reader.info.threshold,
        "ranges": ranges,
        "means": {name: _encode(values) for name, values in means.items()},
    }
    with _refusing():
        model = _quantized(exact, settings)
        settings |= fit(exact, _labelled(model, exact, settings), photos[:count])
        quantized = _labelled(model, exact, settings)
    try:
        comparison = compare(exact, quantized, photos[count:])
    except ConversionError as error:
        raise ConversionError(
            f"{error}. Do without 8-bit integers, or give more photos of every class"
        ) from error
    return _labelled(model, exact, settings | {"judged": asdict(comparison)})


def quantize_with(exact: bytes, settings: Mapping[str, Any]) -> bytes:
    """Quantize a model by the ``int8`` entry of a model that was made of the same Learner.

    Raises
    ------
    ConversionError
        The entry is invalid, or belongs to another model.
    """
    with _refusing():
        quantized = _labelled(_quantized(exact, settings), exact, settings)
        Model(quantized)
    return quantized


@contextmanager
def _refusing() -> Iterator[None]:
    """Translate whatever ONNX Runtime and its tools raise: errors of any class."""
    try:
        yield
    except Exception as error:
        raise ConversionError(
            f"the model cannot be quantized ({type(error).__name__}: {error!s:.200}); "
            "do without 8-bit integers"
        ) from error


def _quantized(exact: bytes, settings: Mapping[str, Any]) -> onnx.ModelProto:
    means = {name: _decode(text) for name, text in settings["means"].items()}
    return _quantize_body(fold(exact), settings["ranges"], means)


def _labelled(model: onnx.ModelProto, exact: bytes, settings: Mapping[str, Any]) -> bytes:
    """Return a quantized model with the metadata of the exact one and the entry ``int8``."""
    metadata = json.loads(_metadata(exact))
    metadata["temperature"] = float(settings["temperature"])
    if metadata["unsure"]:
        metadata["unsure"]["threshold"] = float(settings["threshold"])
    text = json.dumps(metadata | {"int8": settings}, ensure_ascii=False, allow_nan=False)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    return bytes(model.SerializeToString())


def _encode(values: _Floats) -> str:
    """Return the base64 form of float16: the metadata hold the means of thousands of channels."""
    return base64.b64encode(values.clip(-65504, 65504).astype("<f2").tobytes()).decode()


def _decode(text: str) -> _Floats:
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)


def _metadata(model: bytes) -> str:
    properties = onnx.load_from_string(model).metadata_props
    return next(str(entry.value) for entry in properties if entry.key == METADATA_KEY)


def _quantize_body(
    model: onnx.ModelProto, ranges: Mapping[str, Sequence[float]], means: Mapping[str, _Floats]
) -> onnx.ModelProto:
    """Quantize the body: activations to 8 bits, weights to 8 bits or a little less."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = find_body(model)
    weights = {each.name: each for each in model.graph.initializer}
    overrides = {}
    for node in nodes:
        if node.op_type == "Conv" and node.input[1] in weights:
            weight = onnx.numpy_helper.to_array(weights[node.input[1]])
            group = next((each.i for each in node.attribute if each.name == "group"), 1)
            scales = _scales(weight, depthwise=weight.shape[:2] == (group, 1))
            overrides[node.input[1]] = [
                {"axis": 0, "reduce_range": False, "rmin": -127 * scale, "rmax": 127 * scale}
                for scale in scales
            ]
            bias = onnx.numpy_helper.to_array(weights[node.input[2]]) if node.input[2:] else 0.0
            bias = bias + _mean_error(weight, scales, means[node.input[0]], group)
            name = f"{node.name}_bias"  # its own: equal biases of several layers are one tensor
            model.graph.initializer.append(onnx.numpy_helper.from_array(bias, name))
            node.input[2:] = [name]
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,  # of what is no convolution, for the reason that _scales tells
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: tuple(np.array(pair, np.float32)) for name, pair in ranges.items()},
        ),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_OPERATORS),
        extra_options={"TensorQuantOverrides": overrides},
    )
    quantizer.quantize_model()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _scales(weight: _Floats, *, depthwise: bool) -> _Floats:
    """Return the value of one step of each channel's weights, of 127 steps at most.

    Processors without VNNI instructions add pairs of products of 8 bits in 16. Where two weights
    that are neighbours in the order of ONNX Runtime, which has channels last, are 128 steps or less
    together, the pair never overflows and answers are the same on every machine. Depthwise layers
    are computed otherwise.

    Parameters
    ----------
    weight : numpy.ndarray
        float32, shape (O, I, ...).

    Returns
    -------
    numpy.ndarray
        float32, shape (O,), above 0.
    """
    rows = np.abs(np.moveaxis(weight, 1, -1)).reshape(len(weight), -1)
    largest = rows.max(axis=1)
    if not depthwise:
        rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
        largest = np.maximum(largest, (rows[:, ::2] + rows[:, 1::2]).max(axis=1))
    return np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)


def _mean_error(weight: _Floats, scales: _Floats, means: _Floats, group: int) -> _Floats:
    """Return what rounding the weights takes from each channel's output, in the mean of photos.

    Without this correction the error of the answer is 1.5 to 2 times as large (Nagel et al. 2019).

    Parameters
    ----------
    weight : numpy.ndarray
        float32, shape (O, I / group, ...).
    scales : numpy.ndarray
        float32, shape (O,).
    means : numpy.ndarray
        float32, shape (I,): the mean of each channel of the input.
    group : int
        Groups of channels that are convolved apart.

    Returns
    -------
    numpy.ndarray
        float32, shape (O,).
    """
    steps = scales.reshape(-1, *[1] * (weight.ndim - 1))
    errors = (weight - np.round(weight / steps) * steps).sum(axis=tuple(range(2, weight.ndim)))
    grouped = errors.reshape(group, -1, errors.shape[1])  # (O, I / group) -> (group, O / group, _)
    result: _Floats = np.einsum("goi,gi->go", grouped, means.reshape(group, -1)).ravel()
    return result
