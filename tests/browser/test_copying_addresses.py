"""The script in the documents copies the addresses of photos from a page of search results."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from tests.support.photo_server import PhotoServer, body, photo_server
from tests.support.pictures import encode, gradient
from tests.support.servers import ROOT

PICTURE = encode(gradient(size=(240, 180)))
ICON = encode(gradient(size=(24, 24)))


@pytest.fixture(name="server")
def _server() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


def copied(page: Page) -> list[str]:
    """Run the script as if it was typed into the console; return the lines on the clipboard."""
    text = (ROOT / "docs" / "your-own-classes.md").read_text()
    (script,) = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    session = page.context.new_cdp_session(page)
    texts: list[str] = []
    session.on("Runtime.inspectRequested", lambda event: texts.append(event["object"]["value"]))
    session.send("Runtime.enable")
    answer = session.send("Runtime.evaluate", {"expression": script, "includeCommandLineAPI": True})
    assert "exceptionDetails" not in answer, answer
    (clipboard,) = texts
    return clipboard.splitlines()


def test_photos_that_a_page_shows_are_copied_once(
    server: PhotoServer, new_page: Callable[..., Page]
) -> None:
    inline = base64.b64encode(PICTURE).decode()
    server.routes = {path: body(PICTURE) for path in ("/1.jpg?w=300", "/2.jpg")}
    server.routes["/logo.png"] = body(ICON)
    html = f"""<link rel="icon" href="data:,"><img src="/1.jpg?w=300"><img src="/1.jpg?w=300">
        <img src="/logo.png"><img src="data:image/png;base64,{inline}"><a><img src="/2.jpg"></a>"""
    server.routes["/search"] = body(html.encode(), "text/html")
    page = new_page(server.url("/search").replace("127.0.0.1", "localhost"))
    page.wait_for_load_state("load")

    lines = copied(page)

    assert [line.partition("/1.jpg")[1:] for line in lines[:1]] == [("/1.jpg", "?w=300")]
    assert lines[1].endswith("/2.jpg")
    assert len(lines) == 2


def test_originals_are_copied_where_the_page_names_them(
    server: PhotoServer, new_page: Callable[..., Page]
) -> None:
    originals = [f"https://x.example/{each}.jpg?a=1&b=2" for each in range(3)]
    server.routes["/small"] = body(PICTURE)
    links = "".join(
        f"<a class='iusc' m='{json.dumps({'murl': url, 'turl': 'https://t.example'})}'>"
        "<img src='/small'></a>"
        for url in originals
    )
    html = f'<link rel="icon" href="data:,">{links}'
    server.routes["/search"] = body(html.encode(), "text/html")
    page = new_page(server.url("/search").replace("127.0.0.1", "localhost"))

    assert copied(page) == originals
