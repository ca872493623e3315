"""The static site in Chromium: does it answer as export.onnx, and how soon? ``make bench-site``.

Every photo of a folder is classified by :class:`icon_classifier.Model` and by the site's worker,
with weights in half precision and in float32: the file as it is, and a copy as PNG, which every
decoder reads alike. The exit code is 1 if a label differs, or a probability by more than 0.01; for
the copies and float32 0.001.

Then a Chromium with an empty cache opens the page through a slow network, waits for the model and
asks; comes again, and once more when the server is gone. Medians.
"""

from __future__ import annotations

import functools
import io
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from bench.bench_parity import HEADS, line
from bench.support import report
from bench.support.browser import SLOW_NETWORK, chromium
from bench.support.report import Row
from icon_classifier.compact.comparison import Comparison, compare_answers
from icon_classifier.compact.half import halve
from icon_classifier.compact.photos import readable_photos
from icon_classifier.images import read_image_file
from icon_classifier.model.info import read_model_file
from icon_classifier.model.opening import MODEL, open_model
from icon_classifier.model.session import Model, Prediction
from icon_classifier.site.build import write_site
from tests.support.servers import ROOT
from tests.support.site_host import SiteHost, site_host
from tests.support.site_worker import SiteWorker

TIMEOUT_MS = 120_000
TARGETS = {
    "first visit, usable, s": "≤ 0.6",
    "first visit, usable, kB": "≤ 100",
    "first visit, first answer, s": "≤ 0.4",
    "offline, usable, s": "≤ 0.3",
    "offline, usable, kB": "≤ 0",
}

# Notes when the page can be used, when the model is there and when the answer changes, in ms.
WATCH = """
const root = () => document.documentElement;
const look = () => {
  const button = [...document.querySelectorAll('button')]
    .find((one) => one.innerText.trim() === 'Choose photos' && one.getClientRects().length);
  if (button) root().dataset.usable = performance.now();
  else requestAnimationFrame(look);
};
look();
const Plain = Worker;
window.Worker = class extends Plain {
  constructor(...parts) {
    super(...parts);
    this.addEventListener('message', ({ data }) => {
      if (data.kind === 'ready') root().dataset.ready = performance.now();
    });
  }
};
addEventListener('change', () => { root().dataset.chosen = performance.now(); }, true);
addEventListener('DOMContentLoaded', () => {
  const answered = () => { root().dataset.answered = performance.now(); };
  const line = document.querySelector('.ic-line');
  new MutationObserver(answered).observe(line, { childList: true });
});
"""

# Bytes that have arrived when the page can be used.
SIZE = """
() => performance.getEntries()
  .filter((entry) => entry.responseEnd <= document.documentElement.dataset.usable)
  .reduce((sum, entry) => sum + entry.transferSize, 0)
"""


def compare_site(worker: SiteWorker, photos: list[Path], model: Model) -> dict[str, Comparison]:
    """Compare a site's answers with a model's: to files as they are, and to copies as PNG."""

    def copy(path: Path) -> bytes:
        buffer = io.BytesIO()
        read_image_file(path).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def answer(file: bytes) -> Prediction:
        found = worker.predict(file)
        if found["kind"] != "answer":
            raise RuntimeError(f"expected an answer, got {found['reason']!r}")
        ranking = tuple((model.labels[index], p) for index, p in found["ranking"])
        return Prediction(*ranking[0], ranking, known=found["known"], score=0)

    @functools.cache
    def expected(path: Path) -> Prediction:
        return model.predict(read_image_file(path))

    every = [(path, None) for path in photos]
    return {
        "as they are": compare_answers(expected, lambda path: answer(path.read_bytes()), every),
        "as PNG": compare_answers(expected, lambda path: answer(copy(path)), every),
    }


def visit(browser: Browser, folder: Path, site: str, photo: Path) -> dict[str, float]:
    """Open the page on a slow network, ask it, and come again: with its host, and without."""
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(WATCH)
    figures: dict[str, float] = {}

    def come(what: str, host: SiteHost) -> None:
        page, asked = context.new_page(), len(host.paths)
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", SLOW_NETWORK)
        page.goto(f"{host.url}{site}/", wait_until="commit")
        figures[f"{what}, usable, s"] = _when(page, "usable")
        figures[f"{what}, usable, kB"] = page.evaluate(SIZE) / 1e3
        figures[f"{what}, model ready, s"] = _when(page, "ready")
        page.evaluate("() => navigator.serviceWorker.ready")
        figures[f"{what}, in all, kB"] = _bytes(folder, host.paths[asked:]) / 1e3
        page.set_input_files("input[multiple]", photo)
        figures[f"{what}, first answer, s"] = _when(page, "answered") - _when(page, "chosen")
        page.close()

    with site_host(folder) as host:
        come("first visit", host)
        come("second visit", host)
    come("offline", host)
    context.close()
    return figures


def _when(page: Page, name: str) -> float:
    """Wait until something is noted; return when it was, in seconds of the page."""
    page.wait_for_selector(f"html[data-{name}]", state="attached")
    return float(page.evaluate("name => document.documentElement.dataset[name]", name)) / 1e3


def _bytes(folder: Path, paths: list[str]) -> int:
    """Return the size of what was requested, uncompressed and without headers."""
    files = (folder / (f"{path}index.html" if path.endswith("/") else path)[1:] for path in paths)
    return sum(file.stat().st_size for file in files)


def main(photos: Path, project: Path, rounds: int) -> tuple[str, str]:
    """Return the tables of answers and of visits."""
    model = open_model(project)
    exact, paths = read_model_file(project / MODEL), readable_photos(photos)
    lines = []
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        folder = Path(temporary)
        for weights, data in {"half precision": halve(exact), "float32": exact}.items():
            write_site(folder / weights.split()[0], project, data)
            with site_host(folder) as host:
                page = browser.new_page()
                worker = SiteWorker(page, host, weights.split()[0])
                for form, found in compare_site(worker, paths, model).items():
                    most = 0.001 if (weights, form) == ("float32", "as PNG") else 0.01
                    name = f"{weights}, {len(data) / 1e6:.1f} MB, photos {form}"
                    lines.append(line(name, found, most))
                page.close()
        visits = [visit(browser, folder, "half", paths[0]) for _ in range(rounds)]
    rows = []
    for what in visits[0]:
        name, _, unit = what.rpartition(", ")
        value = statistics.median(figures[what] for figures in visits)
        rows.append(Row(name, unit, [value], TARGETS.get(what, "")))
    return report.markdown(HEADS, lines), report.table(["static site"], rows)


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, default=ROOT, help="the folder of export.onnx")
    parser.add_argument("--rounds", type=int, default=5, help="visits on the slow network")
    options = parser.parse_args()
    answers, visits = main(options.photos, options.model, options.rounds)
    report.publish(options, [answers, visits])
    sys.exit(report.MISSED in answers)
