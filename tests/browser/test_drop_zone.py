"""What a visitor expects: every way in, and all of the answer, on small and wide screens."""

from __future__ import annotations

import base64
import csv
import importlib.resources
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from icon_classifier.model.session import Model
from tests.support.browser import texts_when_shown
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import ROOT, Server, project_copy, voila

NewPage = Callable[..., Page]


WIDE = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LOOKS = [
    pytest.param(WIDE | {"color_scheme": "light"}, id="wide-light"),
    pytest.param(PHONE | {"color_scheme": "dark"}, id="phone-dark"),
]
AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
GRIZZLY = re.compile(r"Prediction: grizzly; Probability: 0\.\d{4}|Probability: 1\.0000")


@pytest.fixture(scope="module")
def stock(project_model: Model) -> Iterator[Server]:
    """The same on the template that comes with Voilà."""
    with voila(ROOT, "--template=lab") as server:
        yield server


@pytest.fixture
def visit(shipped: Server, new_page: NewPage) -> Callable[..., Page]:
    def open_page(**options: Any) -> Page:
        page = new_page(shipped.url, **options)
        expect(button(page, "Choose photos")).to_be_visible()
        return page

    return open_page


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def line(page: Page) -> Locator:
    return page.locator(".ic-line")


def drop(page: Page, *files: Path) -> None:
    """Drop files as a hand does: through the browser's own input, not by events of a script."""
    x, y = page.locator(".ic-zone").evaluate(
        """zone => {
          zone.scrollIntoView({ behavior: 'instant', block: 'nearest' });
          const box = zone.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + 5];
        }"""
    )
    drag(page, *((kind, x, y) for kind in ("dragEnter", "dragOver", "drop")), files=files)


def drag(page: Page, *events: tuple[str, float, float], files: Sequence[Path]) -> None:
    """Move files over the page: each event is its kind and the place, in CSS pixels."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind, x, y in events:
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, "x": x, "y": y})
    session.detach()


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        button(page, "Choose photos").click()
    chooser.value.set_files(files)


def troubles(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [
        f"{one['id']}: {node['html']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def fits(page: Page) -> bool:
    """Whether nothing scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_drop_onto_what_the_pointer_has_just_entered_is_answered(
    visit: Callable[..., Page], grizzly: Path
) -> None:
    """As it happens while the page scrolls under the pointer."""
    page = visit()
    places = [
        page.locator(name).evaluate(
            """element => {
              const box = element.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }"""
        )
        for name in ("h1", ".ic-privacy")
    ]
    first, last = places
    drag(page, ("dragEnter", *first), ("dragOver", *first), ("drop", *last), files=[grizzly])
    expect(line(page)).to_have_text(GRIZZLY)


@pytest.mark.parametrize("look", LOOKS)
def test_drop_is_answered_on_wide_and_narrow_screens_light_and_dark(
    look: dict[str, Any],
    visit: Callable[..., Page],
    grizzly: Path,
    artefacts: Path,
    request: pytest.FixtureRequest,
) -> None:
    page = visit(**look)
    assert troubles(page) == []
    button(page, "Choose photos").hover()
    assert troubles(page) == []
    drop(page, grizzly)
    expect(line(page)).to_have_text(GRIZZLY)
    card = page.locator(".ic-card")
    expect(card.get_by_role("listitem")).to_have_count(3)
    expect(card.get_by_role("listitem").first).to_contain_text(re.compile(r"grizzly.*0\.9\d{3}"))
    assert troubles(page) == []
    # All in one look: the page may still be scrolling to the answer.
    headline, picture, bars, zone = page.evaluate(
        """names => names.map(
          (name) => document.querySelector(name).getBoundingClientRect().toJSON())""",
        [".ic-line", ".ic-frame", ".ic-bars", ".ic-zone"],
    )
    if look["viewport"] == WIDE["viewport"]:
        assert picture["right"] <= bars["left"]
    else:
        assert picture["bottom"] <= bars["top"]
    assert headline["bottom"] <= picture["top"]
    assert bars["bottom"] <= zone["top"]
    name = request.node.callspec.id
    page.screenshot(path=artefacts / f"answer-{name}.png", full_page=True)
    heat = button(page, "Show where it looked")
    heat.click()
    expect(page.locator(".ic-heat")).to_be_visible()
    expect(heat).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("the more it counted towards “grizzly”")).to_be_visible()
    assert opacities(page) == (0, 190)
    assert troubles(page) == []
    assert fits(page)
    page.screenshot(path=artefacts / f"heat-{name}.png", full_page=True)
    heat.click()
    expect(page.locator(".ic-heat")).to_be_hidden()


def opacities(page: Page) -> tuple[int, int]:
    """Return the least and the greatest opacity of the heat map, 0 to 255."""
    script = """canvas => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const opacities = data.filter((_, index) => index % 4 === 3);
      return [Math.min(...opacities), Math.max(...opacities)];
    }"""
    least, greatest = page.locator(".ic-heat").evaluate(script)
    return least, greatest


@pytest.mark.parametrize("look", [WIDE, PHONE], ids=["wide", "phone"])
def test_there_is_one_way_in_and_one_answer(
    look: dict[str, Any], visit: Callable[..., Page], grizzly: Path
) -> None:
    """Of the plain widgets, which work where there is no drop zone, only the line is shown."""
    page = visit(**look)
    ways_in = page.get_by_role("button", name=re.compile("choose|photo", re.IGNORECASE))
    expect(ways_in).to_have_count(1)
    expect(page.get_by_role("button", name="Classify Icon")).to_have_count(0)
    expect(page.get_by_text("press the button")).to_be_hidden()
    expect(page.get_by_text("Drop photos here")).to_be_visible(visible=look is WIDE)
    expect(page.get_by_text("Or try this one")).to_be_visible()
    expect(page.locator(".ic-main:visible")).to_have_count(1)
    drop(page, grizzly)
    expect(page.locator(".ic-card")).to_be_visible()
    expect(page.get_by_text("Prediction: ")).to_have_count(1)
    expect(page.locator("main img:visible:not(.ic-example img)")).to_have_count(1)
    expect(button(page, "Another photo")).to_be_visible()
    expect(page.get_by_text("Or try this one")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("choose", re.IGNORECASE))).to_have_count(0)
    expect(page.locator(".ic-main:visible")).to_have_count(1)


def test_what_the_model_is_can_be_read(visit: Callable[..., Page]) -> None:
    page = visit(**PHONE)
    words = page.get_by_text("Of 329 photos, each judged by a model")
    expect(words).to_be_hidden()
    page.get_by_text("About this model").click()
    expect(words).to_be_visible()
    assert troubles(page) == []
    assert fits(page)


def test_answer_fits_on_a_phone_without_scrolling(
    visit: Callable[..., Page], grizzly: Path
) -> None:
    page = visit(**PHONE | {"viewport": {"width": 390, "height": 844}})
    button(page, "Try the example grizzly").click()
    expect(page.locator(".ic-card")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    bottom = page.evaluate("document.querySelector('.ic-bars').getBoundingClientRect().bottom")
    assert 500 < bottom <= 844


def test_cat_is_not_sure_and_the_example_grizzly_is_answered(
    visit: Callable[..., Page], cat: Path
) -> None:
    page = visit()
    drop(page, cat)
    expect(line(page)).to_have_text(
        re.compile(r"Not sure: this does not look like black, grizzly or teddy; closest: \w+ \("),
    )
    expect(line(page)).to_have_attribute("role", "status")
    button(page, "Try the example grizzly").click()
    expect(line(page)).to_have_text(GRIZZLY)


def test_pasted_photo_is_answered(visit: Callable[..., Page], grizzly: Path) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    photo = base64.b64encode(encode(Image.open(grizzly).resize((212, 250)))).decode()
    page.evaluate(
        """async (photo) => {
          const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
          const blob = new Blob([bytes], { type: 'image/png' });
          await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
        }""",
        photo,
    )
    page.keyboard.press("Control+V")
    expect(line(page)).to_have_text(GRIZZLY)


def test_address_of_a_picture_is_refused_in_words(visit: Callable[..., Page]) -> None:
    """Dragged or pasted from another tab, and the file did not come along."""
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    words = page.get_by_text("copy it with “Copy image”")
    note = page.locator(".ic-note")
    session = page.context.new_cdp_session(page)
    address = "https://example.org/bear.jpg"
    for kind in ("dragEnter", "dragOver", "drop"):
        items = [
            {"mimeType": "text/uri-list", "data": address},
            {"mimeType": "text/html", "data": f"<img src='{address}'>"},
        ]
        data = {"items": items, "files": [], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, "x": 300, "y": 300})
    expect(words).to_be_visible()
    for kind, content in (("text/plain", f"{address}\n"), ("text/html", f"<img src='{address}'>")):
        note.evaluate("note => { note.textContent = ''; }")
        page.evaluate(
            """([kind, content]) => navigator.clipboard.write([
              new ClipboardItem({ [kind]: new Blob([content], { type: kind }) })])""",
            [kind, content],
        )
        page.keyboard.press("Control+V")
        expect(words).to_be_visible()
    note.evaluate("note => { note.textContent = ''; }")
    page.evaluate("navigator.clipboard.writeText('a grizzly')")
    page.keyboard.press("Control+V")
    button(page, "Camera").focus()
    expect(note).to_have_text("")
    assert troubles(page) == []


def test_laptop_camera_takes_a_photo(visit: Callable[..., Page]) -> None:
    page = visit(permissions=["camera"])
    button(page, "Camera").click()
    expect(button(page, "Take the photo")).to_be_focused()
    video = page.locator("video")
    video.evaluate("v => v.videoWidth || new Promise((seen) => { v.onloadeddata = () => seen(); })")
    page.evaluate("window.track = document.querySelector('video').srcObject.getTracks()[0]")
    button(page, "Take the photo").click()
    expect(page.locator(".ic-card")).to_be_visible()
    expect(video).to_be_hidden()
    assert page.evaluate("track.readyState") == "ended", "the camera's light stays on"
    button(page, "Camera").click()
    expect(video).to_be_visible()
    page.keyboard.press("Escape")
    expect(video).to_be_hidden()
    expect(button(page, "Camera")).to_be_focused()


def test_camera_is_off_once_closed_however_often_its_button_was_clicked(
    visit: Callable[..., Page],
) -> None:
    page = visit(permissions=["camera"])
    page.evaluate(
        """() => {
          const media = navigator.mediaDevices;
          const open = media.getUserMedia.bind(media);
          window.asked = [];
          media.getUserMedia = (wanted) => asked[asked.push(open(wanted)) - 1];
        }"""
    )
    button(page, "Camera").evaluate("button => { button.click(); button.click(); }")
    expect(page.locator("video")).to_be_visible()
    button(page, "Camera").click()
    button(page, "Close the camera").click()
    states = page.evaluate(
        """async () => (await Promise.all(asked)).map(
          (stream) => stream.getTracks()[0].readyState)"""
    )
    assert set(states) == {"ended"}


def test_phone_camera_takes_a_photo(visit: Callable[..., Page], grizzly: Path) -> None:
    page = visit(**PHONE)
    with page.expect_file_chooser() as chooser:
        button(page, "Camera").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(grizzly)
    expect(line(page)).to_have_text(GRIZZLY)


def test_large_photo_is_shrunk_before_it_is_sent(
    visit: Callable[..., Page], grizzly: Path, tmp_path: Path
) -> None:
    """Also turned upright: the camera wrote it lying on its side."""
    photo = Image.open(grizzly).resize((3024, 4032)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "large.jpg"
    photo.save(file, quality=95, exif=exif)
    page = visit()
    sent: list[int] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on(
        "Network.webSocketFrameSent",
        lambda event: sent.append(len(event["response"]["payloadData"])),
    )
    choose(page, file)
    expect(line(page)).to_have_text(GRIZZLY)
    assert max(sent) < 400_000 < file.stat().st_size
    width, height = page.locator(".ic-frame img").evaluate("p => [p.naturalWidth, p.naturalHeight]")
    assert (width, height) == (480, 640)


@pytest.mark.parametrize("kind", ["tiff", "heic"])
def test_photo_that_the_browser_cannot_decode_is_sent_unchanged(
    kind: str, visit: Callable[..., Page], grizzly: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"photo.{kind}"
    if kind == "heic":
        pillow_heif.from_pillow(Image.open(grizzly).resize((212, 250))).save(file, quality=90)
    else:
        Image.open(grizzly).save(file)
        assert file.stat().st_size > 2e6
    page = visit()
    choose(page, file)
    expect(line(page)).to_have_text(GRIZZLY)
    expect(page.locator(".ic-frame img")).to_be_visible()


def test_too_large_file_is_refused_before_it_is_sent(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    file = tmp_path / "huge.heic"
    file.write_bytes(b"\0" * (25 * 2**20 + 1))
    page = visit()
    choose(page, file)
    expect(line(page)).to_have_text("This file is larger than 25 MB; please choose a smaller one.")


def test_folder_is_no_picture(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    drop(page, tmp_path)
    expect(line(page)).to_contain_text("not a picture")


def test_several_photos_fill_a_table(
    visit: Callable[..., Page], grizzly: Path, cat: Path, tmp_path: Path, artefacts: Path
) -> None:
    bad = tmp_path / "<b>bad.jpg"
    bad.write_bytes(b"no picture")
    page = visit(**PHONE)
    drop(page, grizzly, bad, cat)
    expect(line(page)).to_have_text("2 of 3 photos answered; 1 could not be read.")
    rows = page.locator(".ic-table tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text(re.compile(r"grizzly\.jpg.*grizzly.*0\.\d{4}"))
    expect(rows.nth(1)).to_contain_text("<b>bad.jpg")
    expect(rows.nth(1)).to_contain_text("not a picture")
    expect(rows.nth(2)).to_contain_text("not sure closest: ")
    expect(rows.locator("img")).to_have_count(2)
    assert troubles(page) == []
    assert fits(page)
    page.screenshot(path=artefacts / "table.png", full_page=True)
    with page.expect_download() as download:
        button(page, "Download as CSV").click()
    with Path(download.value.path()).open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert download.value.suggested_filename == "answers.csv"
    assert [row["file"] for row in table] == ["grizzly.jpg", "<b>bad.jpg", "cat.jpg"]
    assert [row["known"] for row in table] == ["yes", "", "no"]


def edges(page: Page, selector: str) -> list[float]:
    """Where elements end on the right, in pixels."""
    return page.locator(selector).evaluate_all(
        """found => found.map((one) => {
          const range = document.createRange();
          range.selectNodeContents(one);
          return range.getBoundingClientRect().right;
        })"""
    )


def names(page: Page) -> list[str]:
    return page.locator(".ic-table tbody th").all_inner_texts()


def test_table_is_sorted_and_its_rows_open(
    visit: Callable[..., Page], grizzly: Path, cat: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    dim = tmp_path / "dim.jpg"
    Image.open(grizzly).point(lambda value: value // 3).save(dim)
    page = visit(**WIDE)
    drop(page, bad, dim, cat, grizzly)
    expect(line(page)).to_have_text("3 of 4 photos answered; 1 could not be read.")
    expect(page.locator(".ic-table tbody tr")).to_have_count(4)
    rights = edges(page, ".ic-table .ic-number")
    assert len(rights) == 4
    assert max(rights) - min(rights) < 2, "the numbers stand under their heading"
    assert names(page) == ["bad.jpg", "dim.jpg", "cat.jpg", "grizzly.jpg"]
    heading = page.get_by_role("columnheader", name="Probability")
    button(page, "Probability").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    assert names(page)[0] == "grizzly.jpg"
    assert names(page)[-1] == "bad.jpg"
    button(page, "Probability").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    assert names(page)[-2:] == ["grizzly.jpg", "bad.jpg"]
    button(page, "Answer").click()
    expect(page.get_by_role("columnheader", name="Answer")).to_have_attribute(
        "aria-sort", "ascending"
    )
    expect(heading).not_to_have_attribute("aria-sort", re.compile(""))
    assert names(page) == ["grizzly.jpg", "dim.jpg", "cat.jpg", "bad.jpg"]
    button(page, "grizzly.jpg").press("Enter")
    expect(line(page)).to_have_text(GRIZZLY)
    expect(page.locator(".ic-card")).to_be_visible()
    expect(page.locator(".ic-table tr[aria-current=true]")).to_contain_text("grizzly.jpg")
    page.locator(".ic-table tr", has_text="cat.jpg").click()
    expect(line(page)).to_have_text(re.compile("^Not sure: "))
    expect(page.locator(".ic-table tr[aria-current=true]")).to_contain_text("cat.jpg")
    assert names(page) == ["grizzly.jpg", "dim.jpg", "cat.jpg", "bad.jpg"], "the order stays"
    assert troubles(page) == []


def test_twenty_photos_fill_the_table_row_by_row(
    visit: Callable[..., Page], grizzly: Path, tmp_path: Path
) -> None:
    """And rows that are there are not drawn again, nor is the page blocked."""
    photo = encode(Image.open(grizzly).resize((212, 250)), "JPEG")
    photos = [tmp_path / f"{number:02}.jpg" for number in range(20)]
    for path in photos:
        path.write_bytes(photo)
    page = visit(**WIDE)
    page.evaluate(
        """() => {
          window.removed = window.blocked = 0;
          window.started = performance.now();
          new MutationObserver((list) => {
            for (const { target, removedNodes } of list) {
              if (target.closest('tr')) window.removed += removedNodes.length;
            }
          }).observe(document.body, { childList: true, subtree: true });
          new PerformanceObserver((list) => {
            for (const { duration } of list.getEntries()) {
              window.blocked = Math.max(window.blocked, duration);
            }
          }).observe({ type: 'longtask' });
        }"""
    )
    drop(page, *photos)
    rows = page.locator(".ic-table tbody tr")
    expect(rows.first).to_be_visible()
    rows.first.evaluate("row => { row.dataset.mine = 'yes'; }")
    expect(line(page)).to_have_text("20 photos answered.")
    expect(rows).to_have_count(20)
    expect(rows.first).to_have_attribute("data-mine", "yes")
    assert names(page) == [path.name for path in photos]
    assert page.evaluate("removed") == 0
    # Compared with the whole, as all takes longer on a busy machine.
    assert page.evaluate("blocked / (performance.now() - started)") < 0.3


def test_same_file_can_be_chosen_again(visit: Callable[..., Page], grizzly: Path) -> None:
    """By the keyboard alone."""
    page = visit()
    choose(page, grizzly)
    expect(line(page)).to_have_text(GRIZZLY)
    line(page).evaluate("line => { line.textContent = ''; }")
    button(page, "Another photo").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(grizzly)
    expect(line(page)).to_have_text(GRIZZLY)


def test_long_work_shows_progress(visit: Callable[..., Page], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
    file = tmp_path / "noise.png"
    file.write_bytes(encode(Image.fromarray(noise), compress_level=0))
    page = visit()
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    texts = texts_when_shown(page.locator(".ic-work"))
    choose(page, file)
    expect(page.locator(".ic-card")).to_be_visible()
    expect(page.locator(".ic-work")).to_be_hidden()
    assert any("Preparing the photo…" in text for text in texts())


NAMES = [
    *(f"{number:03} {'Rhabdophis-tigrinus_' * 3}"[:60] for number in range(116)),
    "x" * 60,
    "דוב גריזלי אפור בטבע",
    "🐻‍❄️ ours polaire 🧊",
]


def test_many_and_long_names_fit_on_a_phone(
    new_page: NewPage, tmp_path: Path, artefacts: Path
) -> None:
    folder = project_copy(tmp_path)
    names = ["x" * 60, NAMES[-2], NAMES[-1], *NAMES[:-3]]
    write_model(folder, labels=names)
    photos = []
    for colour in ("red", "lime", "blue"):
        photos.append(folder / f"{colour * 15}.png")
        Image.new("RGB", (60, 40), colour).save(photos[-1])
    with voila(folder) as server:
        page = new_page(server.url, **PHONE)
        expect(page.get_by_role("heading", name="Which of 119 is it?")).to_be_visible()
        for photo, name in zip(photos, names[:3], strict=True):
            drop(page, photo)
            expect(line(page)).to_contain_text(name)
            bars = page.locator(".ic-card li:visible")
            expect(bars.first).to_contain_text(name)
            expect(bars).to_have_count(5)
            assert fits(page)
        page.get_by_text("114 more, each less likely").click()
        expect(bars).to_have_count(119)
        assert fits(page)
        assert troubles(page) == []
        page.screenshot(path=artefacts / "many.png", full_page=True)
        drop(page, *photos)
        expect(line(page)).to_have_text("3 photos answered.")
        expect(page.locator(".ic-table")).to_contain_text(names[1])
        assert fits(page)
        page.screenshot(path=artefacts / "many-table.png", full_page=True)


def test_stock_template_shows_the_same_widgets(
    stock: Server, new_page: NewPage, grizzly: Path
) -> None:
    page = new_page(stock.url, **WIDE)
    expect(button(page, "Choose photos")).to_be_visible()
    drop(page, grizzly)
    expect(line(page)).to_have_text(GRIZZLY)
    button(page, "Show where it looked").click()
    expect(page.locator(".ic-heat")).to_be_visible()
