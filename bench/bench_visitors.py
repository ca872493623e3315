"""Many visitors at the same time, beside Gradio's and other pages: ``make bench-visitors``.

In Chromium: seconds from navigation to a usable button, and from the click to the answer. By the
proportional set size (PSS) of the server's whole process tree: memory at rest and what each further
visitor adds, page open and a prediction made. Then twenty who have chosen a photo click at once,
twenty choose and click at once, and visits for half a minute by tabs that open, ask and close. At
our own page twenty also do so without a browser, which takes most of the processors otherwise.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from playwright.async_api import Browser, Page, async_playwright

from bench.rivals.pages import PAGES, add_pages
from bench.support import report
from bench.support.measure import p95
from bench.support.report import Row
from icon_classifier.cli.smoke import example_photo
from icon_classifier.server.visitor import Visit
from scripts.browser import find_browser
from scripts.server_process import tree_memory
from tests.support.browser import ARGUMENTS, keep_file_choosers
from tests.support.servers import Server

STEPS = (1, 5, 10, 20)
BUTTON = re.compile("Classify Icon|Try the example grizzly")
"""What is pressed for an answer: our page answers each photo by itself, its example at a click."""
LIMIT_MB = 512
WAIT_MS = 180_000
PATIENCE = 30.0
"""Seconds after which a visitor who has no answer leaves."""
PLAIN_VISITORS = 3  # 495 MB each; more say nothing new

ANSWER = """() => document.querySelector('[data-testid="label-output-value"]') !== null
    || [...document.querySelectorAll('.widget-label')]
        .some(label => /^(Prediction|Not sure):/.test(label.textContent))"""

# The page's own clock, from a click or a chosen file on: Playwright's checks and polling do not
# count.
WATCH = """type => {
    const answered = ANSWER;
    window.answer = new Promise(tell => {
        let start;
        const begin = () => { start = performance.now(); };
        addEventListener(type, begin, { capture: true, once: true });
        const observer = new MutationObserver(() => {
            if (start === undefined || !answered()) return;
            observer.disconnect();
            tell((performance.now() - start) / 1000);
        });
        observer.observe(document.body, { childList: true, characterData: true, subtree: true });
    });
}""".replace("ANSWER", ANSWER)

# Before a page is asked again, so that the former answer is not taken for the new one.
FORGET = """() => {
    document.querySelector('[data-testid="label-output-value"]')?.remove();
    for (const label of document.querySelectorAll('.widget-label'))
        if (/^(Prediction|Not sure):/.test(label.textContent)) label.textContent = '';
}"""

Figures = dict[tuple[str, str, str], float]
"""By their names, units and targets."""


async def settled(server: Server) -> float:
    """Wait until the memory has stopped to change, at most ten seconds, and return it."""
    before = tree_memory(server.process.pid)
    for _ in range(5):
        await asyncio.sleep(2)
        now = tree_memory(server.process.pid)
        if abs(now - before) < 0.5:
            return now
        before = now
    return before


async def open_page(browser: Browser, url: str) -> tuple[Page, float]:
    """Open a page as a new visitor; also return the seconds until its button can be used."""
    page = await (await browser.new_context()).new_page()
    keep_file_choosers(page)
    page.set_default_timeout(WAIT_MS)
    started = time.perf_counter()
    await page.goto(url, wait_until="commit")
    await page.get_by_role("button", name=BUTTON, disabled=False).wait_for()
    await page.wait_for_function(
        "() => (document.documentElement.dataset.connection ?? 'live') === 'live'"
    )
    return page, time.perf_counter() - started


async def choose(page: Page) -> None:
    """Hand the page a photo, and wait until it has it; not on our page, which has its example."""
    if await page.locator(".ic-zone").count():
        return
    plain = page.get_by_role("button", name=re.compile(r"Choose a photo \("))
    if await plain.count():
        async with page.expect_file_chooser() as waiting:
            await plain.click()
        await (await waiting.value).set_files(example_photo())
        await page.get_by_text("(1)").wait_for()
    else:
        await page.locator("input[type=file]").first.set_input_files(example_photo())
        await page.get_by_role("button", name="Remove Image").wait_for()


async def ask(page: Page) -> float:
    """Press the button; return the seconds from the click until the answer is there."""
    await page.evaluate(WATCH, "click")
    await page.get_by_role("button", name=BUTTON).click()
    return await answer(page)


async def answer(page: Page) -> float:
    """Return the seconds from what `WATCH` waits for until the answer is there."""
    return float(await asyncio.wait_for(page.evaluate("window.answer"), WAIT_MS / 1000))


async def choose_and_ask(page: Page) -> float:
    """Choose and press without a pause; return the seconds from choosing to the answer."""
    if await page.locator(".ic-zone").count():  # answers what is chosen by itself
        await page.evaluate(WATCH, "change")
        await page.set_input_files("input[multiple]", example_photo())
        return await answer(page)
    started = time.perf_counter()
    await choose(page)
    await ask(page)
    return time.perf_counter() - started


def at_the_same_time(what: str, times: list[float]) -> Figures:
    """Return the figures of seconds that visitors waited."""
    name = f"{what} at the same time"
    return {
        (f"{name}, median", "s", ""): statistics.median(times),
        (f"{name}, 95th percentile", "s", "≤ 0.5"): p95(times),
    }


async def measure(browser: Browser, server: Server, most: int, minutes: float) -> Figures:
    """Measure a page."""
    memory = {0: await settled(server)}
    usable, answers, pages = [], [], []
    for count in range(1, most + 1):
        page, seconds = await open_page(browser, server.url)
        pages.append(page)
        usable.append(seconds)
        await choose(page)
        answers.append(await ask(page))
        if count in STEPS or count == most:
            memory[count] = await settled(server)
    each = (memory[most] - memory[1]) / (most - 1)
    figures = {
        ("page usable, loopback, median", "s", "≤ 0.9"): statistics.median(usable),
        ("click to answer, median", "s", "≤ 0.06"): statistics.median(answers),
        ("memory at rest", "MB", "≤ 200"): memory[0],
        **{(f"memory, {n} visitor{'s' * (n > 1)}", "MB", ""): memory[n] for n in memory if n},
        ("each further visitor", "MB", "≤ 13"): each,
        (f"visitors in {LIMIT_MB} MB", "", "≥ 20"): max(0, (LIMIT_MB - memory[1]) // each + 1),
    }
    gradio = await pages[0].locator("[data-testid=label]").count()
    if most == max(STEPS) and not gradio:
        for what, act in (("click", ask), ("choose and click", choose_and_ask)):
            for page in pages:
                await page.evaluate(FORGET)
            times = await asyncio.gather(*map(act, pages))
            figures |= at_the_same_time(f"{most} {what}", times)
    for page in pages:
        await page.context.close()
    if minutes:
        done, left = await sustained(browser, server, minutes)
        figures["visits a minute, four at a time", "", ""] = done
        figures["of them left without an answer", "", "≤ 0"] = left
    return figures


async def crowds(server: Server, count: int) -> Figures:
    """Let visitors without a browser click all at once, and choose and click."""
    clicking = await crowd(server, count, chosen=True)
    choosing = await crowd(server, count, chosen=False)
    return at_the_same_time(f"{count} click, without a browser,", clicking) | at_the_same_time(
        f"{count} choose and click, without a browser,", choosing
    )


async def crowd(server: Server, count: int, *, chosen: bool) -> list[float]:
    """Let visitors click all at once, who have chosen a photo or choose it then; seconds each."""
    photo = example_photo().read_bytes()

    async def ask(visit: Visit) -> float:
        started = time.perf_counter()
        if not chosen:
            await visit.choose(photo)
        await visit.click()
        while True:
            *_, content, _ = await visit.receive()
            if "Prediction: " in str(content):
                return time.perf_counter() - started

    visits = [await Visit.open(server.url) for _ in range(count)]
    if chosen:
        for visit in visits:
            await visit.choose(photo)
    await settled(server)  # until all photos have arrived
    times = await asyncio.gather(*map(ask, visits))
    await asyncio.gather(*(visit.leave() for visit in visits))
    return times


async def sustained(browser: Browser, server: Server, minutes: float) -> tuple[float, int]:
    """Return visits per minute by four visitors who each open, ask and close, over and over.

    Also how many of them had no answer within :data:`PATIENCE` and left.
    """
    end = time.perf_counter() + 60 * minutes
    done = left = 0

    async def come_and_go() -> None:
        nonlocal done, left
        while time.perf_counter() < end:
            page, _ = await open_page(browser, server.url)
            try:
                async with asyncio.timeout(PATIENCE):
                    await choose(page)
                    await ask(page)
                done += 1
            except TimeoutError:
                left += 1
            await page.goto("about:blank")  # as a tab that closes: the page says good-bye
            await page.context.close()

    started = time.perf_counter()
    await asyncio.gather(*(come_and_go() for _ in range(4)))
    return done / (time.perf_counter() - started) * 60, left


async def compare_pages(pages: Sequence[str], minutes: float) -> list[Row]:
    """Measure pages one after the other."""
    found = []
    async with AsyncExitStack() as stack:
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        stack.push_async_callback(browser.close)
        for name in pages:
            report.progress(f"visitors, {name}")
            with PAGES[name]() as server:
                page, _ = await open_page(browser, server.url)  # to warm up
                await page.context.close()
                most = PLAIN_VISITORS if name == "plain" else max(STEPS)
                found.append(await measure(browser, server, most, minutes))
                if name == "slim":  # "stock" has the same kernels
                    await settled(server)  # until those of the tabs are gone
                    found[-1] |= await crowds(server, most)
    return rows_of(found)


def rows_of(found: Sequence[Figures]) -> list[Row]:
    """Return rows that have a column for each of several figures."""
    names = dict.fromkeys(name for figures in found for name in figures)
    return [Row(*name[:2], [figures.get(name) for figures in found], name[2]) for name in names]


if __name__ == "__main__":
    parser = report.parser(__doc__)
    add_pages(parser)
    parser.set_defaults(pages=["slim", "Gradio", "stock", "plain"])
    parser.add_argument("--minutes", type=float, default=0.5, help="of visits that come and go")
    options = parser.parse_args()
    rows = asyncio.run(compare_pages(options.pages, options.minutes))
    report.publish(options, [report.table(options.pages, rows)])
