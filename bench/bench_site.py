"""The static site in Chromium: does it answer as export.onnx, and how soon? ``make bench-site``.

Every photo of a folder is classified by :class:`icon_classifier.Model` and by the site's worker,
with weights in half precision and in float32: the file as it is, and a copy as PNG, which every
decoder reads alike. The exit code is 1 if a label differs, or a probability by more than 0.01; for
the copies and float32 0.001.

Then a Chromium with an empty cache opens the page through 4 Mbit/s and 100 ms of latency, as its
developer tools emulate them, waits for the model and asks; comes again, and once more when the
server is gone. Medians.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from icon_classifier.compact.half import halve
from icon_classifier.errors import ImageError
from icon_classifier.images import is_photo_file, read_image_file
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model
from icon_classifier.site.build import write_site
from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS
from tests.support.site_host import SiteHost, site_host
from tests.support.site_worker import SiteWorker

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_MS = 120_000
LINE = {
    "offline": False,
    "latency": 100,  # ms
    "downloadThroughput": 4e6 / 8,  # bytes per second
    "uploadThroughput": 4e6 / 8,
}
TARGET = 0.01
TARGETS = {("float32", "as PNG"): 0.001}

# Notes when the page can be used, when the model is there and when the line changes, in ms.
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


@dataclass
class Parity:
    """How answers of the browser differ from those of `Model`."""

    photos: int = 0
    same_label: int = 0
    same_known: int = 0
    difference: float = 0.0
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        refused = f"; refused: {', '.join(self.refused)}" if self.refused else ""
        return (
            f"{self.same_label} of {self.photos} labels alike, {self.same_known} as sure, "
            f"probabilities differ by {self.difference:.5f} at most{refused}"
        )


def compare(worker: SiteWorker, photos: list[Path], model: Model) -> dict[str, Parity]:
    """Classify photos by a site, as they are and as PNG, and compare with a model."""
    parities = {"as they are": Parity(), "as PNG": Parity()}
    for path in photos:
        image = read_image_file(path)
        expected = model.predict(image)
        copy = io.BytesIO()
        image.save(copy, "PNG", compress_level=1)
        files = path.read_bytes(), copy.getvalue()
        for parity, file in zip(parities.values(), files, strict=True):
            answer = worker.predict(file)
            if answer["kind"] != "answer":
                parity.refused.append(f"{path.name} ({answer['reason']})")
                continue
            ranking = {model.labels[index]: p for index, p in answer["ranking"]}
            parity.photos += 1
            parity.same_label += next(iter(ranking)) == expected.label
            parity.same_known += answer["known"] == expected.known
            differences = [abs(ranking[label] - p) for label, p in expected.ranking]
            parity.difference = max(parity.difference, *differences)
    return parities


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
        devtools.send("Network.emulateNetworkConditions", LINE)
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


def main(photos: Path, project: Path, rounds: int) -> int:
    """Measure and print; return the exit code."""
    model = open_model(project)
    exact = (project / "export.onnx").read_bytes()
    paths = [path for path in sorted(photos.rglob("*")) if is_photo_file(path) and _is_read(path)]
    if not paths:
        sys.exit(f"there is no photo in {photos}")
    failed = False
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        for weights, data in {"float16": halve(exact), "float32": exact}.items():
            write_site(folder / weights, project, data)
            with site_host(folder) as host:
                page = browser.new_page()
                found = compare(SiteWorker(page, host, weights), paths, model)
                page.close()
            for form, parity in found.items():
                print(f"{weights} ({len(data) / 1e6:.1f} MB), photos {form}: {parity}", flush=True)
                most = TARGETS.get((weights, form), TARGET)
                failed |= parity.same_label < parity.photos or parity.difference > most
        visits = [visit(browser, folder, "float16", paths[0]) for _ in range(rounds)]
        browser.close()
    for what in visits[0]:
        print(f"{what:<32}{statistics.median(figures[what] for figures in visits):>10.2f}")
    return int(failed)


def _is_read(path: Path) -> bool:
    try:
        read_image_file(path)
    except ImageError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", type=Path, default=ROOT, help="the folder of export.onnx")
    parser.add_argument("--rounds", type=int, default=5, help="visits on the slow network")
    options = parser.parse_args()
    sys.exit(main(options.photos, options.model, options.rounds))
