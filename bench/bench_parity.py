"""Does export.onnx answer as its Learner does? ``make bench-parity PHOTOS=folder``.

Every photo of a folder is read by :func:`icon_classifier.read_image` and classified by both
``Learner.predict`` and :class:`icon_classifier.Model`. The exit code is 1 if a label differs, or a
probability by more than 1e-4. The model's temperature is applied to the Learner's probabilities
first, which are computed without it. An up-to-date export.onnx beside the export is compared where
it is exact; else the export is compiled. Then smaller models are compared with it: of half
precision on all photos, of 8-bit integers on those that they were not calibrated on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.support import report
from bench.support.measure import run_process
from bench.support.report import Row
from icon_classifier.compact.comparison import (
    MAX_CHANGED_LABELS,
    Comparison,
    compare,
    compare_answers,
)
from icon_classifier.compact.half import halve
from icon_classifier.compact.int8 import quantize
from icon_classifier.compact.photos import readable_photos
from icon_classifier.errors import ConversionError
from icon_classifier.images import read_image_file
from icon_classifier.model.info import read_metadata
from icon_classifier.model.opening import is_up_to_date
from icon_classifier.model.session import Model, Prediction
from icon_classifier.system.torch_setup import import_fastai
from tests.support.learners import quiet
from tests.support.servers import ROOT

HEADS = ("", "photos", "same label", 'same "not sure"', "probabilities differ by", "at most", "")
TOLERANCE = 1e-4


def line(name: str, found: Comparison, most: float, changed: float = 0) -> list[str]:
    """Return a line of a table: a comparison, and whether it changes no more than is allowed."""
    passed = found.photos - found.same_label <= changed * found.photos
    passed &= found.largest_difference <= most
    counts = map(str, (found.photos, found.same_label, found.same_unsure))
    return [name, *counts, f"{found.largest_difference:.2g}", f"{most:g}", report.verdict(passed)]


def learner_answer(model: Model, probabilities: npt.ArrayLike) -> Prediction:
    """Return a Learner's probabilities, shape (C,), as an answer of the model made of it.

    A Learner applies no temperature, and is never "not sure".
    """
    powers = np.asarray(probabilities, np.float64) ** (1 / model.info.temperature)
    ranking = tuple(zip(model.labels, (powers / powers.sum()).tolist(), strict=True))
    label, probability = max(ranking, key=lambda pair: pair[1])
    return Prediction(label, probability, ranking, known=True, score=0)


def compiled(export: Path) -> bytes:
    """Return the exact model of an export.pkl, compiled by the command line where need be."""
    beside = export.with_suffix(".onnx")
    if is_up_to_date(beside, export) and "int8" not in read_metadata(beside):
        return beside.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "export.onnx"
        command = [sys.executable, "-m", "icon_classifier", "convert", export, target]
        run_process([*command, "--int8", ""])
        return target.read_bytes()


def compare_with_learner(exact: bytes, export: Path, photos: list[Path]) -> Comparison:
    """Compare a model with the Learner that it was made of."""
    model = Model(exact)
    import_fastai()
    from fastai.vision.all import PILImage, load_learner

    with quiet():
        learn = load_learner(export)

    def predict(photo: Image.Image) -> Prediction:
        with quiet(), learn.no_bar(), learn.no_logging():
            return learner_answer(model, learn.predict(PILImage.create(photo))[2])

    return compare_answers(predict, model.predict, ((read_image_file(p), None) for p in photos))


def main(folder: Path, export: Path) -> tuple[list[str], bool]:
    """Return tables and sentences, and whether the model answers as its Learner."""
    exact, photos = compiled(export), readable_photos(folder)
    first = line("export.onnx and Learner", compare_with_learner(exact, export, photos), TOLERANCE)
    first[3] = ""  # a Learner is never "not sure"
    half = compare(exact, halve(exact), photos)
    lines = [first, line("half precision and exact", half, 0.01)]
    try:
        int8 = Comparison(**Model(quantize(exact, folder)).info.raw["int8"]["judged"])
    except ConversionError as error:
        costs = f"8-bit integers: {error}"
    else:
        lines.append(line("8-bit integers and exact", int8, 0.09, MAX_CHANGED_LABELS))
        rows = [
            Row("a prediction, processor time", "ms", int8.milliseconds[::-1], "≤ 0.57 times"),
            Row("size", "MB", (int8.megabytes or ())[::-1]),
        ]
        costs = report.table(["8-bit integers", "exact"], rows)
    return [report.markdown(HEADS, lines), costs], report.MISSED not in first


if __name__ == "__main__":
    parser = report.parser((__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("export", type=Path, nargs="?", default=ROOT / "export.pkl")
    options = parser.parse_args()
    parts, alike = main(options.photos, options.export)
    report.publish(options, parts)
    sys.exit(not alike)
