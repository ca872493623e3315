"""From a photo to its answer on the page: ``make bench-answers``.

In one run of Chromium on a running Voilà: from dropping a photo of 12 MB to the answer, on loopback
and on a line of 2 Mbit/s up; from choosing a small photo, and from the click on an example, to the
answer; and in process what a heat map costs beside a prediction.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import CDPSession, Page, expect, sync_playwright

from bench.bench_main import median_ms
from icon_classifier.images import read_image_file
from icon_classifier.model.opening import open_model
from icon_classifier.page.ui import Classifier
from icon_classifier.server.visitor import example_photo
from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS, keep_file_choosers
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


def told(name: str, values: list[float], goal: str) -> None:
    middle, worst = statistics.median(values), max(values)
    print(f"{name:<46} {middle:6.3f} s   worst {worst:6.3f} s   to reach {goal}")


def in_browser(folder: Path) -> None:
    photo, grizzly = large_photo(folder), example_photo()
    print(f"The photo has {photo.stat().st_size / 1e6:.1f} MB.")
    with voila(ROOT) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
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
        times = [seconds(page, lambda: drop(page, session, photo)) for _ in range(REPEATS)]
        told("drop to answer, loopback", times, "1.0 s")
        print(f"{'what travelled of it':<46} {max(sent) / 1e3:6.0f} kB")
        times = [seconds(page, lambda: choose(page, grizzly)) for _ in range(2 * REPEATS)]
        told("choosing a photo of 846 x 1000 pixels to answer", times, "0.2 s")
        example = page.get_by_role("button", name="Try the example grizzly")
        times = [seconds(page, example.click) for _ in range(2 * REPEATS)]
        told("click on the example to answer", times, "0.2 s")
        slow = {"offline": False, "latency": 40, "downloadThroughput": 1e6, "uploadThroughput": UP}
        session.send("Network.emulateNetworkConditions", slow)
        times = [seconds(page, lambda: drop(page, session, photo)) for _ in range(REPEATS)]
        told("drop to answer, 2 Mbit/s up", times, "1.0 s")
        browser.close()


def in_process() -> None:
    # One thread, as in a kernel that was forked.
    model, photo = open_model(ROOT, threads=1), read_image_file(example_photo())
    classifier = Classifier(str(ROOT))

    def explained() -> None:
        classifier.heat_map(photo.size, model.predict(photo, explain=True))

    start = time.process_time()
    plain = median_ms(lambda: model.predict(photo))
    heat = median_ms(explained) - plain
    print(f"{'prediction, in process':<46} {plain:6.1f} ms")
    print(f"{'heat map, in process, besides':<46} {heat:6.1f} ms                    to reach 10 ms")
    print(f"({time.process_time() - start:.1f} s of CPU time)")


def main() -> None:
    in_process()
    with tempfile.TemporaryDirectory() as folder:
        in_browser(Path(folder))


if __name__ == "__main__":
    main()
