"""Compile export.pkl, a trained fastai Learner, to export.onnx, which all that serves runs on.

The steps, each of which may refuse: the file is the recorded one (SHA-256); its records name only
what a model has use for, and are followed on paper; what the Learner does to a photo can be
repeated exactly; the network is built and written as ONNX; ONNX Runtime gives torch's numbers. Only
then does the new file take its place, in one step.

torch is imported when it is needed, so that a refusal comes at once.
"""

import datetime
import importlib.metadata
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnxruntime

from icon_classifier.conversion.archive import Archive, open_archive
from icon_classifier.conversion.learner import ExportedLearner, read_learner
from icon_classifier.conversion.trust import check_hash, replace_file, unreadable
from icon_classifier.errors import (
    ConversionError,
    ModelError,
    UnsupportedLearnerError,
)
from icon_classifier.model.info import FORMAT, METADATA_KEY, ModelInfo

if TYPE_CHECKING:
    from icon_classifier.conversion.graph import Graph

TOLERANCE = 1e-4
"""Largest difference, relative above 1, between ONNX Runtime's outputs and torch's."""

_OUTPUTS = ("logits", "score", "evidence")

PACKAGES = ("fastai", "icon-classifier", "numpy", "onnx", "onnxruntime", "pillow", "timm", "torch")

_log = logging.getLogger(__name__)


def convert(export: str | Path, target: str | Path | None = None, *, trust: bool = False) -> Path:
    """Compile export.pkl to export.onnx.

    Parameters
    ----------
    export : str or pathlib.Path
        A Learner that ``learn.export()`` wrote, with its SHA-256 in a file beside it, named after
        it with ``.sha256`` appended, as ``sha256sum`` writes it.
    target : str or pathlib.Path, optional
        The file to write or replace; by default the name of `export` with ``.onnx``.
    trust : bool, optional
        The owner's consent to compile this very file though its SHA-256 is not on record, or is
        another: it is recorded. The file is still not run.

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    UntrustedExportError
        The file is not the recorded one, or names what a model has no use for.
    UnsupportedLearnerError
        It is no Learner that the page could repeat exactly.
    ConversionError
        A file is missing or damaged, or the folder cannot be written to.
    """
    export = Path(export)
    target = export.with_suffix(".onnx") if target is None else Path(target)
    with _lock(export) as waited:
        digest = check_hash(export, trust=trust)
        if waited and _is_fresh(target, digest):
            _log.info("%s was compiled by another process meanwhile", target)
            return target
        archive = open_archive(export)
        learner = read_learner(archive)
        _log.info("%s: a Learner of %d classes", export, len(learner.labels))
        with _one_thread():
            compiled = _compile(learner, archive, digest)
        replace_file(target, compiled)
    _log.info("wrote %s (%.1f MB)", target, len(compiled) / 1e6)
    return target


@contextmanager
def _lock(export: Path) -> Iterator[bool]:
    """Hold the lock of an export.pkl, so that it is compiled once at a time; say if one waited.

    The lock is on export.pkl itself: no file is left behind, and it ends with the process.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes may compile at once; each replaces in one step
        yield False
        return
    try:
        file = export.open("rb")
    except OSError as error:
        raise unreadable(export, error) from error
    with file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process compiles %s; waiting for it", export)
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            _log.warning("cannot lock %s (%s); going on without", export, error.strerror)
        yield waited


def _is_fresh(target: Path, digest: str) -> bool:
    """Whether a file is a good model that was compiled from the export.pkl of this SHA-256."""
    from icon_classifier.model.session import Model

    try:
        return Model.load(target).info.export_sha256 == digest
    except ModelError:
        return False


class _Notes(NamedTuple):
    """What training.py left in a Learner, checked."""

    temperature: float
    unsure: Mapping[str, Any] | None


def _check_notes(notes: Mapping[str, Any]) -> _Notes:
    temperature, unsure = notes.get("temperature", 1.0), notes.get("unsure")
    if not _is_number(temperature) or temperature <= 0:
        raise UnsupportedLearnerError(f"expected a temperature above 0, came {temperature!r:.80}")
    if unsure is not None and not (
        isinstance(unsure, dict) and _is_number(unsure.get("threshold"))
    ):
        raise UnsupportedLearnerError(f"expected unsure with a threshold, came {unsure!r:.80}")
    return _Notes(float(temperature), unsure)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _compile(learner: ExportedLearner, archive: Archive, digest: str) -> bytes:
    """Build the network, write it as ONNX, compare, and add the metadata."""
    notes = _check_notes(learner.notes)

    import torch

    from icon_classifier.conversion.graph import Graph, Score, to_onnx
    from icon_classifier.conversion.network import build_network
    from icon_classifier.conversion.padding import with_fixed_padding

    score = Score(notes.unsure, notes.temperature)
    network = build_network(learner.model, archive)
    width, height = learner.pipeline.size
    sample = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    _try_out(network, sample[:1], len(learner.labels))
    graph = Graph(network, score, sample[:1]).eval()
    fixed = Graph(with_fixed_padding(network, sample[:1]), score, sample[:1]).eval()
    model = onnx.load_from_string(to_onnx(fixed, sample[:2], fixed.output_names))
    metadata = _metadata(learner, notes, graph, digest)
    model.producer_name = "icon-classifier"
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
    try:
        onnx.checker.check_model(model)
        ModelInfo.from_json(metadata)
    except (onnx.checker.ValidationError, ModelError) as error:
        raise ConversionError(f"the compiled model is not valid: {error}") from error
    compiled: bytes = model.SerializeToString()
    _compare(compiled, graph, sample)
    return compiled


def _try_out(network: Any, sample: Any, classes: int) -> None:
    """Check that a network gives one logit for each class."""
    import torch

    try:
        with torch.inference_mode():
            shape = tuple(network(sample).shape)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise UnsupportedLearnerError(f"the network cannot be run: {error}") from error
    if shape != (len(sample), classes):
        raise UnsupportedLearnerError(
            f"expected one logit for each of {classes} classes, came shape {shape}"
        )


def _metadata(learner: ExportedLearner, notes: _Notes, graph: "Graph", digest: str) -> str:
    """Write down what the model says of itself; docs/model-file.md tells what each entry means."""
    from icon_classifier.conversion.graph import OPSET

    unsure = notes.unsure
    entries = {
        "format": FORMAT,
        "labels": list(learner.labels),
        "transforms": learner.pipeline.to_json(),
        "mean": list(learner.mean),
        "std": list(learner.std),
        "temperature": notes.temperature,
        "unsure": unsure and {"score": unsure["score"], "threshold": float(unsure["threshold"])},
        "evidence": graph.without_evidence or True,
        "export_sha256": digest,
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


def _compare(compiled: bytes, graph: "Graph", sample: Any) -> None:
    """Check that ONNX Runtime gives torch's numbers, for one photo and for several."""
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(compiled, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = [output.numpy() for output in graph(sample)]
    for photos in (1, len(sample)):
        came = session.run(None, {"image": sample[:photos].numpy()})
        for name, theirs, ours in zip(_OUTPUTS, expected, came, strict=False):
            if not np.allclose(theirs[:photos], ours, rtol=TOLERANCE, atol=TOLERANCE):
                apart = float(np.abs(theirs[:photos] - ours).max())
                raise UnsupportedLearnerError(
                    f"ONNX Runtime and torch differ by {apart:.2g} in {name}, batch {photos}"
                )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: on a busy machine its threads wait for each other, and long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
