"""The page and the list of pages where nobody named one, on Jupyter's own server and on Voilà's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import nbformat
import pytest
from playwright.sync_api import Page, expect

from icon_classifier.model.session import Model
from icon_classifier.page.texts import PAGE_TEXTS
from tests.support.models import write_model
from tests.support.servers import NOTEBOOK, ROOT, Server, jupyter, project_copy, voila

NewPage = Callable[..., Page]

END = 30_000
"""Until the kernel of a page that was left must have ended, in milliseconds."""


@pytest.fixture(scope="module")
def binder(project_model: Model) -> Iterator[Server]:
    """Jupyter's own server as on Binder: below a path, and with a token."""
    with jupyter(ROOT, "--ServerApp.base_url=/user/somebody/", token="secret") as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pages, the notebook that trains, and another folder."""
    folder = project_copy(tmp_path_factory.mktemp("folder"))
    write_model(folder)
    shutil.copy(ROOT / "train.ipynb", folder)
    other = nbformat.read(folder / NOTEBOOK, as_version=4)
    other.cells = [nbformat.v4.new_markdown_cell("# Another page")]
    nbformat.write(other, folder / "ein Bär & <b>.ipynb")
    (folder / "photos").mkdir()
    return folder


@pytest.fixture(scope="module")
def public(folder: Path) -> Iterator[str]:
    """The address of Voilà's server of a folder."""
    with voila(folder, notebook=None) as server:
        yield server.url


@pytest.fixture(scope="module")
def private(folder: Path) -> Iterator[str]:
    """The address of the list of pages on Jupyter's server of the same."""
    with jupyter(folder) as server:
        yield urljoin(server.url, "voila")


def hosts(page: Page) -> set[str]:
    """Collect the hosts that a page asks from now on."""
    asked: set[str] = set()

    def collect(request: object) -> None:
        asked.add(str(urlsplit(request.url).hostname))  # type: ignore[attr-defined]

    page.on("request", collect)
    page.on("websocket", collect)
    return asked


def test_page_on_jupyters_server_answers_and_ends_its_kernel_when_it_is_left(
    binder: Server, new_page: NewPage, grizzly: Path, artefacts: Path
) -> None:
    page = new_page()
    asked = hosts(page)
    page.goto(urljoin(binder.url, f"user/somebody/voila/render/{NOTEBOOK}?token=secret"))
    expect(page).to_have_title("Grizzly, black or teddy bear?")
    choose = page.get_by_role("button", name=re.compile("Choose photos"))
    expect(choose).to_be_enabled()
    with page.expect_file_chooser() as chooser:
        choose.click()
    chooser.value.set_files(grizzly)
    expect(page.get_by_text("Prediction: grizzly; Probability: ")).to_be_visible()
    page.screenshot(path=artefacts / "jupyter.png")
    kernels = urljoin(binder.url, "user/somebody/api/kernels")
    assert len(page.request.get(kernels).json()) == 1
    page.goto("about:blank")
    waited = 0
    while page.request.get(kernels).json():
        assert waited < END
        page.wait_for_timeout(100)
        waited += 100
    assert asked - {"None"} == {"localhost"}


@pytest.mark.parametrize("server", ["public", "private"])
def test_pages_of_a_folder_are_listed_and_open(
    server: str, request: pytest.FixtureRequest, new_page: NewPage, artefacts: Path
) -> None:
    page = new_page()
    asked = hosts(page)
    page.goto(request.getfixturevalue(server))
    expect(page.get_by_role("heading")).to_have_text(PAGE_TEXTS["notebooks"])
    names = page.get_by_role("link").all_inner_texts()
    assert [name for name in names if name != "train"] == ["ein Bär & <b>", "icon_classifier"]
    page.screenshot(path=artefacts / "list.png")
    page.get_by_role("link", name="ein Bär").click()
    expect(page.get_by_role("heading", name="Another page")).to_be_visible()
    expect(page.locator("#widget-state")).to_be_attached()
    page.go_back()
    page.get_by_role("link", name="icon_classifier").click()
    expect(page.get_by_role("heading", name="Red, green or blue?")).to_be_visible()
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    assert asked - {"None"} == {"localhost"}


def test_notebook_that_trains_is_not_offered_to_the_public(public: str, new_page: NewPage) -> None:
    page = new_page(public)
    expect(page.get_by_role("link")).to_have_count(2)
    expect(page.get_by_role("link", name="train")).to_have_count(0)
    for address in ("train.ipynb", "./train.ipynb", "%74rain.ipynb", "photos/../train.ipynb"):
        assert page.request.get(urljoin(public, f"voila/render/{address}")).status == 404
