"""Compare the photos per second of the command line and ``learn.get_preds``: ``make bench-bulk``.

Both classify the same files on the same cores, alternately, from file to probability; fastai uses
the cores its own way, a DataLoader with a worker process for each.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.support import report
from bench.support.report import Row
from icon_classifier.cli.predict import classify_files, find_photos
from icon_classifier.model.opening import open_model
from icon_classifier.system.memory import usable_cores
from icon_classifier.system.torch_setup import import_fastai
from tests.support.servers import ROOT


def main(folder: Path, repeats: int) -> list[Row]:
    """Measure both in turns."""
    paths = list(find_photos([str(folder)]))
    model = open_model(ROOT, threads=1, keep_memory=True)  # as the command line opens it

    # Threads that spin while they wait take the cores from the worker processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import_fastai()
    import torch
    from fastai.vision.all import load_learner

    cores = usable_cores()
    torch.set_num_threads(cores)
    learner = load_learner(ROOT / "export.pkl", cpu=True)

    def run_fastai() -> None:
        with learner.no_bar(), learner.no_logging():
            learner.get_preds(dl=learner.dls.test_dl(paths, num_workers=cores))

    def photos_per_second(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return len(paths) / (time.perf_counter() - start)

    runs = (lambda: list(classify_files(model, paths, threads=cores)), run_fastai)
    rounds = [[photos_per_second(run) for run in runs] for _ in range(repeats + 1)]
    medians = [statistics.median(rates) for rates in zip(*rounds[1:], strict=True)]  # warm
    return [Row(f"{len(paths)} photos", "photos/s", medians, "≥ 3 times")]


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = main(options.folder, options.repeats)
    report.publish(options, [report.table(["`predict`", "`learn.get_preds`"], rows)])
