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
import mimetypes
import statistics
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

# Opens the site's worker on a page of its own.
OPEN = """
async (base) => {
  const text = await (await fetch(base)).text();
  const found = new DOMParser().parseFromString(text, 'text/html').querySelector('#site-config');
  const { worker: name, model, files } = JSON.parse(found.textContent);
  const worker = new Worker(new URL(name, base), { type: 'module' });
  const waiting = new Map();
  const isOpen = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.kind === 'ready') resolve();
      if (data.kind === 'failed') reject(new Error(data.reason));
      waiting.get(data.id)?.(data);
    };
  });
  worker.postMessage({ kind: 'open', config: { model, files }, base });
  window.classify = async (id, address) => {
    const source = await (await fetch(address)).blob();
    const answered = new Promise((resolve) => waiting.set(id, resolve));
    worker.postMessage({ kind: 'predict', id, source, explain: false, preview: false });
    return await answered;
  };
  await isOpen;
  return model.labels;
}
"""

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


class Server(ThreadingHTTPServer):
    """Serves a site below a path, and other files; counts the bytes."""

    daemon_threads = True

    def __init__(self, site: Path) -> None:
        self.files = {f"/repository/{path.name}": path.read_bytes() for path in site.iterdir()}
        self.files["/repository/"] = self.files["/repository/index.html"]
        self.sent = 0
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base = f"http://localhost:{self.server_port}/repository/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close all connections, and take no more."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        kind, _ = mimetypes.guess_type("index.html" if self.path.endswith("/") else self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")
        self.server.sent += len(data or b"")

    def log_message(self, *_: object) -> None:
        """Print nothing for each request."""


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


def compare(page: Page, server: Server, photos: list[Path], model: Model) -> dict[str, Parity]:
    """Classify photos as they are and as PNG, and compare with a model."""
    labels = page.evaluate(OPEN, server.base)
    parities = {"as it is": Parity(), "as PNG": Parity()}
    for number, path in enumerate(photos):
        image = read_image_file(path)
        expected = model.predict(image)
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        forms = (path.suffix, path.read_bytes()), (".png", file.getvalue())
        for place, (parity, (suffix, data)) in enumerate(
            zip(parities.values(), forms, strict=True)
        ):
            address = f"/photo{place}{suffix}"
            server.files[address] = data
            answer = page.evaluate("(parts) => classify(...parts)", [2 * number + place, address])
            if answer["kind"] != "answer":
                parity.refused.append(f"{path.name} ({answer['reason']})")
                continue
            ranking = {labels[index]: probability for index, probability in answer["ranking"]}
            parity.photos += 1
            parity.same_label += labels[answer["ranking"][0][0]] == expected.label
            parity.same_known += answer["known"] == expected.known
            differences = [abs(ranking[label] - p) for label, p in expected.ranking]
            parity.difference = max(parity.difference, *differences)
    return parities


def visit(browser: Browser, site: Path, photo: Path) -> dict[str, float]:
    """Open the page on a slow network, ask it, and come again: with the server, and without."""
    server = Server(site)
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(WATCH)
    figures: dict[str, float] = {}

    def come(what: str) -> Page:
        page, before = context.new_page(), server.sent
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", LINE)
        received: list[float] = []
        devtools.on(
            "Network.loadingFinished", lambda event: received.append(event["encodedDataLength"])
        )
        page.goto(server.base, wait_until="commit")
        figures[f"{what}, usable, s"] = _when(page, "usable")
        if what == "first visit":
            figures[f"{what}, usable, kB"] = sum(received) / 1e3
        figures[f"{what}, model ready, s"] = _when(page, "ready")
        page.evaluate("() => navigator.serviceWorker.ready")
        figures[f"{what}, MB in all"] = (server.sent - before) / 1e6
        page.set_input_files("input[multiple]", photo)
        figures[f"{what}, first answer, s"] = _when(page, "answered") - _when(page, "chosen")
        return page

    come("first visit").close()
    come("second visit").close()
    server.stop()
    come("offline").close()
    context.close()
    return figures


def _when(page: Page, name: str) -> float:
    """Wait until something is noted; return when it was, in seconds of the page."""
    page.wait_for_selector(f"html[data-{name}]", state="attached")
    return float(page.evaluate("name => document.documentElement.dataset[name]", name)) / 1e3


def main(photos: Path, folder: Path, rounds: int) -> int:
    """Measure and print; return the exit code."""
    model = open_model(folder)
    exact = (folder / "export.onnx").read_bytes()
    paths = [path for path in sorted(photos.rglob("*")) if is_photo_file(path) and _is_read(path)]
    if not paths:
        sys.exit(f"there is no photo in {photos}")
    failed = False
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        sites = {}
        for weights, data in {"float16": halve(exact), "float32": exact}.items():
            sites[weights] = Path(temporary, weights)
            write_site(sites[weights], folder, data)
            server = Server(sites[weights])
            page = browser.new_page()
            page.goto(f"{server.base}LICENSES.txt")
            for form, parity in compare(page, server, paths, model).items():
                print(f"{weights} weights ({len(data) / 1e6:.1f} MB), photos {form}: {parity}")
                most = TARGETS.get((weights, form), TARGET)
                failed |= parity.same_label < parity.photos or parity.difference > most
            page.close()
            server.stop()
        visits = [visit(browser, sites["float16"], paths[0]) for _ in range(rounds)]
        browser.close()
    for what in visits[0]:
        print(f"{what:<32}{statistics.median(figures[what] for figures in visits):>8.2f}")
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
