"""Does export.onnx answer as its Learner does? ``make bench-parity [PHOTOS=folder]``.

Every photo of a folder goes through :func:`icon_classifier.read_image` and then through both
``Learner.predict`` and :class:`icon_classifier.Model`. It ends with an error if a label differs, or
a probability by more than 1e-4. Where the model has a temperature other than 1, the Learner's
probabilities are brought to it first: they know nothing of it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from icon_classifier.conversion.torch_setup import import_fastai
from icon_classifier.errors import ImageError
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from tests.support.learners import quiet

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4


def compile_beside(export: Path, folder: Path) -> tuple[Model, float]:
    """Compile in a process of its own; return the model and the seconds, imports included."""
    target = folder / "export.onnx"
    code = (
        "import sys; from icon_classifier.conversion.convert import convert; convert(*sys.argv[1:])"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, export, target], cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    return Model.load(target), seconds


def tempered(probabilities: np.ndarray, model: Model) -> np.ndarray:
    """Apply the model's temperature to a Learner's probabilities, which know of none."""
    powers = np.power(probabilities.astype(np.float64), 1 / model.info.temperature)
    return powers / powers.sum()


def main(photos: Path, export: Path) -> int:
    """Compare and print; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        model, seconds = compile_beside(export, Path(folder))
    print(f"compiled in {seconds:.1f} s, the start of Python and all imports included")
    print(f"temperature {model.info.temperature:.4g}", flush=True)

    import_fastai()
    from fastai.vision.all import PILImage, load_learner

    with quiet():
        learn = load_learner(export)
    compared, unread, other_label, apart = 0, 0, [], []
    times: dict[str, list[float]] = {"Learner.predict": [], "Model.predict": []}
    for path in sorted(path for path in photos.rglob("*") if path.is_file()):
        try:
            image = read_image_file(path)
        except ImageError:
            unread += 1
            continue
        start = time.perf_counter()
        with quiet(), learn.no_bar(), learn.no_logging():
            label, _, tensor = learn.predict(PILImage.create(image))
        between = time.perf_counter()
        ours = model.predict(image)
        times["Learner.predict"].append(between - start)
        times["Model.predict"].append(time.perf_counter() - between)
        ranking = dict(ours.ranking)
        probabilities = np.array([ranking[each] for each in model.labels])
        compared += 1
        apart.append(float(np.abs(probabilities - tempered(tensor.numpy(), model)).max()))
        if ours.label != label:
            other_label.append(path)
    if not compared:
        print(f"no photos in {photos}")
        return 1
    print(f"{compared} photos compared, {unread} files that are no readable photo left out")
    print(f"labels that differ: {len(other_label)} {[path.name for path in other_label[:5]]}")
    print(f"largest difference of a probability: {max(apart):.2g} (median {np.median(apart):.2g})")
    theirs, mine = (1000 * statistics.median(times[name]) for name in times)
    print(f"median of one prediction: Learner {theirs:.1f} ms, Model {mine:.1f} ms")
    return 1 if other_label or max(apart) > TOLERANCE else 0


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    photos = arguments[0] if arguments else ROOT.parent / "shared" / "data" / "bears"
    raise SystemExit(main(photos, arguments[1] if len(arguments) > 1 else ROOT / "export.pkl"))
