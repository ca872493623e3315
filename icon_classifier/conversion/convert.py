"""Convert export.pkl, a trained fastai Learner, to export.onnx, which serves without torch.

The pickle is parsed, not executed; the transforms and the network are read from it; the network is
built and written as ONNX; ONNX Runtime's outputs are compared with torch's. Each step may refuse
the file. Only then is export.onnx replaced, in one step.

torch is imported when it is needed, so that most refusals take no time.
"""

import copy
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnxruntime

from icon_classifier.compact.int8 import quantize, quantize_with
from icon_classifier.conversion.archive import Archive, open_archive
from icon_classifier.conversion.learner import ExportedLearner, read_learner
from icon_classifier.conversion.other_files import check_start
from icon_classifier.conversion.transforms import Transforms
from icon_classifier.errors import ConversionError, ModelError, UnsupportedLearnerError
from icon_classifier.files import sha256_of, write_file
from icon_classifier.model.info import (
    FORMAT,
    METADATA_KEY,
    ModelInfo,
    compiler_sha256,
    read_metadata,
)
from icon_classifier.model.names import format_names, names_file, parse_names, read_names, rename
from icon_classifier.model.opening import is_up_to_date
from icon_classifier.model.session import softmax
from icon_classifier.system.torch_setup import one_thread

if TYPE_CHECKING:
    from icon_classifier.conversion.graph import Graph

TOLERANCE = 1e-4
"""Largest difference of a probability, and of a logit or score relative to the largest, if that is
above 1, between ONNX Runtime and torch.

Both round to float32, in another order: logits of some 100 differ by some 1e-4 from float64, in
torch as in ONNX Runtime, whatever the padding, the batch or the fusing of batch norms.
"""

EVIDENCE_TOLERANCE = 1e-3
"""The same for evidence, of which a heat map shows 255 shades. The logits of a single cell are
several times as large as those of a photo, which averages them, and so is their rounding error."""

MAX_ROUNDING = 4.0
"""How many times torch's own rounding error an output but the probabilities may be off at most. In
some networks that error is far larger than usual: 5e-4 of the logits in an efficientnet_b0."""

PACKAGES = ("fastai", "icon-classifier", "numpy", "onnx", "onnxruntime", "pillow", "timm", "torch")

_log = logging.getLogger(__name__)


def convert(
    export: str | Path,
    target: str | Path | None = None,
    *,
    names: Mapping[str, str] | None = None,
    int8: str | Path | None = None,
) -> Path:
    """Convert export.pkl to export.onnx.

    Parameters
    ----------
    export : str or pathlib.Path
        A Learner that ``learn.export()`` wrote.
    target : str or pathlib.Path, optional
        The file to write or replace; by default `export` with the suffix ``.onnx``.
    names : mapping of str to str, optional
        Names of classes for people. They are written to a file beside `export`, from which they
        are read if none are given.
    int8 : str or pathlib.Path, optional
        A folder of photos to quantize by; "" for an exact model. By default `target` stays what it
        is where it was converted from the same `export`; else the Learner decides, and is exact
        where it says nothing.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    UntrustedExportError
        The file names something that a model has no use for.
    UnsupportedLearnerError
        It is not a Learner that can be reproduced exactly.
    ConversionError
        It is missing or damaged, the names do not fit, the photos are too few, quantizing changes
        too many labels, or the target cannot be written.
    """
    export = Path(export)
    target = export.with_suffix(".onnx") if target is None else Path(target)
    if target.suffix != ".onnx":  # it may be another export, which would be lost
        raise ConversionError(
            f"expected a file to write whose name ends in .onnx, got {target}; "
            "to convert several files, run this once for each"
        )
    try:
        with _naming(export):
            check_start(export)
        digest = sha256_of(export)
    except FileNotFoundError as error:
        raise ConversionError(
            f"there is no {export}; in the notebook that trained the model, call "
            "learn.export('export.pkl') and put that file there"
        ) from error
    except OSError as error:
        raise ConversionError(f"cannot read {export}: {error.strerror}") from error
    if target.resolve() == export.resolve():
        raise ConversionError(f"expected another file to write than {export}; rename it export.pkl")
    with _lock(export) as waited:
        if waited and names is None and int8 is None and is_up_to_date(target, export):
            _log.info("%s was converted by another process meanwhile", target)
            return target
        archive = open_archive(export)
        with _naming(export):
            learner = read_learner(archive)
        _log.info("%s: a Learner of %d classes", export, len(learner.labels))
        vocab = list(learner.labels)
        names_path = names_file(export)
        content = read_names(names_path) if names is None else format_names(names)
        if content is not None:
            try:
                labels = rename(learner.labels, parse_names(content))
            except ConversionError as error:
                if names is not None:
                    raise ConversionError(f"names: {error}") from error
                raise ConversionError(
                    f"{names_path}: {error}. Correct the file, or remove it if it belongs to "
                    "another model"
                ) from error
            learner = dataclasses.replace(learner, labels=labels)
        sources = {
            "vocab": vocab,
            "export_sha256": digest,
            "names_sha256": None if content is None else hashlib.sha256(content).hexdigest(),
        }
        with _naming(export), one_thread():
            converted = _convert(learner, archive, sources)
        if int8:
            converted = quantize(converted, Path(int8))
        elif int8 is None and (settings := _kept_settings(target, digest, learner.notes)):
            try:
                converted = quantize_with(converted, settings)
            except ConversionError as error:
                _log.warning("%s is no longer quantized: %s", target, error)
        try:
            if content is not None and names is not None:
                write_file(names_path, content)
            write_file(target, converted)
        except OSError as error:
            raise ConversionError(f"cannot write {target}: {error.strerror}") from error
    _log.info("wrote %s (%.1f MB)", target, len(converted) / 1e6)
    return target


def _kept_settings(target: Path, digest: str, notes: Mapping[str, Any]) -> Any:
    """Return how a target converted from the same export.pkl is quantized, else what the notes say.

    None for an exact model.
    """
    try:
        metadata = read_metadata(target)
    except ModelError:
        metadata = {}
    return (metadata if metadata.get("export_sha256") == digest else notes).get("int8")


@contextmanager
def _naming(export: Path) -> Iterator[None]:
    """Put the name of the file before the message of an error."""
    try:
        yield
    except ConversionError as error:
        raise type(error)(f"{export}: {error}") from error


@contextmanager
def _lock(export: Path) -> Iterator[bool]:
    """Lock an export.pkl, so that one process at a time converts it; yield whether one waited.

    The lock is on export.pkl itself: no file is left behind, and it ends with the process.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes may convert at once; each replaces in one step
        yield False
        return
    with export.open("rb") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that converts %s", export)
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            _log.warning("converting %s without a lock: %s", export, error.strerror)
        yield waited


class _Notes(NamedTuple):
    """The notes of training in a Learner that the graph needs, checked."""

    temperature: float
    unsure: Mapping[str, Any] | None


def _check_notes(notes: Mapping[str, Any]) -> _Notes:
    temperature, unsure = notes.get("temperature", 1.0), notes.get("unsure")
    if not _is_number(temperature) or temperature <= 0:
        raise UnsupportedLearnerError(f"expected a temperature above 0, got {temperature!r}")
    if unsure is not None and not (
        isinstance(unsure, dict) and _is_number(unsure.get("threshold"))
    ):
        raise UnsupportedLearnerError(f"expected unsure with a threshold, got {unsure!r}")
    return _Notes(float(temperature), unsure)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _convert(learner: ExportedLearner, archive: Archive, sources: Mapping[str, Any]) -> bytes:
    """Return the ONNX model of a Learner, with metadata, after comparing it with torch."""
    notes = _check_notes(learner.notes)

    from icon_classifier.conversion.graph import Graph, Score

    score = Score(notes.unsure, notes.temperature)
    try:
        network, transforms = _build(learner, archive)
    except UnsupportedLearnerError as error:
        try:  # it is of an older version
            network, transforms = _build(learner, archive, with_constructors=True)
        except ConversionError:
            raise error from None
    learner = dataclasses.replace(learner, transforms=transforms)
    resampling, sample, resized = _sample(transforms)
    graph = Graph(network, score, resized[:1]).eval()
    try:
        converted = _write(resampling, graph, sample)
    except UnsupportedLearnerError as error:
        if graph.without_evidence:
            raise
        graph.without_evidence = str(error)
        converted = _write(resampling, graph, sample)
    model = onnx.load_from_string(converted)
    metadata = _metadata(learner, notes, graph, sources)
    model.producer_name = "icon-classifier"
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
    try:
        onnx.checker.check_model(model)
        ModelInfo.from_json(metadata)
    except (onnx.checker.ValidationError, ModelError) as error:
        raise ConversionError(f"the converted model is not valid: {error}") from error
    return bytes(model.SerializeToString())


def _build(
    learner: ExportedLearner, archive: Archive, *, with_constructors: bool = False
) -> tuple[Any, Transforms]:
    """Return the network of a Learner, checked, and its transforms for the size that it takes."""
    from icon_classifier.conversion.network import build_network
    from icon_classifier.conversion.older_layers import check_layers_used
    from icon_classifier.conversion.resampling import fit_size

    try:
        network = build_network(learner.model, archive, with_constructors=with_constructors)
    except UnsupportedLearnerError as error:
        raise UnsupportedLearnerError(f"{learner.network}: {error}") from error
    transforms = fit_size(learner.transforms, network, len(learner.labels))
    _, _, resized = _sample(transforms)
    has_size = transforms.is_sized or bool(transforms.resamples)
    _check_logits(network, resized, len(learner.labels), has_size=has_size)
    check_layers_used(network, resized[:1])
    return network, transforms


def _sample(transforms: Transforms) -> tuple[Any, Any, Any]:
    """Return what resizes photos in front of the network, sample photos, and these resized."""
    from icon_classifier.conversion.resampling import Resampling

    sample = _sample_photos(transforms)
    resampling = Resampling(transforms.pipeline.size, transforms.resamples)
    return resampling, sample, resampling(sample)


def _sample_photos(transforms: Transforms) -> Any:
    """Draw two pictures with the spectrum of photos, and one of noise; normalise them.

    The amplitude of photos falls as 1 / frequency (Field 1987). Pixels are in the range of photos:
    numbers that no photo has can drive a network far from what it was trained on.

    Returns
    -------
    torch.Tensor
        float32, shape (3, channels, H, W).
    """
    import torch

    width, height = transforms.pipeline.size
    random = np.random.default_rng(0)
    noise = random.standard_normal((3, len(transforms.mean), height, width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1.0  # the mean, which is scaled away
    noise[:2] = np.fft.ifft2(np.fft.fft2(noise[:2]) / frequency).real
    darkest = noise.min((2, 3), keepdims=True)
    pixels = (noise - darkest) / (noise.max((2, 3), keepdims=True) - darkest)  # 0 to 1
    mean, std = (np.reshape(each, (-1, 1, 1)) for each in (transforms.mean, transforms.std))
    return torch.tensor((pixels - mean) / std, dtype=torch.float32)


def _check_logits(network: Any, sample: Any, classes: int, *, has_size: bool) -> None:
    """Check that a network returns one finite logit for each class.

    `has_size` is whether the Learner says which size it takes.
    """
    import torch

    from icon_classifier.conversion.graph import FORWARD_ERRORS

    try:
        with torch.inference_mode():
            logits = network(sample)
    except FORWARD_ERRORS as error:
        advice = (
            "if older versions of timm or torchvision made it, train it again with today's and "
            "export"
            if has_size
            else "no item transform says which size it takes: add Resize(size) to item_tfms, and "
            "train and export again"
        )
        raise UnsupportedLearnerError(f"the network cannot be run; {advice} ({error})") from error
    if not isinstance(logits, torch.Tensor):
        raise UnsupportedLearnerError(
            f"expected a network that returns logits, got {type(logits).__name__}; let it return "
            "one tensor of an output for each class, and train again"
        )
    if logits.shape != (len(sample), classes):
        raise UnsupportedLearnerError(
            f"expected logits of shape {(len(sample), classes)}, one for each class, got "
            f"{tuple(logits.shape)}; give the last layer one output for each class and train again"
        )
    if not logits.isfinite().all():
        raise UnsupportedLearnerError(
            "the network returns NaN or infinity: its training has diverged; "
            "train again with a smaller learning rate, then export"
        )


def _write(resampling: Any, graph: "Graph", sample: Any) -> bytes:
    """Return the ONNX model of a graph, without metadata, after comparing it with torch."""
    import torch

    from icon_classifier.conversion.graph import to_onnx
    from icon_classifier.conversion.padding import with_fixed_padding

    whole = torch.nn.Sequential(resampling, with_fixed_padding(graph, resampling(sample[:1])))
    converted = to_onnx(whole.eval(), sample[:2], graph.output_names)
    _compare(converted, resampling, graph, sample)
    return converted


def _metadata(
    learner: ExportedLearner, notes: _Notes, graph: "Graph", sources: Mapping[str, Any]
) -> str:
    """Return the metadata as JSON; docs/model-file.md describes the entries."""
    from icon_classifier.conversion.graph import OPSET

    unsure = notes.unsure
    entries = {
        "format": FORMAT,
        "labels": list(learner.labels),
        "mode": learner.transforms.mode,
        "transforms": learner.transforms.pipeline.to_json(),
        "mean": list(learner.transforms.mean),
        "std": list(learner.transforms.std),
        "temperature": notes.temperature,
        "unsure": unsure and {"score": unsure["score"], "threshold": float(unsure["threshold"])},
        "evidence": graph.without_evidence or True,
        "learner": {
            "network": learner.network,
            "resampled": [list(step.size) for step in learner.transforms.resamples],
            "loss": learner.loss,
            "fastai": learner.fastai_version,
            "left_out": list(learner.left_out),
            "assumed": [*learner.transforms.assumed, *learner.assumed],
        },
        **sources,
        "compiler_sha256": compiler_sha256(),
        "versions": {package: _version(package) for package in PACKAGES},
        "trained_with": learner.notes.get("versions", {}),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "trained": learner.notes.get("date"),
        "recipe": learner.notes.get("recipe"),
        "figures": learner.notes.get("figures", {}),
        "opset": OPSET,
    }
    return json.dumps(entries, ensure_ascii=False, allow_nan=False)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compare(converted: bytes, resampling: Any, graph: "Graph", sample: Any) -> None:
    """Check that ONNX Runtime's outputs are torch's, for one photo and for several."""
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(converted, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        resized = resampling(sample)
        # One at a time: several large photos would take the most memory of a training.
        singles = [graph(photo[None]) for photo in resized]
        expected = [torch.cat(parts).numpy() for parts in zip(*singles, strict=True)]
    rounding: list[float] | None = None
    for photos in (1, len(sample)):
        outputs = session.run(None, {"image": sample[:photos].numpy()})
        for index, name in enumerate(graph.output_names):
            theirs, ours = expected[index][:photos], outputs[index]
            allowed = EVIDENCE_TOLERANCE if name == "evidence" else TOLERANCE
            allowed *= max(1.0, float(np.abs(expected[index]).max()))
            if float(np.abs(theirs - ours).max()) > allowed:
                if rounding is None:
                    rounding = _rounding_errors(graph, resized, expected)
                allowed = max(allowed, MAX_ROUNDING * rounding[index])
            _check_difference(name, theirs, ours, allowed)
            if name == "logits":
                temperature = graph.score.temperature
                theirs, ours = softmax(theirs / temperature), softmax(ours / temperature)
                _check_difference("probabilities", theirs, ours, TOLERANCE)


def _rounding_errors(graph: "Graph", resized: Any, outputs: Sequence[Any]) -> list[float]:
    """Return by how much torch's own outputs are off at most, compared with float64."""
    import torch

    from icon_classifier.conversion.graph import FORWARD_ERRORS

    try:
        with torch.inference_mode():
            exact = copy.deepcopy(graph).double()(resized.double())
    except FORWARD_ERRORS:  # a layer that is for float32 only
        return [0.0] * len(outputs)
    return [
        float(np.abs(output - better.numpy()).max())
        for output, better in zip(outputs, exact, strict=True)
    ]


def _check_difference(name: str, expected: Any, actual: Any, allowed: float) -> None:
    difference = float(np.abs(expected - actual).max())
    if not difference <= allowed:  # NaN, too
        raise UnsupportedLearnerError(
            f"ONNX Runtime and torch differ by {difference:.2g} in {name}, expected at most "
            f"{allowed:.2g}; train another network and export it"
        )
