"""The main job in a real browser: a photo goes in at the page and comes out with a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from icon_classifier.model.session import Model
from tests.support.pictures import encode
from tests.support.servers import NOTEBOOK, Server, jupyter, voila

NewPage = Callable[..., Page]
READY = 60_000
"""Until the button must be there, in milliseconds; a loaded machine is slow."""


@pytest.fixture(scope="module")
def shipped(project_model: Model) -> Iterator[Server]:
    """Voilà with the shipped model, started as a host does."""
    with voila() as server:
        yield server


@pytest.fixture(scope="module")
def jupyter_server(project_model: Model) -> Iterator[Server]:
    """Jupyter's own server with Voilà as its extension, as on Binder."""
    with jupyter() as server:
        yield server


def button(page: Page) -> Locator:
    return page.get_by_role("button", name="Classify Icon")


def choose(page: Page, photo: Path) -> None:
    """Choose a photo through the file chooser, as a visitor does."""
    expect(button(page)).to_be_enabled(timeout=READY)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(photo)


def classify(page: Page, photo: Path, answer: str) -> None:
    choose(page, photo)
    expect(page.get_by_text("(1)")).to_be_visible(timeout=READY)
    button(page).click()
    expect(page.get_by_text(answer)).to_be_visible(timeout=READY)
    expect(page.get_by_text("(0)")).to_be_visible()  # the file is not kept


def thumbnail_size(page: Page) -> tuple[int, int]:
    """Natural width and height of the one picture beside the button, in pixels."""
    picture = page.locator(".ic-photo img")
    expect(picture).to_have_count(1)
    width, height = picture.evaluate(
        "p => p.decode().then(() => [p.naturalWidth, p.naturalHeight])"
    )
    return width, height


def test_grizzly_is_predicted(
    shipped: Server, new_page: NewPage, grizzly: Path, artefacts: Path
) -> None:
    page = new_page(shipped.url, viewport={"width": 1280, "height": 800})
    expect(page.get_by_role("heading", name="Black, grizzly or teddy?")).to_be_visible(
        timeout=READY
    )
    classify(page, grizzly, "Prediction: grizzly; Probability: ")
    assert max(thumbnail_size(page)) == 128
    expect(button(page)).to_be_enabled()
    page.screenshot(path=artefacts / "page.png")


def test_jupyter_server_route_predicts(
    jupyter_server: Server, new_page: NewPage, grizzly: Path
) -> None:
    page = new_page(urljoin(jupyter_server.url, f"voila/render/{NOTEBOOK}"))
    classify(page, grizzly, "Prediction: grizzly; Probability: ")


def test_another_model_shows_its_labels(colour_server: Server, new_page: NewPage) -> None:
    page = new_page(colour_server.url)
    expect(page.get_by_role("heading", name="Red, green or blue?")).to_be_visible(timeout=READY)


def test_fifteen_megabytes_are_uploaded(
    colour_server: Server, new_page: NewPage, tmp_path: Path
) -> None:
    """More than the 10 MB at which tornado drops a websocket message without a word."""
    noise = np.random.default_rng(0).integers(0, 90, (2300, 2300, 3), np.uint8)
    noise[..., 2] += 160
    photo = tmp_path / "large.png"
    photo.write_bytes(encode(Image.fromarray(noise), compress_level=0))
    assert photo.stat().st_size > 15e6
    page = new_page(colour_server.url)
    classify(page, photo, "Prediction: blue; Probability: ")
    assert thumbnail_size(page) == (128, 128)


def test_text_named_jpg_is_refused_in_words(
    colour_server: Server, new_page: NewPage, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_text("just some words")
    page = new_page(colour_server.url)
    classify(page, photo, "This file is not a picture that can be read")
    expect(page.locator(".ic-photo img")).to_have_count(0)
    expect(button(page)).to_be_enabled()
    # The page goes on: the next photo is answered.
    good = tmp_path / "good.png"
    good.write_bytes(encode(Image.new("RGB", (50, 40), "red")))
    choose(page, good)
    button(page).click()
    expect(page.get_by_text("Prediction: red; Probability: ")).to_be_visible(timeout=READY)


def test_no_photo_yet(colour_server: Server, new_page: NewPage) -> None:
    page = new_page(colour_server.url)
    expect(button(page)).to_be_enabled(timeout=READY)
    button(page).click()
    expect(page.get_by_text("Please choose a photo first.")).to_be_visible()


def test_two_visitors_see_their_own_answers(
    colour_server: Server, new_page: NewPage, tmp_path: Path
) -> None:
    """Each gets the answer for their own photo, and neither sees the other's."""
    visitors = {colour: new_page(colour_server.url) for colour in ("red", "blue")}
    for colour, page in visitors.items():
        photo = tmp_path / f"{colour}.png"
        photo.write_bytes(encode(Image.new("RGB", (50, 40), colour)))
        choose(page, photo)
    for page in visitors.values():
        button(page).click()
    for colour, page in visitors.items():
        expect(page.get_by_text("Prediction: ")).to_contain_text(colour, timeout=READY)
        assert thumbnail_size(page) == (50, 40)
