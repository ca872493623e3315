"""What a photo, a visit and a start cost, beside rivals, in one run: ``make bench PHOTOS=folder``.

The bytes of a photo to its answer beside ``Learner.predict``; the page beside Gradio's, with one
visitor and with twenty; the API beside a plain Starlette app; compiling export.pkl and starting.
The photos are for a model of 8-bit integers, which is left out without them. Each part is also a
benchmark of its own, with more rivals and rounds.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import bench_api, bench_page, bench_visitors, report
from bench.measure import median_ms, run_process
from bench.report import Row
from icon_classifier.cli.smoke import example_photo
from icon_classifier.images import read_image
from icon_classifier.model.opening import EXPORT, open_model
from icon_classifier.system.memory import usable_cores
from icon_classifier.system.torch_setup import import_fastai
from scripts import server_process
from tests.support.learners import quiet
from tests.support.servers import ROOT

PAGES = ("slim", "Gradio")
MODELS = ("export.onnx", "`Learner.predict`")


def predictions(folders: dict[str, Path]) -> list[Row]:
    """Time models, and the Learner that they were made of, from a photo's bytes to its answer."""
    import_fastai()
    import torch
    from fastai.vision.all import PILImage, load_learner

    torch.set_num_threads(usable_cores())
    data = example_photo().read_bytes()
    with quiet():
        learner = load_learner(ROOT / EXPORT)

    def predict() -> None:
        with learner.no_bar(), learner.no_logging():
            learner.predict(PILImage.create(data))

    theirs = median_ms(predict)
    rows = []
    for name, folder in folders.items():
        model = open_model(folder)
        ours = median_ms(lambda model=model: model.predict(read_image(data)))
        target = "≤ 0.33 times" if name == "exact" else ""
        rows.append(Row(f"bytes of a photo to its answer, {name}", "ms", [ours, theirs], target))
    return rows


def starts() -> list[Row]:
    """Measure imports, the compilation of export.pkl, and `make app` a second time."""
    serving = (
        "import icon_classifier.model.session, icon_classifier.images, icon_classifier.page.ui"
    )
    fastai = "from icon_classifier.system.torch_setup import import_fastai as i; i()"
    imports = [
        statistics.median(run_process([sys.executable, "-c", code])[0] for _ in range(3))
        for code in (serving, fastai)
    ]
    with tempfile.TemporaryDirectory() as folder:
        export = shutil.copy(ROOT / EXPORT, folder)
        compiling, _ = run_process([sys.executable, "-m", "icon_classifier", "convert", export])
    port = server_process.free_port()
    command = [sys.executable, "-m", "scripts.serve"]
    with server_process.start(command, ROOT, os.environ | {"PORT": str(port)}, port) as server:
        starting = server.bind_seconds
    return [
        Row("imports to answer a photo, processor time", "s", imports, "≤ 0.5"),
        Row("compiling export.pkl, processor time", "s", [compiling], "≤ 8"),
        Row("`make app` a second time, until it listens", "s", [starting], "≤ 2"),
    ]


def main(photos: Path | None) -> Iterator[str]:
    """Yield the tables."""
    with bench_api.models_of(photos) as folders:
        yield report.table(MODELS, predictions(folders) + starts())
        api = bench_api.compare_servers(folders, [bench_api.plain], seconds=5, repeats=1)
        yield report.table(bench_api.COLUMNS[:2], api)
    yield report.table(PAGES, bench_page.compare_pages(PAGES, rounds=3))
    yield report.table(PAGES, asyncio.run(bench_visitors.compare_pages(PAGES, minutes=0)))


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder, to calibrate int8 on")
    options = parser.parse_args()
    report.publish(options, main(options.photos))
