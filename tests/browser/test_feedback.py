"""Right or wrong? What a visitor says of a photo, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from icon_classifier.images import read_image_file
from tests.browser.test_drop_zone import PHONE, WIDE, button, drop, fits, line, troubles
from tests.support.models import write_model
from tests.support.servers import Server, project_copy, voila

NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project_copy(tmp_path_factory.mktemp("asking"))
    write_model(folder, labels=["red", "dark/../green", "light_blue"])
    return folder


@pytest.fixture(scope="module")
def asking(folder: Path) -> Iterator[Server]:
    """Voilà as its maintainer starts it who wants to know."""
    with voila(folder, "--PageKernelManager.feedback_folder=feedback") as server:
        yield server


@pytest.fixture
def kept(folder: Path) -> Callable[[], list[str]]:
    """Return the folders of the photos that were kept since the test began."""
    before = set((folder / "feedback").rglob("*.jpg"))
    return lambda: sorted(
        path.parent.name for path in (folder / "feedback").rglob("*.jpg") if path not in before
    )


def photo(folder: Path, colour: Any) -> Path:
    file = folder / f"{colour}.png"
    Image.new("RGB", (60, 40), colour).save(file)
    return file


def question(page: Page) -> Locator:
    return page.get_by_text("Right or wrong?")


def open_page(new_page: NewPage, server: Server, **options: Any) -> Page:
    page = new_page(server.url, **options)
    expect(button(page, "Choose photos")).to_be_visible()
    return page


@pytest.mark.parametrize("look", [WIDE, PHONE], ids=["wide", "phone"])
def test_photo_is_kept_under_its_label_by_a_click_and_not_before(
    look: dict[str, Any],
    asking: Server,
    folder: Path,
    kept: Callable[[], list[str]],
    new_page: NewPage,
    tmp_path: Path,
) -> None:
    page = open_page(new_page, asking, **look)
    expect(page.get_by_text("Your photo is stored only if")).to_be_visible()
    assert troubles(page) == []
    drop(page, photo(tmp_path, (255, 0, look["viewport"]["width"] % 100)))
    expect(question(page)).to_be_visible()
    expect(page.get_by_text("your photo is kept by whoever runs this page")).to_be_visible()
    assert troubles(page) == []
    assert fits(page)
    assert kept() == []
    button(page, "Right").click()
    expect(page.get_by_text("Thank you: kept as red.")).to_be_visible()
    expect(question(page)).to_be_hidden()
    expect(button(page, "Undo")).to_be_focused()
    assert kept() == ["red"]
    (file,) = (folder / "feedback" / "red").glob("*.jpg")
    assert read_image_file(file).size == (60, 40)
    assert troubles(page) == []
    button(page, "Undo").click()
    expect(question(page)).to_be_visible()
    assert kept() == []


def test_wrong_answer_is_put_right(
    asking: Server, kept: Callable[[], list[str]], new_page: NewPage, tmp_path: Path
) -> None:
    page = open_page(new_page, asking, **PHONE)
    drop(page, photo(tmp_path, "red"))
    wrong = button(page, "It is …")
    expect(wrong).to_have_attribute("aria-expanded", "false")
    wrong.click()
    expect(button(page, "red")).to_have_count(0)
    expect(button(page, "light blue")).to_be_visible()
    assert troubles(page) == []
    assert fits(page)
    button(page, "dark/../green").click()
    expect(page.get_by_text("Thank you: kept as dark/../green.")).to_be_visible()
    assert kept() == ["dark_.._green"]
    button(page, "Undo").click()
    wrong.click()
    button(page, "something else").press("Enter")
    expect(page.get_by_text("Thank you: kept as something else.")).to_be_visible()
    assert kept() == ["_something_else"]
    drop(page, photo(tmp_path, "black"))
    expect(page.get_by_text("What is it?")).to_be_visible()
    expect(button(page, "red")).to_be_visible()
    expect(button(page, "Right")).to_have_count(0)


def test_photo_of_a_table_is_kept_when_its_row_is_open(
    asking: Server, kept: Callable[[], list[str]], new_page: NewPage, tmp_path: Path
) -> None:
    page = open_page(new_page, asking, **WIDE)
    drop(page, *(photo(tmp_path, (0, 3, blue)) for blue in (255, 225, 195)))
    expect(line(page)).to_have_text("3 photos answered.")
    expect(question(page)).to_have_count(0)
    page.locator(".ic-table tbody tr").nth(1).click()
    button(page, "Right").click()
    expect(page.get_by_text("Thank you: kept as light blue.")).to_be_visible()
    assert kept() == ["light_blue"]
    page.locator(".ic-table tbody tr").nth(2).click()
    expect(question(page)).to_be_visible()
    page.locator(".ic-table tbody tr").nth(1).click()
    expect(page.get_by_text("Thank you: kept as light blue.")).to_be_visible()


def test_page_does_not_ask_unless_its_maintainer_wants_it(
    new_page: NewPage, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    write_model(project_copy(folder))
    before = sorted(folder.iterdir())
    with voila(folder) as server:
        page = open_page(new_page, server)
        expect(page.get_by_text("Your photo is not stored.")).to_be_visible()
        drop(page, photo(tmp_path, "red"))
        expect(page.locator(".ic-card")).to_be_visible()
        expect(question(page)).to_have_count(0)
        expect(button(page, "Right")).to_have_count(0)
    assert sorted(folder.iterdir()) == before
