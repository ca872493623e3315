"""Does export.onnx answer as its Learner does? ``make bench-parity PHOTOS=folder``.

Every photo of a folder is read by :func:`icon_classifier.read_image` and classified by both
``Learner.predict`` and :class:`icon_classifier.Model`. The exit code is 1 if a label differs, or a
probability by more than 1e-4. The model's temperature is applied to the Learner's probabilities
first, which are computed without it. An up-to-date export.onnx beside the export is compared where
it is exact; else the export is compiled. Then smaller models are compared with it: of half
precision on all photos, of 8-bit integers on those that they were not calibrated on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from icon_classifier.cli.summary import comparison
from icon_classifier.compact.comparison import compare
from icon_classifier.compact.half import halve
from icon_classifier.compact.int8 import quantize
from icon_classifier.compact.photos import find_photos
from icon_classifier.errors import ConversionError, ImageError
from icon_classifier.images import read_image_file
from icon_classifier.model.info import read_metadata
from icon_classifier.model.opening import is_up_to_date
from icon_classifier.model.session import Model
from icon_classifier.system.torch_setup import import_fastai
from tests.support.learners import quiet

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4


def compile_in_subprocess(export: Path, folder: Path) -> tuple[bytes, float]:
    """Compile in a process of its own; return the file and the seconds, imports included."""
    target = folder / "export.onnx"
    command = [sys.executable, "-m", "icon_classifier", "convert", export, target, "--int8", ""]
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    return target.read_bytes(), seconds


def tempered(probabilities: np.ndarray, model: Model) -> np.ndarray:
    """Apply the model's temperature to a Learner's probabilities."""
    powers = np.power(probabilities.astype(np.float64), 1 / model.info.temperature)
    return powers / powers.sum()


def compare_smaller(exact: bytes, folder: Path) -> None:
    """Print what half precision and 8-bit integers change."""
    judged = {"half precision": asdict(compare(exact, halve(exact), find_photos(folder)))}
    try:
        judged["8-bit integers"] = Model(quantize(exact, folder)).info.raw["int8"]["judged"]
    except ConversionError as error:
        print(f"8-bit integers: {error}")
    for name, figures in judged.items():
        print(name, *(f"  {key}: {value}" for key, value in comparison(figures)), sep="\n")


def main(photos: Path, export: Path) -> int:
    """Compare and print; return the exit code."""
    beside = export.with_suffix(".onnx")
    if is_up_to_date(beside, export) and "int8" not in read_metadata(beside):
        exact = beside.read_bytes()
    else:
        with tempfile.TemporaryDirectory() as folder:
            exact, seconds = compile_in_subprocess(export, Path(folder))
        print(f"compiled in {seconds:.1f} s, imports included")
    model = Model(exact)
    print(f"temperature {model.info.temperature:.4g}", flush=True)

    import_fastai()
    from fastai.vision.all import PILImage, load_learner

    with quiet():
        learn = load_learner(export)
    compared, unreadable, mislabelled, differences = 0, 0, [], []
    times: dict[str, list[float]] = {"Learner.predict": [], "Model.predict": []}
    for path in sorted(path for path in photos.rglob("*") if path.is_file()):
        try:
            image = read_image_file(path)
        except ImageError:
            unreadable += 1
            continue
        start = time.perf_counter()
        with quiet(), learn.no_bar(), learn.no_logging():
            label, _, tensor = learn.predict(PILImage.create(image))
        middle = time.perf_counter()
        ours = model.predict(image)
        times["Learner.predict"].append(middle - start)
        times["Model.predict"].append(time.perf_counter() - middle)
        ranking = dict(ours.ranking)
        probabilities = np.array([ranking[each] for each in model.labels])
        compared += 1
        differences.append(float(np.abs(probabilities - tempered(tensor.numpy(), model)).max()))
        if ours.label != label:
            mislabelled.append(path)
    if not compared:
        print(f"no photos in {photos}")
        return 1
    print(f"{compared} photos compared, {unreadable} files that are not readable photos skipped")
    print(f"labels that differ: {len(mislabelled)} {[path.name for path in mislabelled[:5]]}")
    largest, median = max(differences), float(np.median(differences))
    print(f"largest difference of a probability: {largest:.2g} (median {median:.2g})")
    theirs, mine = (1000 * statistics.median(times[name]) for name in times)
    print(f"median of one prediction: Learner {theirs:.1f} ms, Model {mine:.1f} ms")
    compare_smaller(exact, photos)
    return 1 if mislabelled or largest > TOLERANCE else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("export", type=Path, nargs="?", default=ROOT / "export.pkl")
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.photos, arguments.export))
