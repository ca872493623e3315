"""The static site on a real host, in a sub-path: it answers in the browser, and offline."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Page, expect

from icon_classifier.model.session import Model
from icon_classifier.page.texts import HEIF_MISSING, SITE_TEXTS
from icon_classifier.site.build import write_site
from icon_classifier.system.texts import csv_line
from scripts.browser import find_browser
from tests.browser.test_drop_zone import (
    GRIZZLY,
    LOOKS,
    NAMES,
    PHONE,
    WIDE,
    button,
    choose,
    drop,
    fits,
    line,
    troubles,
)
from tests.support.browser import ARGUMENTS, watching
from tests.support.models import model_bytes
from tests.support.pictures import encode
from tests.support.servers import ROOT
from tests.support.site_host import SiteHost, site_host

NewPage = Callable[..., Page]
BUDGET_BYTES = 100_000
"""What comes before a photo can be dropped, uncompressed."""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, project_model: Model) -> Path:
    """Sites of two models: that of the project, and one of three colours."""
    folder = tmp_path_factory.mktemp("sites")
    write_site(folder / "bears", ROOT, (ROOT / "export.onnx").read_bytes())
    write_site(folder / "colours", tmp_path_factory.mktemp("project"), model_bytes())
    return folder


@pytest.fixture
def host(sites: Path) -> Iterator[SiteHost]:
    with site_host(sites) as served:
        yield served


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write plain pictures, each named for its colour."""

    def write(*names: str) -> list[Path]:
        for name in names:
            colour = re.findall("red|lime|blue|gray", name)[0]
            (tmp_path / name).write_bytes(encode(Image.new("RGB", (50, 40), colour)))
        return [tmp_path / name for name in names]

    return write


def ready(page: Page) -> None:
    """Wait until photos can be dropped."""
    expect(button(page, "Choose photos")).to_be_visible()


def kept(page: Page) -> None:
    """Wait until all files of the site are on the device."""
    page.evaluate(
        """async () => {
          const { serviceWorker } = navigator;
          const taken = new Promise((resolve) => (serviceWorker.oncontrollerchange = resolve));
          if (!serviceWorker.controller) await taken;
        }"""
    )


@pytest.mark.parametrize("look", LOOKS)
def test_site_shows_the_page_of_voila(
    look: dict[str, Any],
    host: SiteHost,
    new_page: NewPage,
    grizzly: Path,
    cat: Path,
    artefacts: Path,
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    page = new_page(f"{host.url}bears/", **look)
    expect(page).to_have_title("Grizzly, black or teddy bear?")
    ready(page)
    page.screenshot(path=artefacts / f"site-start-{name}.png")
    assert troubles(page) == []
    drop(page, grizzly)
    expect(line(page)).to_have_text(GRIZZLY)
    bars = page.locator(".ic-card li")
    expect(bars).to_have_count(3)
    expect(bars.first).to_contain_text(re.compile(r"grizzly.*0\.9\d{3}"))
    assert (
        max(page.locator(".ic-frame img").evaluate("p => [p.naturalWidth, p.naturalHeight]")) == 640
    )
    button(page, "Show where it looked").click()
    expect(page.locator(".ic-heat")).to_be_visible()
    expect(page.get_by_text("the more it counted towards “grizzly”")).to_be_visible()
    page.get_by_text("About this model").click()
    expect(page.get_by_text("Of 329 photos, each judged by a model")).to_be_visible()
    assert troubles(page) == []
    assert fits(page)
    page.screenshot(path=artefacts / f"site-answer-{name}.png", full_page=True)
    drop(page, cat)
    expect(line(page)).to_have_text(
        re.compile(r"Not sure: this does not look like black, grizzly or teddy; closest: \w+ \("),
    )
    button(page, "Try the example grizzly").click()
    expect(line(page)).to_have_text(GRIZZLY)


def test_page_is_usable_before_the_model_and_a_photo_waits_for_it(
    host: SiteHost, new_page: NewPage, photos: Callable[..., list[Path]], artefacts: Path
) -> None:
    host.held = {"ort-"}
    page = new_page(f"{host.url}colours/", **PHONE)
    ready(page)
    names = {path.rpartition("/")[2] or "index.html" for path in host.paths}
    names = {name for name in names if not name.startswith(("worker-", "ort-", "export-"))}
    size = sum((host.folder / "colours" / name).stat().st_size for name in names)
    assert 40_000 < size <= BUDGET_BYTES
    loading = page.get_by_text(
        re.compile(r"^Loading the model: \d\.\d of 3\.7 MB, about \d+ s left$")
    )
    expect(loading).to_be_visible()
    drop(page, *photos("red.png"))
    waiting = page.get_by_text(SITE_TEXTS["waiting"])
    expect(waiting).to_be_visible()
    expect(page.get_by_text("Looking at the photo…")).to_be_visible()
    assert troubles(page) == []
    assert fits(page)
    page.screenshot(path=artefacts / "site-waiting.png")
    host.release()
    expect(line(page)).to_have_text(re.compile("Prediction: red"))
    expect(waiting).to_be_hidden()
    expect(page.get_by_role("progressbar")).to_have_count(0)


def test_page_answers_offline_after_the_first_visit(sites: Path, new_page: NewPage) -> None:
    with site_host(sites) as host:
        page = new_page(f"{host.url}bears/")
        kept(page)
    page.context.set_offline(True)
    page.reload()
    ready(page)
    button(page, "Try the example grizzly").click()
    expect(line(page)).to_have_text(GRIZZLY)
    page.goto(f"{host.url}bears/index.html?from=elsewhere")
    ready(page)


def test_heic_is_read_offline_once_one_was_read(
    sites: Path, new_page: NewPage, tmp_path: Path
) -> None:
    heic = tmp_path / "red.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(heic)
    with site_host(sites) as host:
        page, other = new_page(f"{host.url}colours/"), new_page(f"{host.url}colours/")
        kept(page)
        kept(other)
        choose(page, heic)
        expect(line(page)).to_have_text(re.compile("Prediction: red"))
    for offline in (page, other):
        offline.context.set_offline(True)
        offline.reload()
        ready(offline)
        choose(offline, heic)
    expect(line(page)).to_have_text(re.compile("Prediction: red"))
    expect(line(other)).to_have_text(HEIF_MISSING)


def test_several_photos_fill_a_table(
    host: SiteHost,
    new_page: NewPage,
    photos: Callable[..., list[Path]],
    tmp_path: Path,
    artefacts: Path,
) -> None:
    names = ["=red.png", '"blue"; gray.png', "gray, <b>.png", "no\u202ered\x1b.png"]
    files = photos(*names)
    heic = tmp_path / "blue.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "blue")).save(heic)
    bad = tmp_path / "-bad.jpg"
    bad.write_bytes(b"no picture")
    huge = tmp_path / "huge.png"
    huge.write_bytes(b"\0" * (25 * 2**20 + 1))
    page = new_page(f"{host.url}colours/", **PHONE)
    ready(page)
    drop(page, *files, heic, bad, huge)
    expect(line(page)).to_have_text("5 of 7 photos answered; 2 could not be read.")
    rows = page.locator(".ic-table tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.locator("img")).to_have_count(5)
    expect(rows.nth(2)).to_contain_text("not sure closest: ")
    expect(rows.nth(4)).to_contain_text("blue.heic")
    expect(rows.nth(5)).to_contain_text("not a picture")
    expect(rows.nth(6)).to_contain_text("larger than 25 MB")
    assert troubles(page) == []
    assert fits(page)
    page.screenshot(path=artefacts / "site-table.png", full_page=True)
    with page.expect_download() as download:
        button(page, "Download as CSV").click()
    table = Path(download.value.path()).read_bytes().decode()
    answers = [cells[1:] for cells in csv.reader(table.splitlines()[1:])]
    everyone = [*names, heic.name, bad.name, huge.name]
    written = [[name, *cells] for name, cells in zip(everyone, answers, strict=True)]
    heads = ["file", "label", "probability", "known", "problem"]
    assert table == "".join(f"{csv_line(cells)}\r\n" for cells in [heads, *written])
    assert [cells[2] for cells in answers] == ["yes", "yes", "no", "yes", "yes", "", ""]
    button(page, "=red.png").click()
    expect(line(page)).to_have_text(re.compile("Prediction: red"))
    expect(page.locator(".ic-card")).to_be_visible()
    expect(page.locator(".ic-table tr[aria-current=true]")).to_contain_text("=red.png")
    drop(page, *photos("lime.png"))
    expect(line(page)).to_have_text(re.compile("Prediction: green"))
    expect(page.locator(".ic-table")).to_have_count(0)
    drop(page, tmp_path)  # a folder
    expect(line(page)).to_contain_text("not a picture")


def test_photo_is_pasted(
    host: SiteHost, new_page: NewPage, photos: Callable[..., list[Path]]
) -> None:
    page = new_page(f"{host.url}colours/", permissions=["clipboard-read", "clipboard-write"])
    ready(page)
    page.evaluate(
        """async (photo) => {
          const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
          const blob = new Blob([bytes], { type: 'image/png' });
          await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
        }""",
        base64.b64encode(photos("blue.png")[0].read_bytes()).decode(),
    )
    page.keyboard.press("Control+V")
    expect(line(page)).to_have_text(re.compile("Prediction: blue"))


@pytest.mark.parametrize("look", [WIDE, PHONE], ids=["wide", "phone"])
def test_bars_follow_the_camera(
    look: dict[str, Any],
    host: SiteHost,
    new_page: NewPage,
    photos: Callable[..., list[Path]],
    artefacts: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Chromium's camera of tests shows green, with a circle that turns."""
    page = new_page(f"{host.url}colours/", **look, permissions=["camera"])
    ready(page)
    drop(page, *photos("red.png"))
    expect(line(page)).to_have_text(re.compile("Prediction: red"))
    button(page, "Camera").click()
    expect(line(page)).to_have_text(re.compile("green"))
    expect(page.locator(".ic-card li").first).to_contain_text("green")
    expect(page.locator(".ic-card img")).to_have_count(0)
    page.evaluate(
        """() => {
          window.said = 0;
          const all = { childList: true, subtree: true };
          const watch = (name, act) =>
            new MutationObserver(act).observe(document.querySelector(name), all);
          watch('.ic-line', () => { said += 1; });
          window.drawn = new Promise((resolve) => {
            let count = 0;
            watch('.ic-answer', () => { if ((count += 1) > 10) resolve(); });
          });
        }"""
    )
    assert page.evaluate("drawn.then(() => said)") == 0, "each frame is read out"
    assert troubles(page) == []
    assert fits(page)
    name = request.node.callspec.id
    page.screenshot(path=artefacts / f"site-camera-{name}.png")
    button(page, "Close the camera").click()
    expect(line(page)).to_have_text(re.compile("Prediction: red"))
    expect(page.locator(".ic-card img")).to_be_visible()
    expect(button(page, "Camera")).to_be_focused()
    button(page, "Camera").click()
    expect(line(page)).to_have_text(re.compile("green"))
    page.evaluate("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    button(page, "Take the photo").click()
    expect(page.locator(".ic-card img")).to_be_visible()
    expect(line(page)).to_have_text(re.compile("green"))
    expect(page.locator("video")).to_be_hidden()
    assert page.evaluate("track.readyState") == "ended", "the camera's light stays on"


def test_many_and_strange_names_are_shown_as_they_are(
    new_page: NewPage, photos: Callable[..., list[Path]], tmp_path: Path
) -> None:
    names = ["{label} {probability}", "x" * 60, "<b>דוב</b>", *NAMES[:-3]]
    write_site(tmp_path / "host" / "many", tmp_path / "empty", model_bytes(labels=names))
    with site_host(tmp_path / "host") as host:
        page = new_page(f"{host.url}many/", **PHONE, permissions=["camera"])
        ready(page)
        bars = page.locator(".ic-card li:visible")
        for photo, name in zip(photos("red.png", "lime.png", "blue.png"), names, strict=False):
            drop(page, photo)
            expect(line(page)).to_contain_text(name)
            expect(bars.first).to_contain_text(name)
            expect(bars).to_have_count(5)
            assert fits(page)
        more = page.get_by_text("114 more, each less likely")
        more.click()
        expect(bars).to_have_count(119)
        assert fits(page)
        button(page, "Camera").click()
        expect(line(page)).to_have_text(names[1])
        expect(bars).to_have_count(5)
        expect(more).to_have_count(0)
        assert fits(page)


@pytest.mark.parametrize("failure", ["cut", "damaged"])
def test_model_that_does_not_arrive_is_tried_again(
    failure: str,
    host: SiteHost,
    new_page: NewPage,
    photos: Callable[..., list[Path]],
    artefacts: Path,
) -> None:
    setattr(host, failure, {"export-"})
    page = new_page(f"{host.url}colours/", **PHONE)
    words = SITE_TEXTS["missing" if failure == "cut" else "damaged"]
    expect(page.get_by_role("status").get_by_text(words)).to_be_visible()
    drop(page, *photos("red.png"))
    expect(page.get_by_text(SITE_TEXTS["waiting"])).to_be_visible()
    assert troubles(page) == []
    assert fits(page)
    page.screenshot(path=artefacts / f"site-{failure}.png")
    getattr(host, failure).clear()
    button(page, "Try again").click()
    expect(line(page)).to_have_text(re.compile("Prediction: red"))
    expect(page.get_by_text(words)).to_have_count(0)
    expect(button(page, "Try again")).to_have_count(0)


@pytest.mark.parametrize("script", ["worker-", "dropzone-"])
def test_script_that_does_not_arrive_is_said_in_words(
    script: str, host: SiteHost, new_page: NewPage
) -> None:
    host.cut = {script}
    page = new_page(f"{host.url}colours/")
    words = SITE_TEXTS["missing" if script == "worker-" else "incomplete"]
    expect(page.get_by_text(words)).to_be_visible()


@pytest.mark.parametrize(
    ("flags", "reason"), [("--jitless", "wasm"), ("--wasm-max-mem-pages=200", "memory")]
)
def test_browser_that_cannot_run_the_model_says_so(
    flags: str,
    reason: str,
    browser: Browser,
    host: SiteHost,
    photos: Callable[..., list[Path]],
) -> None:
    options = {"executable_path": find_browser(), "args": [*ARGUMENTS, f"--js-flags={flags}"]}
    with (
        browser.browser_type.launch(**options) as other,
        watching(other) as open_page,
    ):
        page = open_page(f"{host.url}colours/")
        words = SITE_TEXTS[reason]
        expect(page.get_by_text(words)).to_be_visible()
        expect(button(page, "Try again")).to_be_visible(visible=reason == "memory")
        drop(page, *photos("red.png"))
        if reason == "wasm":
            expect(line(page)).to_have_text(words)
        expect(button(page, "Choose photos")).to_be_enabled()


def test_page_works_without_a_service_worker(
    host: SiteHost, new_page: NewPage, photos: Callable[..., list[Path]]
) -> None:
    page = new_page(f"{host.url}colours/", service_workers="block")
    ready(page)
    choose(page, *photos("red.png"))
    expect(line(page)).to_have_text(re.compile("Prediction: red"))


def test_new_version_is_offered_and_not_forced(
    sites: Path, new_page: NewPage, tmp_path: Path
) -> None:
    folder = tmp_path / "host"
    shutil.copytree(sites / "colours", folder / "one")
    shutil.copytree(sites / "colours", folder / "two")
    with site_host(folder) as host:
        page = new_page()
        for name in ("two/", "one/"):
            page.goto(host.url + name)
            kept(page)
        offer = page.get_by_text(SITE_TEXTS["update"])
        expect(offer).to_have_count(0)
        write_site(folder / "one", tmp_path / "empty", model_bytes(labels=["rose", "lime", "sky"]))
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.get_by_role("heading")).to_have_text("Red, green or blue?")
        expect(offer).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading")).to_have_text("Red, green or blue?")
        expect(offer).to_be_visible()
        button(page, "Use it").click()
        expect(page.get_by_role("heading")).to_have_text("Rose, lime or sky?")
        expect(offer).to_have_count(0)
        page.context.set_offline(True)
        page.reload()
        ready(page)
        # Of the old version nothing is kept, and the other site of this host lost nothing.
        names = page.evaluate(
            """async (scopes) => Promise.all(scopes.map(async (scope) => {
              const cache = await caches.open(`icon-classifier ${scope}`);
              return (await cache.keys()).map(({ url }) => url.slice(scope.length));
            }))""",
            [f"{host.url}one/", f"{host.url}two/"],
        )
        assert len([name for name in names[0] if name.startswith("export-")]) == 1
        assert len(names[0]) == len(names[1])
        page.goto(f"{host.url}two/")
        ready(page)


def test_browser_finds_nothing_that_keeps_the_site_from_being_installed(
    host: SiteHost, new_page: NewPage
) -> None:
    page = new_page(f"{host.url}colours/")
    page.evaluate("navigator.serviceWorker.ready.then(() => {})")
    devtools = page.context.new_cdp_session(page)
    assert devtools.send("Page.getAppManifest")["errors"] == []
    errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # Contexts of tests are private ones, in which nothing is ever installed.
    assert [error["errorId"] for error in errors] == ["in-incognito"]


def test_icon_of_the_installed_site_is_that_of_the_page(new_page: NewPage) -> None:
    svg = (ROOT / "icon_classifier" / "server" / "slim" / "icon.svg").read_text()
    with Image.open(ROOT / "icon_classifier" / "site" / "icon.png") as icon:
        page = new_page(viewport={"width": icon.width, "height": icon.height})
        svg = svg.replace(" rx='7'", "").replace("<svg", "<svg style='position:fixed;inset:0'")
        page.set_content(svg)
        with Image.open(io.BytesIO(page.screenshot())) as drawn:
            difference = ImageChops.difference(icon.convert("RGB"), drawn.convert("RGB"))
            assert max(high for _, high in difference.getextrema()) < 20  # type: ignore[misc]
