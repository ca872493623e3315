"""From a photo to its answer on the page: ``make bench-answers``.

In one run of Chromium on a running Voilà: from dropping a photo of 12 MB to the answer, on loopback
and on a line of 2 Mbit/s up; from choosing a small photo, and from the click on an example, to the
answer; and in process what a heat map costs beside a prediction.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import CDPSession, Page, expect

from bench.support import report
from bench.support.browser import chromium
from bench.support.measure import median_ms
from bench.support.report import Row
from icon_classifier.cli.smoke import example_photo
from icon_classifier.images import read_image_file
from icon_classifier.model.opening import open_model
from icon_classifier.page.ui import Classifier
from tests.support.browser import keep_file_choosers
from tests.support.servers import ROOT, voila

REPEATS = 7
LIMIT = 60_000.0
UP = 2_000_000 / 8
"""Bytes a second of the slow line, up; with 40 ms there and back."""

# The page's own clock, started by the event that brings the photo in: nothing of the test counts.
WATCH = """() => {
  const line = document.querySelector('.ic-line');
  let start, tell;
  window.watch = () => { window.answered = new Promise((resolve) => { tell = resolve; }); };
  for (const type of ['drop', 'change', 'click']) {
    addEventListener(type, () => { start = performance.now(); }, true);
  }
  new MutationObserver(() => {
    if (line.textContent.trim()) tell(performance.now() - start);
  }).observe(line, { childList: true, characterData: true, subtree: true });
}"""


def large_photo(folder: Path) -> Path:
    """A photo as a phone takes it: 12 megapixels, grain and all, close to 12 MB."""
    photo = Image.open(example_photo()).resize((3024, 4032), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 29, (4032, 3024, 1))
    pixels = np.clip(np.asarray(photo, np.float32) + grain, 0, 255).astype(np.uint8)
    path = folder / "phone.jpg"
    for quality in range(98, 80, -1):
        Image.fromarray(pixels).save(path, quality=quality)
        if path.stat().st_size <= 12.5e6:
            break
    return path


def seconds(page: Page, act: Callable[[], None]) -> float:
    """Seconds from the browser's event to the answer's line, as the page's clock has it."""
    page.evaluate("watch()")
    act()
    late = "new Promise((_, fail) => setTimeout(fail, 30_000, 'no answer in 30 s'))"
    return float(page.evaluate(f"Promise.race([answered, {late}])")) / 1000


def drop(page: Page, session: CDPSession, photo: Path) -> None:
    zone = page.locator(".ic-zone")
    zone.scroll_into_view_if_needed()  # an answer below may have moved it out of the window
    box = zone.bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(photo)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        where = {"x": box["x"] + 20, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **where})


def choose(page: Page, photo: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Another photo").click()
    chooser.value.set_files(photo)


def in_browser(folder: Path) -> list[Row]:
    """Measure a running page."""
    photo, grizzly = large_photo(folder), example_photo()
    size = f"{photo.stat().st_size / 1e6:.1f} MB"
    rows = []

    def measure(name: str, repeats: int, act: Callable[[], None], target: str) -> None:
        times = [seconds(page, act) for _ in range(repeats)]
        rows.append(Row(name, "s", [statistics.median(times)], target))

    with voila(ROOT) as server, chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        keep_file_choosers(page)
        page.goto(server.url)
        expect(page.get_by_role("button", name="Choose photos")).to_be_visible(timeout=LIMIT)
        page.evaluate(WATCH)
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        sent: list[int] = []
        session.on(
            "Network.webSocketFrameSent",
            lambda event: sent.append(3 * len(event["response"]["payloadData"]) // 4),
        )
        dropping = f"dropping a photo of {size} to its answer"
        measure(f"{dropping}, loopback", REPEATS, lambda: drop(page, session, photo), "≤ 1")
        rows.append(Row("bytes sent for that photo", "kB", [max(sent) / 1000]))
        choosing = "choosing a photo of 846 x 1000 pixels to its answer"
        measure(choosing, 2 * REPEATS, lambda: choose(page, grizzly), "≤ 0.2")
        example = page.get_by_role("button", name="Try the example grizzly")
        measure("click on an example to its answer", 2 * REPEATS, example.click, "≤ 0.2")
        slow = {"offline": False, "latency": 40, "downloadThroughput": 1e6, "uploadThroughput": UP}
        session.send("Network.emulateNetworkConditions", slow)
        slowly = f"{dropping}, 2 Mbit/s upstream"
        measure(slowly, REPEATS, lambda: drop(page, session, photo), "≤ 1")
    return rows


def in_process() -> list[Row]:
    """Measure a model with one thread, as in a kernel that was forked."""
    model, photo = open_model(ROOT, threads=1), read_image_file(example_photo())
    classifier = Classifier(str(ROOT))

    def explained() -> None:
        classifier.heat_map(photo.size, model.predict(photo, explain=True))

    plain = median_ms(lambda: model.predict(photo))
    heat = median_ms(explained) - plain
    return [
        Row("prediction of a decoded photo, in process, one core", "ms", [plain]),
        Row("heat map, in addition", "ms", [heat], "≤ 10"),
    ]


if __name__ == "__main__":
    options = report.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = in_browser(Path(folder)) + in_process()
    report.publish(options, [report.table(["measured"], rows)])
