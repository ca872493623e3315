"""Compare the photos per second of the command line and ``learn.get_preds``: ``make bench-bulk``.

Both classify the same files on the same cores, alternately, from file to probability; fastai uses
the cores its own way, a DataLoader with a worker process for each. The predictions are compared
photo by photo.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

from icon_classifier.cli.predict import classify_files, find_photos
from icon_classifier.model.opening import open_model
from icon_classifier.system.memory import usable_cores
from icon_classifier.system.torch_setup import import_fastai
from tests.support.servers import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=ROOT / "data/bears", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if not options.folder.is_dir():
        raise SystemExit(f"expected a folder of photos, got {options.folder}")
    paths = list(find_photos([str(options.folder)]))
    model = open_model(ROOT, threads=1, keep_memory=True)  # as the command line opens it

    # Threads that spin while they wait take the cores from the worker processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import_fastai()
    import torch
    from fastai.vision.all import load_learner

    cores = usable_cores()
    torch.set_num_threads(cores)
    learner = load_learner(ROOT / "export.pkl", cpu=True)
    labels = list(learner.dls.vocab)

    def run_onnx() -> np.ndarray:
        """Return float64 of shape (N, C), the classes in the order of the Learner."""
        records = list(classify_files(model, paths, threads=cores))
        rows = [{e["label"]: e["probability"] for e in record["ranking"]} for record in records]
        return np.array([[row[label] for label in labels] for row in rows])

    def run_fastai() -> np.ndarray:
        with learner.no_bar(), learner.no_logging():
            loader = learner.dls.test_dl(paths, num_workers=cores)
            return learner.get_preds(dl=loader)[0].double().numpy()

    temperature = model.info.temperature
    first, second = run_onnx(), run_fastai()  # warms both up
    # The Learner does not apply the temperature, which changes probabilities but no label.
    tempered = second ** (1 / temperature)
    tempered /= tempered.sum(axis=1, keepdims=True)
    same = (first.argmax(1) == second.argmax(1)).sum()
    print(f"{len(paths)} photos, {cores} cores, {options.repeats} alternating runs of each")
    print(f"same label: {same} of {len(paths)}; probabilities differ by at most", end=" ")
    print(f"{np.abs(first - tempered).max():.1e}")

    rates: dict[str, list[float]] = {"icon-classifier predict": [], "learn.get_preds": []}
    for _ in range(options.repeats):
        for (name, measured), run in zip(rates.items(), (run_onnx, run_fastai), strict=True):
            start = time.perf_counter()
            run()
            measured.append(len(paths) / (time.perf_counter() - start))
            print(f"  {name:<26}{measured[-1]:8.1f} photos/s", flush=True)
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    for name, measured in rates.items():
        print(f"{name:<28}{statistics.median(measured):8.1f} photos/s (median)")
    print(f"{'ratio':<28}{statistics.median(ratios):8.2f}")


if __name__ == "__main__":
    main()
