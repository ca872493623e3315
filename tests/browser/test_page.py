"""The main job in a real browser: a photo goes in at the page and comes out with a label."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from icon_classifier.images import read_image
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import NOTEBOOK, Server, project_copy, voila

NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The notebook without the drop zone and the detailed answer."""
    folder = project_copy(tmp_path_factory.mktemp("plain"))
    write_model(folder)
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    notebook.cells[-1].source = "widgets.VBox([lbl_hint, btn_upload, btn_run, out_pl, lbl_pred])"
    nbformat.write(notebook, folder / NOTEBOOK)
    with voila(folder) as server:
        yield server


def button(page: Page) -> Locator:
    return page.get_by_role("button", name=re.compile("Choose photos|Another photo"))


def choose(page: Page, photo: Path) -> None:
    """Choose a photo through the file chooser, as a visitor does."""
    expect(button(page)).to_be_enabled()
    with page.expect_file_chooser() as chooser:
        button(page).click()
    chooser.value.set_files(photo)


def classify(page: Page, photo: Path, answer: str) -> None:
    choose(page, photo)
    expect(page.get_by_text(answer)).to_be_visible()


def photo_size(page: Page) -> tuple[int, int]:
    """Natural width and height of the one photo on the page, in pixels."""
    picture = page.get_by_role("img", name="Your photo")
    expect(picture).to_have_count(1)
    width, height = picture.evaluate("p => [p.naturalWidth, p.naturalHeight]")
    return width, height


def test_grizzly_is_predicted(
    shipped: Server, new_page: NewPage, grizzly: Path, artefacts: Path
) -> None:
    page = new_page(shipped.url, viewport={"width": 1280, "height": 800})
    expect(page).to_have_title("Grizzly, black or teddy bear?")
    expect(page.get_by_role("heading")).to_have_text("Grizzly, black or teddy bear?")
    classify(page, grizzly, "Prediction: grizzly; Probability: ")
    assert max(photo_size(page)) == 640
    expect(button(page)).to_be_enabled()
    page.screenshot(path=artefacts / "page.png")


def test_link_to_the_page_shows_an_example(shipped: Server, new_page: NewPage) -> None:
    page = new_page()
    robot = {"User-Agent": "facebookexternalhit/1.1"}
    page.set_content(page.request.get(shipped.url, headers=robot).text())
    assert page.title() == "Grizzly, black or teddy bear?"
    address = page.locator("meta[property='og:image']").get_attribute("content")
    assert address == f"{shipped.url}example.jpg"
    image = page.request.get(address)
    assert image.headers["content-type"] == "image/jpeg"
    assert max(read_image(image.body()).size) == 640


def test_another_model_shows_its_labels(colour_server: Server, new_page: NewPage) -> None:
    page = new_page(colour_server.url)
    expect(page.get_by_role("heading", name="Red, green or blue?")).to_be_visible()


def test_text_named_jpg_is_refused_in_words(
    colour_server: Server, new_page: NewPage, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_text("just some words")
    page = new_page(colour_server.url)
    classify(page, photo, "This file is not a picture that can be read")
    expect(page.get_by_role("img", name="Your photo")).to_have_count(0)
    expect(button(page)).to_be_enabled()
    # The page goes on: the next photo is answered.
    good = tmp_path / "good.png"
    good.write_bytes(encode(Image.new("RGB", (50, 40), "red")))
    classify(page, good, "Prediction: red; Probability: ")


def test_plain_widgets_answer_without_the_drop_zone(
    plain_server: Server, new_page: NewPage, tmp_path: Path
) -> None:
    """15 MB: tornado's default drops a websocket message of more than 10 MB without a word."""
    noise = np.random.default_rng(0).integers(0, 90, (2300, 2300, 3), np.uint8)
    noise[..., 2] += 160
    photo = tmp_path / "large.png"
    photo.write_bytes(encode(Image.fromarray(noise), compress_level=0))
    assert photo.stat().st_size > 15e6
    page = new_page(plain_server.url)
    run = page.get_by_role("button", name="Classify Icon")
    expect(run).to_be_enabled()
    run.click()
    expect(page.get_by_text("Please choose a photo first.")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo (0)").click()
    chooser.value.set_files(photo)
    expect(page.get_by_role("button", name="Choose a photo (1)")).to_be_visible()
    run.click()
    answer = page.get_by_text("Prediction: blue; Probability: ")
    expect(answer).to_be_visible()
    expect(page.get_by_role("button", name="Choose a photo (0)")).to_be_visible()  # it is not kept
    expect(page.locator(".widget-output img")).to_have_js_property("naturalWidth", 128)
    run.click()
    expect(run).to_be_enabled()
    expect(answer).to_be_visible()


def test_two_visitors_see_their_own_answers(
    colour_server: Server, new_page: NewPage, tmp_path: Path
) -> None:
    """Each gets the answer for their own photo, and neither sees the other's."""
    visitors = {colour: new_page(colour_server.url) for colour in ("red", "blue")}
    for colour, page in visitors.items():
        photo = tmp_path / f"{colour}.png"
        photo.write_bytes(encode(Image.new("RGB", (50, 40), colour)))
        choose(page, photo)
    for colour, page in visitors.items():
        expect(page.get_by_text("Prediction: ")).to_contain_text(colour)
        assert photo_size(page) == (50, 40)
