"""What a photo, a visit and a start cost, beside rivals, in one run: ``make bench PHOTOS=folder``.

The bytes of a photo to its answer beside ``Learner.predict``; the page beside Gradio's, with one
visitor and with twenty; the API beside a plain Starlette app; many visitors and large photos under
a memory limit; converting export.pkl, and ``make app`` in a new clone. The photos are for a model
of 8-bit integers, which is left out without them. Most parts are also benchmarks of their own, with
more rivals and rounds.
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

from bench import bench_api, bench_limit, bench_page, bench_visitors
from bench.support import report
from bench.support.measure import median_ms, run_process
from bench.support.report import Row
from icon_classifier.cli.smoke import example_photo
from icon_classifier.images import read_image
from icon_classifier.model.opening import EXPORT, open_model
from icon_classifier.system.memory import usable_cores
from icon_classifier.system.torch_setup import import_fastai
from scripts import server_process
from tests.support.learners import quiet
from tests.support.servers import ROOT, voila

PAGES = ("slim", "Gradio")
MODELS = ("export.onnx", "`Learner.predict`")


def predictions(folders: dict[str, Path]) -> list[Row]:
    """Time models, and the Learner that they were made of, from a photo's bytes to its answer."""
    report.progress("predictions")
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
    """Measure imports, the compilation of export.pkl, and `make app` twice in a new clone."""
    report.progress("imports and compilation")
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
        clone = Path(folder) / "clone"
        run_process(["git", "clone", "--quiet", ROOT, clone])
        first, second = make_app(clone), make_app(clone)
    return [
        Row("imports to answer a photo, processor time", "s", imports, "≤ 0.5"),
        Row("converting export.pkl, processor time", "s", [compiling], "≤ 8"),
        Row("`make app` in a new clone, until it listens", "s", [first], "≤ 60"),
        Row("`make app` a second time, until it listens", "s", [second], "≤ 2"),
    ]


def make_app(folder: Path) -> float:
    """Return the seconds of `make app` until it listens."""
    report.progress("make app")
    port = server_process.free_port()
    command = ["make", "app", f"PORT={port}"]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # as on a user's machine
    with server_process.start(command, folder, environment, port, timeout=900) as server:
        return server.bind_seconds


def crowds(folders: dict[str, Path]) -> list[Row]:
    """Measure twenty visitors without a browser at pages of several models, the last one first."""
    found = []
    for name, folder in reversed(folders.items()):
        report.progress(f"visitors without a browser, {name}")
        with voila(folder) as server:
            found.append(asyncio.run(bench_visitors.crowds(server, 20)))
    return bench_visitors.rows_of(found)


def main(photos: Path | None) -> Iterator[str]:
    """Yield the tables."""
    with bench_api.models_of(photos) as folders:
        yield report.table(MODELS, predictions(folders) + starts())
        yield report.table(
            bench_api.COLUMNS[:2], bench_api.compare_servers(folders, [bench_api.plain])
        )
        if photos:
            yield report.table(list(reversed(folders)), crowds(folders))
    yield report.table(PAGES, bench_page.compare_pages(PAGES, rounds=3))
    yield report.table(PAGES, asyncio.run(bench_visitors.compare_pages(PAGES, minutes=0)))
    yield from bench_limit.measure_most()


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder, to calibrate int8 on")
    options = parser.parse_args()
    report.publish(options, main(options.photos))
