"""Measure on photos what quantizing needs, and fit temperature and threshold anew."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from scipy.optimize import minimize_scalar

from icon_classifier.compact.body import find_body, open_session
from icon_classifier.compact.photos import arrays
from icon_classifier.model.session import Model, softmax

_SHARE = 0.9999
"""Share of the values of each photo below the upper end of a range, and above the lower one."""

_MAX_VALUES = 2**16
"""Most values of a tensor that are looked at: to sort all takes longer than the network."""

_TEMPERATURES = (0.2, 5.0)
"""Range of the new temperature, relative to the exact model's."""

_Floats = npt.NDArray[np.float32]


def measure(
    model: onnx.ModelProto, photos: Iterator[_Floats]
) -> tuple[Mapping[str, Sequence[float]], Mapping[str, _Floats]]:
    """Measure the activations of a network on photos.

    Parameters
    ----------
    model : onnx.ModelProto
        A model of which all that is constant is computed; outputs are added to it.
    photos : iterator of numpy.ndarray
        float32, shape (1, K, H, W).

    Returns
    -------
    ranges : mapping of str to (float, float)
        Least and greatest value of each tensor of the body, without its most extreme values.
    means : mapping of str to numpy.ndarray
        float32, shape (channels,): the mean of each channel of what a convolution takes.
    """
    known = (*model.graph.input, *model.graph.value_info)
    floats = {each.name for each in known if each.type.tensor_type.elem_type == 1}
    nodes = find_body(model)
    used = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))
    names = [name for name in used if name in floats and name != "image"]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = open_session(model.SerializeToString())
    names.append("image")
    convolved = {node.input[0] for node in nodes if node.op_type == "Conv"}
    ranges = {name: [0.0, 0.0] for name in names}
    means: dict[str, list[_Floats]] = {name: [] for name in names if name in convolved}
    for photo in photos:
        tensors = (*session.run(names[:-1], {"image": photo}), photo)
        for name, values in zip(names, tensors, strict=True):
            some = values.ravel()[:: max(1, values.size // _MAX_VALUES)]
            low, high = np.quantile(some, [1 - _SHARE, _SHARE])
            ranges[name] = [min(ranges[name][0], float(low)), max(ranges[name][1], float(high))]
            if name in convolved:
                means[name].append(values.mean((0, *range(2, values.ndim))))
    return ranges, {name: np.mean(rows, axis=0) for name, rows in means.items()}


def fit(exact: bytes, int8: bytes, paths: Sequence[Path]) -> dict[str, Any]:
    """Fit temperature and threshold so that probabilities and "not sure" are the exact model's.

    Labels are not needed, and photos that the model was trained on do not make it look surer than
    it is. They would look too familiar, however: the threshold is fitted on photos upside down too.
    """
    reader = Model(exact)
    info = reader.info
    sessions = [open_session(model) for model in (exact, int8)]
    (logits, scores), (new_logits, new_scores) = _run(sessions, arrays(reader, paths))
    wanted = softmax(logits.astype(np.float64) / info.temperature)

    def loss(log_factor: float) -> float:
        found = softmax(new_logits.astype(np.float64) / (info.temperature * math.exp(log_factor)))
        return -float((wanted * np.log(np.maximum(found, 1e-12))).sum(axis=1).mean())

    bounds = [math.log(limit) for limit in _TEMPERATURES]
    factor = math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)
    fitted: dict[str, Any] = {"temperature": info.temperature * factor, "threshold": info.threshold}
    if info.threshold is not None:
        upside_down = arrays(reader, paths, upside_down=True)
        (_, turned), (_, new_turned) = _run(sessions, upside_down)
        scores, new_scores = np.append(scores, turned), np.append(new_scores, new_turned)
        near = np.argsort(np.abs(scores - info.threshold))[: len(paths) // 2]
        fitted["threshold"] = info.threshold + float(np.median((new_scores - scores)[near]))
    return fitted


def _run(
    sessions: Sequence[onnxruntime.InferenceSession], photos: Iterator[_Floats]
) -> list[tuple[_Floats, _Floats]]:
    """Return of each model the logits, shape (N, C), and the scores, shape (N,)."""
    outputs = [
        [session.run(["logits", "score"], {"image": photo}) for session in sessions]
        for photo in photos
    ]
    answers = (zip(*of_model, strict=True) for of_model in zip(*outputs, strict=True))
    return [(np.concatenate(logits), np.concatenate(scores)) for logits, scores in answers]
