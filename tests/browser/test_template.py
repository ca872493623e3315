"""The page that Voilà serves, in a browser, with the slim template and with Voilà's own."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from icon_classifier.page.texts import PAGE_TEXTS
from tests.browser.zoo import NOTEBOOK, write_zoo
from tests.support.browser import texts_when_shown, watching
from tests.support.servers import ROOT, Server, running, voila

NewPage = Callable[..., Page]


BUDGET_BYTES = 90_000
BUDGET_BYTES_WITH_WEBSOCKET = 300_000
BUDGET_REQUESTS = 10


def serve(folder: Path, template: str) -> Any:
    shutil.copy(ROOT / "voila.json", folder / "voila.json")
    write_zoo(folder)
    return voila(folder, f"--template={template}", notebook=NOTEBOOK)


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the zoo notebook with the slim template."""
    with serve(tmp_path_factory.mktemp("slim"), "slim") as server:
        yield server


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same with the template that comes with Voilà."""
    with serve(tmp_path_factory.mktemp("lab"), "lab") as server:
        yield server


@pytest.fixture(scope="module", params=["slim", "lab"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """One page of the zoo notebook with each of the templates; each test uses other widgets."""
    server = request.getfixturevalue(request.param)
    with watching(browser) as new_page:
        yield opened(new_page, server)


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def opened(new_page: NewPage, server: Server, **options: Any) -> Page:
    """Open a page and wait for its controls."""
    page = new_page(server.url, **options)
    expect(button(page, "Answer")).to_be_visible()
    return page


def live(page: Page) -> None:
    expect(page.locator("html[data-connection=live]")).to_be_attached()


def upload(page: Page, file: Path, button_name: str) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button_name).click()
    chooser.value.set_files(file)


# With both templates


def test_click_on_a_button_is_answered(page: Page) -> None:
    button(page, "Answer").click()
    expect(page.get_by_text(re.compile(r"^\d+ bytes, \d+$"))).to_be_visible()


def test_upload_arrives_complete(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(range(100)) + bytes(3_000_000))
    upload(page, file, "Upload (0)")
    expect(page.get_by_role("button", name="Upload (1)")).to_be_visible()
    button(page, "Answer").click()
    expect(page.get_by_text("3000100 bytes, 4950")).to_be_visible()


def test_output_shows_what_is_printed_and_displayed(page: Page) -> None:
    button(page, "Print").click()
    expect(page.get_by_text("first line")).to_be_visible()
    expect(page.locator("#bold")).to_be_visible()
    button(page, "Nest").click()
    expect(page.get_by_label("Nested")).to_be_visible()
    button(page, "Replace").click()
    expect(page.get_by_text("replaced")).to_be_visible()
    expect(page.get_by_text("first line")).to_have_count(0)
    expect(page.get_by_label("Nested")).to_have_count(0)


def test_anywidget_exchanges_state_and_messages(page: Page) -> None:
    counter = page.locator("button.counter")
    expect(counter).to_have_text("count is 3")
    expect(counter).to_have_css("color", "rgb(1, 2, 3)")
    counter.click()
    expect(counter).to_have_text("count is 4")
    expect(page.locator("[data-answer]")).to_have_attribute("data-answer", "42 7")
    assert page.evaluate("window.initialized") == 1


def test_widget_that_is_added_later_is_shown(page: Page) -> None:
    button(page, "Add").click()
    expect(page.get_by_text("a new label")).to_be_visible()


def test_all_supported_widgets_are_shown(page: Page) -> None:
    for words in ("Progress", "in a tab", "More", "cell", "styled", "Name", "Choice"):
        expect(page.get_by_text(words, exact=True).first).to_be_visible()
    for control in ("Check",):
        expect(page.get_by_label(control)).to_be_visible()
    expect(button(page, "Toggle")).to_be_visible()
    expect(button(page, "two")).to_be_visible()
    expect(page.locator("img.widget-image")).to_have_js_property("naturalWidth", 40)


# With the slim template only


def test_text_is_shown_without_javascript(slim: Server, new_page: NewPage) -> None:
    page = new_page(slim.url, java_script_enabled=False)
    expect(page).to_have_title("The zoo")
    expect(page.get_by_role("heading", name="The zoo")).to_be_visible()
    expect(page.get_by_text("An introduction that needs no kernel.")).to_be_visible()
    expect(page.get_by_text("Starting…")).to_be_visible()
    # Playwright disables scripts too late for the parser to render noscript.
    assert re.search("<noscript>.*This page needs JavaScript.*</noscript>", page.content())


def test_unknown_widget_is_named(slim: Server, new_page: NewPage) -> None:
    page = opened(new_page, slim)
    note = page.get_by_text(
        "This page cannot show the widget “IntSlider” of @jupyter-widgets/controls."
    )
    expect(note).to_be_visible()


def test_widget_that_is_opened_while_the_notebook_runs_has_its_parts(
    tmp_path: Path, new_page: NewPage
) -> None:
    """Its layout is opened before the page connects, and comes with the HTML's end alone."""
    cells = (
        "import time\nfrom ipywidgets import Button, Layout\nlayout = Layout()",
        "time.sleep(3)",  # the page connects meanwhile
        "button = Button(description='Late', layout=layout)\ntime.sleep(3)",
        "button",
    )
    v4 = nbformat.v4
    nbformat.write(v4.new_notebook(cells=[*map(v4.new_code_cell, cells)]), tmp_path / NOTEBOOK)
    shutil.copy(ROOT / "voila.json", tmp_path)
    with voila(tmp_path, "--VisitorKernelManager.warm_up=False", notebook=NOTEBOOK) as server:
        expect(button(new_page(server.url), "Late")).to_be_visible()


def test_first_visit_stays_within_its_budget(shipped: Server, new_page: NewPage) -> None:
    page = new_page()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    sizes: list[float] = []
    frames: list[float] = []
    devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    devtools.on(
        "Network.webSocketFrameReceived",
        lambda event: frames.append(len(event["response"]["payloadData"]) * 3 / 4),
    )
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda socket: requests.append(socket.url))
    page.goto(shipped.url)
    expect(button(page, "Choose photos")).to_be_visible()
    live(page)
    page.wait_for_load_state("networkidle")
    assert 3 <= len(requests) <= BUDGET_REQUESTS, requests
    assert 50_000 < sum(sizes) <= BUDGET_BYTES
    assert sum(sizes) + sum(frames) <= BUDGET_BYTES_WITH_WEBSOCKET


def test_second_visit_takes_the_files_from_the_cache(slim: Server, new_page: NewPage) -> None:
    page = opened(new_page, slim)
    page.reload()
    expect(button(page, "Answer")).to_be_visible()
    kept = page.evaluate(
        "performance.getEntriesByType('resource').filter(e => /(page|style)-/.test(e.name))"
        ".map(e => e.transferSize)"
    )
    assert kept
    assert set(kept) == {0}


def test_controls_appear_without_layout_shift(slim: Server, new_page: NewPage) -> None:
    page = new_page()
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver(list => { for (const entry of list.getEntries())"
        " window.shift += entry.value; }).observe({ type: 'layout-shift', buffered: true });"
    )
    page.goto(slim.url)
    expect(button(page, "Answer")).to_be_visible()
    live(page)
    assert page.evaluate("window.shift") < 0.02


def test_html_is_sanitized_and_injected_scripts_are_blocked(
    slim: Server, unwatched_page: NewPage
) -> None:
    page = unwatched_page()
    page.add_init_script(
        "window.violations = []; addEventListener('securitypolicyviolation',"
        " event => window.violations.push(event.violatedDirective));"
    )
    page.goto(slim.url)
    button(page, "Print").click()
    expect(page.locator("#bold")).to_be_visible()
    expect(page.locator("#styled")).to_have_css("color", "rgb(4, 5, 6)")
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("window.violations") == []
    button(page, "Hurt").click()
    expect(page.get_by_text("tried")).to_be_visible()
    assert page.evaluate("window.hurt") is None
    assert page.locator("[onerror]").count() == 0
    assert page.locator("main script:not([type='application/json']):not([src])").count() == 0
    assert page.locator("iframe, main a[href^=javascript]").count() == 0
    expect(page.get_by_role("link", name="save")).to_have_attribute("href", re.compile("^data:"))
    expect(page.get_by_role("link", name="out")).to_have_attribute("rel", "noopener noreferrer")
    assert page.locator("main :is(form, style, mglyph, [onload], [name])").count() == 0
    assert page.locator("#unsafe input").count() == 0
    expect(page.locator("#unsafe circle")).to_have_count(1)
    # The policy stops a script that gets in nevertheless.
    violated = page.evaluate(
        """() => new Promise((resolve) => {
          addEventListener('securitypolicyviolation', (event) => resolve(event.violatedDirective));
          const script = document.createElement('script');
          script.textContent = 'window.hurt = 2';
          document.body.append(script);
        })"""
    )
    assert violated == "script-src-elem"
    assert page.evaluate("window.hurt") is None


def test_error_is_shown_in_plain_words(slim: Server, new_page: NewPage) -> None:
    page = opened(new_page, slim)
    button(page, "Fail").click()
    expect(page.get_by_role("alert").filter(has_text="Something went wrong")).to_be_visible()


def test_broken_connection_is_made_again(slim: Server, new_page: NewPage) -> None:
    page = new_page()
    connections: list[WebSocketRoute] = []

    def through(connection: WebSocketRoute) -> None:
        connections.append(connection)
        connection.connect_to_server()

    page.route_web_socket(re.compile("/channels"), through)
    page.goto(slim.url)
    live(page)
    expect(button(page, "Slow")).to_be_visible()
    button(page, "Slow").click()
    page.context.set_offline(True)
    connections[0].close(code=1001)
    expect(page.get_by_text("The connection is lost; trying again…")).to_be_visible()
    # A click meanwhile is sent after the reconnection.
    button(page, "Print").click()
    page.context.set_offline(False)
    live(page)
    expect(page.get_by_text("The connection is lost")).to_be_hidden()
    expect(page.get_by_text("slow is done")).to_be_visible()
    expect(page.get_by_text("first line")).to_be_visible()
    expect(page.get_by_text("first line")).to_have_count(1)
    assert len(connections) > 1


@pytest.mark.parametrize("refused_by", ["page", "server"])
def test_file_that_is_too_large_is_not_sent_and_the_page_goes_on(
    slim: Server, new_page: NewPage, tmp_path: Path, refused_by: str
) -> None:
    """More than voila.json allows; and more than a proxy does, which closes with 1009."""
    page = new_page()
    connections: list[str] = []

    def through(connection: WebSocketRoute) -> None:
        connections.append(connection.url)
        server = connection.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if len(message) > 2**20:
                connection.close(code=1009)
            else:
                server.send(message)

        connection.on_message(pass_on)

    page.route_web_socket(re.compile("/channels"), through)
    page.goto(slim.url)
    live(page)
    file = tmp_path / "large.bin"
    with file.open("wb") as stream:
        stream.truncate(2**25 if refused_by == "page" else 2**21)
    upload(page, file, "Upload (0)")
    notice = page.get_by_role("alert").filter(has_text=PAGE_TEXTS["too_large"])
    expect(notice).to_be_visible()
    live(page)
    button(page, "Answer").click()
    expect(page.get_by_text("0 bytes, 0")).to_be_visible()
    file.write_bytes(b"abc")
    upload(page, file, "Upload (0)")
    expect(notice).to_be_hidden()
    button(page, "Answer").click()
    expect(page.get_by_text("3 bytes, 294")).to_be_visible()
    assert len(connections) == {"page": 1, "server": 2}[refused_by]


def test_slow_upload_shows_a_progress_bar(
    shipped: Server, new_page: NewPage, tmp_path: Path
) -> None:
    page = new_page(shipped.url)
    live(page)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 1_000_000},
    )
    photo = tmp_path / "noise.tiff"  # which the browser cannot shrink
    Image.effect_noise((700, 500), 90).convert("RGB").save(photo)
    bar = page.locator("#sending")
    expect(bar).to_be_hidden()
    texts = texts_when_shown(bar)
    upload(page, photo, "Choose photos")
    expect(page.locator(".ic-card")).to_be_visible()
    expect(bar).to_be_hidden()
    assert PAGE_TEXTS["sending"] in texts()


def test_upload_goes_on_when_the_phone_wakes(
    slim: Server, new_page: NewPage, tmp_path: Path
) -> None:
    page = new_page()
    connections: list[str] = []
    page.on("websocket", lambda socket: connections.append(socket.url))
    page.clock.install()
    page.goto(slim.url)
    live(page)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1000}
    session.send("Network.emulateNetworkConditions", limits)
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(range(100)) + bytes(1_000_000))
    upload(page, file, "Upload (0)")
    expect(page.locator("#sending")).to_be_visible()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.fast_forward(60_000)
    session.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": -1})
    button(page, "Answer").click()
    expect(page.get_by_text("1000100 bytes, 4950")).to_be_visible()
    assert len(connections) == 1


def test_dead_connection_is_noticed_when_the_phone_wakes(slim: Server, new_page: NewPage) -> None:
    page = new_page()
    connections: list[str] = []

    def swallow(connection: WebSocketRoute) -> None:
        connections.append(connection.url)
        server = connection.connect_to_server()
        if len(connections) == 1:
            server.on_message(lambda data: None if page.dead else connection.send(data))

    page.dead = False  # type: ignore[attr-defined]
    page.route_web_socket(re.compile("/channels"), swallow)
    page.goto(slim.url)
    live(page)
    page.dead = True  # type: ignore[attr-defined]
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    button(page, "Answer").click()
    expect(page.get_by_text("0 bytes, 0")).to_be_visible()
    assert len(connections) == 2


def pid_of(page: Page) -> int:
    text = page.get_by_text(re.compile(r"^pid \d+$")).inner_text()
    return int(text.removeprefix("pid "))


def test_dead_kernel_ends_the_page_until_a_reload(slim: Server, new_page: NewPage) -> None:
    page = opened(new_page, slim)
    live(page)
    first = pid_of(page)
    os.kill(first, signal.SIGKILL)
    expect(page.get_by_text("This page has ended.")).to_be_visible()
    expect(page.locator("main")).to_have_js_property("inert", True)
    button(page, "Reload the page").click()
    expect(page.get_by_text(f"pid {first}", exact=True)).to_have_count(0)
    assert pid_of(page) != first


def test_server_restart_ends_the_page(tmp_path: Path, unwatched_page: NewPage) -> None:
    with serve(tmp_path, "slim") as server:
        page = unwatched_page(server.url)
        live(page)
    expect(page.get_by_text("The connection is lost")).to_be_visible()
    command = ["-m", "voila", NOTEBOOK, "--template=slim", f"--port={server.port}", "--no-browser"]
    with running(command, port=server.port, ready="voila/static/", cwd=tmp_path):
        expect(page.get_by_text("This page has ended.")).to_be_visible()
        button(page, "Reload the page").click()
        expect(button(page, "Answer")).to_be_visible()


def test_leaving_the_page_shuts_the_kernel_down(slim: Server, new_page: NewPage) -> None:
    page = opened(new_page, slim)
    live(page)
    config = page.locator("#page-config").text_content() or ""
    found = re.search(r'"kernelId": "([^"]+)"', config)
    assert found
    other = opened(new_page, slim)
    page.goto("about:blank")
    # Not by a fetch of the page, whose 404 would stand in its console.
    deadline = time.monotonic() + 60
    while other.request.get(f"{slim.url}api/kernels/{found[1]}").status != 404:
        assert time.monotonic() < deadline
        other.wait_for_timeout(100)


def test_page_fits_every_screen_width(slim: Server, new_page: NewPage, artefacts: Path) -> None:
    page = opened(new_page, slim)
    button(page, "Print").click()
    expect(page.get_by_text("first line")).to_be_visible()
    for width, scheme in itertools.product([360, 1280, 3840], ["light", "dark"]):
        page.set_viewport_size({"width": width, "height": 740})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red, green, blue = map(int, re.findall(r"\d+", background))
        assert (red + green + blue > 600) == (scheme == "light")
        page.screenshot(path=artefacts / f"zoo-{width}-{scheme}.png", full_page=True)


def test_keyboard_focus_is_visible(slim: Server, new_page: NewPage) -> None:
    page = opened(new_page, slim)
    page.keyboard.press("Tab")
    focused = page.locator(":focus-visible")
    expect(focused).to_have_count(1)
    expect(focused).to_have_css("outline-style", "solid")
