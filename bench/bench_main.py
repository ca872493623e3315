"""Compare this page with a plain page that loads fastai in its kernel: ``make bench``.

Measured in one run: classifying the bytes of a photo against ``Learner.predict``, the imports for
serving against fastai's, and for both pages the seconds to a usable button, from click to answer,
and the memory per visitor.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, expect, sync_playwright

from bench.rivals.plain import write_plain_page
from icon_classifier.images import read_image, thumbnail
from icon_classifier.model.opening import open_model
from icon_classifier.server.visitor import example_photo
from scripts.browser import find_browser
from tests.support.browser import keep_file_choosers
from tests.support.servers import ROOT, Server, voila

REPEATS = 30
VISITS = 3


def median_ms(call: Callable[[], object]) -> float:
    """Median of the milliseconds of a call, after two to warm up."""
    call(), call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def import_seconds(code: str) -> float:
    """Median of the seconds that a new Python takes for some imports, less an empty one."""

    def once(text: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], cwd=ROOT, check=True)
        return time.perf_counter() - start

    once(code)
    return statistics.median(once(code) - once("pass") for _ in range(5))


def pss_mb(process: psutil.Process) -> float:
    """Proportional memory of a process and all below it, in MB."""
    tree = [process, *process.children(recursive=True)]
    return sum(p.memory_full_info().pss for p in tree) / 1e6


def visit(browser: Browser, server: Server, photo: Path) -> tuple[float, float, float]:
    """Open the page, classify a photo; seconds to the button, seconds to the answer, MB more."""
    process = psutil.Process(server.process.pid)
    before = pss_mb(process)
    context = browser.new_context()
    page = context.new_page()
    keep_file_choosers(page)
    start = time.perf_counter()
    page.goto(server.url, wait_until="commit")
    choose = page.get_by_role("button", name=re.compile("Choose photos|Choose a photo"))
    expect(choose).to_be_enabled(timeout=120_000)
    usable = time.perf_counter() - start
    with page.expect_file_chooser() as chooser:
        choose.click()
    start = time.perf_counter()
    chooser.value.set_files(photo)
    button = page.get_by_role("button", name="Classify Icon")
    if button.count():  # on the plain page; ours answers by itself
        page.wait_for_function("document.body.textContent.includes('(1)')")
        start = time.perf_counter()
        button.click()
    expect(page.get_by_text("Probability: ")).to_be_visible(timeout=120_000)
    answered = time.perf_counter() - start
    memory = pss_mb(process) - before
    context.close()
    return usable, answered, memory


def measure_page(
    browser: Browser, serve: AbstractContextManager[Server], photo: Path
) -> tuple[float, float, float]:
    """Medians over some visits."""
    with serve as server:
        visits = [visit(browser, server, photo) for _ in range(VISITS)]
    usable, answered, memory = (statistics.median(column) for column in zip(*visits, strict=True))
    return usable, answered, memory


def row(name: str, ours: float, plain: float, unit: str) -> None:
    print(f"{name:<34}{ours:>10.3f} {plain:>10.3f} {unit:<4}{ours / plain:>8.3f}", flush=True)


def main() -> None:
    photo = example_photo()
    data = photo.read_bytes()
    small = thumbnail(read_image(data), 640)
    print(f"{'':<34}{'ours':>10} {'plain':>10} {'':<4}{'ratio':>8}")

    model = open_model(ROOT)
    from icon_classifier.system.torch_setup import import_fastai

    import_fastai()
    import torch
    from fastai.vision.all import PILImage, load_learner

    torch.set_num_threads(2)
    learner = load_learner(ROOT / "export.pkl", cpu=True)

    def plain(content: bytes) -> object:
        with learner.no_bar(), learner.no_logging():
            return learner.predict(PILImage.create(content))

    for name, content in (("grizzly", data), ("640 px", small)):
        ours = median_ms(lambda c=content: model.predict(read_image(c)))
        row(f"bytes to Prediction, {name}", ours, median_ms(lambda c=content: plain(c)), "ms")
    serving = (
        "import icon_classifier.model.session, icon_classifier.images, icon_classifier.page.ui"
    )
    fastai = "from icon_classifier.system.torch_setup import import_fastai as i; i()"
    row("import", import_seconds(serving), import_seconds(fastai), "s")

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        notebook = write_plain_page(Path(folder), ROOT / "export.pkl")
        ours_page = measure_page(browser, voila(), photo)
        plain_page = measure_page(browser, voila(Path(folder), notebook=notebook.name), photo)
        names = ("page usable", "click to answer", "memory of a visitor (PSS)")
        for name, unit, one, other in zip(
            names, ("s", "s", "MB"), ours_page, plain_page, strict=True
        ):
            row(name, one, other, unit)
        browser.close()


if __name__ == "__main__":
    main()
