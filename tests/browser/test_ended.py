"""What a visitor sees whose kernel the server has ended, and how they go on."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from icon_classifier.kernels.process import can_fork
from icon_classifier.page.texts import OWN_BROWSER, PAGE_TEXTS
from tests.support.servers import PAGE, voila, write_page

CELL = """
import time
import ipywidgets as widgets
from icon_classifier.system import slots
button = widgets.Button(description="Hold")

@button.on_click
def hold(_):
    with slots.slot():
        time.sleep(1000)

button
"""
READY = 120_000
SITE = 'https://site.example/bears/?"><b>&amp;'

pytestmark = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")


def test_page_whose_photo_took_too_long_says_so_and_can_be_reloaded(
    browser: Browser, tmp_path: Path
) -> None:
    write_page(tmp_path, CELL, template="slim", slot_timeout=1)
    with voila(tmp_path, notebook=PAGE) as server:
        page = browser.new_page()
        page.goto(server.url)
        button = page.get_by_role("button", name="Hold")
        expect(button).to_be_visible(timeout=READY)
        button.click()
        expect(page.get_by_role("alert")).to_contain_text(PAGE_TEXTS["ended_slow"], timeout=READY)
        expect(page.locator("main")).to_have_js_property("inert", True)
        expect(page.get_by_role("link")).to_have_count(0)
        page.get_by_role("button", name=PAGE_TEXTS["reload"]).click()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(button).to_be_enabled(timeout=READY)
        page.context.close()


def test_page_that_is_full_or_has_ended_offers_the_static_site(
    browser: Browser, tmp_path: Path
) -> None:
    write_page(tmp_path, CELL, template="slim", slot_timeout=1, max_visitors=1, site_url=SITE)
    with voila(tmp_path, notebook=PAGE) as server:
        page, refused = browser.new_page(), browser.new_page()
        page.goto(server.url)
        button = page.get_by_role("button", name="Hold")
        expect(button).to_be_visible(timeout=READY)
        link = page.get_by_role("link", name=OWN_BROWSER)
        expect(link).to_be_hidden()
        refused.goto(server.url)
        expect(refused.get_by_role("link", name=OWN_BROWSER)).to_have_attribute("href", SITE)
        button.click()
        expect(link).to_be_visible(timeout=READY)
        page.route("https://site.example/**", lambda route: route.fulfill(body="The site"))
        with page.expect_request("https://site.example/**") as request:
            link.click()
        assert "referer" not in request.value.all_headers()
        expect(page.get_by_text("The site")).to_be_visible()
        page.context.close()
        refused.context.close()
