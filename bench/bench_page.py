"""What opening the page takes, beside Gradio's, stock Voilà's and Jupyter's: ``make bench-page``.

A Chromium with an empty cache opens each page, then opens it again, both through a slow network,
and once more without. In turns, so that a busy moment of the machine hits all alike; medians. The
plain page, whose kernels take half a minute of each round, is measured once.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psutil
from playwright.sync_api import Browser, BrowserContext

from bench.rivals.pages import PAGES, add_pages
from bench.support import report
from bench.support.browser import SLOW_NETWORK, chromium
from bench.support.report import Row
from tests.support.servers import Server

# Notes when the button can be used: enabled, and in our page with an open connection.
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
    """What one visit took: seconds, bytes on the network, of them over HTTP, requests."""

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


def visit(context: BrowserContext, server: Server, *, slow: bool) -> Visit:
    """Open a page and leave it."""
    before = cpu_seconds(server)
    page = context.new_page()
    page.add_init_script(WATCH)
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    if slow:
        devtools.send("Network.emulateNetworkConditions", SLOW_NETWORK)
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


def measure(browser: Browser, server: Server) -> list[float]:
    """Visit a page three times: first, again, and first without the slow network.

    Returns
    -------
    list of float
        A figure for each row of :data:`FIGURES`.
    """
    context = browser.new_context()
    first = visit(context, server, slow=True)
    again = visit(context, server, slow=True)
    near = visit(browser.new_context(), server, slow=False)
    sizes = first.received / 1000, first.over_http / 1000, first.requests
    return [first.usable, first.paint, *sizes, again.usable, near.usable, near.cpu]


FIGURES = (
    ("first visit, usable", "s", "≤ 0.9"),
    ("first contentful paint", "s", "≤ 0.5"),
    ("first visit, WebSocket included, its frames as if not compressed", "kB", ""),
    ("first visit, over HTTP", "kB", "≤ 90"),
    ("first visit, requests", "", "≤ 10"),
    ("second visit, usable", "s", "≤ 0.55"),
    ("without the slow network, usable", "s", "≤ 0.5"),
    ("processor time of that visit, server and kernel", "s", ""),
)
"""Name, unit and target."""


def compare_pages(pages: Sequence[str], rounds: int = 5) -> list[Row]:
    """Measure pages in turns; return medians."""
    found: dict[str, list[list[float]]] = {name: [] for name in pages}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(PAGES[name]()) for name in pages}
        browser = stack.enter_context(chromium())
        for server in servers.values():  # to warm up: caches of files, imports, the warm parent
            visit(browser.new_context(), server, slow=False)
        for number in range(rounds):
            report.progress(f"opening pages, round {number + 1} of {rounds}")
            for name, server in servers.items():
                if name != "plain" or number == 0:
                    found[name].append(measure(browser, server))
    medians = [
        [statistics.median(values) for values in zip(*visits, strict=True)]
        for visits in found.values()
    ]
    columns = zip(*medians, strict=True)
    return [
        Row(*figure[:2], each, figure[2]) for figure, each in zip(FIGURES, columns, strict=True)
    ]


if __name__ == "__main__":
    parser = report.parser(__doc__)
    add_pages(parser)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = compare_pages(options.pages, options.rounds)
    report.publish(options, [report.table(options.pages, rows)])
