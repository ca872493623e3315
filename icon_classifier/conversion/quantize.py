"""Quantize a compiled model to 8-bit integers, and judge on photos what a smaller model changes.

The network's body is quantized statically, per channel, by ranges of its activations on photos. Its
head, the score and the evidence stay float32: an error there is an error of the answer, and the
evidence of single cells has other ranges than a photo.
"""

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from PIL import Image
from scipy.optimize import minimize_scalar

from icon_classifier.errors import ConversionError, ImageError
from icon_classifier.files import sha256_of
from icon_classifier.images import is_photo_file, read_image_file
from icon_classifier.model.info import METADATA_KEY
from icon_classifier.model.session import Model, softmax

MIN_PHOTOS = 20
"""Fewest different photos: half of them calibrate, half judge."""

MAX_CALIBRATION_PHOTOS = 100
"""More change the ranges little."""

MAX_JUDGED_PHOTOS = 1000
"""More take minutes."""

MAX_CHANGED_LABELS = 0.005
"""Largest share of photos that get another label."""

_OPERATORS = (
    *("Conv", "MatMul", "Gemm", "Add", "Mul", "Relu", "Clip", "Sigmoid", "Concat", "Pad", "Split"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose", "Flatten"),
)
"""What is computed with integers; anything else, such as a softmax, stays float32."""

_SHARE = 0.9999
"""Share of the values of each photo below the upper end of a range, and above the lower one."""

_MAX_VALUES = 2**16
"""Most values of a tensor that are looked at: to sort all takes longer than the network."""

_TEMPERATURES = (0.2, 5.0)
"""Range of the new temperature, relative to the exact model's."""

_Floats = npt.NDArray[np.float32]
_Photos = Mapping[Path, int | None]
_Ranges = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """What a smaller model changes, on photos that it was not calibrated on.

    Attributes
    ----------
    photos : int
        How many.
    same_label, same_unsure : int
        How many get the same label, and are "not sure" or not as before.
    largest_difference : float
        Largest difference of a probability, 0 to 1.
    errors : tuple of int or None
        Wrong labels of the exact model and of this one; None where folders name no class.
    milliseconds : tuple of float
        Processor time of a prediction of both, median.
    megabytes : tuple of float
        Sizes of both, in millions of bytes.
    """

    photos: int
    same_label: int
    same_unsure: int
    largest_difference: float
    errors: tuple[int, int] | None
    milliseconds: tuple[float, float]
    megabytes: tuple[float, float]


def quantize(exact: bytes, folder: Path) -> bytes:
    """Quantize a model by photos, and check it on others.

    Parameters
    ----------
    exact : bytes
        An export.onnx, as :func:`icon_classifier.conversion.convert.convert` compiles it.
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
        There are too few photos, the network cannot be quantized, or more than
        `MAX_CHANGED_LABELS` of the labels change.
    """
    reader = Model(exact)
    calibration, judged = _split(_find_photos(folder, reader))
    settings: dict[str, Any] = {
        "photos": len(calibration),
        "temperature": reader.info.temperature,
        "threshold": reader.info.threshold,
        "ranges": _find_ranges(_fold(exact), _arrays(reader, calibration)),
    }
    settings |= _fit(reader, exact, apply(exact, settings), calibration)
    comparison = _judge(exact, apply(exact, settings), judged)
    return apply(exact, settings | {"judged": asdict(comparison)})


def judge(exact: bytes, smaller: bytes, folder: Path) -> Comparison:
    """Compare a smaller model with the exact one on photos; see :func:`quantize`.

    Raises
    ------
    ConversionError
        There are no photos, or more than `MAX_CHANGED_LABELS` of the labels change.
    """
    photos = _find_photos(folder, Model(exact))
    if not photos:
        raise ConversionError(f"expected a folder of photos, got {folder} with none")
    return _judge(exact, smaller, photos)


def apply(exact: bytes, settings: Mapping[str, Any]) -> bytes:
    """Quantize a model by the ``int8`` entry of a model that was made of the same Learner.

    Raises
    ------
    ConversionError
        The entry is invalid, or belongs to another model.
    """
    try:
        model = _quantize_body(_fold(exact), settings["ranges"])
        metadata = json.loads(_metadata(exact))
        metadata["temperature"] = float(settings["temperature"])
        if metadata["unsure"]:
            metadata["unsure"]["threshold"] = float(settings["threshold"])
        text = json.dumps(metadata | {"int8": settings}, ensure_ascii=False, allow_nan=False)
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        compiled = bytes(model.SerializeToString())
        Model(compiled)
    except Exception as error:  # ONNX Runtime and its tools raise errors of any class
        raise ConversionError(
            f"the model cannot be quantized ({type(error).__name__}: {error!s:.200}); "
            "convert without --int8"
        ) from error
    return compiled


def _metadata(model: bytes) -> str:
    properties = onnx.load_from_string(model).metadata_props
    return next(str(entry.value) for entry in properties if entry.key == METADATA_KEY)


def _find_photos(folder: Path, reader: Model) -> _Photos:
    """Return the photos of a folder that can be read, each content once, with their classes.

    They are in the order of their SHA-256, which is random and the same every time.
    """
    classes = {label: index for index, label in enumerate(reader.labels)}
    classes |= {label: index for index, label in enumerate(reader.info.raw.get("vocab", ()))}
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and is_photo_file(path) and not path.name.startswith("."):
            found.setdefault(sha256_of(path), path)
    photos = {}
    for _, path in sorted(found.items()):
        with contextlib.suppress(ImageError):
            read_image_file(path)
            photos[path] = classes.get(path.parent.name)
        if len(photos) == MAX_CALIBRATION_PHOTOS + MAX_JUDGED_PHOTOS:
            break
    return photos


def _split(photos: _Photos) -> tuple[list[Path], _Photos]:
    """Return the photos to calibrate on, half of them at most, and those to judge on."""
    if len(photos) < MIN_PHOTOS:
        raise ConversionError(
            f"expected a folder of at least {MIN_PHOTOS} different photos, got {len(photos)}; "
            "better a hundred, of every class, such as the page will get"
        )
    paths = list(photos)
    count = min(len(paths) // 2, MAX_CALIBRATION_PHOTOS)
    return paths[:count], {path: photos[path] for path in paths[count:]}


def _arrays(
    reader: Model, paths: Sequence[Path], turn: Callable[[Image.Image], Image.Image] | None = None
) -> Iterator[_Floats]:
    """Yield photos as float32 of shape (1, K, H, W)."""
    for path in paths:
        photo = read_image_file(path)
        yield reader.transform(turn(photo) if turn else photo)[None]


def _session(model: bytes, **options: Any) -> onnxruntime.InferenceSession:
    """Open a model with one thread."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _fold(model: bytes) -> onnx.ModelProto:
    """Compute what is constant in a model, such as sizes of padding."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "folded.onnx")
        _session(
            model,
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            optimized_model_filepath=str(path),
        )
        return onnx.shape_inference.infer_shapes(onnx.load(path))


def _body(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of the network before its head; of one without, all but the last.

    Names are those of the modules in ``torch.nn.Sequential(resampling, Graph(network))``.
    """
    outputs = {output.name for output in model.graph.output}
    body = [
        node
        for node in model.graph.node
        if node.name.startswith("/1/network")
        and not node.name.startswith("/1/network.1")
        and not outputs.intersection(node.output)
    ]
    if not body:
        raise ConversionError("this model cannot be quantized: it has no layers of a network")
    return body


def _find_ranges(model: onnx.ModelProto, photos: Iterator[_Floats]) -> _Ranges:
    """Return the range of each tensor of the body on photos, without its most extreme values."""
    known = (*model.graph.input, *model.graph.value_info)
    floats = {each.name for each in known if each.type.tensor_type.elem_type == 1}
    used = dict.fromkeys(name for node in _body(model) for name in (*node.input, *node.output))
    names = [name for name in used if name in floats and name != "image"]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = _session(model.SerializeToString())
    names.append("image")
    ranges = np.zeros((len(names), 2))
    for photo in photos:
        for bounds, values in zip(
            ranges, (*session.run(names[:-1], {"image": photo}), photo), strict=True
        ):
            some = values.ravel()[:: max(1, values.size // _MAX_VALUES)]
            low, high = np.quantile(some, [1 - _SHARE, _SHARE])
            bounds[:] = min(bounds[0], low), max(bounds[1], high)
    return dict(zip(names, ranges.tolist(), strict=True))


def _quantize_body(model: onnx.ModelProto, ranges: _Ranges) -> onnx.ModelProto:
    """Quantize the body: activations to 8 bits, weights to 7 bits and 8 in depthwise layers.

    Processors without VNNI instructions add pairs of products of 8 bits in 16, where 8-bit weights
    can overflow: answers would differ from machine to machine. Depthwise layers are computed
    otherwise and need the bit most.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    shapes = {each.name: each.dims for each in model.graph.initializer}
    body = _body(model)
    depthwise = [
        node.input[1]
        for node in body
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group" and [attribute.i, 1] == list(shapes[node.input[1]][:2])
    ]
    full = [{"axis": 0, "reduce_range": False}]
    data = {name: tuple(np.array(pair, np.float32)) for name, pair in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[node.name for node in body],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_OPERATORS),
        extra_options={"TensorQuantOverrides": dict.fromkeys(depthwise, full)},
    )
    quantizer.quantize_model()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _run(model: bytes, photos: Iterator[_Floats]) -> tuple[_Floats, _Floats]:
    """Return the logits, shape (N, C), and the scores, shape (N,)."""
    session = _session(model)
    outputs = [session.run(["logits", "score"], {"image": photo}) for photo in photos]
    logits, scores = zip(*outputs, strict=True)
    return np.concatenate(logits), np.concatenate(scores)


def _fit(reader: Model, exact: bytes, int8: bytes, paths: Sequence[Path]) -> dict[str, Any]:
    """Fit temperature and threshold so that probabilities and "not sure" are the exact model's.

    Labels are not needed, and photos that the model was trained on do not make it look surer than
    it is. They would look too familiar, however: the threshold is fitted on photos upside down too.
    """
    logits, scores = _run(exact, _arrays(reader, paths))
    new_logits, new_scores = _run(int8, _arrays(reader, paths))
    wanted = softmax(logits.astype(np.float64) / reader.info.temperature)

    def loss(log_factor: float) -> float:
        temperature = reader.info.temperature * math.exp(log_factor)
        found = softmax(new_logits.astype(np.float64) / temperature)
        return -float((wanted * np.log(np.maximum(found, 1e-12))).sum(axis=1).mean())

    bounds = [math.log(limit) for limit in _TEMPERATURES]
    factor = math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)
    fitted: dict[str, Any] = {"temperature": reader.info.temperature * factor}
    threshold = reader.info.threshold
    if threshold is not None:
        _, turned = _run(exact, _arrays(reader, paths, _upside_down))
        _, new_turned = _run(int8, _arrays(reader, paths, _upside_down))
        scores, new_scores = np.append(scores, turned), np.append(new_scores, new_turned)
        near = np.argsort(np.abs(scores - threshold))[: len(paths) // 2]
        fitted["threshold"] = threshold + float(np.median((new_scores - scores)[near]))
    return fitted


def _upside_down(photo: Image.Image) -> Image.Image:
    return photo.transpose(Image.Transpose.ROTATE_180)


def _judge(exact: bytes, smaller: bytes, photos: _Photos) -> Comparison:
    comparison = _compare(exact, smaller, photos)
    changed = comparison.photos - comparison.same_label
    if changed > MAX_CHANGED_LABELS * comparison.photos:
        raise ConversionError(
            f"the smaller model would change the labels of {changed} of {comparison.photos} "
            f"photos, expected at most {MAX_CHANGED_LABELS:.1%}; nothing was written. Keep the "
            "exact one, or give more photos of every class"
        )
    return comparison


def _compare(exact: bytes, int8: bytes, photos: _Photos) -> Comparison:
    """Compare the answers of two models photo by photo."""
    models = Model(exact, keep_memory=True), Model(int8, keep_memory=True)
    labels, unsure, differences, wrong = 0, 0, [0.0], []
    seconds: list[list[float]] = []
    for target, photo in zip(photos.values(), _arrays(models[0], list(photos)), strict=True):
        answers, taken = [], []
        for model in models:
            start = time.thread_time()
            answers += model.predict_arrays(photo)
            taken.append(time.thread_time() - start)
        seconds.append(taken)
        before, after = answers
        labels += before.label == after.label
        unsure += before.known == after.known
        now = dict(after.ranking)
        differences += [abs(now[label] - p) for label, p in before.ranking]
        if target is not None:
            expected = models[0].labels[target]
            wrong.append([each.label != expected for each in answers])
    errors = np.sum(wrong, axis=0).tolist() if wrong else None
    first, second = (1000 * np.median(seconds, axis=0)).tolist()
    return Comparison(
        photos=len(photos),
        same_label=labels,
        same_unsure=unsure,
        largest_difference=max(differences),
        errors=errors and tuple(errors),
        milliseconds=(first, second),
        megabytes=(len(exact) / 1e6, len(int8) / 1e6),
    )
