"""Choose how a model is made smaller for browsers, and say on photos what that changes."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icon_classifier.compact.comparison import compare
from icon_classifier.compact.half import halve
from icon_classifier.compact.int8 import quantize
from icon_classifier.compact.photos import readable_photos
from icon_classifier.model.session import Model


def shrink(
    exact: bytes, *, quantize_by: Path | None = None, compare_on: Path | None = None
) -> tuple[bytes, list[Mapping[str, Any]]]:
    """Store the weights of a model in half precision, or in 8-bit integers.

    Parameters
    ----------
    exact : bytes
        An export.onnx.
    quantize_by : pathlib.Path, optional
        A folder of photos to calibrate 8-bit integers by.
    compare_on : pathlib.Path, optional
        A folder of photos to compare the answers of both models on.

    Returns
    -------
    smaller : bytes
        The smaller export.onnx.
    comparisons : list of mapping
        The entries of each `Comparison`: of the quantization, and the one asked for.

    Raises
    ------
    ConversionError
        The model cannot be quantized, too many labels change, or there are too few photos.
    """
    if quantize_by:
        smaller = quantize(exact, quantize_by)
        comparisons = [Model(smaller).info.raw["int8"]["judged"]]
    else:
        smaller, comparisons = halve(exact), []
    if compare_on:
        comparisons.append(asdict(compare(exact, smaller, readable_photos(compare_on))))
    return smaller, comparisons
