"""The icon of an installed site is that of the page."""

import io
from collections.abc import Callable

from PIL import Image, ImageChops
from playwright.sync_api import Page

from tests.support.servers import ROOT

PACKAGE = ROOT / "icon_classifier"


def test_png_shows_the_svg_with_full_corners(new_page: Callable[..., Page]) -> None:
    svg = (PACKAGE / "server" / "slim" / "icon.svg").read_text()
    with Image.open(PACKAGE / "site" / "icon.png") as icon:
        page = new_page(viewport={"width": icon.width, "height": icon.height})
        page.set_content(
            svg.replace(" rx='7'", "").replace("<svg", "<svg style='position:fixed;inset:0'")
        )
        with Image.open(io.BytesIO(page.screenshot())) as drawn:
            difference = ImageChops.difference(icon.convert("RGB"), drawn.convert("RGB"))
            assert max(high for _, high in difference.getextrema()) < 20  # type: ignore[misc]
