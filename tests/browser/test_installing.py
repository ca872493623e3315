"""The static site can be installed, with the icon of the page."""

import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageChops
from playwright.sync_api import Page

from icon_classifier.site.build import write_site
from tests.support.models import model_bytes
from tests.support.servers import ROOT
from tests.support.site_host import site_host

PACKAGE = ROOT / "icon_classifier"


def test_browser_finds_nothing_that_keeps_the_site_from_being_installed(
    new_page: Callable[..., Page], tmp_path: Path
) -> None:
    write_site(tmp_path / "site", tmp_path, model_bytes())
    with site_host(tmp_path) as host:
        page = new_page(f"{host.url}site/")
        page.evaluate("navigator.serviceWorker.ready.then(() => {})")
        devtools = page.context.new_cdp_session(page)
        assert devtools.send("Page.getAppManifest")["errors"] == []
        errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
        # Contexts of tests are private ones, in which nothing is ever installed.
        assert [error["errorId"] for error in errors] == ["in-incognito"]


def test_png_shows_the_svg_with_full_corners(new_page: Callable[..., Page]) -> None:
    svg = (PACKAGE / "server" / "slim" / "icon.svg").read_text()
    with Image.open(PACKAGE / "site" / "icon.png") as icon:
        page = new_page(viewport={"width": icon.width, "height": icon.height})
        svg = svg.replace(" rx='7'", "").replace("<svg", "<svg style='position:fixed;inset:0'")
        page.set_content(svg)
        with Image.open(io.BytesIO(page.screenshot())) as drawn:
            difference = ImageChops.difference(icon.convert("RGB"), drawn.convert("RGB"))
            assert max(high for _, high in difference.getextrema()) < 20  # type: ignore[misc]
