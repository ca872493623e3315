"""What opening the page takes, beside Jupyter's, stock Voilà's and Gradio's: ``make bench-page``.

A Chromium with an empty cache opens each page, then opens it again, both through 4 Mbit/s each way
with 100 ms of latency (as Chromium's developer tools emulate them), and once more without either.
In turns, so that a busy moment of the machine hits all alike; medians. Names of rivals as arguments
leave the others out.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from bench.rivals.gradio_app import VERSION, gradio_app
from bench.rivals.plain import write_plain_page
from scripts.browser import find_browser
from tests.support.servers import NOTEBOOK, ROOT, Server, jupyter, voila

ROUNDS = 5
LINE = {
    "offline": False,
    "latency": 100,  # ms
    "downloadThroughput": 4e6 / 8,  # bytes per second
    "uploadThroughput": 4e6 / 8,
}

# Notes when the button can be used: it is there, enabled, and in our page its line is up, too.
WATCH = """
const look = () => {
  const root = document.documentElement;
  const button = Array.from(document.querySelectorAll('button'))
    .find(button => ['Choose photos', 'Classify Icon'].includes(button.innerText.trim())
      && button.getClientRects().length);
  const live = !root?.dataset.connection || root.dataset.connection === 'live';
  if (button && !button.disabled && live) {
    root.dataset.usable = performance.now();
  } else requestAnimationFrame(look);
};
look();
"""


@dataclass
class Visit:
    """What one visit took: seconds, bytes on the line, of them over HTTP, requests."""

    usable: float = 0
    paint: float = 0
    cpu: float = 0
    requests: int = 0
    received: float = 0
    over_http: float = 0


def cpu_seconds(server: Server) -> float:
    """CPU time of a server and its processes, those that have ended included."""
    process = psutil.Process(server.process.pid)
    tree = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:4]) for each in tree)


@contextmanager
def jupyter_page() -> Iterator[Server]:
    """Our page on Jupyter's own server."""
    with jupyter() as server:
        yield replace(server, url=f"{server.url}voila/render/{NOTEBOOK}")


def visit(context: BrowserContext, server: Server, *, slow: bool) -> Visit:
    """Open a page and leave it."""
    before = cpu_seconds(server)
    page = context.new_page()
    page.add_init_script(WATCH)
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    if slow:
        devtools.send("Network.emulateNetworkConditions", LINE)
    seen = Visit()

    def count(event: dict[str, Any]) -> None:
        address = event.get("url") or event["request"]["url"]
        seen.requests += not address.startswith(("data:", "blob:"))

    def add(event: dict[str, Any]) -> None:
        seen.received += event["encodedDataLength"]
        seen.over_http += event["encodedDataLength"]

    def add_frame(event: dict[str, Any]) -> None:
        data = event["response"]
        # Binary frames are shown in base64.
        seen.received += len(data["payloadData"]) * (0.75 if data["opcode"] == 2 else 1)

    devtools.on("Network.requestWillBeSent", count)
    devtools.on("Network.webSocketCreated", count)
    devtools.on("Network.loadingFinished", add)
    devtools.on("Network.webSocketFrameReceived", add_frame)
    page.goto(server.url, wait_until="commit", timeout=120_000)
    page.wait_for_selector("html[data-usable]", state="attached", timeout=120_000)
    page.wait_for_load_state("networkidle", timeout=120_000)
    seen.cpu = cpu_seconds(server) - before
    seen.usable = page.evaluate("document.documentElement.dataset.usable / 1000")
    seen.paint = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime / 1000"
    )
    page.goto("about:blank")  # leaves the page, so that its server may free what it holds
    page.close()
    return seen


def measure(browser: Browser, server: Server) -> dict[str, float]:
    """Visit a page three times: first, again, and first without the slow line."""
    context = browser.new_context()
    first = visit(context, server, slow=True)
    again = visit(context, server, slow=True)
    context.close()
    context = browser.new_context()
    near = visit(context, server, slow=False)
    context.close()
    return {
        "first visit, usable button, s": first.usable,
        "first contentful paint, s": first.paint,
        "first visit, kB": first.received / 1000,  # frames of the websocket before compression
        "first visit, kB over HTTP": first.over_http / 1000,
        "first visit, requests": first.requests,
        "repeat visit, usable button, s": again.usable,
        "loopback, usable button, s": near.usable,
        "CPU of server and kernel, s": near.cpu,
    }


def main(*only: str) -> None:
    """Measure and print; only some of the rivals where they are named."""
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = write_plain_page(folder, ROOT / "export.pkl").name
        rivals = {
            "slim": voila(),
            "Jupyter": jupyter_page(),
            "stock, ours": voila(ROOT, "--template=lab"),
            "plain": voila(folder, notebook=plain),
            f"Gradio {VERSION}": gradio_app(),
        }
        servers = {
            name: stack.enter_context(server)
            for name, server in rivals.items()
            if not only or name in only
        }
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox", "--disable-quic"]
        )
        for server in servers.values():  # to warm up: caches of files, imports, the warm parent
            context = browser.new_context()
            visit(context, server, slow=False)
            context.close()
        for _ in range(ROUNDS):
            for name, server in servers.items():
                for what, value in measure(browser, server).items():
                    figures[what][name].append(value)
        browser.close()
    print(f"{'':<32}" + "".join(f"{name:>15}" for name in servers))
    for what, columns in figures.items():
        medians = [statistics.median(values) for values in columns.values()]
        print(f"{what:<32}" + "".join(f"{median:>15.2f}" for median in medians))


if __name__ == "__main__":
    main(*sys.argv[1:])
